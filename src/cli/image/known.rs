//! What earlier pushes learned, kept in the user's cache directory: which blob a layer became. A hint and nothing more: the registry is asked whether it
//! has the blob, so a lost, old or damaged file costs time only.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::{model::image::is_digest, registry::push::Memory};

/// Layers that are remembered.
const MAX_ENTRIES: usize = 8_192;
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file of the present user; `None` without a home.
pub(super) fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("xtao").join("layers.json"))
}

/// What the file says.
pub(super) fn read(file: Option<&Path>) -> Memory {
    let mut text = String::new();
    let opened = file.and_then(|file| fs::File::open(file).ok());
    let read = opened.is_some_and(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text).is_ok());
    let pairs: Vec<(String, String)> = if read { serde_json::from_str::<Vec<_>>(&text).unwrap_or_default() } else { Vec::new() };
    Memory::new(pairs.into_iter().filter(|(layer, blob)| is_digest(layer) && is_digest(blob)))
}

/// Keeps it. What cannot be kept is learned again next time.
pub(super) fn write(file: Option<&Path>, known: &Memory) {
    let Some((file, directory)) = file.and_then(|file| Some((file, file.parent()?))) else { return };
    let mut pairs = known.all();
    pairs.truncate(MAX_ENTRIES);
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let text = serde_json::to_string(&pairs).unwrap_or_default();
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&part, text)).and_then(|()| fs::rename(&part, file));
    if written.is_err() {
        _ = fs::remove_file(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::push::Known as _;

    #[test]
    fn what_was_learned_is_known_next_time_and_rubbish_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a/layers.json");
        let (layer, blob) = (format!("sha256:{}", "0a".repeat(32)), format!("sha256:{}", "0b".repeat(32)));
        assert!(read(Some(&file)).all().is_empty());
        let known = Memory::default();
        known.remember(&layer, &blob);
        write(Some(&file), &known);
        assert_eq!(read(Some(&file)).blob(&layer), Some(blob));
        for rubbish in ["", "{}", "[[\"a\",\"b\"]]", "[1"] {
            fs::write(&file, rubbish).unwrap();
            assert!(read(Some(&file)).all().is_empty(), "{rubbish}");
        }
        assert!(read(None).all().is_empty());
        write(None, &known);
    }
}
