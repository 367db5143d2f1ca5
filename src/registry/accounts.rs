//! Accounts of the operating system: whose name is a user's although no record says so.
//!
//! People's accounts count, and root's: number 0, and 1000 and above (`UID_MIN` of Debian's `login.defs`), nobody's excepted. Those of services, such as
//! `postgres` and `mysql`, do not: images of these names in Docker's registry are what people expect.

use std::time::Duration;

use tokio::process::Command;

const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(5);

/// True for the account of a person on this machine, whichever directory service knows it.
///
/// # Errors
/// Nobody could say.
pub async fn is_person(name: &str) -> Result<bool, String> {
    let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(person) = listed(&table, name) {
        return Ok(person);
    }
    // A name that looks like an option or a number would be read as one.
    let plain = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !plain {
        return Ok(false);
    }
    let asked = Command::new("getent").args(["passwd", "--", name]).kill_on_drop(true).output();
    let output = match tokio::time::timeout(LIMIT, asked).await {
        Ok(Ok(output)) => output,
        // Without the program there is no directory service either.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Ok(Err(error)) => return Err(format!("whether '{name}' is an account here cannot be found out: {error}")),
        Err(_) => return Err(format!("whether '{name}' is an account here cannot be found out in time")),
    };
    Ok(listed(&String::from_utf8_lossy(&output.stdout), name).unwrap_or(false))
}

/// What a table in the form of `/etc/passwd` says of `name`; `None`: nothing.
fn listed(table: &str, name: &str) -> Option<bool> {
    let number = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1))?
    })?;
    let number: u32 = number.parse().ok()?;
    Some(number == 0 || number >= FIRST_PERSON && number != NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_from_services() {
        let table = "root:x:0:0:root:/root:/bin/bash\nmysql:x:104:110::/nonexistent:/bin/false\nzmfsea:x:1000:1000::/home/zmfsea:/bin/bash\n\
                     nobody:x:65534:65534::/nonexistent:/bin/false\nodd:x\n";
        for (name, expected) in
            [("root", Some(true)), ("mysql", Some(false)), ("zmfsea", Some(true)), ("nobody", Some(false)), ("zmf", None), ("odd", None), ("", None)]
        {
            assert_eq!(listed(table, name), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn this_machine_is_asked() {
        assert_eq!(is_person("root").await, Ok(true));
        for name in ["no-such-account-here", "-s", "0", ""] {
            assert_eq!(is_person(name).await, Ok(false), "{name}");
        }
    }
}
