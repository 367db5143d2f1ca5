//! What log-ins gave, kept between commands in the user's state directory, readable by nobody else: one small file, with an entry a server.
//!
//! A token ends by itself; the server decides when. A file that cannot be read counts as empty: the worst that follows is a question.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::client::Secret;

/// Most servers that are remembered.
const MAX_ENTRIES: usize = 64;

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The file, and where it is.
#[derive(Clone, Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    user: String,
    token: String,
}

impl Tokens {
    /// Those of the present user; see [`state_directory`].
    pub fn of_user() -> Self {
        Self { file: state_directory().map(|directory| directory.join("tokens.json")) }
    }

    /// Kept in this file.
    pub fn in_file(file: PathBuf) -> Self {
        Self { file: Some(file) }
    }

    /// The token for a server; for this user, or whoever logged in there last.
    pub fn find(&self, server: &str, user: Option<&str>) -> Option<(String, Secret)> {
        let entry = self.read().remove(server)?;
        user.is_none_or(|user| user == entry.user).then(|| (entry.user, Secret::new(entry.token)))
    }

    /// Keeps a token instead of the one before.
    ///
    /// # Errors
    /// The directory or file cannot be written.
    pub fn keep(&self, server: &str, user: &str, token: &Secret) -> io::Result<()> {
        let mut entries = self.read();
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(server) {
            entries.pop_first();
        }
        entries.insert(server.to_owned(), Entry { user: user.to_owned(), token: token.expose().to_owned() });
        self.write(&entries)
    }

    /// Forgets the token of a server; true when there was one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&self, server: &str) -> io::Result<bool> {
        let mut entries = self.read();
        let found = entries.remove(server).is_some();
        if found {
            self.write(&entries)?;
        }
        Ok(found)
    }

    fn read(&self) -> BTreeMap<String, Entry> {
        let read = || {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.file.as_ref()?).ok()?;
            // Somebody else's file, or one that others may write, is not believed.
            let about = file.metadata().ok()?;
            if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o077 != 0 {
                return None;
            }
            let mut text = String::new();
            file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
            serde_json::from_str(&text).ok()
        };
        read().unwrap_or_default()
    }

    fn write(&self, entries: &BTreeMap<String, Entry>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        write_private(file, serde_json::to_string_pretty(entries)?.as_bytes())
    }
}

/// Where commands keep what they remember: `$XDG_STATE_HOME/xtao`, or `~/.local/state/xtao`. `None` for an account without a home.
pub fn state_directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("xtao"))
}

/// Puts a file in place at once, readable by its owner alone; directories that are missing are made so too.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn write_private(file: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = file.with_file_name(name);
    // Left by a process of the same number that was killed.
    _ = fs::remove_file(&fresh);
    let mut options = OpenOptions::new();
    let mut open = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = open.write_all(text).and_then(|()| fs::rename(&fresh, file));
    if written.is_err() {
        _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_kept_for_its_server_and_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a/b/tokens.json");
        let tokens = Tokens::in_file(file.clone());
        assert_eq!(tokens.find("https://a", None), None);
        tokens.keep("https://a", "zmfsea", &Secret::new("t1")).unwrap();
        tokens.keep("https://a", "zmfsea", &Secret::new("t2")).unwrap();
        tokens.keep("https://b", "other", &Secret::new("t3")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        let found = |server: &str, user: Option<&str>| tokens.find(server, user).map(|(user, token)| format!("{user} {}", token.expose()));
        assert_eq!(found("https://a", None).unwrap(), "zmfsea t2");
        assert_eq!(found("https://a", Some("zmfsea")).unwrap(), "zmfsea t2");
        assert_eq!(found("https://a", Some("other")), None);
        assert!(tokens.forget("https://a").unwrap() && !tokens.forget("https://a").unwrap());
        assert_eq!(found("https://a", None), None);
        assert_eq!(found("https://b", None).unwrap(), "other t3");
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_broken_counts_as_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.json");
        let tokens = Tokens::in_file(file.clone());
        tokens.keep("https://a", "zmfsea", &Secret::new("t")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(tokens.find("https://a", None), None);
        write_private(&file, b"{").unwrap();
        assert_eq!(tokens.find("https://a", None), None);
        let link = directory.path().join("link");
        tokens.keep("https://a", "zmfsea", &Secret::new("t")).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(Tokens::in_file(link).find("https://a", None), None);
        (0..MAX_ENTRIES + 5).for_each(|number| tokens.keep(&format!("https://{number}"), "u", &Secret::new("t")).unwrap());
        assert_eq!(tokens.read().len(), MAX_ENTRIES);
    }
}
