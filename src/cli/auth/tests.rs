//! The commands as they are typed: with a server that answers by a script, and on the directory of a stopped one.

use std::path::Path;

use clap::Parser;

use super::*;
use crate::{
    auth::password,
    cli::client::testing::{Fake, answer as reply},
    store::{Store, embedded::EmbeddedStore, identity::WorkDir},
};

#[derive(Parser)]
#[command(name = "xtao auth")]
struct Xtao {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Arguments, String> {
    Xtao::try_parse_from(std::iter::once("xtao").chain(line.split_whitespace())).map(|it| it.arguments).map_err(|error| error.to_string())
}

async fn on(work_dir: &Path, line: &str) -> Result<(), String> {
    let line = format!("{line} --work_dir {}", work_dir.display());
    run(parse(&line).unwrap()).await.map_err(|error| error.to_string().replace(work_dir.to_str().unwrap(), "WORK_DIR"))
}

#[test]
fn the_answers_are_those_of_the_manual() {
    assert_eq!(answer("success to set the passwd", 0), "{\n     \"output\": \"success to set the passwd\",\n     \"error\": 0\n}");
    assert_eq!(answer("no \"x\"", 1), "{\n     \"output\": \"no \\\"x\\\"\",\n     \"error\": 1\n}");
}

#[test]
fn a_flag_is_no_password() {
    let check = |line: &str, expected: (Option<&str>, bool)| {
        let Command::Password { pass, admin, .. } = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!((pass.as_deref(), admin), expected, "{line}");
    };
    check("password zm", (None, false));
    check("password zm --admin", (None, true));
    check("password --admin zm p", (Some("p"), true));
    check("password zm -p-", (Some("-p-"), false));
}

#[test]
fn users_are_shown_for_people() {
    let users = json!({"users": [
        {"name": "zmfsea", "admin": false, "locked": false, "password": true, "createdAt": "2026-05-28T20:26:40.123Z"},
        {"name": "bo", "admin": true, "locked": true, "password": false, "createdAt": "2026-05-28T20:26:41.000Z"},
    ]});
    insta::assert_snapshot!(table(&users), @r"
    USER    ROLE           PASSWORD  STATE   SINCE
    zmfsea  user           yes       -       2026-05-28T20:26:40.123Z
    bo      administrator  no        locked  2026-05-28T20:26:41.000Z
    ");
    assert_eq!(table(&json!({ "users": [] })), "There are no users with a password yet.");
}

#[test]
fn the_help_teaches() {
    use clap::CommandFactory as _;
    let mut command = Xtao::command();
    insta::assert_snapshot!("help", command.render_long_help().to_string());
    insta::assert_snapshot!("help_password", command.find_subcommand_mut("password").unwrap().render_long_help().to_string());
}

#[tokio::test]
async fn a_running_server_is_asked() {
    let check = async |line: &str, expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let users = json!({"users": [{"name": "zm"}]});
        let fake = Fake::on_socket(&directory.path().join("admin.sock"), move |_| reply(200, &users));
        on(directory.path(), line).await.unwrap();
        assert_eq!(fake.asked().last().unwrap().show(), expected, "{line}");
    };
    check("password zm p@ssw0rd", r#"PUT /v2/auth/users/zm {"password":"p@ssw0rd"}"#).await;
    check("password zm -dashed- --admin", r#"PUT /v2/auth/users/zm {"password":"-dashed-","admin":true}"#).await;
    check("lock zm", r#"PUT /v2/auth/users/zm {"locked":true}"#).await;
    check("unlock zm", r#"PUT /v2/auth/users/zm {"locked":false}"#).await;
    check("remove zm", "DELETE /v2/auth/users/zm").await;
    check("list", "GET /v2/auth/users").await;
}

#[tokio::test]
async fn what_the_server_refuses_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let _fake =
        Fake::on_socket(&directory.path().join("xtao.sock"), |_| reply(403, json!({"message": "Not Authorized to perform this action!"})));
    let refused = Err("this is for administrators: root, the members of the group 'xtao', and users who are administrators".to_owned());
    assert_eq!(on(directory.path(), "lock zm").await, refused);
    assert_eq!(on(directory.path(), "password zm secret").await, Err("no password was set".into()), "the answer has said why");
    assert_eq!(on(directory.path(), "unlock zm").await, refused);
}

/// A directory that a server has used.
fn used() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let work_dir = WorkDir::open(directory.path(), "docker").unwrap();
    drop(EmbeddedStore::open(&work_dir).unwrap());
    directory
}

async fn users(directory: &Path) -> Vec<std::sync::Arc<crate::model::user::User>> {
    let work_dir = WorkDir::open(directory, "docker").unwrap();
    let records = EmbeddedStore::open(&work_dir).unwrap().load().await.unwrap();
    records.into_iter().filter_map(|record| if let crate::model::record::Record::User(user) = record { Some(user) } else { None }).collect()
}

#[tokio::test]
async fn a_stopped_servers_users_are_changed_where_they_are() {
    let directory = used();
    on(directory.path(), "password zm p@ssw0rd").await.unwrap();
    on(directory.path(), "password bo other --admin").await.unwrap();
    on(directory.path(), "lock zm").await.unwrap();
    let found = users(directory.path()).await;
    let zm = found.iter().find(|user| user.name.as_str() == "zm").unwrap();
    assert!(zm.locked && !zm.admin && password::verify(zm.password.as_ref().unwrap(), "p@ssw0rd"));
    assert!(found.iter().any(|user| user.name.as_str() == "bo" && user.admin));
    on(directory.path(), "list").await.unwrap();
    on(directory.path(), "remove zm").await.unwrap();
    assert_eq!(on(directory.path(), "remove zm").await, Err("User 'zm' does not exist".into()));
    assert_eq!(on(directory.path(), "unlock zm").await, Err("User 'zm' does not exist".into()));
    assert_eq!(users(directory.path()).await.len(), 1);
    let log = std::fs::read_to_string(directory.path().join("audit/audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<String> =
        lines.iter().map(|line| format!("{} {}", line["method"].as_str().unwrap(), line["of"][0].as_str().unwrap())).collect();
    assert_eq!(told, ["PUT user zm", "PUT user bo", "PUT user zm", "DELETE user zm"]);
    assert!(lines.iter().all(|line| line["from"].as_str().unwrap().ends_with(", while the server was stopped")), "{log}");
    assert!(!log.contains("p@ssw0rd") && !log.contains("argon2"), "{log}");
}

#[tokio::test]
async fn where_neither_server_nor_directory_is_it_is_said() {
    let nothing = tempfile::tempdir().unwrap();
    let refused = "no server answers on the socket in WORK_DIR, and its directory cannot be changed without one: ";
    let found = on(nothing.path(), "list").await.unwrap_err();
    assert_eq!(
        found,
        format!("{refused}no server has used WORK_DIR yet; name the server's directory with --work_dir, or start 'xtao serve' first")
    );
    assert!(std::fs::read_dir(nothing.path()).unwrap().next().is_none(), "nothing was made there");
    let held = used();
    let _server = WorkDir::open(held.path(), "docker").unwrap();
    let found = on(held.path(), "lock zm").await.unwrap_err();
    assert!(found.starts_with(refused) && found.contains("another server (process"), "{found}");
}

#[tokio::test]
async fn names_and_passwords_that_cannot_be_are_refused_before_anything_is_done() {
    let directory = used();
    for line in ["password a/b x", "password -- .. x", "lock a:b"] {
        let line = line.replace("-- ", "");
        on(directory.path(), &line).await.unwrap_err();
    }
    let place = Place { work_dir: directory.path().to_owned() };
    let check = async |user: &str, pass: &str, expected: &str| {
        let error = set_password(&place, user, Some(pass.into()), false).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{user} {pass}: {error}");
    };
    check("zm", "", "must not be empty").await;
    check("zm", &"x".repeat(2000), "at most 1024 bytes").await;
    check("zm", "a\nb", "control characters").await;
    check("a/b", "x", "'a/b' is no name of a user").await;
    assert!(users(directory.path()).await.is_empty());
}
