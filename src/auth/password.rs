//! Passwords: hashed with argon2id, compared in constant time, on threads of their own with a low priority, so that logins never delay anything else.
//!
//! Parameters: OWASP's recommendation for argon2id (19 MiB, 2 passes, 1 lane), about 20 ms. A hash says which ones it was made with, so that they can
//! rise later.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use tokio::sync::oneshot;

use crate::model::user::PasswordHash;

/// Hashes that are computed at once, at most.
pub const MAX_AT_ONCE: usize = 2;

/// Hashes that may wait for their turn; one more is refused.
pub const MAX_WAITING: usize = 32;

/// Longest password, in bytes: more is not hashed but refused.
pub const MAX_PASSWORD_BYTES: usize = 1024;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// A stored hash that asks for more than this is not computed: it is none of ours.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;

/// How much nicer than the rest the threads are: they get what is left over.
const NICENESS: i32 = 19;

/// A thread keeps its memory this long for the next hash. Getting and giving back 19 MiB each time is work for the system in which other threads of the
/// process have to wait.
const KEEP_MEMORY: Duration = Duration::from_secs(10);

/// Why a password cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum PasswordError {
    #[error("a password must not be empty")]
    Empty,
    #[error("a password has at most {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    #[error("a password must not contain control characters")]
    Control,
}

/// Too many are waiting; try again in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many logins are waiting; try again in a moment")]
pub struct Busy;

/// # Errors
/// One that cannot be typed or would cost too much.
pub fn check(password: &str) -> Result<(), PasswordError> {
    match password {
        "" => Err(PasswordError::Empty),
        long if long.len() > MAX_PASSWORD_BYTES => Err(PasswordError::TooLong),
        text if text.chars().any(char::is_control) => Err(PasswordError::Control),
        _ => Ok(()),
    }
}

/// Hashes `password` with a new salt. Takes about 20 ms and 19 MiB: a server does it through a [`Hasher`].
pub fn hash(password: &str) -> PasswordHash {
    Memory::default().hash(password)
}

/// True when `hash` was made of `password`. A hash that is damaged fits nothing, but takes as long. As costly as [`hash`].
pub fn verify(hash: &PasswordHash, password: &str) -> bool {
    Memory::default().verify(hash, password)
}

/// Compares without telling by its time how much is equal.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let mut key = [0; 32];
    fill_random(&mut key);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, right, hmac::sign(&key, left).as_ref()).is_ok()
}

/// # Panics
/// When the operating system has no randomness: then nothing here is safe.
pub(super) fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the operating system gives random numbers");
}

/// What argon2 works in; grows to what is needed.
#[derive(Default)]
struct Memory(Vec<Block>);

impl Memory {
    fn hash(&mut self, password: &str) -> PasswordHash {
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt);
        self.with_salt(password, &salt)
    }

    fn verify(&mut self, hash: &PasswordHash, password: &str) -> bool {
        let Some(parts) = Parts::read(hash.reveal()) else {
            _ = self.with_salt(password, &[0; SALT_BYTES]);
            return false;
        };
        let mut found = vec![0; parts.hash.len()];
        self.compute(parts.params, password, &parts.salt, &mut found).is_ok() && same(&found, &parts.hash)
    }

    fn with_salt(&mut self, password: &str, salt: &[u8]) -> PasswordHash {
        let mut hash = [0; HASH_BYTES];
        let outcome =
            Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).and_then(|params| self.compute(params, password, salt, &mut hash));
        outcome.expect("the parameters are valid");
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
        PasswordHash::new(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}"))
    }

    fn compute(&mut self, params: Params, password: &str, salt: &[u8], out: &mut [u8]) -> argon2::Result<()> {
        // Never longer than the parameters say: argon2 takes all it gets for its own.
        self.0.resize(params.block_count(), Block::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            password.as_bytes(),
            salt,
            out,
            &mut self.0[..],
        )
    }
}

/// A hash in PHC form, taken apart.
struct Parts {
    params: Params,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Parts {
    fn read(text: &str) -> Option<Self> {
        let (params, rest) = text.strip_prefix("$argon2id$v=19$")?.split_once('$')?;
        let (salt, hash) = rest.split_once('$')?;
        let mut numbers = params.split(',').zip(["m=", "t=", "p="]).map(|(part, name)| part.strip_prefix(name)?.parse::<u32>().ok());
        let (memory, passes, lanes) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if memory > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes != LANES {
            return None;
        }
        let hash = STANDARD_NO_PAD.decode(hash).ok().filter(|hash| hash.len() == HASH_BYTES)?;
        let params = Params::new(memory, passes, lanes, Some(hash.len())).ok()?;
        Some(Self { params, salt: STANDARD_NO_PAD.decode(salt).ok()?, hash })
    }
}

/// Computes hashes for a server. Its threads begin with the first hash and end with it.
pub struct Hasher {
    jobs: OnceLock<SyncSender<Job>>,
    /// Belongs to nobody: compared with when there is no such user, so that it takes as long.
    nobody: Arc<PasswordHash>,
}

enum Job {
    Hash(String, oneshot::Sender<PasswordHash>),
    Verify(Arc<PasswordHash>, String, oneshot::Sender<bool>),
}

impl Hasher {
    /// Nothing is started yet.
    pub fn new() -> Self {
        let mut impossible = [0; HASH_BYTES];
        fill_random(&mut impossible);
        let (salt, hash) = (STANDARD_NO_PAD.encode([0; SALT_BYTES]), STANDARD_NO_PAD.encode(impossible));
        let nobody = PasswordHash::new(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}"));
        Self { jobs: OnceLock::new(), nobody: Arc::new(nobody) }
    }

    /// As [`hash`].
    ///
    /// # Errors
    /// Too many are waiting.
    pub async fn hash(&self, password: String) -> Result<PasswordHash, Busy> {
        let (sender, answer) = oneshot::channel();
        self.send(Job::Hash(password, sender))?;
        answer.await.map_err(|_| Busy)
    }

    /// As [`verify`]; without a hash it takes as long and is false.
    ///
    /// # Errors
    /// Too many are waiting.
    pub async fn verify(&self, hash: Option<PasswordHash>, password: String) -> Result<bool, Busy> {
        let known = hash.is_some();
        let (sender, answer) = oneshot::channel();
        let hash = hash.map_or_else(|| self.nobody.clone(), Arc::new);
        self.send(Job::Verify(hash, password, sender))?;
        Ok(answer.await.map_err(|_| Busy)? && known)
    }

    fn send(&self, job: Job) -> Result<(), Busy> {
        self.jobs.get_or_init(start).try_send(job).map_err(|_| Busy)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// How many are computed at once: they keep half of a small machine's processors at most, so that the other half answers at once.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, MAX_AT_ONCE))
}

/// The threads. Where the system has none to give, every job is refused as if they were busy.
fn start() -> SyncSender<Job> {
    let (jobs, waiting) = sync_channel(MAX_WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..at_once() {
        let waiting = waiting.clone();
        if let Err(error) = std::thread::Builder::new().name("password".into()).spawn(move || work(&waiting)) {
            tracing::error!(%error, "A thread for passwords cannot be started.");
        }
    }
    jobs
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    // On Linux this is the priority of the calling thread. Without it logins are only less considerate.
    _ = rustix::process::setpriority_process(None, NICENESS);
    let mut memory = Memory::default();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(KEEP_MEMORY);
        // Who asked may be gone, then nobody wants to know.
        match job {
            Ok(Job::Hash(password, answer)) if !answer.is_closed() => _ = answer.send(memory.hash(&password)),
            Ok(Job::Verify(hash, password, answer)) if !answer.is_closed() => _ = answer.send(memory.verify(&hash, &password)),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => memory = Memory::default(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_alone() {
        let hash = hash("p@ssw0rd");
        assert!(verify(&hash, "p@ssw0rd"));
        assert!(!verify(&hash, "p@ssw0rD") && !verify(&hash, ""));
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash, super::hash("p@ssw0rd"), "the salt is new each time");
    }

    #[test]
    fn a_damaged_hash_fits_nothing() {
        let good = hash("x").reveal().to_owned();
        let change = |from: &str, to: &str| good.replace(from, to);
        for bad in [
            String::new(),
            "$argon2id$".into(),
            good[..good.len() - 1].to_owned(),
            change("argon2id", "argon2i"),
            change("v=19", "v=16"),
            change("t=2", "t=0"),
            change("t=2", "t=4000000000"),
            change("m=19456", "m=4000000000"),
            change("p=1", "p=9"),
            format!("{good}A"),
        ] {
            assert!(!verify(&PasswordHash::new(bad.clone()), "x"), "{bad}");
        }
    }

    /// The hash of a known answer, so that a new version of the library cannot lock everybody out.
    #[test]
    fn yesterdays_hash_is_still_understood() {
        let known = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$";
        let mut memory = Memory::default();
        // What a hash before left in the memory makes no difference.
        assert!(memory.verify(&hash("x"), "x"));
        let now = memory.with_salt("password", b"somesaltsomesalt");
        assert!(now.reveal().starts_with(known));
        insta::assert_snapshot!(now.reveal());
    }

    #[test]
    fn only_what_can_be_typed_is_a_password() {
        for (password, expected) in [
            ("", Err(PasswordError::Empty)),
            ("a", Ok(())),
            ("pä: \"§", Ok(())),
            ("a\nb", Err(PasswordError::Control)),
            ("a\0", Err(PasswordError::Control)),
            (&"x".repeat(MAX_PASSWORD_BYTES), Ok(())),
            (&"x".repeat(MAX_PASSWORD_BYTES + 1), Err(PasswordError::TooLong)),
        ] {
            assert_eq!(check(password), expected, "{password:?}");
        }
    }

    #[tokio::test]
    async fn a_server_hashes_beside_its_work_and_within_bounds() {
        let hasher = Hasher::new();
        let hash = hasher.hash("secret".into()).await.unwrap();
        assert_eq!(hasher.verify(Some(hash.clone()), "secret".into()).await, Ok(true));
        assert_eq!(hasher.verify(Some(hash), "other".into()).await, Ok(false));
        assert_eq!(hasher.verify(None, "secret".into()).await, Ok(false));
        // More than can be computed and wait: at least one is refused at once, and none hangs.
        let many = futures_util::future::join_all((0..MAX_AT_ONCE + MAX_WAITING + 20).map(|_| hasher.verify(None, "x".into()))).await;
        assert!(many.contains(&Err(Busy)) && many.contains(&Ok(false)));
    }
}
