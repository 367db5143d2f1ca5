//! Archives made here, sound and hostile, unpacked into a directory that has a neighbour nothing may reach.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

/// An entry: kind, name, link, mode, contents.
type Made<'a> = (u8, &'a str, &'a str, u32, &'a [u8]);

fn tar(entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, mode, contents) in entries {
        let mut header = tar::file_header("", contents.len() as u64);
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, &name.as_bytes()[..name.len().min(100)]);
        put(100, format!("{mode:07o}\0").as_bytes());
        put(156, &[*kind]);
        put(157, &link.as_bytes()[..link.len().min(100)]);
        put(148, b"        ");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend(*contents);
        bytes.extend(vec![0; tar::padding(contents.len() as u64)]);
    }
    bytes.extend(tar::END);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A zip archive of (name, unix mode, contents); a mode of a link makes one.
fn zip(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, mode, contents) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(mode & 0o777);
        match (mode & 0o170_000, name.ends_with('/')) {
            (0o120_000, _) => writer.add_symlink(*name, String::from_utf8_lossy(contents), options).unwrap(),
            (_, true) => writer.add_directory(*name, options).unwrap(),
            _ => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(contents).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("files")).unwrap();
        std::fs::write(directory.path().join("neighbour"), "untouched").unwrap();
        Self { directory }
    }

    fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    fn unpack(&self, name: &str, packing: Packing, bytes: &[u8], budget: u64) -> Result<u64, String> {
        let tree = Tree::open(&self.files()).unwrap();
        tree.create(name, 0o644).unwrap().write_all(bytes).unwrap();
        unpack(&tree, name, packing, budget)
    }

    /// The neighbour is as it was, and alone.
    fn check(&self) {
        assert_eq!(std::fs::read_to_string(self.directory.path().join("neighbour")).unwrap(), "untouched");
        let mut names: Vec<_> = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["files", "neighbour"]);
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.files().join(path)).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_archive_is_unpacked_into_the_root_of_the_sandbox() {
    let made = tar(&[
        (b'5', "app/", "", 0o755, b""),
        (b'0', "app/run", "", 0o4755, b"#!/bin/sh\n"),
        (b'0', "app/deep/er/file", "", 0o640, b"deep"),
        (b'1', "app/hard", "app/run", 0o644, b""),
        (b'2', "app/soft", "deep/er/file", 0o777, b""),
        (b'2', "app/deep/up", "../run", 0o777, b""),
        (b'0', "./app/run", "", 0o755, b"second"),
    ]);
    let packed = [
        ("in/a.tar", made.clone()),
        ("in/a.tar.gz", gzip(&made)),
        ("in/a.tbz2", bzip2(&made)),
        ("in/a.tar.xz", xz(&made)),
        // What is in it counts, not how it is called; and pieces that were packed one by one.
        ("in/a.tgz", made.clone()),
        ("in/a.tar.bz2", xz(&made)),
        ("in/a.txz", [bzip2(&made[..700]), bzip2(&made[700..])].concat()),
    ];
    for (name, bytes) in packed {
        let place = Place::new();
        assert_eq!(place.unpack(name, Packing::Archive, &bytes, 1000), Ok(20), "{name}");
        let names = |path: PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(place.files().join("in")), [name.strip_prefix("in/").unwrap()]);
        let app = place.files().join("app");
        assert_eq!((place.text("app/run").as_str(), mode(&app.join("run"))), ("second", 0o755));
        assert_eq!((place.text("app/soft").as_str(), mode(&app.join("deep/er/file"))), ("deep", 0o640));
        // What was replaced later keeps its other name, without the bit that would make it somebody else.
        assert_eq!((place.text("app/hard").as_str(), mode(&app.join("hard"))), ("#!/bin/sh\n", 0o755));
        assert_eq!(std::fs::read_link(app.join("deep/up")).unwrap(), Path::new("../run"));
        assert_ne!(std::fs::metadata(app.join("hard")).unwrap().ino(), std::fs::metadata(app.join("run")).unwrap().ino());
        place.check();
    }
    let place = Place::new();
    let made = zip(&[("app/", 0o755, b""), ("app/run", 0o755, b"run"), ("app/link", 0o120_777, b"run"), ("b", 0o600, b"b")]);
    assert_eq!(place.unpack("in/a.zip", Packing::Archive, &made, 1000), Ok(4));
    assert_eq!((place.text("app/link"), mode(&place.files().join("app/run"))), ("run".to_owned(), 0o755));
    // Behind a program that would unpack it.
    assert_eq!(place.unpack("b.zip", Packing::Archive, &[b"#!/bin/sh\n", made.as_slice()].concat(), 1000), Ok(4));
    assert_eq!(place.unpack("in/text.gz", Packing::Gz, &gzip(b"hello"), 1000), Ok(5));
    assert_eq!(place.text("text"), "hello");
    assert_eq!(place.unpack("in/.gz", Packing::Gz, &gzip(b"hello"), 1000), Err("it has no name without .gz".to_owned()));
    place.check();
}

#[test]
fn a_symbolic_link_may_lead_anywhere_and_nothing_is_written_through_it() {
    let place = Place::new();
    let links = [("bin/python", "/usr/bin/python3"), ("up", "../neighbour"), ("round", "round"), ("none", "no/such")];
    let made: Vec<Made<'_>> = links.iter().map(|(name, target)| (b'2', *name, *target, 0o777, b"".as_slice())).collect();
    assert_eq!(place.unpack("a.tar", Packing::Archive, &tar(&made), 1000), Ok(0));
    for (name, target) in links {
        assert_eq!(std::fs::read_link(place.files().join(name)).unwrap(), Path::new(target));
    }
    // What comes later takes the link's place, in the next archive too.
    assert_eq!(place.unpack("b.tar", Packing::Archive, &tar(&[(b'0', "up", "", 0o644, b"x")]), 1000), Ok(1));
    assert!(std::fs::symlink_metadata(place.files().join("up")).unwrap().is_file());
    let made = zip(&[("l", 0o120_777, b"/etc"), ("d/l", 0o120_777, b"../../neighbour")]);
    assert!(place.unpack("c.zip", Packing::Archive, &made, 1000).is_ok());
    assert_eq!(std::fs::read_link(place.files().join("l")).unwrap(), Path::new("/etc"));
    place.check();
}

#[test]
fn nothing_leads_out_of_the_sandbox() {
    let check = |entries: &[Made<'_>], expected: &str| {
        let place = Place::new();
        let error = place.unpack("a.tar", Packing::Archive, &tar(entries), 1000).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        place.check();
    };
    check(&[(b'0', "../neighbour", "", 0o644, b"x")], "leads out of the archive");
    check(&[(b'0', "a/../../neighbour", "", 0o644, b"x")], "leads out of the archive");
    check(&[(b'0', "/etc/new", "", 0o644, b"x")], "leads out of the archive");
    check(&[(b'1', "out", "../neighbour", 0o777, b"")], "leads out of the archive");
    check(&[(b'3', "device", "", 0o666, b"")], "is a device");
    check(&[(b'6', "pipe", "", 0o666, b"")], "is a device");
    // Through links that are fine by themselves.
    check(&[(b'2', "l", "..", 0o777, b""), (b'0', "l/neighbour", "", 0o644, b"x")], "goes through a link");
    check(&[(b'2', "l", "..", 0o777, b""), (b'1', "x", "l/neighbour", 0o644, b"")], "goes through a link");
    check(&[(b'2', "l", "..", 0o777, b""), (b'2', "l/x", "y", 0o777, b"")], "goes through a link");
    check(&[(b'2', "l", "/tmp", 0o777, b""), (b'5', "l/", "", 0o777, b"")], "goes through a link");
    check(&[(b'2', "l", "../neighbour", 0o777, b""), (b'1', "x", "l", 0o644, b"")], "no plain file");
    check(&[(b'5', "d/e/", "", 0o755, b""), (b'2', "l", "d/e", 0o777, b""), (b'0', "l/x", "", 0o644, b"x")], "goes through a link");
    check(&[(b'5', "d/", "", 0o755, b""), (b'2', "l", "d", 0o777, b""), (b'1', "x", "l/y", 0o644, b"")], "goes through a link");
    check(&[(b'2', "l", "m", 0o777, b""), (b'1', "x", "l", 0o644, b"")], "no plain file");
    let check = |entries: &[(&str, u32, &[u8])], expected: &str| {
        let place = Place::new();
        let error = place.unpack("a.zip", Packing::Archive, &zip(entries), 1000).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        place.check();
    };
    check(&[("../neighbour", 0o644, b"x")], "must be a path within the sandbox");
    check(&[("..\\neighbour", 0o644, b"x")], "must be a path within the sandbox");
    check(&[("l", 0o120_777, b".."), ("l/neighbour", 0o644, b"x")], "goes through a link");
    check(&[("l", 0o120_777, &[b'x'; 1025])], "l: it leads to a place with too long a name");
    check(&[("d/", 0o755, b""), ("l", 0o120_777, b"d"), ("l/x", 0o644, b"x")], "goes through a link");
}

#[test]
fn a_bomb_is_stopped_while_it_is_unpacked() {
    let zeros = vec![0; 1 << 17];
    let check = |name: &str, packing: Packing, bytes: &[u8]| {
        let place = Place::new();
        let error = place.unpack(name, packing, bytes, 1000).unwrap_err();
        assert!(error.ends_with("what is in it is too large"), "{error}");
        place.check();
    };
    check("a.gz", Packing::Gz, &gzip(&zeros));
    for pack in [gzip, bzip2, xz] {
        check("a.tgz", Packing::Archive, &pack(&tar(&[(b'0', "a", "", 0o644, &zeros)])));
    }
    check("a.zip", Packing::Archive, &zip(&[("a", 0o644, &zeros)]));
    // Of what is never written, the time is limited.
    for pack in [gzip, bzip2, xz] {
        let place = Place::new();
        let made = tar(&[(b'g', "a", "", 0o644, &vec![0; 3 << 20])]);
        assert_eq!(place.unpack("a.tgz", Packing::Archive, &pack(&made), 1000), Err("it has more than 1048576 bytes".to_owned()));
    }
    for (name, packing) in [("a.gz", Packing::Gz), ("a.tgz", Packing::Archive), ("a.tar", Packing::Archive), ("a.zip", Packing::Archive)] {
        let place = Place::new();
        assert!(place.unpack(name, packing, b"no archive at all, but text", 1000).is_err(), "{name}");
    }
}

#[test]
fn xz_gets_no_more_memory_than_is_reasonable() {
    let mut bytes = xz(&tar(&[(b'0', "a", "", 0o644, b"abc")]));
    // The header of the first block: its length, flags, the filter LZMA2, and how much memory that wants; then a sum.
    assert_eq!(bytes[13..16], [0, 0x21, 1]);
    let end = 12 + usize::from(bytes[12]) * 4;
    let mut with = |dictionary: u8| {
        bytes[16] = dictionary;
        let mut sum = flate2::Crc::new();
        sum.update(&bytes[12..end]);
        bytes[end..end + 4].copy_from_slice(&sum.sum().to_le_bytes());
        Place::new().unpack("a.txz", Packing::Archive, &bytes, 1000)
    };
    assert_eq!(with(28), Ok(3), "64 MiB, as `xz -9` has it");
    let error = with(40).unwrap_err();
    assert_eq!(error, "the archive cannot be read: it needs more than 128 MiB of memory", "4 GiB");
}

/// A small archive, compressed in each way.
static PACKED: std::sync::LazyLock<[Vec<u8>; 3]> = std::sync::LazyLock::new(|| {
    let made = tar(&[(b'0', "a", "", 0o644, b"abc"), (b'2', "b", "/a", 0o777, b"")]);
    [gzip(&made), bzip2(&made), xz(&made)]
});

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", Just("..".to_owned()), Just(".".to_owned()), Just(String::new())], 1..5)
        .prop_map(|words| words.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_in_an_archive_the_neighbour_stays_as_it_was(
        entries in proptest::collection::vec((prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'5')], name(), name()), 1..8)
    ) {
        let place = Place::new();
        let made: Vec<Made<'_>> = entries.iter().map(|(kind, name, link)| {
            let contents: &[u8] = if *kind == b'0' { b"x" } else { b"" };
            (*kind, name.as_str(), link.as_str(), 0o644, contents)
        }).collect();
        _ = place.unpack("archive.tar", Packing::Archive, &tar(&made), 1000);
        place.check();
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(at in 0usize..2048, byte: u8, cut in 0usize..2048) {
        let mut bytes = tar(&[(b'0', "a", "", 0o644, b"abc"), (b'2', "b", "a", 0o777, b"")]);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        let place = Place::new();
        _ = place.unpack("a.tar", Packing::Archive, &bytes, 1000);
        let mut bytes = zip(&[("a", 0o644, b"abc"), ("b/c", 0o755, b"d")]);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        _ = place.unpack("b.zip", Packing::Archive, &bytes, 1000);
        for packed in PACKED.iter() {
            let mut bytes = packed.clone();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            _ = place.unpack("c.tgz", Packing::Archive, &bytes, 1000);
        }
        place.check();
    }
}
