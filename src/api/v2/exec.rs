//! `/v2/tasks/{id}/exec`: a command inside a task's container, or beside a task without an image, as a conversation. Ours; DC/OS has the like in its agents.
//!
//! `POST` with `Connection: Upgrade`, `Upgrade: xtao-exec` and `{"cmd": ["sh"], "tty": true, "columns": 80, "lines": 24}` (without `tty`: no terminal) is
//! answered with 101; from then on both sides send [frames](crate::model::frame). The last frame is the exit code, or says why the command was ended
//! before: the account or the token that opened the conversation may not go on, or the server stops. Whoever closes the connection before has gone away,
//! and the command is ended too.

use std::{io, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
};
use tracing::debug;
use warp::http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONNECTION, UPGRADE},
};

use super::known;
use crate::{
    api::{
        Api,
        access::{End, Session},
        answer,
        call::Call,
        error::{ApiError, ApiResult},
        identity,
        patience::Hold,
    },
    model::{
        frame::{self, Channel, Frame, FrameReader},
        id::TaskId,
        request::{Asker, Violation},
    },
    runtime::node::{Exec, ExecRequest},
};

/// The protocol's name.
pub const PROTOCOL: &str = "xtao-exec";

/// Read from the client at once, bytes.
const PIECE_BYTES: usize = 16 << 10;

/// A client that does not take what is sent to it for this long has gone away.
const TAKE_LIMIT: Duration = Duration::from_secs(30);

/// For the last word to a client whose command was ended. One that takes nothing does not hold up the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// Arguments of a command altogether, bytes.
const MAX_COMMAND_BYTES: usize = 64 << 10;

pub async fn route(api: &Api, mut call: Call, task: &str) -> ApiResult {
    if call.method != Method::POST {
        return Err(ApiError::method(&[Method::POST]));
    }
    let task = known::task(api, &call, task)?;
    let upgrade = call.upgrade.take().filter(|_| wants_protocol(&call.headers)).ok_or_else(|| {
        let text = format!("this is a conversation: ask with 'Connection: Upgrade' and 'Upgrade: {PROTOCOL}'");
        ApiError::new(StatusCode::UPGRADE_REQUIRED, text).with(UPGRADE, PROTOCOL)
    })?;
    let request = request(&call.json().await?, Asker::from(&identity::origin(&call)))?;
    let exec = known::nodes(api)?.exec(task.agent.as_ref(), &task.id, request).await?;
    tokio::spawn(converse(upgrade, exec, task.id, identity::session(api, &call), call.closing(), call.hold()));
    let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

fn wants_protocol(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, PROTOCOL)
}

fn request(body: &Value, asker: Asker) -> Result<ExecRequest, ApiError> {
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let command = body.get("cmd").ok_or_else(|| wrong("/cmd", "error.path.missing"))?;
    let command = command.as_array().ok_or_else(|| wrong("/cmd", "error.expected.jsarray"))?;
    let command: Option<Vec<String>> = command.iter().map(|part| part.as_str().map(str::to_owned)).collect();
    let command = command.ok_or_else(|| wrong("/cmd", "error.expected.jsstring"))?;
    if command.first().is_none_or(String::is_empty) {
        return Err(ApiError::invalid(&[Violation::new("/cmd", "must name a program")]));
    }
    if command.iter().map(String::len).sum::<usize>() > MAX_COMMAND_BYTES || command.iter().any(|part| part.contains('\0')) {
        return Err(ApiError::invalid(&[Violation::new("/cmd", "is too long, or has a NUL in it")]));
    }
    let size = |name: &'static str, default: u16| match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(number) => {
            let number = number.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
            number.ok_or_else(|| wrong(&format!("/{name}"), "error.expected.jsnumber"))
        }
    };
    let size = (size("columns", 80)?, size("lines", 24)?);
    let tty = match body.get("tty") {
        None | Some(Value::Null) => false,
        Some(tty) => tty.as_bool().ok_or_else(|| wrong("/tty", "error.expected.jsboolean"))?,
    };
    Ok(ExecRequest { command, terminal: tty.then_some(size), asker })
}

/// Until the command has ended, the client has gone away or may not go on, or the server stops. Dropping its ends ends the command.
async fn converse(upgrade: OnUpgrade, exec: Exec, task: TaskId, session: Session, mut closing: watch::Receiver<bool>, hold: Option<Hold>) {
    let connection = match upgrade.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return debug!(%error, "A conversation with a command did not begin."),
    };
    let Exec { input, output } = exec;
    let (from_client, to_client) = tokio::io::split(connection);
    let mut to_client = Outgoing { client: to_client, bytes: Vec::new(), written: 0 };
    let stopped = async {
        if closing.wait_for(|closing| *closing).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let why = tokio::select! {
        () = send(output, &mut to_client) => None,
        () = receive(from_client, input) => None,
        () = stopped => Some("the server stops; the task keeps running, and the command may be given again when there is a server"),
        end = session.over(task.instance.app()) => {
            debug!(?end, %task, "A conversation with a command ends: its client may not go on.");
            Some(reason(end))
        }
    };
    if let Some(why) = why {
        frame::write(Channel::End, why.as_bytes(), &mut to_client.bytes);
        // A client that does not listen sees the connection close.
        _ = tokio::time::timeout(FAREWELL_LIMIT, to_client.finish()).await;
    }
    // The server waits with its end for this one.
    drop((hold, closing));
}

fn reason(end: End) -> &'static str {
    match end {
        End::Expired => "the login that opened it has expired; log in again",
        End::Anothers => "the app has become somebody else's",
        End::Changed | End::Lagged(_) | End::Closed => "password, lock or rights of its account have changed; log in again",
    }
}

/// What is on its way to the client. Whenever sending is given up, it is known what of a frame is out already.
struct Outgoing<C> {
    client: C,
    bytes: Vec<u8>,
    written: usize,
}

impl<C: AsyncWrite + Unpin> Outgoing<C> {
    async fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.client.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.written += written,
            }
        }
        self.bytes.clear();
        self.written = 0;
        self.client.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.client.shutdown().await
    }
}

/// Ends after the last frame, or when the client does not take any more.
async fn send(mut output: mpsc::Receiver<Frame>, client: &mut Outgoing<impl AsyncWrite + Unpin>) {
    while let Some(Frame { channel, payload }) = output.recv().await {
        frame::write(channel, &payload, &mut client.bytes);
        match tokio::time::timeout(TAKE_LIMIT, client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    // Whether the client hears of the end or sees the connection close makes no difference.
    _ = tokio::time::timeout(TAKE_LIMIT, client.finish()).await;
}

/// Ends when the client has gone away, or says what makes no sense.
async fn receive(mut client: impl AsyncRead + Unpin, input: mpsc::Sender<Frame>) {
    let mut reader = FrameReader::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match client.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(length) => reader.push(&piece[..length]),
        }
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) if matches!(frame.channel, Channel::Stdin | Channel::Resize) => {
                    if input.send(frame).await.is_err() {
                        // The command takes nothing any more; how it ends is still to be told.
                        return std::future::pending().await;
                    }
                }
                Ok(Some(frame)) => return debug!(channel = ?frame.channel, "A client sent what only a command sends."),
                Ok(None) => break,
                Err(error) => return debug!(%error, "A client sent no frame."),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        net::{TcpListener, TcpStream},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;
    use crate::{
        api::{
            Identity, Limits,
            identity::Rules,
            serve,
            testing::{Node, Server, World, app},
        },
        audit::Audit,
        auth::{
            gate::{Gate, Known},
            token::TokenKey,
        },
        model::{
            id::Owner,
            instance::Condition,
            record::{Change, RecordKey},
        },
        runtime::handle::Published,
    };

    const TASK: &str = "web.instance-00000000-0000-0000-0000-000000000001._app.1";

    fn world(owner: &str) -> World {
        let mut world = World::default();
        world.user("ann", false, false).user("root", true, false);
        world.of(owner).agent().app(app("/web")).instance("/web", 1, Condition::Running, &[31_001]);
        world
    }

    fn server(limits: Limits, node: Arc<Node>) -> Server {
        let mut server = Server::with_limits(world("ann"), limits);
        server.set_nodes(node);
        server
    }

    #[tokio::test]
    async fn what_is_no_conversation_is_refused() {
        let server = server(Limits::default(), Arc::new(Node::default()));
        let path = format!("POST /v2/tasks/{TASK}/exec");
        let answer = server.ask(&path, r#"{"cmd": ["sh"]}"#).await;
        assert_eq!((answer.status.as_u16(), &answer.headers["upgrade"]), (426, &HeaderValue::from_static(PROTOCOL)));
        insta::assert_snapshot!("not_upgraded", answer.show());
        assert_eq!(server.ask(&format!("GET /v2/tasks/{TASK}/exec"), "").await.status, 405);
        assert_eq!(server.ask("POST /v2/tasks/x/exec", "{}").await.message(), "Task 'x' does not exist");
    }

    #[test]
    fn a_request_names_a_program() {
        let check = |body: &str, expected: Result<(&[&str], Option<(u16, u16)>), u16>| {
            let found = request(&serde_json::from_str(body).unwrap(), Asker::Administrator);
            let found = found.map_err(|error| error.response().status().as_u16());
            let expected = expected.map(|(command, terminal)| ExecRequest {
                command: command.iter().map(|part| (*part).to_owned()).collect(),
                terminal,
                asker: Asker::Administrator,
            });
            assert_eq!(found, expected, "{body}");
        };
        check(r#"{"cmd": ["ls", "-l"]}"#, Ok((&["ls", "-l"], None)));
        check(r#"{"cmd": ["sh"], "tty": true}"#, Ok((&["sh"], Some((80, 24)))));
        check(r#"{"cmd": ["sh"], "tty": true, "columns": 132, "lines": 50}"#, Ok((&["sh"], Some((132, 50)))));
        check(r#"{"cmd": ["sh"], "tty": false, "columns": 132}"#, Ok((&["sh"], None)));
        for bad in [
            "{}",
            "[]",
            r#"{"cmd": "ls"}"#,
            r#"{"cmd": []}"#,
            r#"{"cmd": [""]}"#,
            r#"{"cmd": ["a\u0000b"]}"#,
            r#"{"cmd": [1]}"#,
            r#"{"cmd": ["sh"], "tty": "yes"}"#,
            r#"{"cmd": ["sh"], "lines": 0}"#,
            r#"{"cmd": ["sh"], "columns": 70000}"#,
        ] {
            check(bad, Err(422));
        }
    }

    /// A client in the middle of a conversation.
    struct Client {
        stream: TcpStream,
        reader: FrameReader,
        stop: oneshot::Sender<()>,
        serving: JoinHandle<()>,
    }

    impl Client {
        async fn connect(server: &Server) -> Self {
            Self::connect_with(server, "").await
        }

        /// `headers`: further ones, each with its end of line.
        async fn connect_with(server: &Server, headers: &str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let serving = tokio::spawn(serve(listener, server.api.clone(), async { _ = stopped.await }));
            let body = r#"{"cmd": ["cat"]}"#;
            let head = "Host: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: XTAO-exec\r\nContent-Type: application/json\r\n";
            let request = format!("POST /v2/tasks/{TASK}/exec HTTP/1.1\r\n{headers}{head}Content-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
            let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
            assert!(
                answer.starts_with("http/1.1 101 switching protocols\r\n") && answer.contains("\r\nupgrade: xtao-exec\r\n"),
                "{answer}"
            );
            Self { stream, reader: FrameReader::default(), stop, serving }
        }

        async fn send(&mut self, channel: Channel, payload: &[u8]) {
            let mut bytes = Vec::new();
            frame::write(channel, payload, &mut bytes);
            self.stream.write_all(&bytes).await.unwrap();
        }

        /// The next frame; `None`: the connection was closed.
        async fn receive(&mut self) -> Option<(Channel, String)> {
            loop {
                if let Some(frame) = self.reader.next_frame().unwrap() {
                    return Some((frame.channel, String::from_utf8(frame.payload).unwrap()));
                }
                let mut piece = [0; 100];
                match self.stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return None,
                    Ok(length) => self.reader.push(&piece[..length]),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_node_hears_who_wants_a_command_to_be_run() {
        let node = Arc::new(Node::default());
        let mut server = server(Limits::default(), node.clone());
        Client::connect(&server).await;
        let token = token(&mut server, Duration::from_secs(1000));
        Client::connect_with(&server, &token).await;
        assert_eq!(*node.askers.lock().unwrap(), [Asker::Administrator, Asker::User(Owner::new("ann"))]);
    }

    #[tokio::test]
    async fn a_conversation_goes_both_ways_and_ends_with_an_exit_code() {
        let server = server(Limits::default(), Arc::new(Node::default()));
        let mut client = Client::connect(&server).await;
        client.send(Channel::Stdin, b"hello").await;
        assert_eq!(client.receive().await.unwrap(), (Channel::Stdout, "hello".to_owned()));
        client.send(Channel::Resize, br#"{"columns": 1, "lines": 2}"#).await;
        assert_eq!(client.receive().await.unwrap(), (Channel::Stderr, r#"{"columns": 1, "lines": 2}"#.to_owned()));
        client.send(Channel::Stdin, b"").await;
        assert_eq!(client.receive().await.unwrap(), (Channel::Exit, "0".to_owned()));
        assert_eq!(client.receive().await, None);
    }

    #[tokio::test]
    async fn a_silent_conversation_lives_and_ends_with_its_client() {
        let node = Arc::new(Node::default());
        let server = server(Limits { idle: Duration::from_millis(300), ..Limits::default() }, node.clone());
        let mut client = Client::connect(&server).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        client.send(Channel::Stdin, b"still here").await;
        assert_eq!(client.receive().await.unwrap().1, "still here");
        drop(client);
        node.left.notified().await;
    }

    #[tokio::test]
    async fn what_makes_no_sense_ends_a_conversation() {
        for noise in [[9, 0, 0, 0, 0], [0, 255, 0, 0, 0], [1, 0, 0, 0, 0]] {
            let node = Arc::new(Node::default());
            let server = server(Limits::default(), node.clone());
            let mut client = Client::connect(&server).await;
            client.stream.write_all(&noise).await.unwrap();
            assert_eq!(client.receive().await, None);
            node.left.notified().await;
        }
    }

    /// A token of ann's, good for so long.
    fn token(server: &mut Server, lifetime: Duration) -> String {
        let gate = Gate::new(TokenKey::random(), lifetime, None);
        let ann = Known { user: Owner::new("ann"), admin: false, generation: 1, fresh: true, until: None };
        let (token, _) = gate.grant(&ann);
        server.set_identity(Identity::new(Rules { authentication: true, loopback_only: false }, gate, Arc::new(Audit::default())));
        format!("Authorization: Bearer {token}\r\n")
    }

    /// The command of a client that was let in and may not go on is ended, and the client is told why.
    async fn is_ended(mut client: Client, node: &Node, expected: &str) {
        assert_eq!(client.receive().await.unwrap(), (Channel::End, expected.to_owned()));
        assert_eq!(client.receive().await, None);
        node.left.notified().await;
    }

    #[tokio::test]
    async fn a_conversation_ends_with_the_right_to_it() {
        let changed = "password, lock or rights of its account have changed; log in again";
        let check = async |change: fn(&mut World), key: RecordKey, expected: &str| {
            let node = Arc::new(Node::default());
            let mut server = server(Limits::default(), node.clone());
            let token = token(&mut server, Duration::from_secs(1000));
            let mut client = Client::connect_with(&server, &token).await;
            // What does not concern it goes by.
            let publish = |world: World, revision: u64, key: RecordKey| {
                server.handle.publish(world.view, Published { revision, events: Vec::new(), changed: vec![key] });
            };
            publish(world("ann"), 1, RecordKey::User(Owner::new("root")));
            client.send(Channel::Stdin, b"hello").await;
            assert_eq!(client.receive().await.unwrap(), (Channel::Stdout, "hello".to_owned()));
            let mut next = world("ann");
            change(&mut next);
            publish(next, 2, key);
            is_ended(client, &node, expected).await;
        };
        let ann = || RecordKey::User(Owner::new("ann"));
        check(|world| _ = world.user("ann", false, true), ann(), changed).await;
        check(|world| _ = world.user("ann", true, false), ann(), changed).await;
        check(|world| world.view.tables.apply(&Change::Delete(RecordKey::User(Owner::new("ann")))), ann(), changed).await;
        check(|given| *given = world("root"), RecordKey::App("/web".parse().unwrap()), "the app has become somebody else's").await;
    }

    #[tokio::test]
    async fn a_conversation_ends_with_the_token_that_opened_it() {
        let node = Arc::new(Node::default());
        let mut server = server(Limits::default(), node.clone());
        // Expiry counts in whole seconds.
        let token = token(&mut server, Duration::from_secs(2));
        let client = Client::connect_with(&server, &token).await;
        is_ended(client, &node, "the login that opened it has expired; log in again").await;
    }

    #[tokio::test]
    async fn a_server_that_stops_says_so_before_it_is_gone() {
        let node = Arc::new(Node::default());
        let server = server(Limits::default(), node.clone());
        let mut client = Client::connect(&server).await;
        let (stop, serving) = (client.stop, client.serving);
        (client.stop, client.serving) = (oneshot::channel().0, tokio::spawn(async {}));
        stop.send(()).unwrap();
        serving.await.unwrap();
        // Its last word was sent before.
        let expected = "the server stops; the task keeps running, and the command may be given again when there is a server";
        is_ended(client, &node, expected).await;
    }

    #[tokio::test]
    async fn who_takes_nothing_is_told_nothing_in_the_middle_of_a_frame() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut outgoing = Outgoing { client: ours, bytes: Vec::new(), written: 0 };
        frame::write(Channel::Stdout, b"a long line", &mut outgoing.bytes);
        assert!(futures_util::FutureExt::now_or_never(outgoing.flush()).is_none());
        frame::write(Channel::End, b"enough", &mut outgoing.bytes);
        let reading = async {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let (finished, bytes) = tokio::join!(outgoing.finish(), reading);
        finished.unwrap();
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        let frames = std::iter::from_fn(|| reader.next_frame().unwrap()).map(|frame| frame.channel);
        assert_eq!(frames.collect::<Vec<_>>(), [Channel::Stdout, Channel::End]);
    }
}
