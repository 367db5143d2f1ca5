//! Accounts of the operating system: whose name is a user's although no record says so.
//!
//! People's accounts count, and root's: number 0, and 1000 and above (`UID_MIN` of Debian's `login.defs`), nobody's excepted. Those of services, such as
//! `postgres` and `mysql`, do not: images of these names in Docker's registry are what people expect.

use nix::unistd::User;

const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65_534;

/// True for the account of a person on this machine, whichever directory service knows it.
///
/// # Errors
/// Nobody could say.
pub async fn is_person(name: &str) -> Result<bool, String> {
    let failed = |error: String| format!("whether '{name}' is an account here cannot be found out: {error}");
    let asked = name.to_owned();
    // A directory service may be far away.
    let found = tokio::task::spawn_blocking(move || User::from_name(&asked)).await.map_err(|error| failed(error.to_string()))?;
    let found = found.map_err(|error| failed(error.desc().to_owned()))?;
    Ok(found.is_some_and(|account| is_persons(account.uid.as_raw())))
}

fn is_persons(number: u32) -> bool {
    number == 0 || number >= FIRST_PERSON && number != NOBODY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_from_services() {
        for (number, expected) in [(0, true), (1, false), (104, false), (999, false), (1000, true), (65_534, false), (100_000, true)] {
            assert_eq!(is_persons(number), expected, "{number}");
        }
    }

    #[tokio::test]
    async fn this_machine_is_asked() {
        assert_eq!(is_person("root").await, Ok(true));
        for name in ["no-such-account-here", "daemon", "nobody", ""] {
            assert_eq!(is_person(name).await, Ok(false), "{name}");
        }
    }
}
