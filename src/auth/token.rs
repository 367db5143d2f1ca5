//! Tokens: a user's name, when it ends, and which generation of credentials it was given for, signed with HMAC-SHA256 under a key of this
//! installation. Nothing is kept about a token: it is void when its time is over, or when the user's generation is another one (new password, lock,
//! removal).
//!
//! Text form: `xtao1.` and then base64url (without padding) of expiry (seconds since 1970, 8 bytes), generation (8 bytes), name, and 32 bytes of
//! signature. There is exactly one text for each token.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use super::password::fill_random;
use crate::model::{
    id::Owner,
    user::{MAX_NAME_BYTES, user_name},
};

const PREFIX: &str = "xtao1.";
const NUMBERS: usize = 16;
const SIGNATURE: usize = 32;
const KEY_BYTES: usize = 32;

/// Longest text that is looked at.
const MAX_TEXT: usize = PREFIX.len() + (NUMBERS + MAX_NAME_BYTES + SIGNATURE).div_ceil(3) * 4;

/// The key's file in the work directory.
pub const KEY_FILE: &str = "token.key";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is.
    pub user: Owner,
    /// Seconds since 1970; not good from then on.
    pub expires: i64,
    /// The generation of the user's credentials.
    pub generation: u64,
}

/// A text that is no token of ours. It says no more: who has a real one does not need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this server")]
pub struct BadToken;

/// Signs tokens and knows its own again.
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// The key of a work directory; made at the first time.
    ///
    /// # Errors
    /// The file cannot be read or written, has another length, or can be read by others.
    pub fn load(work_dir: &Path) -> io::Result<Self> {
        let path = work_dir.join(KEY_FILE);
        match read_key(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_key(&path)?;
                read_key(&path)
            }
            outcome => outcome,
        }
        .map_err(|error| io::Error::new(error.kind(), format!("the key for tokens {}: {error}", path.display())))
    }

    /// A key for this process alone.
    pub fn random() -> Self {
        let mut bytes = [0; KEY_BYTES];
        fill_random(&mut bytes);
        Self::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A number that follows from `text` and this key alone.
    pub(super) fn fingerprint(&self, text: &[u8]) -> u64 {
        let tag = hmac::sign(&self.0, &[b"fingerprint\n", text].concat());
        tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The text of a token.
    pub fn sign(&self, claims: &Claims) -> String {
        let mut bytes = Vec::with_capacity(NUMBERS + claims.user.as_str().len() + SIGNATURE);
        bytes.extend_from_slice(&claims.expires.to_be_bytes());
        bytes.extend_from_slice(&claims.generation.to_be_bytes());
        bytes.extend_from_slice(claims.user.as_str().as_bytes());
        let signature = hmac::sign(&self.0, &signed(&bytes));
        bytes.extend_from_slice(signature.as_ref());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a token says, if it is one of ours. Whether its time is over is the caller's question.
    ///
    /// # Errors
    /// Anything that [`TokenKey::sign`] with this key did not make, letter by letter.
    pub fn open(&self, text: &str) -> Result<Claims, BadToken> {
        let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_TEXT).ok_or(BadToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| BadToken)?;
        let (message, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(BadToken)?;
        hmac::verify(&self.0, &signed(message), signature).map_err(|_| BadToken)?;
        let (expires, rest) = message.split_first_chunk().ok_or(BadToken)?;
        let (generation, name) = rest.split_first_chunk().ok_or(BadToken)?;
        let name = std::str::from_utf8(name).map_err(|_| BadToken)?;
        Ok(Claims {
            user: user_name(name).map_err(|_| BadToken)?,
            expires: i64::from_be_bytes(*expires),
            generation: u64::from_be_bytes(*generation),
        })
    }
}

/// The prefix is signed too: a later form cannot be taken for this one.
fn signed(message: &[u8]) -> Vec<u8> {
    [PREFIX.as_bytes(), message].concat()
}

fn read_key(path: &Path) -> io::Result<TokenKey> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        return Err(io::Error::other("others than its owner may read it; remove it (all tokens are void then) and start again"));
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() != KEY_BYTES {
        return Err(io::Error::other("it is damaged; remove it (all tokens are void then) and start again"));
    }
    Ok(TokenKey::new(&bytes))
}

/// Never half there: written beside, then renamed.
fn write_key(path: &Path) -> io::Result<()> {
    let mut bytes = [0; KEY_BYTES];
    fill_random(&mut bytes);
    let new = path.with_extension("new");
    // Left behind by a process that was killed in between.
    _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn claims() -> Claims {
        Claims { user: Owner::new("zmfsea"), expires: 1_780_000_000, generation: 7 }
    }

    #[test]
    fn a_token_says_what_it_was_given_for() {
        let key = TokenKey::random();
        let text = key.sign(&claims());
        assert_eq!(key.open(&text), Ok(claims()));
        assert_eq!(TokenKey::random().open(&text), Err(BadToken));
        let long = Claims { user: Owner::new("a".repeat(MAX_NAME_BYTES)), ..claims() };
        assert_eq!(key.open(&key.sign(&long)), Ok(long));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let key = TokenKey::random();
        let text = key.sign(&claims());
        for at in 0..text.len() {
            assert_eq!(key.open(&text[..at]), Err(BadToken), "cut to {at}");
            assert_eq!(key.open(&text[at + 1..]), Err(BadToken), "without the first {}", at + 1);
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert_eq!(key.open(&changed), Err(BadToken), "bit {bit} of {at}");
                }
            }
        }
    }

    /// Noise, noise in a token's clothes, and a good token with some bytes of it changed, taken away and put in.
    fn presented() -> impl Strategy<Value = Vec<u8>> {
        let dress = |bytes: Vec<u8>| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes();
        let byte = || any::<u8>();
        let edits = || prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, byte()), 1..6);
        let edit = |mut bytes: Vec<u8>, edits: Vec<(prop::sample::Index, u8, u8)>| {
            for (at, what, byte) in edits {
                let at = at.index(bytes.len().max(1));
                match what {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => bytes.insert(at.min(bytes.len()), byte),
                    _ => bytes.truncate(at),
                }
            }
            bytes
        };
        let good = || TokenKey::new(&[1; 32]).sign(&claims()).into_bytes();
        let inside = move || URL_SAFE_NO_PAD.decode(&good()[PREFIX.len()..]).unwrap();
        prop_oneof![
            prop::collection::vec(byte(), 0..300),
            prop::collection::vec(byte(), 0..140).prop_map(dress),
            edits().prop_map(move |edits| edit(good(), edits)),
            edits().prop_map(move |edits| dress(edit(inside(), edits))),
        ]
    }

    #[test]
    fn whatever_is_thrown_at_tokens_is_refused() {
        let key = TokenKey::new(&[1; 32]);
        let good = key.sign(&claims());
        crate::fuzz::check("tokens", 2000, &presented(), |bytes| {
            let text = String::from_utf8_lossy(&bytes);
            // A change may change nothing.
            prop_assert!(key.open(&text) == Err(BadToken) || text == good);
            Ok(())
        });
    }

    proptest! {
        #[test]
        fn tokens_read_back(name in "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}", expires in any::<i64>(), generation in any::<u64>()) {
            let key = TokenKey::new(&[1; 32]);
            let claims = Claims { user: Owner::new(name), expires, generation };
            prop_assert_eq!(key.open(&key.sign(&claims)), Ok(claims));
        }
    }

    #[test]
    fn the_key_stays_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(KEY_FILE);
        let text = TokenKey::load(directory.path()).unwrap().sign(&claims());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(TokenKey::load(directory.path()).unwrap().open(&text), Ok(claims()));
        let error = || TokenKey::load(directory.path()).map(|_| ()).unwrap_err().to_string();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(error().contains("others than its owner may read it"), "{}", error());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, b"short").unwrap();
        assert!(error().contains("it is damaged"), "{}", error());
    }
}
