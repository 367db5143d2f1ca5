//! Examines fjall's journals before fjall reads them.
//!
//! fjall (3.1) takes whatever it cannot read in a journal for the end that a crash cut off, and truncates the file there: a flipped bit in the
//! middle would silently take every later commit with it. Here the two are told apart, and only a real end is cut off.
//!
//! The format (fjall 3.1, `journal/entry.rs`; numbers little endian): a batch is a start (1, number of items `u32`, sequence number `u64`),
//! items (2, type `u8`, compression `u8`, keyspace `u64`, length of key `u16`, of value `u32`, of value on disk `u32`, key, value), or clearings
//! (4, keyspace `u64`), and an end (3, XXH3 of the items `u64`, "FJL\x03"). A file is preallocated: zeros follow the last batch.
//!
//! A commit is synced before the next one is written, so only the last batch of the last journal can be incomplete. A crash of the process
//! leaves the beginning of it; a loss of power may leave any of its disk sectors as zeros. Everything else is damage.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use tracing::warn;
use xxhash_rust::xxh3::Xxh3Default;

use crate::store::{StoreError, files};

const TRAILER: [u8; 4] = *b"FJL\x03";
const SECTOR_BYTES: usize = 512;

/// The longest end of a journal that is examined; a longer one cannot be one commit.
const MAX_TAIL_BYTES: u64 = 512 << 20;

/// Checks every journal in `directory`, and cuts off the incomplete commit at the end of the last one.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| files::failed(&format!("cannot read the store {}", directory.display()), &error);
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            journals.push((number.ok_or_else(|| damaged(&path, 0, "its name is not a number"))?, path));
        }
    }
    journals.sort();
    let last = journals.len().saturating_sub(1);
    for (place, (_, path)) in journals.iter().enumerate() {
        let failed = |error: io::Error| files::failed(&format!("cannot read the journal {}", path.display()), &error);
        match examine(File::open(path).map_err(failed)?).map_err(failed)? {
            Verdict::Whole => {}
            Verdict::Incomplete { end } if place == last => {
                warn!(journal = %path.display(), end, "The last commit was interrupted before it was acknowledged; it is dropped.");
                truncate(path, end).map_err(|error| files::failed(&format!("cannot write the journal {}", path.display()), &error))?;
            }
            Verdict::Incomplete { end } => {
                return Err(damaged(path, end, "it ends in the middle of a commit, though a later journal exists"));
            }
            Verdict::Damaged { at, reason } => return Err(damaged(path, at, reason)),
        }
    }
    Ok(())
}

fn damaged(path: &Path, at: u64, reason: &str) -> StoreError {
    StoreError::Damaged {
        what: format!("the journal {}", path.display()),
        reason: format!("at byte {at}: {reason}; commits after it would be lost: keep a copy and restore a backup"),
    }
}

fn truncate(path: &Path, end: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(end)?;
    file.sync_all()
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Whole commits, then nothing or zeros.
    Whole,
    /// Whole commits up to `end`, then one that was never complete.
    Incomplete { end: u64 },
    /// Something else.
    Damaged { at: u64, reason: &'static str },
}

/// Why a batch cannot be read.
enum Bad {
    /// The file ends first.
    Short,
    /// It is not what was written.
    Wrong(&'static str),
    Io(io::Error),
}

fn examine(mut file: impl Read + Seek) -> io::Result<Verdict> {
    let mut reader = BufReader::with_capacity(256 << 10, &mut file);
    let (mut end, mut sequence) = (0_u64, None);
    loop {
        match read_batch(&mut reader) {
            Ok(batch) if sequence.is_some_and(|before| batch.sequence <= before) => {
                return Ok(Verdict::Damaged { at: end, reason: "the commits are not in order" });
            }
            Ok(batch) => {
                end += batch.length;
                sequence = Some(batch.sequence);
            }
            Err(Bad::Io(error)) => return Err(error),
            Err(Bad::Short | Bad::Wrong(_)) => break,
        }
    }
    Ok(match read_tail(&mut file, end)? {
        None => Verdict::Damaged { at: end, reason: "what follows is too long for one commit" },
        Some(tail) => judge_tail(&tail, end),
    })
}

/// What follows `start`, without the zeros at its end; `None` when it is too long.
fn read_tail(file: &mut (impl Read + Seek), start: u64) -> io::Result<Option<Vec<u8>>> {
    file.seek(SeekFrom::Start(start))?;
    let (mut tail, mut zeros, mut chunk) = (Vec::new(), 0_u64, vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(Some(tail));
        }
        let used = used(&chunk[..read]);
        if used > 0 {
            // Zeros are kept only when something follows them.
            if tail.len() as u64 + zeros + used as u64 > MAX_TAIL_BYTES {
                return Ok(None);
            }
            tail.resize(tail.len() + zeros as usize, 0);
            tail.extend_from_slice(&chunk[..used]);
            zeros = 0;
        }
        zeros += (read - used) as u64;
    }
}

/// The length of `chunk` without the zeros at its end. fjall reserves far more room for a journal than it fills, so most chunks are nothing else.
fn used(chunk: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let pages = chunk.rchunks(ZEROS.len()).take_while(|page| **page == ZEROS[..page.len()]).map(<[u8]>::len).sum::<usize>();
    chunk[..chunk.len() - pages].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// `tail` begins at byte `start` of the file, where no whole batch begins, and ends with the last byte that is not zero.
fn judge_tail(tail: &[u8], start: u64) -> Verdict {
    if tail.is_empty() {
        return Verdict::Whole;
    }
    let mut ends = tail.windows(TRAILER.len()).enumerate().filter(|(_, window)| *window == TRAILER).map(|(at, _)| at + TRAILER.len());
    if ends.any(|end| read_batch(&mut &tail[end..]).is_ok()) {
        return Verdict::Damaged { at: start, reason: "a commit cannot be read, though whole ones follow it" };
    }
    if has_zero_sector(tail, start) {
        return Verdict::Incomplete { end: start };
    }
    if tail.ends_with(&TRAILER) && tail.iter().nth_back(12) == Some(&3) {
        return Verdict::Damaged { at: start, reason: "the last commit was complete, but its content is not what was written" };
    }
    match read_batch(&mut &*tail) {
        Ok(_) | Err(Bad::Short) => Verdict::Incomplete { end: start },
        Err(Bad::Wrong(reason)) => Verdict::Damaged { at: start, reason },
        Err(Bad::Io(_)) => Verdict::Damaged { at: start, reason: "it cannot be read" },
    }
}

/// True when a whole disk sector of the file within `tail` is zeros, which no record contains so many of.
fn has_zero_sector(tail: &[u8], start: u64) -> bool {
    let first = (SECTOR_BYTES - (start % SECTOR_BYTES as u64) as usize) % SECTOR_BYTES;
    tail.get(first..).is_some_and(|rest| rest.chunks_exact(SECTOR_BYTES).any(|sector| sector.iter().all(|byte| *byte == 0)))
}

struct Batch {
    length: u64,
    /// Rises from batch to batch.
    sequence: u64,
}

/// Reads one batch and checks it.
fn read_batch(reader: &mut impl Read) -> Result<Batch, Bad> {
    let [tag] = take(reader)?;
    if tag != 1 {
        return Err(Bad::Wrong("a commit begins with an unknown mark"));
    }
    let items = u32::from_le_bytes(take(reader)?);
    let sequence = u64::from_le_bytes(take(reader)?);
    let mut length = 13;
    let mut hasher = Xxh3Default::new();
    for _ in 0..items {
        length += read_item(reader, &mut hasher)?;
    }
    let [tag] = take(reader)?;
    let checksum = u64::from_le_bytes(take(reader)?);
    let trailer: [u8; 4] = take(reader)?;
    if tag != 3 || trailer != TRAILER {
        return Err(Bad::Wrong("a commit has no end where it should"));
    }
    if checksum != hasher.digest() {
        return Err(Bad::Wrong("the checksum of a commit is wrong"));
    }
    Ok(Batch { length: length + 13, sequence })
}

fn read_item(reader: &mut impl Read, hasher: &mut Xxh3Default) -> Result<u64, Bad> {
    let [tag] = take(reader)?;
    hasher.update(&[tag]);
    match tag {
        2 => {
            let head: [u8; 20] = take(reader)?;
            hasher.update(&head);
            let [.., k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
            let bytes = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
            pass(reader, bytes, hasher)?;
            Ok(21 + bytes)
        }
        4 => {
            let keyspace: [u8; 8] = take(reader)?;
            hasher.update(&keyspace);
            Ok(9)
        }
        _ => Err(Bad::Wrong("an entry has an unknown mark")),
    }
}

fn take<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], Bad> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(bad)?;
    Ok(bytes)
}

fn pass(reader: &mut impl Read, bytes: u64, hasher: &mut Xxh3Default) -> Result<(), Bad> {
    let mut chunk = [0; 4096];
    let mut left = bytes;
    while left > 0 {
        let part = &mut chunk[..left.min(4096) as usize];
        reader.read_exact(part).map_err(bad)?;
        hasher.update(part);
        left -= part.len() as u64;
    }
    Ok(())
}

fn bad(error: io::Error) -> Bad {
    if error.kind() == io::ErrorKind::UnexpectedEof { Bad::Short } else { Bad::Io(error) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn batch(sequence: u64, items: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend((items.len() as u32).to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        let mut content = Vec::new();
        for value in items {
            content.extend([2, 0, 0]);
            content.extend(1_u64.to_le_bytes());
            content.extend(3_u16.to_le_bytes());
            content.extend((value.len() as u32).to_le_bytes());
            content.extend((value.len() as u32).to_le_bytes());
            content.extend(b"key");
            content.extend(*value);
        }
        let mut hasher = Xxh3Default::new();
        hasher.update(&content);
        bytes.extend(content);
        bytes.push(3);
        bytes.extend(hasher.digest().to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    /// Three commits, as long as some sectors.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let ends = [batch(7, &[b"one", b""]), batch(8, &[&[b'x'; 3000]]), batch(9, &[&[b'y'; 2000], b"FJL\x03"])]
            .into_iter()
            .map(|batch| {
                bytes.extend(batch);
                bytes.len()
            })
            .collect();
        (bytes, ends)
    }

    fn verdict(bytes: &[u8]) -> Verdict {
        examine(Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn whole_journals_pass_with_and_without_preallocated_zeros() {
        let (mut bytes, _) = journal();
        assert_eq!(verdict(&[]), Verdict::Whole);
        assert_eq!(verdict(&[0; 70_000]), Verdict::Whole);
        assert_eq!(verdict(&bytes), Verdict::Whole);
        bytes.resize(bytes.len() + 600_000, 0);
        assert_eq!(verdict(&bytes), Verdict::Whole);
    }

    #[test]
    fn a_commit_cut_off_anywhere_is_incomplete_and_nothing_else_is_lost() {
        let (bytes, ends) = journal();
        for length in 0..bytes.len() {
            let before = ends.iter().copied().filter(|end| *end <= length).max().unwrap_or(0) as u64;
            let expected = if length as u64 == before { Verdict::Whole } else { Verdict::Incomplete { end: before } };
            assert_eq!(verdict(&bytes[..length]), expected, "cut to {length}");
            let mut padded = bytes[..length].to_vec();
            padded.resize(bytes.len() + 5000, 0);
            let found = verdict(&padded);
            // A cut among zeros that belong to the commit leaves nothing to see when all before it are zeros too; never so here.
            assert_eq!(found, expected, "cut to {length} and padded");
        }
    }

    #[test]
    fn sectors_that_a_loss_of_power_left_empty_are_an_incomplete_commit() {
        let (bytes, ends) = journal();
        for sector in ends[1] / SECTOR_BYTES + 1..bytes.len() / SECTOR_BYTES {
            let mut torn = bytes.clone();
            torn[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
            assert_eq!(verdict(&torn), Verdict::Incomplete { end: ends[1] as u64 }, "sector {sector}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage_and_never_the_end() {
        let (mut bytes, _) = journal();
        bytes.resize(bytes.len() + 1000, 0);
        let written = bytes.len() - 1000;
        for byte in 0..written {
            let bit = byte % 8;
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1 << bit;
            match verdict(&damaged) {
                Verdict::Damaged { .. } => {}
                // Sequence numbers are under no checksum; one that is still in order changes nothing that is read.
                Verdict::Whole if in_sequence_number(byte) => {}
                other => panic!("bit {bit} of byte {byte}: {other:?}"),
            }
        }
    }

    fn in_sequence_number(byte: usize) -> bool {
        let (_, ends) = journal();
        std::iter::once(0).chain(ends).any(|start| (start + 5..start + 13).contains(&byte))
    }
}
