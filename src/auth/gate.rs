//! The gate: is this the password, is this token good. Everything that guards the two is in one place and in one order: known good passwords first,
//! then the limits on guessing, then the costly comparison.
//!
//! A password that was right is remembered for a few minutes, as a keyed hash and together with the user's generation, so that a client that sends
//! it with each request is not slow; any change of the user's credentials makes that worthless. Attempts on one user are made one after the other,
//! so that each counts before the next begins.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dashmap::DashMap;
use ring::hmac;
use tokio::sync::{Mutex, Semaphore};

use super::{
    attempts::{Attempts, Rule},
    password::{Busy, Hasher, MAX_PASSWORD_BYTES, fill_random, same},
    token::{BadToken, Claims, TokenKey},
};
use crate::model::{
    id::Owner,
    user::{PasswordHash, User},
};

/// How long a good password is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(300);

/// Good passwords that are remembered at once.
pub const MAX_REMEMBERED: usize = 4096;

/// Logins under way at once, waiting ones included; one more is refused.
pub const MAX_LOGINS: usize = 64;

/// How long a token is good unless it was said otherwise.
pub const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

const STRIPES: usize = 64;

const USER_RULE: Rule = Rule { free: 5, longest: Duration::from_secs(60) };
const ADDRESS_RULE: Rule = Rule { free: 20, longest: Duration::from_secs(300) };

/// A name and a password from the settings: an administrator beside the users (Marathon's `--http_credentials`).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: Owner,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:(hidden)", self.user)
    }
}

/// Whom a password or a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The user.
    pub user: Owner,
    /// May do everything.
    pub admin: bool,
    /// Of the credentials; a token for this user carries it.
    pub generation: u64,
    /// True when the password was compared just now: a login, not one of many requests.
    pub fresh: bool,
    /// When what was presented ends: a token's end; `None`: it has none.
    pub until: Option<Instant>,
}

/// Why someone is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Unknown user, wrong password, or a user without one: which of these is not told.
    #[error("wrong user or password")]
    Wrong,
    /// The password was right; outside it is told as [`Refusal::Wrong`].
    #[error("the user is locked")]
    Locked,
    /// Forged, damaged, expired, or of earlier credentials.
    #[error("the token is not valid (any more)")]
    Token,
    /// Too many failures: how long to wait.
    #[error("too many failed logins; try again in {} s", .0.as_secs().max(1))]
    TooMany(Duration),
    /// Too many at once.
    #[error("too many logins are waiting; try again in a moment")]
    Busy,
}

/// Judges passwords and tokens.
pub struct Gate {
    hasher: Hasher,
    tokens: TokenKey,
    lifetime: Duration,
    credentials: Option<Credentials>,
    good: DashMap<[u8; 32], (u64, Instant)>,
    secret: hmac::Key,
    by_user: Attempts<Owner>,
    by_address: Attempts<IpAddr>,
    places: Semaphore,
    stripes: Vec<Mutex<()>>,
    /// The time of an attempt.
    clock: fn() -> Instant,
}

impl Gate {
    /// A gate that has seen nobody yet.
    pub fn new(tokens: TokenKey, lifetime: Duration, credentials: Option<Credentials>) -> Self {
        let mut secret = [0; 32];
        fill_random(&mut secret);
        Self {
            hasher: Hasher::new(),
            tokens,
            lifetime,
            credentials,
            good: DashMap::new(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            by_user: Attempts::new(USER_RULE),
            by_address: Attempts::new(ADDRESS_RULE),
            places: Semaphore::new(MAX_LOGINS),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            clock: Instant::now,
        }
    }

    /// For whoever counts attempts: however long the hashes of a busy machine take, none is forgiven meanwhile.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_time_standing_still(self) -> Self {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        Self { clock: || *START.get_or_init(Instant::now), ..self }
    }

    /// True when the settings name an administrator.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// Too many are waiting.
    pub async fn hash(&self, password: String) -> Result<PasswordHash, Busy> {
        self.hasher.hash(password).await
    }

    /// Who has this name and password. `find` looks the user up, each time anew.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn password(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
        find: impl Fn(&Owner) -> Option<User>,
    ) -> Result<Known, Refusal> {
        let user = Owner::new(name);
        let memory = self.memory_key(name, password);
        if let Some(known) = self.remembered(&user, &memory, &find) {
            return Ok(known);
        }
        let _place = self.places.try_acquire().map_err(|_| Refusal::Busy)?;
        let _turn = self.stripes[stripe(&user)].lock().await;
        // The same client may have asked twice at once.
        if let Some(known) = self.remembered(&user, &memory, &find) {
            return Ok(known);
        }
        let now = (self.clock)();
        if let Some(address) = &address {
            self.by_address.begin(address, now).map_err(Refusal::TooMany)?;
        }
        if let Err(wait) = self.by_user.begin(&user, now) {
            address.iter().for_each(|address| self.by_address.withdraw(address));
            return Err(Refusal::TooMany(wait));
        }
        let outcome = self.compare(&user, password, &find).await;
        match &outcome {
            Ok(known) => {
                self.by_user.succeeded(&user);
                address.iter().for_each(|address| self.by_address.succeeded(address));
                self.remember(memory, known.generation);
            }
            Err(Refusal::Busy) => {
                self.by_user.withdraw(&user);
                address.iter().for_each(|address| self.by_address.withdraw(address));
            }
            Err(_) => {}
        }
        outcome
    }

    async fn compare(&self, user: &Owner, password: &str, find: &impl Fn(&Owner) -> Option<User>) -> Result<Known, Refusal> {
        if let Some(known) = self.configured(user, password) {
            return Ok(known);
        }
        let found = find(user);
        let hash = found.as_ref().and_then(|user| user.password.clone()).filter(|_| password.len() <= MAX_PASSWORD_BYTES);
        // Whoever sends a megabyte as a password has it hashed no more than anyone else.
        let tried: String = password.chars().take(MAX_PASSWORD_BYTES).collect();
        let right = self.hasher.verify(hash, tried).await.map_err(|Busy| Refusal::Busy)?;
        match found.filter(|_| right) {
            None => Err(Refusal::Wrong),
            Some(user) if user.locked => Err(Refusal::Locked),
            Some(user) => Ok(Known { admin: user.admin, generation: user.generation, user: user.name, fresh: true, until: None }),
        }
    }

    /// The administrator of the settings.
    fn configured(&self, user: &Owner, password: &str) -> Option<Known> {
        let ours = self.credentials.as_ref()?;
        let (name, secret) =
            (same(ours.user.as_str().as_bytes(), user.as_str().as_bytes()), same(ours.password.as_bytes(), password.as_bytes()));
        let generation = self.configured_generation(ours);
        (name && secret).then(|| Known { user: user.clone(), admin: true, generation, fresh: true, until: None })
    }

    /// Follows from the credentials alone, so that tokens survive a restart but not another password.
    fn configured_generation(&self, credentials: &Credentials) -> u64 {
        let text = format!("credentials\n{}\n{}", credentials.user, credentials.password);
        self.tokens.fingerprint(text.as_bytes())
    }

    fn memory_key(&self, name: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    fn remembered(&self, user: &Owner, memory: &[u8; 32], find: &impl Fn(&Owner) -> Option<User>) -> Option<Known> {
        let (generation, since) = *self.good.get(memory)?;
        if since.elapsed() < REMEMBERED
            && let Some(known) = self.present(user, generation, find)
        {
            return Some(known);
        }
        self.good.remove(memory);
        None
    }

    fn remember(&self, memory: [u8; 32], generation: u64) {
        if self.good.len() >= MAX_REMEMBERED {
            self.good.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        }
        if self.good.len() >= MAX_REMEMBERED {
            self.good.clear();
        }
        self.good.insert(memory, (generation, Instant::now()));
    }

    /// The user, if unlocked and still with credentials of this generation.
    fn present(&self, name: &Owner, generation: u64, find: impl Fn(&Owner) -> Option<User>) -> Option<Known> {
        if let Some(ours) = self.credentials.as_ref().filter(|ours| ours.user == *name)
            && self.configured_generation(ours) == generation
        {
            return Some(Known { user: name.clone(), admin: true, generation, fresh: false, until: None });
        }
        let user = find(name).filter(|user| user.generation == generation && !user.locked)?;
        Some(Known { user: user.name, admin: user.admin, generation, fresh: false, until: None })
    }

    /// A token for someone who has just been let in by password, and when it ends, in seconds since 1970.
    pub fn grant(&self, known: &Known) -> (String, i64) {
        let expires = unix_seconds().saturating_add(i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims { user: known.user.clone(), expires, generation: known.generation };
        (self.tokens.sign(&claims), expires)
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`Refusal::Token`], whatever is wrong with it.
    pub fn token(&self, text: &str, find: impl Fn(&Owner) -> Option<User>) -> Result<Known, Refusal> {
        let claims = self.tokens.open(text).map_err(|BadToken| Refusal::Token)?;
        let ends = Duration::from_secs(u64::try_from(claims.expires).unwrap_or(0));
        let left = ends.saturating_sub(unix_time());
        if left.is_zero() {
            return Err(Refusal::Token);
        }
        let known = self.present(&claims.user, claims.generation, find).ok_or(Refusal::Token)?;
        Ok(Known { until: Instant::now().checked_add(left), ..known })
    }
}

/// The wall clock: tokens outlive the process, so no other clock can tell their end.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unix_seconds() -> i64 {
    i64::try_from(unix_time().as_secs()).unwrap_or(i64::MAX)
}

fn stripe(user: &Owner) -> usize {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    (hasher.finish() % STRIPES as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::{
        auth::password,
        model::{
            time::Timestamp,
            user::{Grants, Quota},
        },
    };

    static HASH: LazyLock<PasswordHash> = LazyLock::new(|| password::hash("p@ssw0rd"));

    fn user() -> User {
        User {
            name: Owner::new("zm"),
            password: Some(HASH.clone()),
            admin: false,
            locked: false,
            monitor: false,
            generation: 1,
            quota: Quota::default(),
            grants: Grants::default(),
            created_at: Timestamp(0),
        }
    }

    fn gate() -> Gate {
        let credentials = Credentials { user: Owner::new("boss"), password: "secret".into() };
        Gate::new(TokenKey::random(), DEFAULT_TOKEN_LIFETIME, Some(credentials)).with_time_standing_still()
    }

    fn found(user: &User) -> impl Fn(&Owner) -> Option<User> + '_ {
        |name| (*name == user.name).then(|| user.clone())
    }

    async fn ask(gate: &Gate, user: &User, name: &str, password: &str) -> Result<Known, Refusal> {
        gate.password(name, password, None, found(user)).await
    }

    #[tokio::test]
    async fn who_comes_with_a_token_is_known_until_it_ends() {
        let gate = Gate::new(
            TokenKey::random(),
            Duration::from_secs(100),
            Some(Credentials { user: Owner::new("boss"), password: "secret".into() }),
        );
        let known = gate.password("boss", "secret", None, |_| None).await.unwrap();
        assert_eq!(known.until, None);
        let before = Instant::now();
        let (token, _) = gate.grant(&known);
        let until = gate.token(&token, |_| None).unwrap().until.unwrap();
        // Its text has whole seconds.
        assert!(before < until && until <= Instant::now() + Duration::from_secs(100), "{:?}", until - before);
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_who_is_not_locked_is_let_in() {
        let check = async |user: User, name: &str, password: &str, expected: Result<&str, Refusal>| {
            let outcome = ask(&gate(), &user, name, password).await;
            let shown = outcome.map(|known| format!("{}{}", known.user, if known.admin { " admin" } else { "" }));
            assert_eq!(shown.as_deref().map_err(|error| *error), expected, "{name}:{password}");
        };
        check(user(), "zm", "p@ssw0rd", Ok("zm")).await;
        check(User { admin: true, ..user() }, "zm", "p@ssw0rd", Ok("zm admin")).await;
        check(user(), "zm", "p@ssw0r", Err(Refusal::Wrong)).await;
        check(user(), "zm", "", Err(Refusal::Wrong)).await;
        check(user(), "bo", "p@ssw0rd", Err(Refusal::Wrong)).await;
        check(user(), "", "p@ssw0rd", Err(Refusal::Wrong)).await;
        check(User { password: None, ..user() }, "zm", "p@ssw0rd", Err(Refusal::Wrong)).await;
        check(User { locked: true, ..user() }, "zm", "p@ssw0rd", Err(Refusal::Locked)).await;
        check(User { locked: true, ..user() }, "zm", "wrong", Err(Refusal::Wrong)).await;
        check(user(), "boss", "secret", Ok("boss admin")).await;
        check(user(), "boss", "secre", Err(Refusal::Wrong)).await;
        check(user(), "zm", "secret", Err(Refusal::Wrong)).await;
        check(user(), "zm", &"x".repeat(1 << 20), Err(Refusal::Wrong)).await;
    }

    #[tokio::test]
    async fn a_good_password_is_remembered_until_something_changes() {
        let gate = gate();
        assert!(ask(&gate, &user(), "zm", "p@ssw0rd").await.unwrap().fresh);
        assert!(!ask(&gate, &user(), "zm", "p@ssw0rd").await.unwrap().fresh);
        assert_eq!(ask(&gate, &user(), "zm", "p@ssw0rdx").await, Err(Refusal::Wrong));
        // Rights are read anew each time.
        assert!(ask(&gate, &User { admin: true, ..user() }, "zm", "p@ssw0rd").await.unwrap().admin);
        let changed = User { password: Some(password::hash("other")), generation: 2, ..user() };
        assert_eq!(ask(&gate, &changed, "zm", "p@ssw0rd").await, Err(Refusal::Wrong));
        assert_eq!(ask(&gate, &User { locked: true, ..user() }, "zm", "p@ssw0rd").await, Err(Refusal::Locked));
        assert!(ask(&gate, &user(), "boss", "secret").await.unwrap().fresh);
        assert!(!ask(&gate, &user(), "boss", "secret").await.unwrap().fresh);
    }

    #[tokio::test]
    async fn guessing_is_slowed_down_for_the_user_and_the_address_but_not_for_who_is_known() {
        let gate = gate();
        assert!(ask(&gate, &user(), "zm", "p@ssw0rd").await.is_ok());
        for _ in 0..USER_RULE.free {
            assert_eq!(ask(&gate, &user(), "zm", "wrong").await, Err(Refusal::Wrong));
        }
        assert!(matches!(ask(&gate, &user(), "zm", "wrong").await, Err(Refusal::TooMany(_))));
        assert!(ask(&gate, &user(), "zm", "p@ssw0rd").await.is_ok(), "remembered");
        let address = Some("192.0.2.1".parse().unwrap());
        for number in 0..ADDRESS_RULE.free {
            assert_eq!(gate.password(&number.to_string(), "wrong", address, found(&user())).await, Err(Refusal::Wrong));
        }
        assert!(matches!(gate.password("bo", "wrong", address, found(&user())).await, Err(Refusal::TooMany(_))));
        assert_eq!(ask(&gate, &user(), "bo", "wrong").await, Err(Refusal::Wrong), "from elsewhere");
    }

    #[tokio::test]
    async fn many_requests_of_one_client_are_one_login() {
        let gate = gate();
        let user = user();
        let all = futures_util::future::join_all((0..50).map(|_| ask(&gate, &user, "zm", "p@ssw0rd"))).await;
        assert_eq!(all.iter().filter(|outcome| outcome.as_ref().is_ok_and(|known| known.fresh)).count(), 1);
        assert!(all.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_flood_is_refused_and_not_queued() {
        let gate = gate();
        let user = user();
        let names: Vec<String> = (0..MAX_LOGINS + 20).map(|number| number.to_string()).collect();
        let all = futures_util::future::join_all(names.iter().map(|name| ask(&gate, &user, name, "x"))).await;
        assert!(all.contains(&Err(Refusal::Busy)) && all.contains(&Err(Refusal::Wrong)));
    }

    #[tokio::test]
    async fn a_token_is_good_until_its_user_changes() {
        let gate = gate();
        let known = ask(&gate, &user(), "zm", "p@ssw0rd").await.unwrap();
        let (token, expires) = gate.grant(&known);
        assert!((expires - unix_seconds() - 12 * 3600).abs() < 60);
        assert_eq!(gate.token(&token, found(&user())).unwrap().user.as_str(), "zm");
        let check = |user: User| assert_eq!(gate.token(&token, found(&user)), Err(Refusal::Token));
        check(User { generation: 2, ..user() });
        check(User { locked: true, ..user() });
        check(User { name: Owner::new("bo"), ..user() });
        let claims = Claims { user: Owner::new("zm"), expires: unix_seconds(), generation: 1 };
        assert_eq!(gate.token(&gate.tokens.sign(&claims), found(&user())), Err(Refusal::Token), "expired");
        let boss = ask(&gate, &user(), "boss", "secret").await.unwrap();
        assert!(gate.token(&gate.grant(&boss).0, found(&user())).unwrap().admin);
    }
}
