//! The routes about users: what is answered, what is refused, and what the core is asked.

use std::sync::Arc;

use super::*;
use crate::{
    api::testing::{Server, World, at},
    model::{record::Record, user::PasswordHash},
};

fn world() -> World {
    let mut world = World::default();
    let zm = User {
        name: Owner::new("zm"),
        password: None,
        admin: true,
        locked: false,
        monitor: false,
        generation: 1,
        quota: Quota { cpus: Some(Scalar::from_f64(2.5)), brick: Some(1024), ..Quota::default() },
        grants: Grants { privileged: true, ..Grants::default() },
        created_at: at(0),
    };
    let bo = User { name: Owner::new("bo"), admin: false, quota: Quota::default(), grants: Grants::default(), ..zm.clone() };
    world.put(Record::User(Arc::new(zm))).put(Record::User(Arc::new(bo)));
    world
}

#[tokio::test]
async fn users_are_shown_changed_and_removed() {
    let server = Server::new(world());
    for (snapshot, line, body) in [
        ("whoami", "GET /v2/auth/whoami", ""),
        ("list", "GET /v2/auth/users", ""),
        ("one", "GET /v2/auth/users/zm", ""),
        ("unknown", "GET /v2/auth/users/none", ""),
        ("changed", "PUT /v2/auth/users/zm", r#"{"locked": false, "quota": {"ports": 3, "cpus": null}, "grants": {"hostVolumes": true}}"#),
        ("removed", "DELETE /v2/auth/users/zm", ""),
        ("unknown_removed", "DELETE /v2/auth/users/none", ""),
        ("wrong_types", "PUT /v2/auth/users/zm", r#"{"password": 1, "admin": "yes", "quota": [], "grants": {"privileged": 1}}"#),
        (
            "wrong_values",
            "PUT /v2/auth/users/zm",
            r#"{"password": "", "quota": {"cpus": -1, "ports": 4294967296, "brick": 1.5, "disk": 1}, "grants": {"root": true}, "x": 1}"#,
        ),
        ("not_an_object", "PUT /v2/auth/users/zm", "[]"),
        ("wrong_method", "POST /v2/auth/users/zm", "{}"),
        ("no_login_here", "POST /v2/auth/token", ""),
    ] {
        insta::assert_snapshot!(snapshot, server.ask(line, body).await.show());
    }
    let requests = server.requests.lock().unwrap();
    let change = UserChange {
        locked: Some(false),
        quota: Some(Quota { ports: Some(3), ..Quota::default() }),
        grants: Some(Grants { host_volumes: true, ..Grants::default() }),
        ..UserChange::default()
    };
    assert_eq!(requests[0], Request::PutUser { name: Owner::new("zm"), change });
    assert_eq!(requests.len(), 3, "what is wrong does not reach the core");
}

#[tokio::test]
async fn a_password_is_hashed_before_it_goes_anywhere_and_never_shown() {
    let mut secret = world();
    let hashed = PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaA");
    let user = User { password: Some(hashed), ..(*secret.view.tables.users[&Owner::new("zm")]).clone() };
    secret.put(Record::User(Arc::new(user)));
    let mut server = Server::new(secret);
    // A password exists, so that nobody comes in unasked; the rules are tested elsewhere.
    server.set_identity(crate::api::Identity::new(
        identity::Rules { authentication: false, loopback_only: true },
        crate::auth::gate::Gate::new(crate::auth::token::TokenKey::random(), crate::auth::gate::DEFAULT_TOKEN_LIFETIME, None),
        Arc::new(identity::LogSink),
    ));
    let answer = server.ask("PUT /v2/auth/users/zm", r#"{"password": "p@ssw0rd"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()["password"].clone()), (200, json!(true)));
    for line in ["GET /v2/auth/users", "GET /v2/auth/users/zm"] {
        let body = server.ask(line, "").await.body;
        assert!(!body.contains("argon2") && !body.contains("generation"), "{body}");
    }
    let requests = server.requests.lock().unwrap();
    let Request::PutUser { change, .. } = &requests[0] else { panic!("{requests:?}") };
    assert!(password::verify(change.password.as_ref().unwrap(), "p@ssw0rd"));
    assert!(!format!("{requests:?}").contains("p@ssw0rd"));
}
