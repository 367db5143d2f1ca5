//! How to log in to the registries of others: Docker's own configuration (`.docker/config.json`, or the older `.dockercfg`), fetched into the task's
//! sandbox, as with Mesos' Docker containerizer.
//!
//! Programs that a configuration names (`credsStore`, `credHelpers`) would run with the server's rights; they are not run.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde_json::Value;

use super::fetch::Tree;
use crate::model::image::is_hub;

/// Where Docker looks, in this order.
const FILES: [&str; 2] = [".docker/config.json", ".dockercfg"];
/// Bytes of a configuration.
const MAX_BYTES: u64 = 256 << 10;

/// Credentials by registry. Never shown.
#[derive(Clone, Default)]
pub struct Logins(Vec<(String, DockerCredentials)>);

impl fmt::Debug for Logins {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Logins of {} registries", self.0.len())
    }
}

impl Logins {
    /// What is in the sandbox `files`; nothing, where there is no configuration. Links are not followed.
    ///
    /// # Errors
    /// A configuration is there and cannot be used: a sentence for the user, without anything secret.
    pub fn read(files: &Path) -> Result<Self, String> {
        let tree = Tree::open(files).map_err(|error| format!("the sandbox cannot be opened: {error}"))?;
        for name in FILES {
            let text = match tree.read(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.and_then(|file| {
                    let mut text = Vec::new();
                    // A directory in its place is an error by itself.
                    file.take(MAX_BYTES + 1).read_to_end(&mut text).map(|_| text)
                }),
            };
            let text = text.map_err(|error| format!("{name} cannot be read: {error}"))?;
            return Self::parse(&text, name == FILES[1]).map_err(|why| format!("{name} {why}"));
        }
        Ok(Self::default())
    }

    /// The older form (`bare`) is what the newer one has below `auths`.
    fn parse(text: &[u8], bare: bool) -> Result<Self, String> {
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("has more than {MAX_BYTES} bytes"));
        }
        let all: Value =
            serde_json::from_slice(text).map_err(|error| format!("is no JSON: line {}, column {}", error.line(), error.column()))?;
        let entries = match all.get("auths") {
            Some(entries) => entries,
            None if bare => &all,
            None => return Ok(Self::default()),
        };
        let entries = entries.as_object().ok_or("has no credentials by registry")?;
        let logins = entries.iter().map(|(server, entry)| Ok(credentials(server, entry)?.map(|found| (server.clone(), found))));
        Ok(Self(logins.filter_map(Result::transpose).collect::<Result<_, String>>()?))
    }

    /// What a secret says that is named as a `pullConfig`.
    ///
    /// # Errors
    /// It has no credentials: a sentence for the user, without anything secret.
    pub fn of_pull_config(text: &str) -> Result<Self, String> {
        let logins = Self::parse(text.as_bytes(), false).map_err(|why| format!("its pullConfig {why}"))?;
        if logins.0.is_empty() { Err("its pullConfig is no config.json of Docker's with credentials".to_owned()) } else { Ok(logins) }
    }

    /// The credentials for the registry `host[:port]`.
    pub fn of(&self, host: &str) -> Option<DockerCredentials> {
        let is_meant = |server: &str| server == host || host_of(server) == host || is_hub(host) && is_hub(host_of(server));
        self.0.iter().find(|(server, _)| is_meant(server)).map(|(_, found)| found.clone())
    }
}

/// `https://index.docker.io/v1/` and the like name a host.
fn host_of(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or_default()
}

/// `None`: they are kept elsewhere.
fn credentials(server: &str, entry: &Value) -> Result<Option<DockerCredentials>, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let (mut username, mut password) = (text("username"), text("password"));
    if let Some(auth) = text("auth") {
        let wrong = || format!("has no base64 of USER:PASSWORD as auth of '{}'", crate::registry::tar::shown(server));
        let (user, secret) = user_and_password(&auth).ok_or_else(wrong)?;
        (username, password) = (Some(user), Some(secret));
    }
    let (identitytoken, registrytoken) = (text("identitytoken"), text("registrytoken"));
    if username.is_none() && identitytoken.is_none() && registrytoken.is_none() {
        return Ok(None);
    }
    let serveraddress = Some(server.to_owned());
    Ok(Some(DockerCredentials { username, password, serveraddress, identitytoken, registrytoken, ..DockerCredentials::default() }))
}

fn user_and_password(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // Docker's own rule: some old versions wrote zero bytes after it.
    (!user.is_empty()).then(|| (user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_credentials_are_found_under_any_of_its_names() {
        let auth = STANDARD.encode("ann:a:b?~");
        let text = format!(
            r#"{{"auths": {{
                "registry.example:5000": {{"auth": "{auth}", "email": "ann@example"}},
                "https://named.example/v2/": {{"username": "bob", "password": "secret"}},
                "https://index.docker.io/v1/": {{"auth": "{auth}", "identitytoken": "token"}},
                "elsewhere.example": {{}}
            }}, "credsStore": "desktop"}}"#
        );
        let logins = Logins::parse(text.as_bytes(), false).unwrap();
        let check = |host: &str, expected: Option<(&str, &str, &str, Option<&str>)>| {
            let found = logins.of(host);
            let found = found.as_ref().map(|found| {
                let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
                (text(&found.username), text(&found.password), text(&found.serveraddress), found.identitytoken.clone())
            });
            let expected =
                expected.map(|(user, password, server, token)| (user.into(), password.into(), server.into(), token.map(str::to_owned)));
            assert_eq!(found, expected, "{host}");
        };
        check("registry.example:5000", Some(("ann", "a:b?~", "registry.example:5000", None)));
        check("registry.example", None);
        check("named.example", Some(("bob", "secret", "https://named.example/v2/", None)));
        check("docker.io", Some(("ann", "a:b?~", "https://index.docker.io/v1/", Some("token"))));
        check("elsewhere.example", None);
        check("other.example", None);
        assert_eq!(format!("{logins:?}"), "Logins of 3 registries");
    }

    #[test]
    fn a_pull_config_has_credentials() {
        let check = |text: &str, expected: &str| {
            let found = Logins::of_pull_config(text).map_or_else(|error| error, |logins| format!("{logins:?}"));
            assert_eq!(found, expected, "{text}");
        };
        check(r#"{"auths": {"registry.example": {"username": "bob", "password": "x"}}}"#, "Logins of 1 registries");
        check("{}", "its pullConfig is no config.json of Docker's with credentials");
        check("hush", "its pullConfig is no JSON: line 1, column 1");
        check(r#"{"auths": {"a": {"auth": "hush"}}}"#, "its pullConfig has no base64 of USER:PASSWORD as auth of 'a'");
    }

    #[test]
    fn it_is_read_from_the_sandbox_and_from_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let new = format!(r#"{{"auths": {{"new.example": {{"auth": "{}"}}}}}}"#, STANDARD.encode("u:p"));
        let read = || Logins::read(&files).map(|logins| logins.0.into_iter().map(|(server, _)| server).collect::<Vec<_>>());
        let fails = |expected: &str| {
            let error = read().unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        };
        assert_eq!(read(), Ok(vec![]));
        std::fs::write(files.join(".dockercfg"), r#"{"old.example": {"username": "u", "password": "p"}, "x": 1}"#).unwrap();
        assert_eq!(read(), Ok(vec!["old.example".to_owned()]));
        std::fs::create_dir(files.join(".docker")).unwrap();
        assert_eq!(read(), Ok(vec!["old.example".to_owned()]));
        let config = files.join(".docker/config.json");
        let write = |text: &str| std::fs::write(&config, text).unwrap();
        write(&new);
        assert_eq!(read(), Ok(vec!["new.example".to_owned()]));
        write(r#"{"experimental": "enabled"}"#);
        assert_eq!(read(), Ok(vec![]));
        write(r#"{"auths": {"a": {"auth": "secret"}}}"#);
        fails(".docker/config.json has no base64 of USER:PASSWORD as auth of 'a'");
        write(r#"{"auths": ["secret"]}"#);
        fails("has no credentials by registry");
        write("secret");
        fails(".docker/config.json is no JSON: line 1, column 1");
        write(&" ".repeat(300 << 10));
        fails("has more than 262144 bytes");
        // Somebody's own, which the task may not read.
        let theirs = directory.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("config.json"), &new).unwrap();
        std::fs::remove_file(&config).unwrap();
        std::os::unix::fs::symlink(theirs.join("config.json"), &config).unwrap();
        fails(".docker/config.json cannot be read");
        std::fs::remove_dir_all(files.join(".docker")).unwrap();
        std::os::unix::fs::symlink(&theirs, files.join(".docker")).unwrap();
        fails("the way to it goes through a link");
        std::fs::remove_file(files.join(".docker")).unwrap();
        std::fs::create_dir_all(&config).unwrap();
        fails(".docker/config.json cannot be read");
    }
}
