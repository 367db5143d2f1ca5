//! Who is let in, as whom: one table for each way in.

use std::sync::{LazyLock, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use warp::http::HeaderValue;

use super::*;
use crate::{
    api::testing::at,
    auth::{gate, password, token::Claims},
    core::state::View,
    model::{
        record::{Change, Record},
        user::{Grants, PasswordHash, Quota},
    },
    runtime::{
        handle::{Handle, Submission},
        inbox::Inbox,
    },
};

static HASH: LazyLock<PasswordHash> = LazyLock::new(|| password::hash("p@ssw0rd"));

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl AuditSink for Notes {
    fn decided(&self, decision: &Decision<'_>) {
        let Decision { user, from, refused } = decision;
        self.0.lock().unwrap().push(format!("{user} from {from}: {}", refused.as_deref().unwrap_or("ok")));
    }
}

/// A server with these users, each a line as `zm admin locked password`.
struct World {
    identity: Identity,
    access: Access,
    notes: Arc<Notes>,
    _submissions: Inbox<Submission>,
}

impl World {
    fn new(rules: Rules, users: &[&str], credentials: bool) -> Self {
        let mut view = View::default();
        for line in users {
            view.tables.apply(&Change::Put(Record::User(Arc::new(user(line)))));
        }
        let (handle, submissions) = Handle::new(view);
        let credentials = credentials.then(|| gate::Credentials { user: Owner::new("boss"), password: "secret".into() });
        let notes = Arc::new(Notes::default());
        let gate = Gate::new(TokenKey::random(), DEFAULT_TOKEN_LIFETIME, credentials).with_time_standing_still();
        Self { identity: Identity::new(rules, gate, notes.clone()), access: Access::new(handle, false), notes, _submissions: submissions }
    }

    async fn ask(&self, source: &Source, authorization: &str) -> Result<Who, ApiError> {
        self.identity.who(Some(source), &headers(authorization), &self.access).await
    }
}

fn user(line: &str) -> User {
    let mut words = line.split(' ');
    let name = Owner::new(words.next().unwrap());
    let has = |flag: &str| line.split(' ').skip(1).any(|word| word == flag);
    User {
        name,
        password: has("password").then(|| HASH.clone()),
        admin: has("admin"),
        locked: has("locked"),
        monitor: has("monitor"),
        generation: 1,
        quota: Quota::default(),
        grants: Grants::default(),
        created_at: at(0),
    }
}

fn headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !authorization.is_empty() {
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
    }
    headers
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn tcp() -> Source {
    Source::Tcp("192.0.2.1:40000".parse().unwrap())
}

fn socket(door: Door, uid: u32, account: &str) -> Source {
    Source::Unix { door, uid, account: if account.is_empty() { Err(AccountError::None(uid)) } else { Ok(Owner::new(account)) } }
}

/// `zm`, `#zm` for an administrator, or the status of the refusal.
fn shown(outcome: Result<Who, ApiError>) -> String {
    match outcome {
        Ok(who) => format!("{}{}", if who.admin { "#" } else { "" }, who.user),
        Err(error) => {
            let response = error.response();
            let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap());
            assert_eq!(challenge.is_some(), response.status() == 401, "every 401 has a challenge");
            assert!(challenge.is_none_or(|challenge| challenge == "Basic realm=\"Mesosphere\""));
            response.status().as_str().to_owned()
        }
    }
}

const ON: Rules = Rules { authentication: true, loopback_only: true };

#[tokio::test]
async fn without_credentials_tcp_is_open_only_on_loopback_and_before_the_first_password() {
    let check = async |authentication: bool, loopback_only: bool, users: &[&str], credentials: bool, expected: &str| {
        let rules = Rules { authentication, loopback_only };
        let world = World::new(rules, users, credentials);
        assert_eq!(shown(world.ask(&tcp(), "").await), expected, "{rules:?} {users:?} {credentials}");
        assert_eq!(shown(world.identity.who(None, &headers(""), &world.access).await), expected, "and without a connection");
    };
    check(true, true, &[], false, "#admin").await;
    check(true, true, &["zm"], false, "#admin").await;
    check(true, true, &["zm admin"], false, "#admin").await;
    check(true, true, &["zm password"], false, "401").await;
    check(true, true, &["zm password locked"], false, "401").await;
    check(true, true, &[], true, "401").await;
    check(true, false, &[], false, "401").await;
    check(true, false, &["zm password"], false, "401").await;
    check(false, true, &["zm password"], true, "#admin").await;
    check(false, false, &[], false, "#admin").await;
}

#[tokio::test]
async fn what_is_presented_counts() {
    let users = ["zm password", "bo password admin", "lo password locked", "no"];
    let world = World::new(ON, &users, true);
    let check = async |authorization: &str, expected: &str| {
        assert_eq!(shown(world.ask(&tcp(), authorization).await), expected, "{authorization}");
    };
    check(&basic("zm", "p@ssw0rd"), "zm").await;
    check(&basic("zm", "p@ssw0rd").replace("Basic", "basic"), "zm").await;
    check(&basic("bo", "p@ssw0rd"), "#bo").await;
    check(&basic("boss", "secret"), "#boss").await;
    for (name, password) in
        [("zm", "wrong"), ("lo", "p@ssw0rd"), ("no", ""), ("no", "p@ssw0rd"), ("xx", "p@ssw0rd"), ("", ""), ("boss", "")]
    {
        check(&basic(name, password), "401").await;
    }
    let known = world.identity.gate().password("zm", "p@ssw0rd", None, |name| find(&world.access, name)).await.unwrap();
    let (token, _) = world.identity.gate().grant(&known);
    check(&format!("Bearer {token}"), "zm").await;
    check(&format!("bearer {token}"), "zm").await;
    check(&format!("token={token}"), "zm").await;
    check(&format!("token=\"{token}\""), "zm").await;
    for bad in [
        "Bearer ",
        "Bearer x",
        "token=",
        "token=x",
        "Basic",
        "Basic %",
        "Basic eA==",
        "Digest username=\"zm\"",
        "Negotiate abc",
        "x",
        "Basic /w==",
    ] {
        check(bad, "401").await;
    }
    check(&format!("Bearer {token}x"), "401").await;
    check(&format!("Basic {token}"), "401").await;
    let mut twice = headers(&basic("zm", "p@ssw0rd"));
    twice.append(AUTHORIZATION, basic("bo", "p@ssw0rd").parse().unwrap());
    assert_eq!(shown(world.identity.who(Some(&tcp()), &twice, &world.access).await), "401");
}

#[tokio::test]
async fn on_an_open_server_what_is_presented_does_not_matter() {
    let world = World::new(ON, &["zm"], false);
    for authorization in ["", &basic("any", "thing"), "Bearer x", "garbage"] {
        assert_eq!(shown(world.ask(&tcp(), authorization).await), "#admin", "{authorization}");
    }
    // Where nobody is asked, who says who it is must still be right.
    let off = World::new(Rules { authentication: false, ..ON }, &["zm password"], false);
    assert_eq!(shown(off.ask(&tcp(), &basic("zm", "p@ssw0rd")).await), "zm");
    assert_eq!(shown(off.ask(&tcp(), &basic("zm", "wrong")).await), "401");
}

#[tokio::test]
async fn sockets_tell_who_it_is() {
    let users = ["zm password", "bo admin", "lo locked", "root locked"];
    let check = async |source: Source, authorization: &str, expected: &str| {
        let world = World::new(ON, &users, false);
        assert_eq!(shown(world.ask(&source, authorization).await), expected, "{source:?} {authorization}");
    };
    let (users_door, admins) = (Door::Users, Door::Administrators);
    check(socket(users_door, 1000, "zm"), "", "zm").await;
    check(socket(users_door, 1001, "unheard-of"), "", "unheard-of").await;
    check(socket(users_door, 1002, "bo"), "", "#bo").await;
    check(socket(users_door, 1003, "lo"), "", "403").await;
    check(socket(users_door, 1004, ""), "", "403").await;
    check(socket(users_door, 0, "root"), "", "#root").await;
    check(socket(admins, 1000, "zm"), "", "#zm").await;
    check(socket(admins, 1003, "lo"), "", "403").await;
    check(socket(admins, 0, "root"), "", "#root").await;
    // What is said counts before what is seen.
    check(socket(users_door, 0, "root"), &basic("zm", "p@ssw0rd"), "zm").await;
    check(socket(admins, 0, "root"), &basic("zm", "wrong"), "401").await;
    check(socket(users_door, 1004, ""), &basic("zm", "p@ssw0rd"), "zm").await;
}

#[tokio::test]
async fn a_socket_needs_no_password_even_before_any_exists() {
    let world = World::new(Rules { authentication: true, loopback_only: false }, &[], false);
    assert_eq!(shown(world.ask(&socket(Door::Users, 1000, "zm"), "").await), "zm");
}

#[tokio::test]
async fn a_login_is_by_password_or_socket_and_never_by_token() {
    let world = World::new(ON, &["zm password", "no"], false);
    let check = async |source: &Source, authorization: &str, expected: &str| {
        let outcome = world.identity.login(Some(source), &headers(authorization), &world.access).await;
        let found = outcome.map_or_else(|error| error.response().status().as_str().to_owned(), |known| known.user.to_string());
        assert_eq!(found, expected, "{source:?} {authorization}");
    };
    check(&tcp(), &basic("zm", "p@ssw0rd"), "zm").await;
    check(&tcp(), &basic("zm", "wrong"), "401").await;
    check(&tcp(), "", "401").await;
    check(&tcp(), &basic("zm", "p@ssw0rd"), "zm").await;
    let told = |reason: &str| format!("zm from 192.0.2.1: {reason}");
    assert_eq!(*world.notes.0.lock().unwrap(), [told("ok"), told("wrong user or password"), told("ok")], "each login is told");
    check(&socket(Door::Users, 1000, "zm"), "", "zm").await;
    check(&socket(Door::Users, 1000, "no"), "", "no").await;
    check(&socket(Door::Users, 1000, "xx"), "", "403").await;
    let known = world.identity.gate().password("zm", "p@ssw0rd", None, |name| find(&world.access, name)).await.unwrap();
    check(&tcp(), &format!("Bearer {}", world.identity.gate().grant(&known).0), "403").await;
    let empty = World::new(ON, &[], false);
    let open = empty.identity.login(Some(&tcp()), &headers(&basic("any", "thing")), &empty.access).await;
    assert_eq!(open.unwrap_err().response().status(), 401, "there is nobody to log in as");
}

#[tokio::test]
async fn guessing_ends_in_429_and_is_told() {
    let world = World::new(ON, &["zm password"], false);
    for _ in 0..5 {
        assert_eq!(shown(world.ask(&tcp(), &basic("zm", "wrong")).await), "401");
    }
    let response = world.ask(&tcp(), &basic("zm", "p@ssw0rd")).await.unwrap_err().response();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    let notes = world.notes.0.lock().unwrap();
    assert_eq!(notes[0], "zm from 192.0.2.1: wrong user or password");
    assert_eq!(notes[5], "zm from 192.0.2.1: too many failed logins; try again in 1 s");
    assert_eq!(notes.len(), 6);
}

#[tokio::test]
async fn a_login_is_told_once_and_silence_never() {
    let world = World::new(ON, &["zm password", "lo locked"], false);
    for _ in 0..3 {
        assert_eq!(shown(world.ask(&tcp(), &basic("zm", "p@ssw0rd")).await), "zm");
        assert_eq!(shown(world.ask(&tcp(), "").await), "401");
    }
    assert_eq!(shown(world.ask(&socket(Door::Users, 1003, "lo"), "").await), "403");
    assert_eq!(*world.notes.0.lock().unwrap(), ["zm from 192.0.2.1: ok", "lo from uid 1003: the user is locked"]);
}

#[tokio::test]
async fn a_forged_or_old_token_is_refused() {
    let key = TokenKey::random();
    let claims = |expires| Claims { user: Owner::new("zm"), expires, generation: 1 };
    let (good, old) = (key.sign(&claims(i64::MAX)), key.sign(&claims(1)));
    let forged = TokenKey::random().sign(&claims(i64::MAX));
    let mut world = World::new(ON, &["zm password"], false);
    world.identity = Identity::new(ON, Gate::new(key, DEFAULT_TOKEN_LIFETIME, None), world.notes.clone());
    for (token, expected) in [(good, "zm"), (old, "401"), (forged, "401")] {
        assert_eq!(shown(world.ask(&tcp(), &format!("Bearer {token}")).await), expected);
    }
}

#[test]
fn secrets_are_in_no_debug_text() {
    let credentials = gate::Credentials { user: Owner::new("boss"), password: "secret".into() };
    assert_eq!(format!("{credentials:?}"), "boss:(hidden)");
    assert!(!format!("{:?}", user("zm password")).contains("argon2"));
}

#[test]
fn whatever_is_thrown_at_the_authorization_header_lets_nobody_in() {
    let gate = Gate::new(TokenKey::random(), DEFAULT_TOKEN_LIFETIME, None);
    let scheme = prop::sample::select(vec!["Basic ", "bearer ", "Bearer", "token=", "token=\"", "Digest ", "Basic\t", ""]);
    let rest = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| STANDARD.encode(bytes).into_bytes()),
    ];
    crate::fuzz::check("authorization headers", 400, &(scheme, rest, any::<bool>()), |(scheme, rest, twice)| {
        let bytes = [scheme.as_bytes(), &rest].concat();
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, value.clone());
        if twice {
            headers.append(AUTHORIZATION, value);
        }
        match Credentials::read(&headers) {
            Some(_) if twice => prop_assert!(false, "two headers are one too many"),
            Some(Credentials::Token(token)) => prop_assert!(gate.token(&token, |_| Some(user("zm admin"))).is_err()),
            Some(Credentials::Password(name, _)) => prop_assert!(!name.contains(':')),
            None => {}
        }
        Ok(())
    });
}
