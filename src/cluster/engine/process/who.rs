//! As whom a command without an image runs on this node.
//!
//! | the definition | the server is root | the server is somebody else |
//! | --- | --- | --- |
//! | written by administrators, with `user` | that account | that account, if it is the server's own |
//! | written by administrators, without | the server's own account | the same |
//! | anybody else's, without `user` | the account that is called as the owner, or `nobody` | refused, unless that is the server's own |
//! | anybody else's, with `user` | refused, unless it is one of these two | the same |
//!
//! What is not written by administrators alone never runs as root, and gets no new rights from programs like `sudo`.

use crate::{
    cluster::engine::account::Account,
    model::{app::App, id::Owner},
};

/// The account that has nothing.
const NOBODY: &str = "nobody";

/// As whom, and whether more rights can be had from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// `None`: as the server.
    pub account: Option<Account>,
    /// See [`super::record::Order::no_new_privileges`].
    pub no_new_privileges: bool,
}

impl Rights {
    /// True when strangers have the same ones: what runs as the same account may look at environment, files and memory of the others.
    pub fn are_shared(&self) -> bool {
        self.no_new_privileges && self.account.as_ref().is_some_and(|account| account.name == NOBODY)
    }
}

/// The rights of `app`, which belongs to `owner`, under a server that runs as `server` (user id). May block while accounts are looked up.
///
/// # Errors
/// A sentence for the user.
pub fn rights(app: &App, owner: &Owner, server: u32) -> Result<Rights, String> {
    decide(app.user.as_deref(), app.administered, owner.as_str(), server, Account::of)
}

fn decide(
    user: Option<&str>,
    administered: bool,
    owner: &str,
    server: u32,
    find: impl Fn(&str) -> Option<Account>,
) -> Result<Rights, String> {
    let known =
        |name: &str| find(name).ok_or_else(|| format!("there is no account '{name}' on this node: choose another user, or create it"));
    let account = match (user, administered) {
        (None, true) => return Ok(Rights { account: None, no_new_privileges: false }),
        (Some(user), true) => known(user)?,
        (None, false) => own(owner, &find).map_or_else(|| known(NOBODY), Ok)?,
        (Some(user), false) if user == owner => own(owner, &find)
            .ok_or_else(|| format!("there is no account '{owner}' on this node that commands may run as: leave out user"))?,
        (Some(NOBODY), false) => known(NOBODY)?,
        (Some(user), false) => {
            return Err(format!("user '{user}': only what administrators wrote runs as another account; leave it out, or say '{owner}'"));
        }
    };
    if server != 0 && account.uid != server {
        return Err(format!("this server is not root, so it cannot run a command as user '{}'", account.name));
    }
    Ok(Rights { account: Some(account), no_new_privileges: !administered })
}

/// The owner's own account. Root's is nobody's own.
fn own(owner: &str, find: &impl Fn(&str) -> Option<Account>) -> Option<Account> {
    find(owner).filter(|account| account.uid != 0 && account.gid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<Account> {
        let uid = match name {
            "root" | "toor" => 0,
            "ann" => 1000,
            "postgres" => 100,
            NOBODY => 65_534,
            _ => return None,
        };
        Some(Account { name: name.to_owned(), uid, gid: uid, groups: vec![uid] })
    }

    #[test]
    fn only_administrators_choose_and_nobody_else_is_root() {
        let check = |user: Option<&str>, administered: bool, owner: &str, server: u32, expected: &str| {
            let found = match decide(user, administered, owner, server, find) {
                Ok(Rights { account, no_new_privileges }) => {
                    let shared = Rights { account: account.clone(), no_new_privileges }.are_shared();
                    let name = account.map_or("the server".to_owned(), |account| account.name);
                    format!("{name}{}{}", if no_new_privileges { ", for good" } else { "" }, if shared { ", with others" } else { "" })
                }
                Err(error) => error,
            };
            assert_eq!(found, expected, "{user:?} {administered} {owner} {server}");
        };
        check(None, true, "admin", 0, "the server");
        check(None, true, "admin", 1000, "the server");
        check(Some("postgres"), true, "admin", 0, "postgres");
        check(Some("root"), true, "admin", 0, "root");
        check(Some("root"), true, "admin", 1000, "this server is not root, so it cannot run a command as user 'root'");
        check(Some("none"), true, "admin", 0, "there is no account 'none' on this node: choose another user, or create it");
        check(None, false, "ann", 0, "ann, for good");
        check(Some("ann"), false, "ann", 0, "ann, for good");
        check(None, false, "bob", 0, "nobody, for good, with others");
        check(Some("bob"), false, "bob", 0, "there is no account 'bob' on this node that commands may run as: leave out user");
        check(Some("nobody"), false, "ann", 0, "nobody, for good, with others");
        const OTHERS: &str = "only what administrators wrote runs as another account; leave it out, or say";
        check(Some("postgres"), false, "ann", 0, &format!("user 'postgres': {OTHERS} 'ann'"));
        check(Some("root"), false, "ann", 0, &format!("user 'root': {OTHERS} 'ann'"));
        // A user who is called like root.
        check(None, false, "root", 0, "nobody, for good, with others");
        check(None, false, "toor", 0, "nobody, for good, with others");
        check(Some("root"), false, "root", 0, "there is no account 'root' on this node that commands may run as: leave out user");
        check(None, false, "ann", 1000, "ann, for good");
        check(None, false, "ann", 1001, "this server is not root, so it cannot run a command as user 'ann'");
    }
}
