//! Looking at the node as one of its accounts. Not computed from modes: a thread takes the account's identity and asks the kernel, so that access lists,
//! network file systems and read-only mounts count as they do for that account.
//!
//! Only the effective ids change, and only of that thread, which ends with the question: the real and saved ids stay the server's, so that the account can
//! send it no signal.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::{User, getgrouplist};
use rustix::{
    fs::{Access, AtFlags, CWD, FileType},
    thread::{Gid, Uid},
};
use serde::{Deserialize, Serialize};

use crate::model::id::Owner;

/// An id that no account has, and that is valid for the kernel: who has no account on this node has what everybody has.
const NO_ACCOUNT: u32 = u32::MAX - 2;

/// As whom something is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// As the server itself.
    Server,
    /// As an account of the node.
    Account(Account),
}

/// An account of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// For messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Every group.
    pub groups: Vec<u32>,
}

impl Account {
    /// See [`NO_ACCOUNT`].
    pub(super) const NONE: u32 = NO_ACCOUNT;

    /// True for whoever has no account on this node.
    pub(super) fn is_nobody(&self) -> bool {
        self.uid == NO_ACCOUNT
    }

    /// The account of this name; `None`: there is none. May block while the system's databases are asked.
    pub fn of(name: &str) -> Option<Self> {
        let found = User::from_name(name).ok().flatten()?;
        let c_name = std::ffi::CString::new(name).unwrap_or_default();
        // Without its list of groups it has the primary one.
        let groups = getgrouplist(&c_name, found.gid).unwrap_or_else(|_| vec![found.gid]);
        let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
        Some(Self { name: name.to_owned(), uid: found.uid.as_raw(), gid: found.gid.as_raw(), groups })
    }
}

impl Whom {
    /// The account of a user. May block while the system's databases are asked.
    pub fn of(user: Option<&Owner>) -> Self {
        let Some(user) = user else { return Self::Server };
        let name = user.to_string();
        let nobody = |name| Account { name, uid: NO_ACCOUNT, gid: NO_ACCOUNT, groups: Vec::new() };
        Self::Account(Account::of(&name).unwrap_or_else(|| nobody(name)))
    }

    /// Does `work` as this one. Blocks.
    ///
    /// # Errors
    /// That of `work`, or that the server cannot take the account's identity (only root can).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        let Self::Account(account) = self else { return work() };
        let as_account = || {
            become_account(account).map_err(|error| format!("cannot be looked at as user '{}': {error}", account.name))?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("account".into()).spawn_scoped(scope, as_account);
            let thread = thread.map_err(|error| format!("cannot be looked at: {error}"))?;
            thread.join().unwrap_or_else(|_| Err("cannot be looked at".to_owned()))
        })
    }

    /// That what is open may be read, and written unless it is wanted `read_only`. Call it within [`Whom::run`].
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self, open: &OwnedFd, read_only: bool) -> Result<(), String> {
        let Self::Account(account) = self else { return Ok(()) };
        let is_directory = rustix::fs::fstat(open).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let read = if is_directory { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
        // A process may follow its own descriptors, whoever the thread is at the moment.
        let path = format!("/proc/self/fd/{}", open.as_raw_fd());
        let may = |access| rustix::fs::accessat(CWD, &path, access, AtFlags::EACCESS).is_ok();
        if !may(read) {
            return Err(format!("user '{}' may not read it", account.name));
        }
        if !read_only && !may(Access::WRITE_OK) {
            return Err(format!("user '{}' may read it but not write it; ask for it read-only (\"mode\": \"RO\")", account.name));
        }
        Ok(())
    }
}

/// Groups first: afterwards the right to change them is gone.
fn become_account(account: &Account) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(None, Gid::from_raw(account.gid), None)?;
    rustix::thread::set_thread_res_uid(None, Uid::from_raw(account.uid), None)
}
