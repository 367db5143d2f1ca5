//! The work directory: made once, held by one server at a time, and faithful to one cluster and one engine.
//!
//! `<work_dir>/lock` is held with `flock` as long as the process lives (the kernel releases it, whatever ends the process) and contains its
//! process id for the next one to name. `<work_dir>/identity.json` is written once.
//!
//! Everybody may pass through the directory, to the sockets in it; nobody may list it, and everything else in it is its owner's alone.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{StoreError, files};
use crate::model::id::{AgentId, ClusterId};

/// The latest format of a work directory.
pub const FORMAT: u32 = 1;

const IDENTITY_FILE: &str = "identity.json";
const LOCK_FILE: &str = "lock";

/// Which installation a work directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Labels everything that we create in the engine.
    pub cluster_id: ClusterId,
    /// This machine, when the embedded engine makes it the one agent.
    pub agent_id: AgentId,
    /// Who runs the tasks: `docker`.
    pub engine: String,
}

/// A work directory that this process, and no other, may use. Dropping it lets another one in.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster_id: ClusterId,
    agent_id: AgentId,
    engine: String,
}

/// What every format has.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl WorkDir {
    /// Makes `path` if it is missing, takes its lock, and reads its identity; a new directory gets a new one.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when another server holds it, or it belongs to another engine, or its identity is missing beside a store;
    /// [`StoreError::TooNew`] for a format from the future; [`StoreError::Damaged`] for an identity that cannot be read.
    pub fn open(path: &Path, engine: &str) -> Result<Self, StoreError> {
        files::create_passage(path)?;
        let lock = take_lock(path)?;
        files::make_private(path)?;
        let identity = match files::read(&path.join(IDENTITY_FILE))? {
            Some(content) => read_identity(path, &content, engine)?,
            None => write_identity(path, engine)?,
        };
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// As [`WorkDir::open`], but only a directory that a server has used, whatever its engine; nothing is made.
    ///
    /// # Errors
    /// As [`WorkDir::open`], and [`StoreError::Refused`] where no server has been.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let identity = path.join(IDENTITY_FILE);
        let Some(content) = files::read(&identity)? else {
            let text = format!(
                "no server has used {} yet; name the server's directory with --work_dir, or start 'xtao serve' first",
                path.display()
            );
            return Err(StoreError::Refused(text));
        };
        let engine = serde_json::from_slice::<IdentityFile>(&content).map_or_else(|_| String::new(), |file| file.engine);
        let lock = take_lock(path)?;
        let identity = read_identity(path, &content, &engine)?;
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

fn take_lock(work_dir: &Path) -> Result<File, StoreError> {
    let path = work_dir.join(LOCK_FILE);
    let failed = |error: &std::io::Error| files::failed(&format!("cannot lock {}", path.display()), error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(|error| failed(&error))?;
    if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(&errno.into()));
        }
        let mut pid = String::new();
        // The holder may be about to write it.
        _ = file.read_to_string(&mut pid);
        let holder = if pid.trim().is_empty() { String::new() } else { format!(" (process {})", pid.trim()) };
        return Err(StoreError::Refused(format!(
            "another server{holder} is using {}; stop it first, or choose another --work_dir",
            work_dir.display()
        )));
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(|error| failed(&error))?;
    Ok(file)
}

fn read_identity(work_dir: &Path, content: &[u8], engine: &str) -> Result<Identity, StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged {
        what: format!("the file {}", work_dir.join(IDENTITY_FILE).display()),
        reason: format!("{error}; restore it from a backup: it says which containers are ours"),
    };
    let FormatOnly { format } = serde_json::from_slice(content).map_err(damaged)?;
    if format > FORMAT {
        return Err(StoreError::TooNew { found: format, known: FORMAT });
    }
    let file: IdentityFile = serde_json::from_slice(content).map_err(damaged)?;
    if file.engine != engine {
        return Err(StoreError::Refused(format!(
            "{} belongs to the engine '{}' and cannot be used with '{engine}'; choose another --work_dir",
            work_dir.display(),
            file.engine
        )));
    }
    Ok(Identity { cluster_id: file.cluster_id, agent_id: file.agent_id, engine: file.engine })
}

fn write_identity(work_dir: &Path, engine: &str) -> Result<Identity, StoreError> {
    let path = work_dir.join(IDENTITY_FILE);
    if work_dir.join(super::embedded::STORE_DIRECTORY).exists() {
        return Err(StoreError::Refused(format!(
            "{} is missing beside an existing store; restore it from a backup: it says which containers are ours",
            path.display()
        )));
    }
    let cluster = Uuid::new_v4();
    let file = IdentityFile {
        format: FORMAT,
        cluster_id: ClusterId::new(cluster.to_string()),
        agent_id: AgentId::new(format!("{cluster}-S0")),
        engine: engine.to_owned(),
    };
    let mut content =
        serde_json::to_vec_pretty(&file).map_err(|error| StoreError::Failed { what: "identity".into(), reason: error.to_string() })?;
    content.push(b'\n');
    files::replace(&path, &content)?;
    Ok(Identity { cluster_id: file.cluster_id, agent_id: file.agent_id, engine: file.engine })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn error(path: &Path, engine: &str) -> String {
        WorkDir::open(path, engine).unwrap_err().to_string().replace(path.to_str().unwrap(), "WORK_DIR")
    }

    #[test]
    fn a_directory_keeps_its_identity_and_is_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = WorkDir::open(&path, "docker").unwrap().identity().clone();
        assert_eq!(WorkDir::open(&path, "docker").unwrap().identity(), &first);
        assert_ne!(WorkDir::open(&parent.path().join("c"), "docker").unwrap().identity(), &first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);
        assert!(error(&path, "mesos").contains("belongs to the engine 'docker' and cannot be used with 'mesos'"));
    }

    #[test]
    fn what_an_older_server_left_open_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let (directory, file, link) = (parent.path().join("sandboxes"), parent.path().join("old"), parent.path().join("link"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(&directory, 0o755);
        set(&file, 0o644);
        set(parent.path(), 0o755);
        let elsewhere = mode(&link);
        WorkDir::open(parent.path(), "docker").unwrap();
        assert_eq!((mode(&directory), mode(&file), mode(&link), mode(parent.path())), (0o700, 0o600, elsewhere, 0o711));
    }

    #[test]
    fn a_second_server_is_refused_and_the_first_one_named() {
        let parent = tempfile::tempdir().unwrap();
        let held = WorkDir::open(parent.path(), "docker").unwrap();
        let pid = std::process::id();
        assert_eq!(
            error(parent.path(), "docker"),
            format!("another server (process {pid}) is using WORK_DIR; stop it first, or choose another --work_dir")
        );
        drop(held);
        WorkDir::open(parent.path(), "docker").unwrap();
    }

    #[test]
    fn strange_identities_are_refused_in_words() {
        let check = |content: &str, expected: &str| {
            let parent = tempfile::tempdir().unwrap();
            std::fs::write(parent.path().join(IDENTITY_FILE), content).unwrap();
            let found = error(parent.path(), "docker");
            assert!(found.contains(expected), "{found}");
        };
        check("", "the file WORK_DIR/identity.json is damaged");
        check("{\"format\":1}", "the file WORK_DIR/identity.json is damaged");
        check("{\"format\":2,\"later\":true}", "written by a newer version (format 2, this program reads up to 1)");
        check(
            "{\"format\":1,\"cluster_id\":\"a\",\"agent_id\":\"b\",\"engine\":\"docker\",\"x\":1}",
            "the file WORK_DIR/identity.json is damaged: unknown field `x`",
        );
    }

    #[test]
    fn an_identity_that_vanished_is_not_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::create_dir(parent.path().join(super::super::embedded::STORE_DIRECTORY)).unwrap();
        assert!(error(parent.path(), "docker").starts_with("WORK_DIR/identity.json is missing beside an existing store"));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(error(&file, "docker").starts_with("cannot create the directory WORK_DIR: "));
        assert!(error(&file.join("below"), "docker").contains("move it, or choose another --work_dir"));
    }
}
