//! The token authority: signs what the registry then enforces.
//!
//! Facts: distribution 2.8, "Token Authentication Specification" and its implementation: a JWT signed with ES256, `kid` as libtrust names the key,
//! `iss` and `aud` as configured there, `access` as a list of types, names and actions.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64URL_NOPAD;
use ring::{rand::SystemRandom, signature::EcdsaKeyPair};
use serde_json::{Value, json};

use super::{
    access::{Access, Who, granted},
    certificate,
};
use crate::model::time::Timestamp;

/// Who issues tokens, as the registry is told.
pub const ISSUER: &str = "xtao";
/// Whom tokens are for.
pub const SERVICE: &str = "xtao-registry";
/// Seconds for which a token is good: what a layer takes on a slow line begins within it.
pub const LIFETIME_SECONDS: u64 = 300;
/// The registry's clock may be behind by this many seconds.
const SKEW_SECONDS: u64 = 60;

/// The directory of key and certificate, below the work directory.
const DIRECTORY: &str = "registry";
const KEY: &str = "token.key";
const CERTIFICATE: &str = "token.crt";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("the registry's signing key: {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is there, and is not what it should be.
    #[error(
        "the registry's signing key: {path} is damaged ({reason}); remove it, and install the registry again with `xtao registry install`"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Signs tokens. The key never leaves it.
pub struct Authority {
    pair: EcdsaKeyPair,
    key_id: String,
    certificate: String,
    random: SystemRandom,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A token, and what it is good for.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The JWT.
    pub text: String,
    /// What it grants.
    pub access: Vec<Access>,
    /// When it was made.
    pub issued_at: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Token").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of the installation in `work_dir`; key and certificate are made the first time.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn open(work_dir: &Path) -> Result<Self, AuthorityError> {
        let directory = work_dir.join(DIRECTORY);
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| AuthorityError::File { path, source }
        };
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&directory)(error)),
            _ => {}
        }
        let (key_path, certificate_path) = (directory.join(KEY), directory.join(CERTIFICATE));
        let damaged = |path: &Path, reason: String| AuthorityError::Damaged { path: path.display().to_string(), reason };
        let key = kept(&key_path, || certificate::new_key().map_err(|_| io::Error::other("the operating system gives no random numbers")));
        let key = key.map_err(failed(&key_path))?;
        let pair = certificate::token_key(&key).map_err(|error| damaged(&key_path, error.to_string()))?;
        let certificate = kept(&certificate_path, || certificate::self_signed(&key).map(String::into_bytes).map_err(io::Error::other));
        let certificate = String::from_utf8(certificate.map_err(failed(&certificate_path))?);
        let certificate = certificate.map_err(|error| damaged(&certificate_path, error.to_string()))?;
        Ok(Self { key_id: certificate::key_id(&pair), pair, certificate, random: SystemRandom::new() })
    }

    /// The certificate that the registry must trust, in PEM. Not a secret.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A token for what `who` may have of what is wanted. It may be for nothing: that is how a registry learns who somebody is.
    pub fn token(&self, who: &Who, wanted: &[Access]) -> Token {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.token_at(who, wanted, now.as_secs())
    }

    fn token_at(&self, who: &Who, wanted: &[Access], now: u64) -> Token {
        let access = granted(who, wanted);
        let header = json!({ "typ": "JWT", "alg": "ES256", "kid": self.key_id });
        let claims = json!({
            "iss": ISSUER,
            "sub": who.name(),
            "aud": SERVICE,
            "exp": now + LIFETIME_SECONDS,
            "nbf": now.saturating_sub(SKEW_SECONDS),
            "iat": now,
            "jti": uuid::Uuid::new_v4().to_string(),
            "access": access,
        });
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let body = format!("{}.{}", encode(&header), encode(&claims));
        // Signing fails only without randomness, and then nothing else works either; an empty signature is refused by every registry.
        let signature = self.pair.sign(&self.random, body.as_bytes()).map(|signature| BASE64URL_NOPAD.encode(signature.as_ref()));
        let text = format!("{body}.{}", signature.unwrap_or_default());
        Token { text, access, issued_at: Timestamp(i64::try_from(now * 1000).unwrap_or(i64::MAX)) }
    }
}

/// The file's contents; made, for its owner only, when it is missing. Nobody sees half of it.
fn kept(path: &Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let contents = make()?;
    let part = path.with_extension("part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(&contents)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_token_says_who_may_do_what_and_is_signed() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let wanted = [Access::repository("zmfsea/x", &["pull", "push"]), Access::repository("other/y", &["pull"])];
        let token = authority.token_at(&Who::User("zmfsea".into()), &wanted, 1_000_000);
        assert_eq!(token.access, [Access::repository("zmfsea/x", &["pull", "push"])]);
        let parts: Vec<&str> = token.text.split('.').collect();
        let json = |at: usize| serde_json::from_slice::<Value>(&BASE64URL_NOPAD.decode(parts[at].as_bytes()).unwrap()).unwrap();
        assert_eq!(json(0), json!({ "typ": "JWT", "alg": "ES256", "kid": authority.key_id }));
        let claims = json(1);
        assert_eq!((&claims["iss"], &claims["sub"], &claims["aud"]), (&json!("xtao"), &json!("zmfsea"), &json!("xtao-registry")));
        assert_eq!((&claims["nbf"], &claims["iat"], &claims["exp"]), (&json!(999_940), &json!(1_000_000), &json!(1_000_300)));
        assert_eq!(claims["access"], json!([{ "type": "repository", "name": "zmfsea/x", "actions": ["pull", "push"] }]));
        let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, authority.pair.public_key().as_ref().to_vec());
        key.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();
        assert!(!format!("{token:?} {authority:?}").contains(parts[2]));
    }

    #[test]
    fn key_and_certificate_are_made_once_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(directory.path()).unwrap();
        let second = Authority::open(directory.path()).unwrap();
        assert_eq!((first.key_id, first.certificate), (second.key_id, second.certificate));
        for name in ["registry", "registry/token.key", "registry/token.crt"] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        fs::write(directory.path().join("registry/token.key"), "x").unwrap();
        let error = Authority::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("xtao registry install"), "{error}");
    }
}
