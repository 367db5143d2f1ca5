//! Accounts of the operating system: the name behind a user id. Asked of the system's databases (files, LDAP ...), which may take a while, so the
//! answer is kept for a moment.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use nix::unistd::{Gid, Group, Uid, User};

use crate::model::{id::Owner, user::user_name};

/// How long an answer is good.
const KEPT: Duration = Duration::from_secs(30);

/// Answers that are kept at once.
const MAX_KEPT: usize = 4096;

/// What a user id outside our user namespace looks like from within, unless the kernel was told another number.
const OVERFLOW_UID: u32 = 65_534;

static KNOWN: LazyLock<DashMap<u32, (Instant, Result<Owner, AccountError>)>> = LazyLock::new(DashMap::new);

/// Why a user id is nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such account, or the database cannot be asked.
    #[error("user id {0} has no account on this machine")]
    None(u32),
    /// It may stand for any id of another user namespace.
    #[error("user id {0} is nobody's in particular")]
    Nobody(u32),
    /// The account's name could be mistaken.
    #[error("the account of user id {0} has a name that cannot be a user's here: {1}")]
    Name(u32, String),
}

/// The name of the account `uid`. May block: not for an async thread.
///
/// # Errors
/// See [`AccountError`].
pub fn name_of(uid: u32) -> Result<Owner, AccountError> {
    let now = Instant::now();
    if let Some(known) = KNOWN.get(&uid)
        && now.saturating_duration_since(known.0) < KEPT
    {
        return known.1.clone();
    }
    let found = look_up(uid);
    if KNOWN.len() >= MAX_KEPT {
        KNOWN.clear();
    }
    KNOWN.insert(uid, (now, found.clone()));
    found
}

fn look_up(uid: u32) -> Result<Owner, AccountError> {
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
    if uid == overflow.unwrap_or(OVERFLOW_UID) {
        return Err(AccountError::Nobody(uid));
    }
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user_name(&user.name).map_err(|error| AccountError::Name(uid, error.to_string())),
        Ok(None) | Err(_) => Err(AccountError::None(uid)),
    }
}

/// The id of a group; `None` when there is none of that name.
pub fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| Gid::as_raw(group.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_names_and_nobody_has_none() {
        assert_eq!(name_of(0).unwrap().as_str(), "root");
        assert_eq!(name_of(OVERFLOW_UID), Err(AccountError::Nobody(OVERFLOW_UID)));
        assert_eq!(name_of(3_999_999_999), Err(AccountError::None(3_999_999_999)));
        assert_eq!(name_of(0).unwrap().as_str(), "root", "from memory");
        assert_eq!(group("root"), Some(0));
        assert_eq!(group("no-such-group-here"), None);
    }
}
