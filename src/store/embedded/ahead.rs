//! Gives the active journal its blocks on disk before they are needed.
//!
//! fjall (3.1, `journal/writer.rs`) makes a journal as a file with a hole of 64 MiB. Each commit would fill a piece of it, and its sync would have to wait
//! until the file system has noted the new blocks in its own journal: two writes and another thread instead of one write. So zeros are written into the
//! hole some way ahead. Only in a hole are zeros written, by the thread that alone writes commits and while it writes none: what the file says never changes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::SeekFrom;

/// So much of the hole is filled at once: a few dozen large commits.
const CHUNK_BYTES: usize = 1 << 20;

/// What it is filled with, again and again.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The journal that fjall writes to, as far as is known.
#[derive(Debug)]
pub(super) struct Ahead {
    directory: PathBuf,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    number: u64,
    file: File,
    /// Before this there is no hole.
    filled: u64,
}

impl Ahead {
    /// For the store in `directory`. Nothing is looked at yet.
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), journal: None }
    }

    /// To be called between commits. An error is no harm: commits are slower then, or meet the same error themselves and say so.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.find()?;
        match &mut self.journal {
            Some(journal) => journal.fill(),
            None => Ok(()),
        }
    }

    /// The newest journal; fjall counts them up.
    fn find(&mut self) -> io::Result<()> {
        let mut number = match &self.journal {
            Some(journal) => journal.number + 1,
            None => newest(&self.directory)?,
        };
        loop {
            match OpenOptions::new().read(true).write(true).open(self.directory.join(format!("{number}.jnl"))) {
                Ok(file) => self.journal = Some(Journal { number, file, filled: 0 }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
            number += 1;
        }
    }
}

/// The number of the newest journal; 0 without any.
pub(super) fn newest(directory: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            newest = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0).max(newest);
        }
    }
    Ok(newest)
}

impl Journal {
    fn fill(&mut self) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        if self.filled >= end {
            return Ok(());
        }
        let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(self.filled))?;
        if hole == self.filled && hole > 0 {
            // Commits have not come as far as what was filled before.
            return Ok(());
        }
        let wanted = usize::try_from(end.saturating_sub(hole)).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        self.check(hole, wanted)?;
        let end = hole + wanted as u64;
        for at in (hole..end).step_by(ZEROS.len()) {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..length], at)?;
        }
        self.filled = end;
        Ok(())
    }

    /// That there is nothing in the hole. The file system says so, but has been wrong elsewhere (ZFS 2.2.0 took what was just written for a hole); so its
    /// beginning is read: commits lie one after another, and if there were one here, some of the next bytes would be its.
    fn check(&self, hole: u64, length: usize) -> io::Result<()> {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(hole)) {
            Err(rustix::io::Errno::NXIO) => None,
            data => Some(data?),
        };
        let mut next = vec![0; length.min(ZEROS.len())];
        self.file.read_exact_at(&mut next, hole)?;
        let end = hole + length as u64;
        if is_empty(data, end, &next) {
            Ok(())
        } else {
            Err(io::Error::other("the file system says that there is a hole where there is none"))
        }
    }
}

/// `data`: where the file system says that something is again, if anywhere; `next`: what is read.
fn is_empty(data: Option<u64>, end: u64, next: &[u8]) -> bool {
    data.is_none_or(|data| data >= end) && next.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 4 << 20;

    /// A journal as fjall makes it.
    fn journal(directory: &Path, number: u64) -> File {
        let file = File::create_new(directory.join(format!("{number}.jnl"))).unwrap();
        file.set_len(LENGTH).unwrap();
        file
    }

    /// Where its hole begins.
    fn filled(file: &File) -> u64 {
        rustix::fs::seek(file, SeekFrom::Hole(0)).unwrap()
    }

    #[test]
    fn blocks_are_there_before_commits_are() {
        let directory = tempfile::tempdir().unwrap();
        let mut ahead = Ahead::new(directory.path());
        ahead.fill().unwrap();
        let file = journal(directory.path(), 0);
        let chunk = CHUNK_BYTES as u64;
        let mut check = |commits: &[(u64, usize)], expected: u64| {
            for (at, length) in commits {
                file.write_all_at(&vec![7; *length], *at).unwrap();
            }
            ahead.fill().unwrap();
            assert_eq!(filled(&file), expected, "after {commits:?}");
        };
        check(&[], chunk);
        check(&[(0, 100), (100, 5000)], chunk);
        // The commit that goes beyond is followed by the next piece.
        check(&[(5100, CHUNK_BYTES)], 2 * chunk + 8192);
        check(&[(5100 + chunk, 2 * CHUNK_BYTES)], LENGTH);
        check(&[(5100 + 3 * chunk, 100)], LENGTH);
        let content = std::fs::read(directory.path().join("0.jnl")).unwrap();
        let written = usize::try_from(5100 + 3 * chunk + 100).unwrap();
        assert!(content[..written].iter().all(|byte| *byte == 7) && content[written..].iter().all(|byte| *byte == 0));
        // fjall goes on in a longer file than it has made.
        file.write_all_at(&[7; 100], LENGTH).unwrap();
        ahead.fill().unwrap();
        assert_eq!(file.metadata().unwrap().len(), LENGTH + 100);
    }

    #[test]
    fn nothing_is_filled_where_something_is() {
        let check = |data: u64, hole: u64, expected: bool| {
            let directory = tempfile::tempdir().unwrap();
            let file = journal(directory.path(), 0);
            file.write_all_at(&[7; 100], data).unwrap();
            let journal = Journal { number: 0, file, filled: 0 };
            assert_eq!(journal.check(hole, CHUNK_BYTES).is_ok(), expected, "{data}, {hole}");
        };
        let chunk = CHUNK_BYTES as u64;
        check(0, 0, false);
        check(chunk / 2, 0, false);
        check(chunk - 100, 0, false);
        check(chunk, 0, true);
        check(0, chunk, true);
        check(chunk + 50, chunk, false);
    }

    #[test]
    fn neither_the_file_system_nor_what_is_read_alone_makes_a_hole() {
        let check = |data: Option<u64>, next: &[u8], expected: bool| assert_eq!(is_empty(data, 100, next), expected, "{data:?}, {next:?}");
        check(None, &[0; 8], true);
        check(Some(100), &[0; 8], true);
        check(Some(99), &[0; 8], false);
        check(None, &[0, 0, 0, 0, 0, 0, 0, 7], false);
        check(Some(200), &[7, 0, 0, 0, 0, 0, 0, 0], false);
    }

    #[test]
    fn the_newest_journal_counts() {
        let directory = tempfile::tempdir().unwrap();
        let mut ahead = Ahead::new(directory.path());
        let (old, new) = (journal(directory.path(), 3), journal(directory.path(), 12));
        ahead.fill().unwrap();
        assert_eq!((filled(&old), filled(&new)), (0, CHUNK_BYTES as u64));
        let (skipped, next) = (journal(directory.path(), 13), journal(directory.path(), 14));
        ahead.fill().unwrap();
        assert_eq!((filled(&skipped), filled(&next)), (0, CHUNK_BYTES as u64));
    }

    #[test]
    fn a_journal_that_was_cut_off_at_its_end_has_no_hole() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("5.jnl")).unwrap();
        file.write_all_at(&[7; 3000], 0).unwrap();
        let mut ahead = Ahead::new(directory.path());
        ahead.fill().unwrap();
        ahead.fill().unwrap();
        assert_eq!(std::fs::read(directory.path().join("5.jnl")).unwrap(), [7; 3000]);
    }
}
