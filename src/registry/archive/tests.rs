use std::{io::Write as _, sync::LazyLock};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One entry of an archive that a test makes: name, kind as tar writes it, link target, contents.
type Item<'a> = (&'a str, u8, &'a str, &'a [u8]);

fn header(name: &str, kind: u8, link: &str, size: u64) -> Vec<u8> {
    let mut header = tar::file_header(name, size).to_vec();
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    sum(&mut header);
    header
}

fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, link, contents) in items {
        bytes.extend(header(name, *kind, link, contents.len() as u64));
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len() + tar::padding(contents.len() as u64), 0);
    }
    bytes.extend(tar::END);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Archive::open(file)
}

const LOWER: &[u8] = b"the lower layer";
const UPPER: &[u8] = b"the upper layer";

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    json!({ "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": ids } }).to_string().into_bytes()
}

/// As Docker 20.10 writes it: layers in folders, the second occurrence of one as a link.
fn docker_archive() -> Vec<u8> {
    let config = config(&[LOWER, UPPER, LOWER]);
    let table = json!([{
        "Config": "c.json",
        "RepoTags": ["zmfsea/x:latest", "zmfsea/x:1"],
        "Layers": ["a/layer.tar", "b/layer.tar", "d/layer.tar"],
    }]);
    tar(&[
        ("a/", b'5', "", b""),
        ("a/VERSION", b'0', "", b"1.0"),
        ("a/json", b'0', "", b"{}"),
        ("a/layer.tar", b'0', "", LOWER),
        ("b/layer.tar", b'0', "", UPPER),
        ("d/layer.tar", b'2', "../a/layer.tar", b""),
        ("c.json", b'0', "", &config),
        ("manifest.json", b'0', "", table.to_string().as_bytes()),
        ("repositories", b'0', "", b"{}"),
    ])
}

fn blob(bytes: &[u8]) -> String {
    blob_name(&sha256(bytes))
}

/// An index in the index, with a platform that is not ours beside the one that is.
fn oci_archive(annotations: &Value) -> Vec<u8> {
    let (config, layer) = (config(&[LOWER]), gzip(LOWER));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(&layer), "size": layer.len() }],
    });
    let manifest = manifest.to_string().into_bytes();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let inner = json!({ "manifests": [
        { "mediaType": OCI_MANIFEST, "digest": sha256(b"elsewhere"), "size": 9, "platform": { "os": "linux", "architecture": "s390x" } },
        { "mediaType": OCI_MANIFEST, "digest": sha256(&manifest), "size": manifest.len(), "platform": { "os": "linux", "architecture": machine } },
    ] });
    let inner = inner.to_string().into_bytes();
    let index =
        json!({ "manifests": [{ "mediaType": OCI_INDEX, "digest": sha256(&inner), "size": inner.len(), "annotations": annotations }] });
    tar(&[
        ("oci-layout", b'0', "", br#"{"imageLayoutVersion": "1.0.0"}"#),
        ("index.json", b'0', "", index.to_string().as_bytes()),
        (&blob(&inner), b'0', "", &inner),
        (&blob(&manifest), b'0', "", &manifest),
        (&blob(&config), b'0', "", &config),
        (&blob(&layer), b'0', "", &layer),
    ])
}

fn contents(archive: &Archive, layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive.layer(layer).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_docker_archive_is_read_plain_and_compressed() {
    for bytes in [docker_archive(), gzip(&docker_archive())] {
        let archive = read(&bytes).unwrap();
        let [image] = archive.images.as_slice() else { panic!("one image") };
        assert_eq!(image.names, ["zmfsea/x:latest", "zmfsea/x:1"]);
        assert_eq!((image.config.clone(), &image.manifest), (config(&[LOWER, UPPER, LOWER]), &None));
        for order in [[0, 1, 2], [2, 1, 0]] {
            for at in order {
                let layer = &image.layers[at];
                let expected = [LOWER, UPPER, LOWER][at];
                assert_eq!((contents(&archive, layer), &layer.diff_id), (expected.to_vec(), &sha256(expected)));
                assert!(!layer.compressed && layer.digest.is_none());
            }
        }
    }
}

#[test]
fn an_oci_archive_keeps_its_manifest() {
    let full = json!({ "io.containerd.image.name": "docker.io/zmfsea/x:2", "org.opencontainers.image.ref.name": "2" });
    let archive = read(&oci_archive(&full)).unwrap();
    let [image] = archive.images.as_slice() else { panic!("one image") };
    let (kind, manifest) = image.manifest.as_ref().unwrap();
    assert_eq!((kind.as_str(), image.names.as_slice()), (OCI_MANIFEST, ["docker.io/zmfsea/x:2".to_owned()].as_slice()));
    assert!(serde_json::from_slice::<Value>(manifest).is_ok());
    let layer = &image.layers[0];
    assert_eq!((contents(&archive, layer), layer.digest.clone()), (gzip(LOWER), Some(sha256(&gzip(LOWER)))));
    assert!(layer.compressed);

    let names = |annotations: Value| read(&oci_archive(&annotations)).unwrap().images.remove(0).names;
    assert_eq!(names(json!({ "org.opencontainers.image.ref.name": "zmfsea/y:3" })), ["zmfsea/y:3"]);
    // A tag alone says nothing about the name.
    assert_eq!(names(json!({ "org.opencontainers.image.ref.name": "latest" })), [""; 0]);
    assert_eq!(names(Value::Null), [""; 0]);
}

#[test]
fn long_names_come_in_three_ways() {
    let long = format!("{}/layer.tar", "x".repeat(150));
    let table = json!([{ "Config": "c.json", "RepoTags": null, "Layers": [long] }]).to_string();
    let config = config(&[LOWER]);
    let rest: [Item<'_>; 2] = [("c.json", b'0', "", &config), ("manifest.json", b'0', "", table.as_bytes())];
    let record = format!(" path={long}\n");
    let record = format!("{}{record}", record.len() + 3);
    let with_zero = format!("{long}\0");
    let pax: [Item<'_>; 2] = [("pax", b'x', "", record.as_bytes()), ("cut", b'0', "", LOWER)];
    let gnu: [Item<'_>; 2] = [("././@LongLink", b'L', "", with_zero.as_bytes()), ("cut", b'0', "", LOWER)];
    let mut ustar = tar(&[("layer.tar", b'0', "", LOWER)]);
    ustar[345..495].copy_from_slice("x".repeat(150).as_bytes());
    sum(&mut ustar[..512]);
    ustar.truncate(1024);
    for bytes in [tar(&[&pax[..], &rest].concat()), tar(&[&gnu[..], &rest].concat()), [ustar, tar(&rest)].concat()] {
        let archive = read(&bytes).unwrap();
        assert_eq!(contents(&archive, &archive.images[0].layers[0]), LOWER);
        assert_eq!(archive.images[0].names, [""; 0]);
    }
}

#[test]
fn what_is_not_sound_is_refused_in_words() {
    let check = |bytes: &[u8], expected: &str| {
        for bytes in [bytes.to_vec(), gzip(bytes)] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    };
    let table = |value: Value| value.to_string().into_bytes();
    let one = |value: Value| tar(&[("manifest.json", b'0', "", &table(value))]);
    let with = |item: Item<'_>| tar(&[item, ("manifest.json", b'0', "", b"[]")]);
    let file = |name| with((name, b'0', "", b"x"));

    check(&with(("rootfs/etc/passwd", b'0', "", b"x"))[..1024], "no manifest.json");
    check(b"this is no archive at all, however long it is made", "it is no tar archive");
    check(&[b'x'; 2048], "it is no tar archive");
    check(&file("../../etc/passwd"), "'../../etc/passwd' leads out of the archive");
    check(&file("a/../../b"), "leads out of the archive");
    check(&file("/etc/passwd"), "leads out of the archive");
    check(&file("\x1b[2J/../.."), "'\\u{1b}[2J/../..' leads out");
    check(&with(("a", b'2', "../etc/passwd", b"")), "leads out of the archive");
    check(&with(("a", b'1', "/etc/passwd", b"")), "leads out of the archive");
    check(&with(("a", b'3', "", b"")), "'a' is a device");
    check(&with(("a", b'S', "", b"")), "sparse");
    check(&tar(&[("a", b'0', "", b"x"), ("./a", b'0', "", b"y")]), "it has a twice");
    check(&tar(&[("a", b'0', "", b"x"), ("b/../a", b'2', "x", b"")]), "it has a twice");
    check(&tar(&[("x\n\u{1b}", b'0', "", b"x"), ("x\n\u{1b}", b'0', "", b"y")]), "it has x\\n\\u{1b} twice");
    check(&with(("x", b'L', "", &[b'y'; 2000])), "a name has 2000 bytes");
    check(&with(("x", b'x', "", &[b'y'; 100_000])), "an extension header has 100000 bytes");
    check(&with(("x", b'x', "", b"99 path=a\n")), "an extension header is damaged");
    check(&with(("x", b'x', "", b"17 size=99999999\n")), "it is cut off");
    check(&with(("x", b'x', "", b"22 GNU.sparse.major=1\n")), "sparse");
    check(&header("layer.tar", b'0', "", u64::MAX >> 8), "says it has 72057594037927935 bytes");
    check(&header("layer.tar", b'0', "", 1 << 39), "it has more than 274877906944 bytes");
    check(&header("layer.tar", b'0', "", 1 << 30), "cut off");
    let mut damaged = docker_archive();
    damaged[512 + 3] ^= 1;
    check(&damaged, "the sum of a header is wrong");

    check(&one(json!({})), "manifest.json is not a list");
    check(&one(json!([])), "manifest.json lists 0 images");
    check(&one(json!(vec![0; 257])), "manifest.json lists 257 images");
    check(&one(json!([{}])), "manifest.json names no configuration");
    check(&one(json!([{ "Config": "c.json" }])), "c.json is missing in it: it is not complete");
    check(&tar(&[("manifest.json", b'0', "", b"[")]), "manifest.json cannot be read");
    check(&tar(&[("manifest.json", b'0', "", "[".repeat(100_000).as_bytes())]), "manifest.json cannot be read: recursion limit");
    check(
        &tar(&[("manifest.json", b'0', "", b"[]".repeat(3 << 20).as_slice())]),
        "manifest.json has 6291456 bytes, and 4194304 are allowed",
    );
    check(&tar(&[("manifest.json", b'2', "a", b""), ("a", b'2', "manifest.json", b"")]), "no manifest.json");

    let docker = |config: Value, layers: Value| {
        let row = json!([{ "Config": "c.json", "Layers": layers }]);
        tar(&[
            ("c.json", b'0', "", &table(config)),
            ("l", b'0', "", LOWER),
            ("m", b'2', "n", b""),
            ("n", b'2', "m", b""),
            ("manifest.json", b'0', "", &table(row)),
        ])
    };
    let ids = |count: usize| json!({ "rootfs": { "diff_ids": vec![sha256(LOWER); count] } });
    check(&docker(ids(1), json!(["l", "l"])), "lists 2 layers, and the configuration 1");
    check(&docker(ids(1), json!(["../l"])), "../l is missing");
    check(&docker(ids(1), json!(["m"])), "m is a link to a link");
    check(&docker(ids(1), json!([1])), "not a list of texts");
    check(&docker(ids(513), json!([])), "rootfs.diff_ids in the configuration is not a list of at most 512");
    check(&docker(json!({ "rootfs": { "diff_ids": ["sha256:x"] } }), json!(["l"])), "'sha256:x', which is no SHA-256");

    let mut oci = oci_archive(&Value::Null);
    let at = oci.windows(10).position(|window| window == b"\"diff_ids\"").unwrap();
    oci[at + 1] = b'D';
    check(&oci, "other contents than its name says");
}

#[test]
fn other_compressions_and_empty_files_are_named() {
    let check = |bytes: &[u8], expected: &str| assert!(read(bytes).unwrap_err().to_string().contains(expected));
    check(b"", "it is empty");
    check(b"\x28\xb5\x2f\xfd1234", "compressed with zstd");
    check(b"\xfd7zXZ\0", "compressed with xz");
    check(b"BZh91AY", "compressed with bzip2");
    let cut = gzip(&docker_archive());
    check(&cut[..cut.len() / 2], "cannot be read: it is cut off");
}

#[test]
fn a_bomb_ends_at_the_limit_of_the_table() {
    // A quarter of a gigabyte of zeros in a quarter of a megabyte, as a table: nothing of it is held.
    let header = header("manifest.json", b'0', "", 1 << 28);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&header).unwrap();
    io::copy(&mut io::repeat(0).take(1 << 28), &mut encoder).unwrap();
    encoder.write_all(&tar::END).unwrap();
    let error = read(&encoder.finish().unwrap()).unwrap_err().to_string();
    assert!(error.contains("it has no manifest.json"), "{error}");
}

static SEEDS: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let oci = oci_archive(&json!({ "io.containerd.image.name": "docker.io/zmfsea/x:2" }));
    [docker_archive(), gzip(&docker_archive()), oci.clone(), gzip(&oci)]
});

/// Sums that are made right again let a change through to what lies behind them.
fn with_right_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    let blocks = bytes.len() / 512;
    for at in 0..blocks {
        let block = &mut bytes[at * 512..(at + 1) * 512];
        if &block[257..262] == b"ustar" {
            sum(block);
        }
    }
    bytes
}

type Change = (prop::sample::Index, u8);

/// A good archive with some bytes changed, cut, or with something behind it.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..12);
    let end = prop::option::of(any::<prop::sample::Index>());
    (0..4_usize, changes, end, any::<bool>(), prop::collection::vec(any::<u8>(), 0..64)).prop_map(
        |(seed, changes, cut, right_sums, behind): (usize, Vec<Change>, _, bool, Vec<u8>)| {
            let mut bytes = SEEDS[seed].clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            match cut {
                Some(cut) => bytes.truncate(cut.index(bytes.len())),
                None => bytes.extend(behind),
            }
            if right_sums { with_right_sums(bytes) } else { bytes }
        },
    )
}

fn hostile_name() -> impl Strategy<Value = String> {
    let known = [
        "manifest.json",
        "index.json",
        "oci-layout",
        "c.json",
        "l",
        "m",
        "a/layer.tar",
        "../l",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a/../l",
        "./l",
        "a//b",
        "",
        ".",
        "..",
        "././@LongLink",
        "blobs/sha256/..",
        "blobs/sha256/x",
    ];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,16}", 1 => "[a-c./]{0,12}"]
}

fn hostile_contents() -> impl Strategy<Value = Vec<u8>> {
    let texts = [
        r#"[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["l"]}]"#,
        r#"[{"Config":"../c.json","RepoTags":["a/b:1","\u001b[2J"],"Layers":["l","m","/etc/passwd"]}]"#,
        r#"[{"Config":"l","Layers":null}]"#,
        r#"{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}"#,
        r#"{"imageLayoutVersion":"1.0.0"}"#,
        r#"{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:../../x","size":1}]}"#,
        "17 path=../../x1\n",
        "12 path=/x\n",
        "20 linkpath=../../x\n",
        "17 size=99999999\n",
        "9 path=\0\n",
        "99999999999999999999 path=x\n",
        "[[[[[[[[[[[[",
    ];
    prop_oneof![
        3 => prop::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..700),
        1 => (0..200_000_usize).prop_map(|length| vec![0; length]),
    ]
}

/// Sound as a tar, and against the reader in everything else: paths that climb, links, devices, sizes that lie, runs of zeros, compressed twice.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => prop::sample::select(b"0125LKxgS37\0".to_vec()), 1 => any::<u8>()];
    let size = prop::option::weighted(0.1, any::<u64>());
    let item = (hostile_name(), kind, hostile_name(), hostile_contents(), size);
    (prop::collection::vec(item, 0..8), 0..3_u8).prop_map(|(items, compressed)| {
        let mut bytes = Vec::new();
        for (name, kind, link, contents, size) in items {
            bytes.extend(header(&name, kind, &link, size.map_or(contents.len() as u64, |size| size >> 29)));
            bytes.extend_from_slice(&contents);
            bytes.resize(bytes.len() + tar::padding(contents.len() as u64), 0);
        }
        bytes.extend(tar::END);
        (0..compressed).fold(bytes, |bytes, _| gzip(&bytes))
    })
}

#[test]
fn whatever_is_thrown_at_the_archive_reader_is_read_or_refused() {
    let noise = prop::collection::vec(any::<u8>(), 0..2048);
    crate::fuzz::check("archives", 600, &prop_oneof![3 => damaged(), 3 => hostile(), 1 => noise], |bytes| {
        match read(&bytes) {
            Ok(archive) => {
                for layer in archive.images.iter().flat_map(|image| &image.layers) {
                    let Ok(reader) = archive.layer(layer) else { continue };
                    let mut held = Vec::new();
                    _ = reader.take(1 << 20).read_to_end(&mut held);
                }
            }
            // It is shown at a terminal, and names what the archive's maker wrote.
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{:?}", error.to_string()),
        }
        Ok(())
    });
}
