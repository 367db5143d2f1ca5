//! Users: who may log in, who is an administrator, and how much each may have. A person without a record may still come through the users' socket
//! with an account of the operating system; a record is needed for a password, a limit, a grant or a lock.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    id::{IdError, Owner},
    image::LIBRARY,
    resources::Scalar,
    time::Timestamp,
};

/// Longest name of a user, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Nobody's names. As the first word of an image's name, `library` is the platform's, and `localhost` a registry.
pub const RESERVED_NAMES: [&str; 2] = [LIBRARY, "localhost"];

/// The durable record of a user. It carries a secret: it is never serialised for the API, which has a view of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name to log in with: the account's name on the machines.
    pub name: Owner,
    /// What the password is compared with; `None`: only the users' socket lets this user in.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "stored_hash")]
    pub password: Option<PasswordHash>,
    /// May do everything.
    pub admin: bool,
    /// Refused everywhere, whatever is presented.
    pub locked: bool,
    /// Reads the metrics, and may do nothing else. Never an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub monitor: bool,
    /// Changes at random with every password, lock and unlock: a token that was given out under another one is void.
    pub generation: u64,
    /// How much all apps of this user may take.
    pub quota: Quota,
    /// What this user may do beyond the usual.
    pub grants: Grants,
    /// When the record was made.
    pub created_at: Timestamp,
}

/// Limits on the sum of what a user owns; `None`: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Scalar>,
    /// Memory, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<Scalar>,
    /// Bricks, MiB, the kept ones too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brick: Option<u64>,
    /// Claimed ports, the kept ones too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<u32>,
    /// Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
}

/// What is otherwise an administrator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// `container.docker.privileged`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// `container.docker.parameters`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub docker_parameters: bool,
    /// Host volumes outside the rule for everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_volumes: bool,
}

/// A password as it is kept: a hash in PHC form (`$argon2id$...`). It is never shown; only the record's own codec writes it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes a hash in PHC form.
    pub fn new(phc: impl Into<String>) -> Self {
        Self(phc.into())
    }

    /// The hash itself, for comparing with it. Not to be shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

/// `PasswordHash` itself cannot be serialised, so that no view can show one by accident.
fn stored_hash<S: serde::Serializer>(hash: &Option<PasswordHash>, serializer: S) -> Result<S::Ok, S::Error> {
    hash.as_ref().map(PasswordHash::reveal).serialize(serializer)
}

/// What is to change about a user; `None` leaves it as it is. A user who is not there yet is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserChange {
    /// A new password.
    pub password: Option<PasswordHash>,
    /// Makes an administrator, or an ordinary user.
    pub admin: Option<bool>,
    /// Locks or unlocks.
    pub locked: Option<bool>,
    /// Leaves the metrics alone, or gives back the rest.
    pub monitor: Option<bool>,
    /// New limits, in place of all the old ones.
    pub quota: Option<Quota>,
    /// New grants, in place of all the old ones.
    pub grants: Option<Grants>,
}

impl UserChange {
    /// True when it changes nothing but the password: what users may do for themselves.
    pub fn is_password_only(&self) -> bool {
        let Self { password, admin, locked, monitor, quota, grants } = self;
        password.is_some() && admin.is_none() && locked.is_none() && monitor.is_none() && quota.is_none() && grants.is_none()
    }
}

/// The name of a user as it may be: what accounts on Linux look like, and what neither Basic authentication (`:`) nor paths (`/`) can mistake.
///
/// # Errors
/// An empty or too long name, or one with other characters than letters, digits, `_`, `.` and `-`, or one that begins with `.` or `-`, or one of
/// [`RESERVED_NAMES`].
pub fn user_name(text: &str) -> Result<Owner, IdError> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES {
        return Err(IdError::new(format!("a user's name has 1 to {MAX_NAME_BYTES} characters")));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !text.bytes().all(fits) || text.starts_with(['.', '-']) {
        return Err(IdError::new(format!(
            "'{}' is no name of a user: it is made of a-z A-Z 0-9 _ . - and begins with none of . -",
            text.escape_debug()
        )));
    }
    if RESERVED_NAMES.contains(&text) {
        return Err(IdError::new(format!("'{text}' cannot be a user: images named {text}/... are not a user's")));
    }
    Ok(Owner::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_never_shown() {
        let hash = PasswordHash::new("$argon2id$v=19$secret");
        assert_eq!((format!("{hash}"), format!("{hash:?}")), ("(hidden)".into(), "(hidden)".into()));
        let change = UserChange { password: Some(hash), ..UserChange::default() };
        assert!(!format!("{change:?}").contains("argon2"));
        assert!(change.is_password_only());
        assert!(!UserChange { admin: Some(true), ..change }.is_password_only());
    }

    #[test]
    fn names_are_those_of_accounts() {
        for good in ["zmfsea", "a.b-c_d", "_apt", "X", "007"] {
            assert_eq!(user_name(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", ".", "..", "-a", "a/b", "a:b", "a b", "ä", "a\n", "a@b", long.as_str(), "library", "localhost"] {
            assert!(user_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            user_name("a\u{1b}b").unwrap_err().to_string(),
            "'a\\u{1b}b' is no name of a user: it is made of a-z A-Z 0-9 _ . - and begins with none of . -"
        );
    }
}
