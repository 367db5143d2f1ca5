//! The directory of a task: what it wrote to stdout and stderr, kept within limits, whose it was, and the mark that we asked for its end.
//!
//! ```text
//! <work_dir>/sandboxes/<task>/stdout  stdout.1  stderr  stderr.1  .position  .killed  .owner  .process  files/
//! ```
//!
//! `.killed` is empty until the task was asked to end indeed; then it says when that was, and how long the task may take.
//!
//! `files` is the task's own, and the only thing here that it can change: it works there, and there is put what it wants to have fetched.
//! `.process` says that the task was a process and no container.
//!
//! `.position` says how much of Docker's own copy of the output is in the files. It is written after the files; on opening, a file is cut back to the
//! length that it names, so that nothing is kept twice. Files are opened without following symbolic links.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::spec::file_name;
use crate::model::{
    id::{Owner, TaskId},
    user::{MAX_NAME_BYTES, user_name},
};

/// The position is written at most this often while output comes.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How far the two outputs may be out of order in Docker's copy.
const DISORDER_SECONDS: i32 = 2;
const POSITION: &str = ".position";
const KILLED: &str = ".killed";
const OWNER: &str = ".owner";
const PROCESS: &str = ".process";
const FILES: &str = "files";
/// More than any note of ours has.
const MAX_NOTE_BYTES: u64 = 1024;

/// One of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `stdout`
    Stdout,
    /// `stderr`
    Stderr,
}

impl Output {
    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The sandbox of `task`.
pub fn path(work_dir: &Path, task: &TaskId) -> PathBuf {
    root(work_dir).join(file_name(task))
}

/// The directory of all sandboxes.
pub fn root(work_dir: &Path) -> PathBuf {
    work_dir.join("sandboxes")
}

/// Remembers, beyond a restart, that we asked for the task's end.
///
/// # Errors
/// The file cannot be made.
pub fn mark_killed(work_dir: &Path, task: &TaskId) -> io::Result<()> {
    let directory = open_directory(&path(work_dir, task))?;
    open_file(&directory, KILLED, OFlags::CREATE).map(drop)
}

/// When a task was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// So long ago, milliseconds.
    pub ago_ms: u64,
    /// How long it may take, milliseconds.
    pub grace_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Delivered {
    /// Milliseconds of the machine's own clock ([`facts::uptime_ms`](super::facts::uptime_ms)).
    at_ms: u64,
    grace_ms: u64,
}

/// Remembers, beyond a restart, that the task was asked to end at `now_ms` (of the machine's own clock) and may take `grace_ms`.
///
/// # Errors
/// The file cannot be written.
pub fn note_asked(work_dir: &Path, task: &TaskId, grace_ms: u64, now_ms: u64) -> io::Result<()> {
    let directory = open_directory(&path(work_dir, task))?;
    put(&directory, KILLED, &Delivered { at_ms: now_ms, grace_ms })
}

/// What [`note_asked`] wrote; `None`: nothing, as far as can be seen. A clock that has begun anew takes nothing from the grace, and adds nothing to it.
pub fn asked(work_dir: &Path, task: &TaskId, now_ms: u64) -> Option<Asked> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path(work_dir, task).join(KILLED), flags, Mode::empty()).ok()?;
    let delivered: Delivered = serde_json::from_reader(File::from(file).take(MAX_NOTE_BYTES)).ok()?;
    Some(Asked { ago_ms: now_ms.saturating_sub(delivered.at_ms), grace_ms: delivered.grace_ms })
}

/// True when [`mark_killed`] was called for it.
pub fn is_marked_killed(work_dir: &Path, task: &TaskId) -> bool {
    std::fs::symlink_metadata(path(work_dir, task).join(KILLED)).is_ok()
}

/// Writes down whose the task is: its output is kept when its app may be gone, and the app's id somebody else's.
///
/// # Errors
/// The file cannot be written.
pub fn note_owner(work_dir: &Path, task: &TaskId, owner: &Owner) -> io::Result<()> {
    let directory = open_directory(&path(work_dir, task))?;
    open_file(&directory, OWNER, OFlags::CREATE | OFlags::TRUNC)?.write_all(owner.as_str().as_bytes())
}

/// What [`note_owner`] wrote into this sandbox; `None`: nothing that can be read.
pub fn owner(directory: &OwnedFd) -> Option<Owner> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, OWNER, flags, Mode::empty()).ok()?);
    let mut name = String::new();
    file.take(MAX_NAME_BYTES as u64 + 1).read_to_string(&mut name).ok()?;
    user_name(&name).ok()
}

/// The directory of the task's own files.
pub fn files(work_dir: &Path, task: &TaskId) -> PathBuf {
    path(work_dir, task).join(FILES)
}

/// Makes the directory of the task's own files, closed to everybody. The way to those of a process (`is_process`) is open to whoever knows it.
///
/// # Errors
/// It cannot be made.
pub fn make_files(work_dir: &Path, task: &TaskId, is_process: bool) -> io::Result<PathBuf> {
    let directory = open_directory(&path(work_dir, task))?;
    if is_process {
        open_file(&directory, PROCESS, OFlags::CREATE)?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o711))?;
    }
    let files = files(work_dir, task);
    open_directory(&files)?;
    Ok(files)
}

/// Gives the files below `files`, and last it itself, to a user and group. Until then nobody but the server can reach them, unless an earlier try of the
/// same launch came as far: so each is given in the directory that was opened, whatever is put in its place meanwhile. Links are not followed.
///
/// # Errors
/// Something cannot be given.
pub fn hand_over(files: &Path, to: Option<(u32, u32)>) -> io::Result<()> {
    let Some((user, group)) = to else { return Ok(()) };
    if rustix::process::geteuid().is_root() {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        give(&rustix::fs::openat(CWD, files, DIRECTORY, Mode::empty())?, user, group)?;
    }
    Ok(())
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn give(directory: &OwnedFd, user: Uid, group: Gid) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()) {
            Ok(inner) => give(&inner, user, group)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                rustix::fs::chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::fs::fchown(directory, Some(user), Some(group))?)
}

/// Opens the files to everybody who can reach them: to whoever a container's process is.
///
/// # Errors
/// The rights cannot be changed.
pub fn open_to_all(files: &Path) -> io::Result<()> {
    std::fs::set_permissions(files, std::os::unix::fs::PermissionsExt::from_mode(0o777))
}

/// True when the task was, or is, a process.
pub fn is_of_process(work_dir: &Path, task: &TaskId) -> bool {
    std::fs::symlink_metadata(path(work_dir, task).join(PROCESS)).is_ok()
}

/// How much of one output is kept: everything before `time`, and `count` pieces of exactly that time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    time: String,
    count: u32,
    length: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    stdout: Mark,
    stderr: Mark,
}

/// The open files of one task.
#[derive(Debug)]
pub struct Sandbox {
    directory: OwnedFd,
    limit: u64,
    stdout: Kept,
    stderr: Kept,
    saved_at: Option<std::time::Instant>,
}

#[derive(Debug)]
struct Kept {
    output: Output,
    file: File,
    mark: Mark,
    /// Pieces of the mark's time that come again and are left out.
    skip: u32,
}

impl Sandbox {
    /// Makes the directory and the files, or opens those that are there. Each file grows to `limit` bytes before it is replaced; one old one is kept.
    ///
    /// # Errors
    /// The directory or a file cannot be made.
    pub fn open(work_dir: &Path, task: &TaskId, limit: u64) -> io::Result<Self> {
        let directory = open_directory(&path(work_dir, task))?;
        let position: Position = read_position(&directory).unwrap_or_default();
        let stdout = Kept::open(&directory, Output::Stdout, position.stdout)?;
        let stderr = Kept::open(&directory, Output::Stderr, position.stderr)?;
        Ok(Self { directory, limit, stdout, stderr, saved_at: None })
    }

    /// From when on Docker is to be asked for output, Unix seconds; 0: from the beginning. Both outputs come in one stream, ordered but for moments.
    pub fn since(&self) -> i32 {
        let latest = self.stdout.mark.seconds().max(self.stderr.mark.seconds());
        latest.saturating_sub(DISORDER_SECONDS).max(0)
    }

    /// To be called before the output is asked for again: what is kept already will come again.
    pub fn rewind(&mut self) {
        self.stdout.skip = self.stdout.mark.count;
        self.stderr.skip = self.stderr.mark.count;
    }

    /// Keeps one piece of output, written at `time` (RFC 3339 with nanoseconds, as Docker gives it; empty: unknown), unless it is kept already.
    ///
    /// # Errors
    /// The disk is full, or worse.
    pub fn write(&mut self, output: Output, time: &str, text: &[u8]) -> io::Result<()> {
        let kept = match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        if !kept.is_new(time) {
            return Ok(());
        }
        let full = kept.mark.length > 0 && kept.mark.length + text.len() as u64 > self.limit;
        if full {
            kept.rotate(&self.directory)?;
        }
        kept.file.write_all(text)?;
        kept.mark.length += text.len() as u64;
        if full { self.save() } else { Ok(()) }
    }

    /// Saves the position, if it was not saved a moment ago.
    ///
    /// # Errors
    /// See [`Sandbox::save`].
    pub fn save_sometimes(&mut self) -> io::Result<()> {
        if self.saved_at.is_some_and(|at| at.elapsed() < SAVE_EVERY) {
            return Ok(());
        }
        self.save()
    }

    /// Saves the position.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self) -> io::Result<()> {
        self.saved_at = Some(std::time::Instant::now());
        let position = Position { stdout: self.stdout.mark.clone(), stderr: self.stderr.mark.clone() };
        put(&self.directory, POSITION, &position)
    }
}

impl Kept {
    fn open(directory: &OwnedFd, output: Output, mut mark: Mark) -> io::Result<Self> {
        let file = open_file(directory, output.name(), OFlags::CREATE | OFlags::APPEND)?;
        let length = file.metadata()?.len();
        if mark.length < length {
            file.set_len(mark.length)?;
        }
        mark.length = mark.length.min(length);
        let skip = mark.count;
        Ok(Self { output, file, mark, skip })
    }

    fn is_new(&mut self, time: &str) -> bool {
        match time.cmp(self.mark.time.as_str()) {
            _ if time.is_empty() => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if self.skip > 0 => {
                self.skip -= 1;
                false
            }
            std::cmp::Ordering::Equal => {
                self.mark.count += 1;
                true
            }
            std::cmp::Ordering::Greater => {
                self.mark.time = time.to_owned();
                self.mark.count = 1;
                self.skip = 0;
                true
            }
        }
    }

    fn rotate(&mut self, directory: &OwnedFd) -> io::Result<()> {
        let name = self.output.name();
        rustix::fs::renameat(directory, name, directory, format!("{name}.1"))?;
        self.file = open_file(directory, name, OFlags::CREATE | OFlags::APPEND)?;
        self.mark.length = 0;
        Ok(())
    }
}

impl Mark {
    fn seconds(&self) -> i32 {
        let moment = time::OffsetDateTime::parse(&self.time, &time::format_description::well_known::Rfc3339);
        moment.ok().and_then(|moment| i32::try_from(moment.unix_timestamp()).ok()).unwrap_or(0)
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn open_file(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?))
}

/// Writes a file that is there as a whole or as it was before.
fn put(directory: &OwnedFd, name: &str, value: &impl Serialize) -> io::Result<()> {
    let temporary = format!("{name}.new");
    let mut file = open_file(directory, &temporary, OFlags::CREATE | OFlags::TRUNC)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    rustix::fs::renameat(directory, &temporary, directory, name)?;
    Ok(())
}

fn read_position(directory: &OwnedFd) -> Option<Position> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, POSITION, flags, Mode::empty()).ok()?;
    serde_json::from_reader(File::from(file)).ok()
}

/// Removes sandboxes that nobody uses: those older than `keep_for`, and the oldest beyond `keep_at_most`. Returns how many went.
///
/// # Errors
/// The directory of all sandboxes cannot be read.
pub fn collect(work_dir: &Path, in_use: &HashSet<String>, keep_for: Duration, keep_at_most: usize) -> io::Result<usize> {
    let root = root(work_dir);
    let mut idle: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(&root)?
        .filter_map(Result::ok)
        .filter(|entry| !in_use.contains(&*entry.file_name().to_string_lossy()))
        .filter_map(|entry| Some((changed(&entry.path())?, entry.path())))
        .collect();
    idle.sort();
    let surplus = idle.len().saturating_sub(keep_at_most);
    let now = SystemTime::now();
    let old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > keep_for);
    let mut gone = 0;
    for (at, (changed, path)) in idle.into_iter().enumerate() {
        if at < surplus || old(changed) {
            match std::fs::remove_dir_all(&path) {
                Ok(()) => gone += 1,
                Err(error) => tracing::warn!(path = %path.display(), %error, "An old sandbox could not be removed."),
            }
        }
    }
    Ok(gone)
}

/// When anything in a sandbox last changed; `None` for what is no directory.
fn changed(path: &Path) -> Option<SystemTime> {
    let directory = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
    let files = std::fs::read_dir(path).ok()?.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    files.chain(directory.modified()).max()
}

/// True when there is a sandbox.
pub fn exists(work_dir: &Path, task: &TaskId) -> bool {
    !matches!(rustix::fs::statat(CWD, path(work_dir, task), AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

#[cfg(test)]
mod tests;
