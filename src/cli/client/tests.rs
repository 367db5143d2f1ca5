//! The client against servers that answer by a script.

use futures_util::TryStreamExt;
use serde_json::json;

use super::{
    testing::{Fake, answer},
    *,
};

fn client(url: &str) -> Client {
    Client::at(url, Credentials::None, None).unwrap()
}

#[tokio::test]
async fn a_socket_needs_no_name_and_the_administrators_come_first() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!Client::has_socket(directory.path()));
    let everybody = Fake::on_socket(&directory.path().join("xtao.sock"), |_| answer(200, json!({"user": "zmfsea"})));
    assert!(Client::has_socket(directory.path()));
    let ask = async |role: Role| {
        let client = Client::on_node(directory.path(), role).unwrap();
        client.get::<Value>("/v2/auth/whoami").await.unwrap()["user"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask(Role::Admin).await, "zmfsea");
    let _admin = Fake::on_socket(&directory.path().join("admin.sock"), |_| answer(200, json!({"user": "admin"})));
    assert_eq!(ask(Role::Admin).await, "admin");
    assert_eq!(ask(Role::User).await, "zmfsea");
    assert_eq!(everybody.asked()[0].header("authorization"), "");
    assert_eq!(everybody.asked()[0].header("host"), "localhost");
}

#[tokio::test]
async fn a_log_in_gives_a_token_that_is_never_shown() {
    let server = Fake::start(|asked| match asked.header("authorization") {
        "Basic em1mc2VhOnBAc3N3MHJk" => answer(200, json!({"token": "t0ken", "user": "zmfsea", "admin": false, "expires": "later"})),
        "Bearer t0ken" => answer(200, json!({"user": "zmfsea"})),
        _ => answer(401, json!({"message": "Invalid username or password."})),
    });
    let client = client(&format!("{}/", server.url));
    let login = client.log_in("zmfsea", Secret::new("p@ssw0rd")).await.unwrap();
    assert_eq!(format!("{:?}", login.token), "(secret)");
    let client = client.with(Credentials::Token(login.token));
    assert!(!format!("{client:?}").contains("t0ken"));
    client.call(Method::PUT, "/v2/x", Some(&json!({"a": 1}))).await.unwrap();
    assert_eq!(server.lines(), ["POST /v2/auth/token", "PUT /v2/x {\"a\":1}"]);
    let error = client.log_in("zmfsea", Secret::new("wrong")).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(error.to_string().contains("does not accept user 'zmfsea' with this password (Invalid username or password.)"), "{error}");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = Fake::start(|asked| answer(200, if asked.line.starts_with("GET") { "abc".repeat(100_000) } else { "null".into() }));
    let client = client(&server.url);
    let parts: Vec<Bytes> = client.stream("/v2/long", "*/*").await.unwrap().try_collect().await.unwrap();
    assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), 300_000);
    let parts = futures_util::stream::iter((0..100).map(|_| Ok(Bytes::from_static(b"0123456789"))));
    client.upload(Method::PUT, "/v2/up", "application/octet-stream", Some(1000), parts).await.unwrap();
    let asked = server.asked();
    assert_eq!((asked[1].body.len(), asked[1].header("content-length")), (1000, "1000"));
}

#[tokio::test]
async fn a_source_that_breaks_ends_the_upload() {
    let server = Fake::always(200, Value::Null);
    let parts = futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("the disk is gone"))]);
    let error = client(&server.url).upload(Method::PUT, "/v2/up", "application/octet-stream", None, parts).await.unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
}

#[tokio::test]
async fn errors_say_which_server_and_what_to_do() {
    let check = async |status: u16, body: &str, expected: &str| {
        let body = body.to_owned();
        let server = Fake::start(move |_| answer(status, &body));
        let error = client(&server.url).call(Method::GET, "/v2/apps", None).await.unwrap_err();
        let text = error.to_string().replace(&server.url, "SERVER");
        assert_eq!(text, expected);
    };
    check(404, r#"{"message": "App '/x' does not exist"}"#, "App '/x' does not exist").await;
    check(400, r#"{"message": "Invalid JSON", "details": "the body is empty"}"#, "Invalid JSON: the body is empty").await;
    check(
        422,
        r#"{"message": "Object is not valid", "details": [{"path": "/cpus", "errors": ["a", "b"]}, {"path": "/", "errors": ["c"]}]}"#,
        "Object is not valid: /cpus: a, b; c",
    )
    .await;
    check(422, "{\"message\": \"a\\u001b[31mb\"}", "a?[31mb").await;
    check(401, r#"{"message": "who?"}"#, "SERVER wants a user and password (who?): log in with --user NAME").await;
    check(502, "<html>", "SERVER answers 502 Bad Gateway, and not as a server of ours does: is the address right?").await;
    check(302, "", "SERVER answers 302 Found, and not as a server of ours does: is the address right?").await;
    check(
        200,
        "<html>",
        "SERVER answers what is no answer (expected value at line 1 column 1), and not as a server of ours does: is the address right?",
    )
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("xtao.sock");
    let check = |expected: &str| {
        for (role, elsewhere) in [(Role::User, ", or another server with -d NODE"), (Role::Admin, "")] {
            let error = Client::on_node(directory.path(), role).unwrap_err();
            assert!(error.is_silence());
            assert_eq!(error.to_string().replace(socket.to_str().unwrap(), "SOCKET"), format!("{expected}{elsewhere}"));
        }
    };
    let hint = "is 'xtao serve' running? Name its directory with --work_dir";
    check(&format!("no server answers on SOCKET (no such file or directory); {hint}"));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    check(&format!("no server answers on SOCKET (connection refused); {hint}"));
    let error = client("http://127.0.0.1:1").call(Method::GET, "/", None).await.unwrap_err();
    let expected = "cannot reach the server at http://127.0.0.1:1 (connection refused); is it running, and is that its address?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn addresses_and_certificates_that_cannot_be_used_are_named() {
    let check = |url: &str, file: Option<&str>, expected: &str| {
        let error = Client::at(url, Credentials::None, file.map(Path::new)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("node 1", None, "'node 1' is no address of a server");
    check("ftp://x", None, "only http and https are spoken");
    check("http://me:you@x", None, "a name and password do not belong in an address");
    check("https://x", Some("/nowhere"), "cannot use the certificates in /nowhere: no such file or directory");
    check("https://x", Some("/dev/null"), "there are none in it");
}

#[test]
fn whatever_is_put_into_a_path_stays_in_its_segment() {
    assert_eq!(encode("a/b?c#d%é ~x-y_z."), "a%2Fb%3Fc%23d%25%C3%A9%20~x-y_z.");
    assert_eq!(encode_path("/shop/web 1"), "/shop/web%201");
}
