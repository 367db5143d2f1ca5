//! Users: made, changed and removed by administrators; everyone may change the own password. Pure functions of the tables, used by a step and by the
//! command that works on the directory of a stopped server.

use std::sync::Arc;

use super::{state::Tables, turn::Turn};
use crate::model::{
    id::Owner,
    record::{Change, Record, RecordKey},
    request::{Origin, Reply, RequestError, Violation},
    time::Timestamp,
    user::{Grants, Quota, User, UserChange, user_name},
};

/// Users that have a record, at most. Far above what one installation has, and far below what would hurt.
pub const MAX_USERS: usize = 100_000;

pub(super) fn put_user(turn: &mut Turn<'_, '_>, origin: &Origin, name: &Owner, change: UserChange) -> Result<Reply, RequestError> {
    let generation = (turn.ctx.random)();
    let change = put(&turn.state.tables, origin, name, change, generation, turn.ctx.wall)?;
    turn.apply(change);
    Ok(Reply::Done)
}

pub(super) fn remove_user(turn: &mut Turn<'_, '_>, origin: &Origin, name: &Owner) -> Result<Reply, RequestError> {
    let change = remove(&turn.state.tables, origin, name)?;
    turn.apply(change);
    Ok(Reply::Done)
}

/// What putting a user comes to. `generation` is a random number: it becomes the user's when credentials or the lock change.
///
/// # Errors
/// [`RequestError::Forbidden`] unless an administrator asks, or a user who has a password changes it and nothing else; a name that cannot be one;
/// a conflict when the last administrator with a password would lock or demote itself.
pub fn put(
    tables: &Tables,
    origin: &Origin,
    name: &Owner,
    change: UserChange,
    generation: u64,
    wall: Timestamp,
) -> Result<Change, RequestError> {
    let present = tables.users.get(name);
    if !origin.admin {
        let own = present.filter(|user| user.name == origin.user && user.password.is_some() && !user.locked);
        if own.is_none() || !change.is_password_only() {
            return Err(RequestError::Forbidden);
        }
    }
    if present.is_none() {
        user_name(name.as_str()).map_err(|error| RequestError::Invalid(vec![Violation::new("/name", error.to_string())]))?;
        if tables.users.len() >= MAX_USERS {
            return Err(RequestError::Unprocessable(format!("there are {MAX_USERS} users already; remove some first")));
        }
    }
    if change.locked == Some(true) || change.admin == Some(false) {
        keep_an_administrator(tables, origin, name)?;
    }
    let mut user = present.map_or_else(|| new_user(name, generation, wall), |user| (**user).clone());
    let relocked = change.locked.is_some_and(|locked| locked != user.locked);
    if change.password.is_some() || relocked {
        user.generation = generation;
    }
    user.password = change.password.or(user.password);
    user.admin = change.admin.unwrap_or(user.admin);
    user.locked = change.locked.unwrap_or(user.locked);
    user.monitor = change.monitor.unwrap_or(user.monitor);
    if user.admin && user.monitor {
        return Err(RequestError::Unprocessable(format!("'{name}' cannot be an administrator and read the metrics alone")));
    }
    user.quota = change.quota.unwrap_or(user.quota);
    user.grants = change.grants.unwrap_or(user.grants);
    Ok(Change::Put(Record::User(user.into())))
}

/// What removing a user comes to. What the user owns stays, under the same name.
///
/// # Errors
/// [`RequestError::Forbidden`] unless an administrator asks; an unknown user; the last administrator with a password removing itself.
pub fn remove(tables: &Tables, origin: &Origin, name: &Owner) -> Result<Change, RequestError> {
    if !origin.admin {
        return Err(RequestError::Forbidden);
    }
    if !tables.users.contains_key(name) {
        return Err(RequestError::NoUser(name.clone()));
    }
    keep_an_administrator(tables, origin, name)?;
    Ok(Change::Delete(RecordKey::User(name.clone())))
}

fn new_user(name: &Owner, generation: u64, wall: Timestamp) -> User {
    User {
        name: name.clone(),
        password: None,
        admin: false,
        locked: false,
        monitor: false,
        generation,
        quota: Quota::default(),
        grants: Grants::default(),
        created_at: wall,
    }
}

/// Nobody saws off the branch that everybody sits on: the last administrator with a password cannot lock, demote or remove itself. Another one may
/// do it, because that one remains, and so may root through its socket, which needs no password: a stolen account must be lockable at once.
fn keep_an_administrator(tables: &Tables, origin: &Origin, name: &Owner) -> Result<(), RequestError> {
    let counts = |user: &Arc<User>| user.admin && !user.locked && user.password.is_some();
    let is_self = origin.user == *name && tables.users.get(name).is_some_and(counts);
    if is_self && !tables.users.values().any(|user| user.name != *name && counts(user)) {
        let text = format!("'{name}' is the last administrator with a password; give another administrator one first");
        return Err(RequestError::Conflict(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{resources::Scalar, user::PasswordHash};

    fn tables(users: &[&str]) -> Tables {
        let mut tables = Tables::default();
        for line in users {
            let mut words = line.split(' ');
            let mut user = new_user(&Owner::new(words.next().unwrap()), 1, Timestamp(0));
            for word in words {
                match word {
                    "admin" => user.admin = true,
                    "locked" => user.locked = true,
                    "password" => user.password = Some(PasswordHash::new("$old")),
                    other => panic!("{other}"),
                }
            }
            tables.apply(&Change::Put(Record::User(user.into())));
        }
        tables
    }

    fn origin(text: &str) -> Origin {
        let (user, admin) = text.strip_prefix('#').map_or((text, false), |user| (user, true));
        Origin { user: Owner::new(user), admin, client_ip: "".into(), uri: "".into() }
    }

    fn password() -> UserChange {
        UserChange { password: Some(PasswordHash::new("$new")), ..UserChange::default() }
    }

    fn shown(outcome: Result<Change, RequestError>) -> String {
        match outcome {
            Ok(Change::Put(Record::User(user))) => {
                let flag = |set: bool, name: &str| if set { format!(" {name}") } else { String::new() };
                let hash = user.password.as_ref().map_or(String::new(), |hash| format!(" {}", hash.reveal()));
                format!(
                    "{}{}{}{}{hash} {}",
                    user.name,
                    flag(user.admin, "admin"),
                    flag(user.locked, "locked"),
                    flag(user.monitor, "monitor"),
                    user.generation
                )
            }
            Ok(Change::Delete(RecordKey::User(name))) => format!("{name} removed"),
            Ok(other) => panic!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// An administrator is written with a `#` in front.
    fn check_put(users: &[&str], who: &str, name: &str, change: UserChange, expected: &str) {
        let outcome = put(&tables(users), &origin(who), &Owner::new(name), change, 7, Timestamp(5));
        assert_eq!(shown(outcome), expected, "{who} puts {name} into {users:?}");
    }

    fn check_remove(users: &[&str], who: &str, name: &str, expected: &str) {
        assert_eq!(shown(remove(&tables(users), &origin(who), &Owner::new(name))), expected, "{who} removes {name} from {users:?}");
    }

    const FORBIDDEN: &str = "Not Authorized to perform this action!";
    const LAST: &str = "'zm' is the last administrator with a password; give another administrator one first";

    #[test]
    fn administrators_make_and_change_users() {
        let admin = |admin| UserChange { admin: Some(admin), ..UserChange::default() };
        check_put(&[], "#root", "zm", password(), "zm $new 7");
        check_put(&[], "#root", "zm", UserChange { admin: Some(true), ..password() }, "zm admin $new 7");
        check_put(&["zm password"], "#root", "zm", admin(true), "zm admin $old 1");
        check_put(&["zm admin"], "#root", "zm", password(), "zm admin $new 7");
        check_put(&[], "#root", "z:m", password(), "Object is not valid");
        let monitor = |monitor| UserChange { monitor: Some(monitor), ..UserChange::default() };
        check_put(&["zm password"], "#root", "zm", monitor(true), "zm monitor $old 1");
        check_put(&["zm password"], "#root", "zm", monitor(false), "zm $old 1");
        let both = "'zm' cannot be an administrator and read the metrics alone";
        check_put(&["zm admin password"], "#root", "zm", monitor(true), both);
        check_put(&[], "#root", "zm", UserChange { admin: Some(true), ..monitor(true) }, both);
    }

    #[test]
    fn users_change_their_own_password_and_nothing_else() {
        let with = |change: fn(&mut UserChange)| {
            let mut all = password();
            change(&mut all);
            all
        };
        check_put(&["zm password"], "zm", "zm", password(), "zm $new 7");
        check_put(&["zm password", "bo password"], "bo", "zm", password(), FORBIDDEN);
        check_put(&["zm"], "zm", "zm", password(), FORBIDDEN);
        check_put(&[], "zm", "zm", password(), FORBIDDEN);
        check_put(&["zm password locked"], "zm", "zm", password(), FORBIDDEN);
        check_put(&["zm password"], "zm", "zm", UserChange::default(), FORBIDDEN);
        check_put(&["zm password"], "zm", "zm", with(|change| change.admin = Some(true)), FORBIDDEN);
        check_put(&["zm password"], "zm", "zm", with(|change| change.locked = Some(false)), FORBIDDEN);
        check_put(&["zm password"], "zm", "zm", with(|change| change.monitor = Some(false)), FORBIDDEN);
        check_put(&["zm password"], "zm", "zm", with(|change| change.quota = Some(Quota::default())), FORBIDDEN);
        check_put(&["zm password"], "zm", "zm", with(|change| change.grants = Some(Grants::default())), FORBIDDEN);
        check_remove(&["zm password"], "zm", "zm", FORBIDDEN);
    }

    #[test]
    fn the_last_administrator_stays() {
        let lock = || UserChange { locked: Some(true), ..UserChange::default() };
        let demote = || UserChange { admin: Some(false), ..UserChange::default() };
        let both = ["zm admin password", "bo admin password"];
        check_put(&["zm admin password"], "#zm", "zm", lock(), LAST);
        check_put(&["zm admin password"], "#zm", "zm", demote(), LAST);
        check_remove(&["zm admin password"], "#zm", "zm", LAST);
        check_remove(&["zm admin password", "bo password", "al admin", "li admin password locked"], "#zm", "zm", LAST);
        check_put(&both, "#zm", "zm", lock(), "zm admin locked $old 7");
        check_remove(&both, "#zm", "zm", "zm removed");
        check_put(&["zm admin password"], "#root", "zm", lock(), "zm admin locked $old 7");
        check_remove(&["zm admin password"], "#root", "zm", "zm removed");
        check_remove(&[], "#root", "zm", "User 'zm' does not exist");
    }

    #[test]
    fn tokens_are_voided_by_a_lock_but_not_by_a_limit() {
        let quota = Quota { cpus: Some(Scalar::whole(2)), ..Quota::default() };
        check_put(&["zm password"], "#root", "zm", UserChange { quota: Some(quota), ..UserChange::default() }, "zm $old 1");
        check_put(&["zm password"], "#root", "zm", UserChange { locked: Some(false), ..UserChange::default() }, "zm $old 1");
        check_put(&["zm password"], "#root", "zm", UserChange { locked: Some(true), ..UserChange::default() }, "zm locked $old 7");
        check_put(&["zm password locked"], "#root", "zm", UserChange { locked: Some(false), ..UserChange::default() }, "zm $old 7");
    }

    #[test]
    fn passwords_are_counted() {
        let mut tables = tables(&["a password", "b password locked", "c admin"]);
        assert_eq!(tables.passwords, 2);
        tables.apply(&put(&tables, &origin("#root"), &Owner::new("c"), password(), 1, Timestamp(0)).unwrap());
        tables.apply(&put(&tables, &origin("#root"), &Owner::new("a"), password(), 1, Timestamp(0)).unwrap());
        assert_eq!(tables.passwords, 3);
        for name in ["a", "b", "c", "d"] {
            tables.apply(&Change::Delete(RecordKey::User(Owner::new(name))));
        }
        assert_eq!(tables.passwords, 0);
    }
}
