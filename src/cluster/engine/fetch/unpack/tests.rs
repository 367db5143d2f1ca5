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
        unpack(&tree, name, packing, Budget { bytes: budget, abandoned: Arc::default() })
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
fn an_archive_is_unpacked_beside_itself() {
    let made = tar(&[
        (b'5', "app/", "", 0o755, b""),
        (b'0', "app/run", "", 0o4755, b"#!/bin/sh\n"),
        (b'0', "app/deep/er/file", "", 0o640, b"deep"),
        (b'1', "app/hard", "app/run", 0o644, b""),
        (b'2', "app/soft", "deep/er/file", 0o777, b""),
        (b'2', "app/deep/up", "../run", 0o777, b""),
        (b'0', "./app/run", "", 0o755, b"second"),
    ]);
    for (name, packing, bytes) in [("in/a.tar", Packing::Tar, made.clone()), ("in/a.tgz", Packing::TarGz, gzip(&made))] {
        let place = Place::new();
        assert_eq!(place.unpack(name, packing, &bytes, 1000), Ok(20));
        let app = place.files().join("in/app");
        assert_eq!((place.text("in/app/run").as_str(), mode(&app.join("run"))), ("second", 0o755));
        assert_eq!((place.text("in/app/soft").as_str(), mode(&app.join("deep/er/file"))), ("deep", 0o640));
        // What was replaced later keeps its other name, without the bit that would make it somebody else.
        assert_eq!((place.text("in/app/hard").as_str(), mode(&app.join("hard"))), ("#!/bin/sh\n", 0o755));
        assert_eq!(std::fs::read_link(app.join("deep/up")).unwrap(), Path::new("../run"));
        assert_ne!(std::fs::metadata(app.join("hard")).unwrap().ino(), std::fs::metadata(app.join("run")).unwrap().ino());
        place.check();
    }
    let place = Place::new();
    let made = zip(&[("app/", 0o755, b""), ("app/run", 0o755, b"run"), ("app/link", 0o120_777, b"run"), ("b", 0o600, b"b")]);
    assert_eq!(place.unpack("a.zip", Packing::Zip, &made, 1000), Ok(4));
    assert_eq!((place.text("app/link"), mode(&place.files().join("app/run"))), ("run".to_owned(), 0o755));
    assert_eq!(place.unpack("text.gz", Packing::Gz, &gzip(b"hello"), 1000), Ok(5));
    assert_eq!(place.text("text"), "hello");
    place.check();
}

#[test]
fn nothing_leads_out_of_the_sandbox() {
    let check = |entries: &[Made<'_>], expected: &str| {
        let place = Place::new();
        let error = place.unpack("a.tar", Packing::Tar, &tar(entries), 1000).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        place.check();
    };
    check(&[(b'0', "../neighbour", "", 0o644, b"x")], "leads out of the archive");
    check(&[(b'0', "a/../../neighbour", "", 0o644, b"x")], "leads out of the archive");
    check(&[(b'0', "/etc/new", "", 0o644, b"x")], "leads out of the archive");
    check(&[(b'2', "out", "../neighbour", 0o777, b"")], "leads out of the archive");
    check(&[(b'2', "out", "/etc", 0o777, b"")], "leads out of the archive");
    check(&[(b'1', "out", "../neighbour", 0o777, b"")], "leads out of the archive");
    check(&[(b'3', "device", "", 0o666, b"")], "is a device");
    check(&[(b'6', "pipe", "", 0o666, b"")], "is a device");
    // Through links that are fine by themselves.
    check(&[(b'5', "d/e/", "", 0o755, b""), (b'2', "l", "d/e", 0o777, b""), (b'0', "l/x", "", 0o644, b"x")], "goes through a link");
    check(&[(b'5', "d/", "", 0o755, b""), (b'2', "l", "d", 0o777, b""), (b'1', "x", "l/y", 0o644, b"")], "goes through a link");
    check(&[(b'2', "l", "m", 0o777, b""), (b'1', "x", "l", 0o644, b"")], "no plain file");
    let check = |entries: &[(&str, u32, &[u8])], expected: &str| {
        let place = Place::new();
        let error = place.unpack("a.zip", Packing::Zip, &zip(entries), 1000).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        place.check();
    };
    check(&[("../neighbour", 0o644, b"x")], "must be a path within the sandbox");
    check(&[("..\\neighbour", 0o644, b"x")], "must be a path within the sandbox");
    check(&[("l", 0o120_777, b"../neighbour")], "leads out of the archive");
    check(&[("d/l", 0o120_777, b"../../neighbour")], "leads out of the archive");
    check(&[("l", 0o120_777, b"/etc")], "leads out of the archive");
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
    check("a.tgz", Packing::TarGz, &gzip(&tar(&[(b'0', "a", "", 0o644, &zeros)])));
    check("a.zip", Packing::Zip, &zip(&[("a", 0o644, &zeros)]));
    for (name, packing) in [("a.gz", Packing::Gz), ("a.tgz", Packing::TarGz), ("a.tar", Packing::Tar), ("a.zip", Packing::Zip)] {
        let place = Place::new();
        assert!(place.unpack(name, packing, b"no archive at all, but text", 1000).is_err(), "{name}");
    }
    // Nobody wants it any more.
    let place = Place::new();
    let tree = Tree::open(&place.files()).unwrap();
    tree.create("a.gz", 0o644).unwrap().write_all(&gzip(b"x")).unwrap();
    let budget = Budget { bytes: 1000, abandoned: Arc::new(AtomicBool::new(true)) };
    assert_eq!(unpack(&tree, "a.gz", Packing::Gz, budget), Err("it is not wanted any more".to_owned()));
}

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
        _ = place.unpack("archive.tar", Packing::Tar, &tar(&made), 1000);
        place.check();
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(at in 0usize..2048, byte: u8, cut in 0usize..2048) {
        let mut bytes = tar(&[(b'0', "a", "", 0o644, b"abc"), (b'2', "b", "a", 0o777, b"")]);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        let place = Place::new();
        _ = place.unpack("a.tar", Packing::Tar, &bytes, 1000);
        let mut bytes = zip(&[("a", 0o644, b"abc"), ("b/c", 0o755, b"d")]);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        _ = place.unpack("b.zip", Packing::Zip, &bytes, 1000);
        place.check();
    }
}
