//! Unpacks archives into the root of the sandbox, wherever in it the archive lies, as Mesos does; of which kind one is, its first bytes tell.
//!
//! Plain files, directories, links are taken; a name or hard link that leads out is an error, and so are devices. A symbolic link may lead anywhere, as
//! those of virtual environments do: nothing is written through one, and the task that follows it is only who it is. No file gets set-user-id bits. The
//! limits count what is written, whatever the archive says of itself.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::tree::Tree;
use crate::{
    model::artifact::{Packing, sandbox_path},
    registry::tar::{self, Kind, Source},
};

/// Entries of a zip archive; tar archives have a limit of their own.
const MAX_ENTRIES: usize = 50_000;
/// Bytes of a symbolic link's target in a zip archive.
const MAX_TARGET_BYTES: u64 = 1024;
/// KiB of memory that unpacking xz may take: twice what `xz -9` needs, where an archive could ask for 4 GiB.
const MAX_XZ_KIB: u32 = 128 << 10;
const PIECE_BYTES: usize = 64 << 10;

/// What may still be written.
#[derive(Debug)]
struct Budget {
    bytes: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| io::Error::other("what is in it is too large"))?;
        Ok(())
    }
}

/// Unpacks what lies at `place`, to no more than so many bytes. Returns how many bytes were written.
///
/// # Errors
/// A sentence for the user.
pub(super) fn unpack(tree: &Tree, place: &str, packing: Packing, bytes: u64) -> Result<u64, String> {
    let mut budget = Budget { bytes };
    let file = BufReader::new(tree.read(place).map_err(|error| error.to_string())?);
    match packing {
        Packing::None => {}
        Packing::Archive => unpack_archive(tree, place, file, &mut budget)?,
        Packing::Gz => {
            let name = place.rsplit('/').next().and_then(|name| name.strip_suffix(".gz"));
            let name = name.filter(|name| !name.is_empty()).ok_or("it has no name without .gz")?;
            let mut file_out = tree.create(name, 0o644).map_err(|error| error.to_string())?;
            copy(&mut MultiGzDecoder::new(file), &mut file_out, &mut budget).map_err(|error| error.to_string())?;
        }
    }
    Ok(bytes - budget.bytes)
}

fn unpack_archive(tree: &Tree, place: &str, mut file: BufReader<File>, budget: &mut Budget) -> Result<(), String> {
    let beginning = file.fill_buf().map_err(|error| error.to_string())?;
    let begins_with = |magic: &[u8]| beginning.starts_with(magic);
    if begins_with(&[0x1f, 0x8b]) {
        unpack_tar(tree, MultiGzDecoder::new(file), budget)
    } else if begins_with(b"BZh") {
        unpack_tar(tree, MultiBzDecoder::new(file), budget)
    } else if begins_with(b"\xfd7zXZ\0") {
        unpack_tar(tree, XzReader::new_mem_limit(file, true, MAX_XZ_KIB), budget)
    // Something may stand before the archive proper, such as a program that unpacks it.
    } else if begins_with(b"PK") || place.ends_with(".zip") {
        unpack_zip(tree, file, budget)
    } else {
        unpack_tar(tree, file, budget)
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write, budget: &mut Budget) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        budget.take(length as u64)?;
        to.write_all(&piece[..length])?;
    }
}

/// What cannot be skipped but by reading.
struct Plain<R>(R);

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => io::Error::other(format!("it needs more than {} MiB of memory", MAX_XZ_KIB >> 10)),
            _ => error,
        })
    }
}

impl<R: Read> Source for Plain<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off")) }
    }
}

fn unpack_tar(tree: &Tree, from: impl Read, budget: &mut Budget) -> Result<(), String> {
    // Headers and what fills up blocks are not written, but cost time.
    let mut reader = tar::Reader::new(Plain(from), budget.bytes.saturating_mul(2).max(1 << 20));
    while let Some(entry) = reader.entry().map_err(|error| error.to_string())? {
        if entry.name.is_empty() {
            continue; // The folder itself.
        }
        let failed = |error: io::Error| format!("{}: {error}", entry.name.escape_debug());
        let path = sandbox_path(&entry.name)?;
        match &entry.kind {
            Kind::Directory => tree.directory(&path, entry.mode).map_err(failed)?,
            Kind::Symbolic { target, .. } => tree.symlink(&path, target).map_err(failed)?,
            Kind::Link(target) => tree.link(&path, &sandbox_path(target)?).map_err(failed)?,
            Kind::File => {
                budget.take(entry.size).map_err(failed)?;
                let mut file = tree.create(&path, entry.mode).map_err(failed)?;
                reader.copy(&entry, &mut file).map_err(|error| format!("{}: {error}", entry.name.escape_debug()))?;
            }
        }
    }
    Ok(())
}

fn unpack_zip(tree: &Tree, from: impl Read + io::Seek, budget: &mut Budget) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(from).map_err(|error| error.to_string())?;
    if archive.len() > MAX_ENTRIES {
        return Err(format!("it has more than {MAX_ENTRIES} entries"));
    }
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?.replace('\\', "/");
        if name.starts_with('/') {
            return Err(format!("'{}' leads out of the archive", name.escape_debug()));
        }
        let path = sandbox_path(&name)?;
        let failed = |error: io::Error| format!("{}: {error}", name.escape_debug());
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_dir() {
            tree.directory(&path, mode | 0o755).map_err(failed)?;
        } else if entry.is_symlink() {
            let mut target = String::new();
            (&mut entry).take(MAX_TARGET_BYTES + 1).read_to_string(&mut target).map_err(failed)?;
            if target.len() as u64 > MAX_TARGET_BYTES {
                return Err(format!("{}: it leads to a place with too long a name", name.escape_debug()));
            }
            tree.symlink(&path, &target).map_err(failed)?;
        } else {
            let mut file = tree.create(&path, mode).map_err(failed)?;
            copy(&mut entry, &mut file, budget).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
