//! Makes room in the journal that fjall goes on with after a restart.
//!
//! fjall (3.1, `journal/writer.rs`) makes a journal as a file with room for 64 MiB, but one that is there already it opens for appending. Then every
//! commit changes the file's length, and its sync has to write the inode and what says where the blocks are, besides the commit: four writes that wait
//! for each other instead of two. So the file that fjall has open stops appending and goes on where its end is, and gets the room that a new one has.

use std::{
    fs::File,
    io,
    os::{fd::RawFd, unix::fs::MetadataExt},
    path::Path,
};

use rustix::{
    fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

/// As fjall makes a journal (`PRE_ALLOCATED_BYTES`).
const ROOM_BYTES: u64 = 64 << 20;

/// To be called before the first commit, while nobody writes to `journal`; says whether there is room now that was not there. It does not matter when
/// it fails: every step leaves a file to which the next commit is written rightly.
///
/// # Errors
/// The kernel does not let us (Linux before 5.6, or a filter of system calls).
pub(super) fn make_room(journal: &Path) -> io::Result<bool> {
    let Some(file) = appending(journal)? else { return Ok(false) };
    let end = file.metadata()?.len();
    if end >= ROOM_BYTES {
        return Ok(false);
    }
    seek(&file, SeekFrom::Start(end))?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::APPEND)?;
    file.set_len(ROOM_BYTES)?;
    Ok(true)
}

/// The open file that appends to `path`, which this process has somewhere; `None`: none, or several. It is the same one, not opened again: its position
/// and the way it writes are shared.
fn appending(path: &Path) -> io::Result<Option<File>> {
    let wanted = std::fs::metadata(path)?;
    let is_wanted = |found: &std::fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // What was closed meanwhile was not it.
        let Ok(true) = std::fs::metadata(entry.path()).map(|found| is_wanted(&found)) else { continue };
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        let Ok(file) = pidfd_getfd(&this_process, number, PidfdGetfdFlags::empty()).map(File::from) else { continue };
        if is_wanted(&file.metadata()?) && fcntl_getfl(&file)?.contains(OFlags::APPEND) {
            all.push(file);
        }
    }
    Ok(all.pop().filter(|_| all.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::*;

    #[test]
    fn a_journal_goes_on_where_its_end_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("3.jnl");
        std::fs::write(&path, [7; 3000]).unwrap();
        let mut journal = OpenOptions::new().append(true).open(&path).unwrap();
        let _reader = File::open(&path).unwrap();
        assert!(make_room(&path).unwrap());
        journal.write_all(&[8; 100]).unwrap();
        journal.write_all(&[9; 100]).unwrap();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content.len() as u64, ROOM_BYTES);
        let expected = [vec![7; 3000], vec![8; 100], vec![9; 100]].concat();
        assert!(content[..3200] == expected && content[3200..].iter().all(|byte| *byte == 0));
        assert!(!make_room(&path).unwrap(), "it does not append any more");
    }

    #[test]
    fn what_is_doubtful_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("3.jnl");
        std::fs::write(&path, [7; 3000]).unwrap();
        let check = |why: &str| {
            assert!(!make_room(&path).unwrap(), "{why}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 3000, "{why}");
        };
        check("nobody has it open");
        let append = || OpenOptions::new().append(true).open(&path).unwrap();
        let two = [append(), append()];
        check("two append to it");
        drop(two);
        let _writes = OpenOptions::new().write(true).open(&path).unwrap();
        check("it is open, and not for appending");
        std::fs::write(directory.path().join("other"), "").unwrap();
        let _other = OpenOptions::new().append(true).open(directory.path().join("other")).unwrap();
        check("another file is appended to");
    }
}
