//! Reads what a task wrote: the files of its sandbox, the older one first, over their replacement and to the end. The other side is [`sandbox`].
//!
//! A reader holds its file open, so it misses nothing when the file is replaced and removed. Only when two files were filled while it looked away,
//! the first of them is lost, as it is for everybody.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::sandbox::{self, Output};
use crate::model::{
    id::{Owner, TaskId},
    time::Timestamp,
};

/// Read at once.
const PIECE_BYTES: usize = 64 << 10;

/// One of a task's outputs, being read.
#[derive(Debug)]
pub struct OutputReader {
    directory: OwnedFd,
    name: &'static str,
    current: Option<File>,
    at: u64,
}

impl OutputReader {
    /// Begins at the beginning of what is kept. Symbolic links are not followed, and only plain files are read.
    ///
    /// # Errors
    /// There is no sandbox (`NotFound`), or it cannot be read.
    pub fn open(work_dir: &Path, task: &TaskId, output: Output) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, sandbox::path(work_dir, task), flags, Mode::empty())?;
        let mut reader = Self { directory, name: output.name(), current: None, at: 0 };
        reader.current = match reader.file(&reader.older_name())? {
            Some(older) => Some(older),
            None => reader.file(reader.name)?,
        };
        Ok(reader)
    }

    /// Whose the task was when it was launched; `None`: that is not known.
    pub fn owner(&self) -> Option<Owner> {
        sandbox::owner(&self.directory)
    }

    /// Leaves out files that were last written before `moment`.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub fn skip_before(&mut self, moment: Timestamp) -> io::Result<()> {
        let moment = UNIX_EPOCH + Duration::from_millis(u64::try_from(moment.0).unwrap_or(0));
        while let Some(file) = &self.current {
            if file.metadata()?.modified()? >= moment {
                break;
            }
            match self.successor(file)? {
                Some(next) => self.current = Some(next),
                None => {
                    // The newest file is old: nothing but what is still to come.
                    self.at = file.metadata()?.len();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Goes on to the last `lines` lines of what is left. A last line without an end counts as one.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn skip_to_last(&mut self, lines: u64) -> io::Result<()> {
        let mut files = Vec::new();
        while let Some(file) = self.current.take() {
            let (length, next) = (file.metadata()?.len(), self.successor(&file)?);
            files.push((file, self.at, length));
            self.at = 0;
            self.current = next;
        }
        let (place, at) = match lines {
            0 => (files.len().saturating_sub(1), files.last().map_or(0, |(_, _, length)| *length)),
            _ => last_lines(&files, lines)?,
        };
        self.current = files.into_iter().nth(place).map(|(file, ..)| file);
        self.at = at;
        Ok(())
    }

    /// The next piece; `None`: there is no more at the moment.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = &self.current else {
                self.current = self.file(self.name)?;
                if self.current.is_none() {
                    return Ok(None);
                }
                continue;
            };
            // First look whether it was replaced, then read: what was written before the replacement is read in any case.
            let next = self.successor(file)?;
            let mut piece = vec![0; PIECE_BYTES];
            let length = file.read_at(&mut piece, self.at)?;
            if length > 0 {
                piece.truncate(length);
                self.at += length as u64;
                return Ok(Some(piece));
            }
            match next {
                Some(next) => (self.current, self.at) = (Some(next), 0),
                None => return Ok(None),
            }
        }
    }

    /// The file that came after `file`; `None`: it is the newest one.
    fn successor(&self, file: &File) -> io::Result<Option<File>> {
        let Some(newest) = self.file(self.name)? else { return Ok(None) };
        let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        if identity(&newest)? == identity(file)? {
            return Ok(None);
        }
        let Some(older) = self.file(&self.older_name())? else { return Ok(Some(newest)) };
        let older_is = identity(&older)?;
        // Where ours is the older one, or the newest has just become it, the newest follows; otherwise ours is forgotten and the older one follows.
        Ok(Some(if older_is == identity(file)? || older_is == identity(&newest)? { newest } else { older }))
    }

    fn older_name(&self) -> String {
        format!("{}.1", self.name)
    }

    fn file(&self, name: &str) -> io::Result<Option<File>> {
        // Without NONBLOCK a pipe in its place would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(open) => {
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&open)?.st_mode);
                if kind != FileType::RegularFile {
                    return Err(io::Error::other("what stands in the place of a task's output is no plain file"));
                }
                Ok(Some(File::from(open)))
            }
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Which file, and where in it, the last `lines` lines of all of them begin. A file comes with the part of it that counts.
fn last_lines(files: &[(File, u64, u64)], lines: u64) -> io::Result<(usize, u64)> {
    let mut wanted = lines;
    let mut is_last = true;
    for (place, (file, begin, length)) in files.iter().enumerate().rev().filter(|(_, (_, begin, length))| length > begin) {
        if std::mem::take(&mut is_last) {
            let mut last = [0];
            file.read_exact_at(&mut last, length - 1)?;
            // The line end at the very end begins no line.
            wanted = wanted.saturating_add(u64::from(last == *b"\n"));
        }
        if let Some(at) = line_from_end(file, *begin, *length, &mut wanted)? {
            return Ok((place, at));
        }
    }
    Ok((0, files.first().map_or(0, |(_, begin, _)| *begin)))
}

/// Where the line begins that is `wanted` line ends away from the end; takes off `wanted` what it passes.
fn line_from_end(file: &File, begin: u64, length: u64, wanted: &mut u64) -> io::Result<Option<u64>> {
    let mut end = length;
    let mut piece = vec![0; PIECE_BYTES];
    while end > begin {
        let from = end.saturating_sub(PIECE_BYTES as u64).max(begin);
        let part = &mut piece[..usize::try_from(end - from).unwrap_or(PIECE_BYTES)];
        file.read_exact_at(part, from)?;
        for (at, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if *wanted == 1 {
                return Ok(Some(from + at as u64 + 1));
            }
            *wanted = wanted.saturating_sub(1);
        }
        end = from;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::engine::samples;

    struct Kept {
        directory: tempfile::TempDir,
        task: TaskId,
    }

    impl Kept {
        fn new(older: Option<&str>, newer: Option<&str>) -> Self {
            let kept = Self { directory: tempfile::tempdir().unwrap(), task: samples::task("/web", 1) };
            std::fs::create_dir_all(sandbox::path(kept.directory.path(), &kept.task)).unwrap();
            for (name, text) in [("stdout.1", older), ("stdout", newer)] {
                text.into_iter().for_each(|text| std::fs::write(kept.file(name), text).unwrap());
            }
            kept
        }

        fn file(&self, name: &str) -> std::path::PathBuf {
            sandbox::path(self.directory.path(), &self.task).join(name)
        }

        fn append(&self, text: &str) {
            use std::io::Write;
            std::fs::File::options().append(true).create(true).open(self.file("stdout")).unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self) {
            std::fs::rename(self.file("stdout"), self.file("stdout.1")).unwrap();
        }

        fn open(&self) -> OutputReader {
            OutputReader::open(self.directory.path(), &self.task, Output::Stdout).unwrap()
        }
    }

    fn rest(reader: &mut OutputReader) -> String {
        let mut text = Vec::new();
        while let Some(piece) = reader.read().unwrap() {
            text.extend(piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_last_lines_are_found_over_both_files() {
        let check = |older: Option<&str>, newer: Option<&str>, tail: u64, expected: &str| {
            let kept = Kept::new(older, newer);
            let mut reader = kept.open();
            reader.skip_to_last(tail).unwrap();
            assert_eq!(rest(&mut reader), expected, "{older:?} {newer:?} {tail}");
        };
        check(None, Some("a\nb\nc\n"), 2, "b\nc\n");
        check(None, Some("a\nb\nc"), 2, "b\nc");
        check(None, Some("a\nb\nc\n"), 3, "a\nb\nc\n");
        check(None, Some("a\nb\nc\n"), 99, "a\nb\nc\n");
        check(None, Some("a\nb\nc\n"), u64::MAX, "a\nb\nc\n");
        check(None, Some("a\nb\nc\n"), 0, "");
        check(None, Some(""), 1, "");
        check(None, None, 1, "");
        check(Some("a\nb\n"), Some("c\nd\n"), 1, "d\n");
        check(Some("a\nb\n"), Some("c\nd\n"), 3, "b\nc\nd\n");
        check(Some("a\nb\n"), Some("c\nd\n"), 9, "a\nb\nc\nd\n");
        check(Some("a\nlong "), Some("line\nd\n"), 2, "long line\nd\n");
        check(Some("a\nb\n"), Some("c"), 2, "b\nc");
        check(Some("a\nb\n"), None, 1, "b\n");
        check(Some("a\nb\n"), Some(""), 1, "b\n");
        let many = "x\n".repeat(100_000);
        check(None, Some(&many), 99_999, &many[2..]);
    }

    #[test]
    fn reading_goes_on_over_replacements() {
        let kept = Kept::new(None, None);
        let mut reader = kept.open();
        assert_eq!(rest(&mut reader), "");
        kept.append("1 ");
        assert_eq!(rest(&mut reader), "1 ");
        kept.append("2 ");
        kept.rotate();
        kept.append("3 ");
        assert_eq!(rest(&mut reader), "2 3 ");
        // Two replacements at once: the file in between is still there.
        kept.append("4 ");
        kept.rotate();
        kept.append("5 ");
        kept.rotate();
        kept.append("6 ");
        assert_eq!(rest(&mut reader), "4 5 6 ");
        // Moved away, and nothing written yet.
        kept.append("7 ");
        kept.rotate();
        assert_eq!(rest(&mut reader), "7 ");
        kept.append("8 ");
        assert_eq!(rest(&mut reader), "8 ");
        // The sandbox goes; what is open stays readable.
        std::fs::remove_dir_all(kept.file("")).unwrap();
        assert_eq!(rest(&mut reader), "");
    }

    #[test]
    fn old_files_are_left_out() {
        let kept = Kept::new(Some("old\n"), Some("new\n"));
        let past = UNIX_EPOCH + Duration::from_secs(1000);
        let set = |name: &str| std::fs::File::options().append(true).open(kept.file(name)).unwrap().set_modified(past).unwrap();
        set("stdout.1");
        let since = |seconds: i64| {
            let mut reader = kept.open();
            reader.skip_before(Timestamp(seconds * 1000)).unwrap();
            rest(&mut reader)
        };
        assert_eq!((since(999).as_str(), since(1000).as_str(), since(1001).as_str()), ("old\nnew\n", "old\nnew\n", "new\n"));
        set("stdout");
        assert_eq!(since(1001), "");
    }

    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let kept = Kept::new(None, None);
        std::os::unix::fs::symlink("/etc/passwd", kept.file("stdout")).unwrap();
        assert!(OutputReader::open(kept.directory.path(), &kept.task, Output::Stdout).is_err());
        std::fs::remove_file(kept.file("stdout")).unwrap();
        rustix::fs::mknodat(CWD, kept.file("stdout"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(OutputReader::open(kept.directory.path(), &kept.task, Output::Stdout).is_err());
        let nobody = samples::task("/nobody", 1);
        let error = OutputReader::open(kept.directory.path(), &nobody, Output::Stdout).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // Nor is a sandbox that is a link to somewhere else.
        std::os::unix::fs::symlink("/etc", sandbox::path(kept.directory.path(), &nobody)).unwrap();
        assert!(OutputReader::open(kept.directory.path(), &nobody, Output::Stdout).is_err());
    }
}
