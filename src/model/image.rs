//! Names of images: what a user writes, in which registry it lies, and whose it is.
//!
//! Docker's grammar (distribution's `reference` package): `[registry/]path[:tag][@digest]`. The first word is a registry when it has a dot, a colon or
//! a capital, or is `localhost`. A name without a registry means the platform's here; so do the platform's own names, and Docker's `docker.io`, because
//! Docker keeps both under one name: what is whose must not depend on the spelling. The first word of the path is the user; a path of one word is
//! `library/...`, which is the administrators'.

use std::fmt;

/// The user name of images that belong to the platform; a path of one word is meant.
pub const LIBRARY: &str = "library";

/// The app that runs the platform's registry; only administrators may write it.
pub const REGISTRY_APP: &str = "/registry";

/// Longest text that is read as a name.
pub const MAX_NAME_BYTES: usize = 512;
/// Longest repository, with its registry, as Docker has it.
const MAX_REPOSITORY_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;
/// What Docker calls its own registry.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// True for the names of Docker's own registry.
pub fn is_hub(host: &str) -> bool {
    HUB.contains(&host)
}

/// What is wrong with a text that should name an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the name of an image: {reason}")]
pub struct ImageNameError {
    text: String,
    reason: &'static str,
}

/// Where an image lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the platform's registry, and when it is not there and the user is none of ours, in Docker's.
    Platform,
    /// In this registry, `host[:port]`, and nowhere else.
    Other(String),
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `latest` when none is written.
    Tag(String),
    /// `sha256:` and 64 digits.
    Digest(String),
}

impl Version {
    /// As it stands in the registry's paths.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(text) | Self::Digest(text) => text,
        }
    }
}

/// A complete name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    place: Place,
    repository: String,
    version: Version,
}

impl ImageName {
    /// Reads `text`. `own_registries` are the names of the platform's registry, `host:port` each.
    ///
    /// # Errors
    /// A text outside Docker's grammar, or a digest that is not SHA-256.
    pub fn parse(text: &str, own_registries: &[String]) -> Result<Self, ImageNameError> {
        let wrong = |reason| ImageNameError { text: text.chars().take(MAX_NAME_BYTES).collect(), reason };
        if text.len() > MAX_NAME_BYTES {
            return Err(wrong("it is too long"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if is_digest(digest) => (name, Some(digest)),
            Some(_) => return Err(wrong("after the @ comes sha256: and 64 digits of 0-9a-f")),
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, name),
        };
        let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
        if !path.split('/').all(is_path_word) {
            return Err(wrong("a name has words of a-z, 0-9, dots, dashes and underscores, separated by slashes"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag has letters, digits, dots, dashes and underscores, 128 at most"));
        }
        let place = match registry {
            Some(host) if !is_host(host) => return Err(wrong("the registry before the first slash is no host")),
            Some(host) if !is_hub(host) && !own_registries.iter().any(|own| own.eq_ignore_ascii_case(host)) => {
                Place::Other(host.to_owned())
            }
            _ => Place::Platform,
        };
        if place == Place::Platform && path.split_once('/').is_some_and(|(user, _)| is_registry(user)) {
            return Err(wrong("the user name before the first slash looks like a registry"));
        }
        let is_short = place == Place::Platform && !path.contains('/');
        let repository = if is_short { format!("{LIBRARY}/{path}") } else { path.to_owned() };
        if repository.len() + registry.map_or(0, str::len) > MAX_REPOSITORY_BYTES {
            return Err(wrong("it is too long"));
        }
        let version = digest.map_or_else(|| Version::Tag(tag.unwrap_or("latest").to_owned()), |digest| Version::Digest(digest.to_owned()));
        Ok(Self { place, repository, version })
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The path within its registry: `zmfsea/cmp-postgresql`, `library/anna`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Which image of the repository.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The same repository, another version.
    #[must_use]
    pub fn with_version(&self, version: Version) -> Self {
        Self { version, ..self.clone() }
    }

    /// The user whose it is, [`LIBRARY`] for the administrators'; `None` in a registry that is not ours.
    pub fn owner(&self) -> Option<&str> {
        (self.place == Place::Platform).then(|| owner_of(&self.repository))
    }

    /// The registry that Docker asks for it, `host[:port]`.
    pub fn registry(&self) -> &str {
        match &self.place {
            Place::Platform => HUB[0],
            Place::Other(host) => host,
        }
    }

    /// The full name under which Docker keeps it, registry included: never mistaken for the id of an image.
    pub fn local(&self) -> String {
        self.in_registry(self.registry())
    }

    /// Its full name in the registry `host`.
    pub fn in_registry(&self, host: &str) -> String {
        format!("{host}/{}{}", self.repository, self.suffix())
    }

    fn suffix(&self) -> String {
        match &self.version {
            Version::Tag(tag) => format!(":{tag}"),
            Version::Digest(digest) => format!("@{digest}"),
        }
    }
}

/// As short as it can be written, with its tag.
impl fmt::Display for ImageName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Platform => out.write_str(short(&self.repository))?,
            Place::Other(host) => write!(out, "{host}/{}", self.repository)?,
        }
        out.write_str(&self.suffix())
    }
}

/// The first word of a repository of the platform's registry; a repository of one word is the administrators'.
pub fn owner_of(repository: &str) -> &str {
    repository.split_once('/').map_or(LIBRARY, |(owner, _)| owner)
}

/// A repository of the platform's registry as people write it: without `library/` when one word is left.
pub fn short(repository: &str) -> &str {
    match repository.strip_prefix("library/") {
        Some(rest) if !rest.contains('/') => rest,
        _ => repository,
    }
}

/// True for the path of a repository.
pub fn is_repository(text: &str) -> bool {
    text.len() <= MAX_REPOSITORY_BYTES && text.split('/').all(is_path_word)
}

/// True for what is the id of an image to Docker, not a name: 64 digits, or `sha256:` and some.
pub fn is_image_id(text: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(is_hex);
    text.len() == 64 && hex(text) || text.strip_prefix("sha256:").is_some_and(hex)
}

/// `sha256:` and 64 digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}

/// True for a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG_BYTES
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn is_registry(word: &str) -> bool {
    word == "localhost" || word.bytes().any(|byte| byte == b'.' || byte == b':' || byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Letters and digits with separators between them: one dot, one or two underscores, any number of dashes.
fn is_path_word(word: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [word.bytes().next(), word.bytes().next_back()];
    ends.iter().all(|byte| byte.is_some_and(letter))
        && word
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own() -> Vec<String> {
        vec!["registry.marathon.mesos:5000".into(), "127.0.0.1:5001".into()]
    }

    #[test]
    fn a_name_is_taken_apart() {
        let check = |text: &str, owner: Option<&str>, local: &str, shown: &str| {
            let name = ImageName::parse(text, &own()).unwrap();
            assert_eq!((name.owner(), &*name.local(), &*name.to_string()), (owner, local, shown), "{text}");
        };
        check("zmfsea/cmp-postgresql", Some("zmfsea"), "docker.io/zmfsea/cmp-postgresql:latest", "zmfsea/cmp-postgresql:latest");
        check("anna", Some("library"), "docker.io/library/anna:latest", "anna:latest");
        check("library/anna:1", Some("library"), "docker.io/library/anna:1", "anna:1");
        check("docker.io/zmfsea/x", Some("zmfsea"), "docker.io/zmfsea/x:latest", "zmfsea/x:latest");
        check("index.docker.io/anna", Some("library"), "docker.io/library/anna:latest", "anna:latest");
        check("registry.marathon.mesos:5000/anna", Some("library"), "docker.io/library/anna:latest", "anna:latest");
        check("Registry.Marathon.Mesos:5000/a/b/c:x", Some("a"), "docker.io/a/b/c:x", "a/b/c:x");
        check("127.0.0.1:5001/zmfsea/x", Some("zmfsea"), "docker.io/zmfsea/x:latest", "zmfsea/x:latest");
        check("registry.marathon.mesos/anna", None, "registry.marathon.mesos/anna:latest", "registry.marathon.mesos/anna:latest");
        check("quay.io/zmfsea/x:2", None, "quay.io/zmfsea/x:2", "quay.io/zmfsea/x:2");
        check("localhost/x", None, "localhost/x:latest", "localhost/x:latest");
        let digest = format!("sha256:{}", "0f".repeat(32));
        check(&format!("a/b:c@{digest}"), Some("a"), &format!("docker.io/a/b@{digest}"), &format!("a/b@{digest}"));
        // Docker would take these for ids if they came without their registry.
        check("4e38e38c8ce0", Some("library"), "docker.io/library/4e38e38c8ce0:latest", "4e38e38c8ce0:latest");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "a b",
            "A",
            "zmfsea/Big",
            "a:",
            "a:b:c",
            "a:-x",
            "a?b",
            "a%2e",
            "ä",
            "a\0",
            "a@b",
            "a@sha256:00ff",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "h_x.y/a",
            "x:99999/a",
            "[::1]:5000/a",
            "a:5000/",
            "http://a/b",
            "docker.io/a.b/c",
        ] {
            assert!(ImageName::parse(bad, &own()).is_err(), "{bad}");
        }
        assert!(ImageName::parse(&"a".repeat(256), &own()).is_err());
        assert!(ImageName::parse(&format!("a:{}", "x".repeat(129)), &own()).is_err());
    }

    #[test]
    fn ids_are_told_from_names() {
        for id in [&"0f".repeat(32), "sha256:00ff", &format!("sha256:{}", "0f".repeat(32))] {
            assert!(is_image_id(id), "{id}");
        }
        for name in ["anna", "4e38e38c8ce0", "sha256:latest", "sha256", "sha256:"] {
            assert!(!is_image_id(name), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_name_that_was_read_is_read_again_the_same(text in "[a-zA-Z0-9._:/@-]{0,40}|[a-z]{1,5}(/[a-z0-9]{1,5}){0,3}(:[a-z0-9.]{1,5})?") {
            if let Ok(name) = ImageName::parse(&text, &own()) {
                prop_assert_eq!(&ImageName::parse(&name.local(), &own()), &Ok(name.clone()));
                prop_assert_eq!(&ImageName::parse(&name.to_string(), &own()), &Ok(name));
            }
        }
    }
}
