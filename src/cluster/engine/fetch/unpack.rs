//! Unpacks archives into the sandbox: beside the archive, as Mesos does.
//!
//! Plain files, directories, hard links, and symbolic links that stay in the sandbox are taken; a name or link that leads out is an error, and so are
//! devices. No file gets set-user-id bits. The limits count what is written, whatever the archive says of itself.

use std::{
    io::{self, BufReader, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use super::tree::Tree;
use crate::{
    model::artifact::{Packing, sandbox_path},
    registry::tar::{self, Kind, Source},
};

/// Entries of a zip archive; tar archives have a limit of their own.
const MAX_ENTRIES: usize = 50_000;
/// Bytes of a symbolic link's target.
const MAX_TARGET_BYTES: u64 = 1024;
const PIECE_BYTES: usize = 64 << 10;

/// What may still be written, and whether anybody wants it.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) abandoned: Arc<AtomicBool>,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.check()?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| io::Error::other("what is in it is too large"))?;
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.abandoned.load(Ordering::Relaxed) { Err(io::Error::other("it is not wanted any more")) } else { Ok(()) }
    }
}

/// Unpacks what lies at `place`. Returns how many bytes were written.
///
/// # Errors
/// A sentence for the user.
pub(super) fn unpack(tree: &Tree, place: &str, packing: Packing, mut budget: Budget) -> Result<u64, String> {
    let before = budget.bytes;
    let folder = place.rsplit_once('/').map_or("", |(folder, _)| folder);
    let file = tree.read(place).map_err(|error| error.to_string())?;
    match packing {
        Packing::None => {}
        Packing::Tar => unpack_tar(tree, folder, BufReader::new(file), &mut budget)?,
        Packing::TarGz => unpack_tar(tree, folder, MultiGzDecoder::new(BufReader::new(file)), &mut budget)?,
        Packing::Gz => {
            let name =
                place.strip_suffix(".gz").filter(|name| !name.is_empty() && !name.ends_with('/')).ok_or("it has no name without .gz")?;
            let mut file_out = tree.create(name, 0o644).map_err(|error| error.to_string())?;
            copy(&mut MultiGzDecoder::new(BufReader::new(file)), &mut file_out, &mut budget).map_err(|error| error.to_string())?;
        }
        Packing::Zip => unpack_zip(tree, folder, BufReader::new(file), &mut budget)?,
    }
    Ok(before - budget.bytes)
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

/// A name of the archive, below the folder in which the archive is.
fn within(folder: &str, name: &str) -> Result<String, String> {
    sandbox_path(format!("{folder}/{name}").trim_start_matches('/'))
}

/// What cannot be skipped but by reading.
struct Plain<R>(R);

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Plain<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off")) }
    }
}

fn unpack_tar(tree: &Tree, folder: &str, from: impl Read, budget: &mut Budget) -> Result<(), String> {
    // Headers and what fills up blocks are not written, but cost time.
    let mut reader = tar::Reader::new(Plain(from), budget.bytes.saturating_mul(2).max(1 << 20));
    while let Some(entry) = reader.entry().map_err(|error| error.to_string())? {
        if entry.name.is_empty() {
            continue; // The folder itself.
        }
        let failed = |error: io::Error| format!("{}: {error}", entry.name.escape_debug());
        let path = within(folder, &entry.name)?;
        budget.take(0).map_err(failed)?;
        match &entry.kind {
            Kind::Directory => tree.directory(&path, entry.mode).map_err(failed)?,
            Kind::Symbolic { target, .. } => tree.symlink(&path, target).map_err(failed)?,
            Kind::Link(target) => tree.link(&path, &within(folder, target)?).map_err(failed)?,
            Kind::File => {
                budget.take(entry.size).map_err(failed)?;
                let mut file = tree.create(&path, entry.mode).map_err(failed)?;
                reader.copy(&entry, &mut file, || budget.check()).map_err(|error| format!("{}: {error}", entry.name.escape_debug()))?;
            }
        }
    }
    Ok(())
}

fn unpack_zip(tree: &Tree, folder: &str, from: impl Read + io::Seek, budget: &mut Budget) -> Result<(), String> {
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
        let path = within(folder, &name)?;
        let failed = |error: io::Error| format!("{}: {error}", name.escape_debug());
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_dir() {
            tree.directory(&path, mode | 0o755).map_err(failed)?;
        } else if entry.is_symlink() {
            let mut target = String::new();
            (&mut entry).take(MAX_TARGET_BYTES).read_to_string(&mut target).map_err(failed)?;
            check_target(&name, &target)?;
            tree.symlink(&path, &target).map_err(failed)?;
        } else {
            let mut file = tree.create(&path, mode).map_err(failed)?;
            copy(&mut entry, &mut file, budget).map_err(failed)?;
        }
    }
    Ok(())
}

/// That a link named `name` stays in the archive.
fn check_target(name: &str, target: &str) -> Result<(), String> {
    let mut depth = name.split('/').filter(|word| !word.is_empty() && *word != ".").count().saturating_sub(1);
    let leads_out = || format!("'{}' leads out of the archive", target.escape_debug());
    if target.starts_with('/') || target.is_empty() {
        return Err(leads_out());
    }
    for word in target.split('/').filter(|word| !word.is_empty() && *word != ".") {
        depth = if word == ".." { depth.checked_sub(1).ok_or_else(leads_out)? } else { depth + 1 };
    }
    Ok(())
}

#[cfg(test)]
mod tests;
