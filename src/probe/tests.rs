//! The prober against real sockets on the loopback interface.

mod whole;

use std::{os::fd::OwnedFd, sync::Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    core::state::Readings,
    model::{
        app::{App, PortDefinition},
        frame::{Channel, Frame},
        health::{Check, CheckKind, CheckPort, CheckProtocol, CheckResult, HealthCheck, ReadinessCheck},
        id::{AgentId, BrickName, TaskId},
        pod::Command,
        record::{Change, Record},
    },
    naming::fixture::{NOW, World},
    runtime::node::{Exec, ExecRequest, LogRange, LogReader, NodeError, NodeFacts, Pieces},
    store::samples::health_check,
};

/// A server that sends `answer` to whoever connects, once the request has come.
async fn server(answer: &'static str) -> u16 {
    serve(move || answer, |stream| async { Some(stream) }).await
}

/// The same with whatever answer is right at the moment, over what `open` makes of a connection.
async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin, O: Future<Output = Option<S>> + Send>(
    answer: impl Fn() -> &'static str + Send + 'static,
    open: impl Fn(TcpStream) -> O + Send + 'static,
) -> u16 {
    serve_at(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer, open)
}

fn serve_at<S: AsyncRead + AsyncWrite + Send + Unpin, O: Future<Output = Option<S>> + Send>(
    listener: TcpListener,
    answer: impl Fn() -> &'static str + Send + 'static,
    open: impl Fn(TcpStream) -> O + Send + 'static,
) -> u16 {
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Some(mut stream) = open(stream).await else { continue };
            let mut request = [0; 4096];
            _ = stream.read(&mut request).await;
            _ = stream.write_all(answer().as_bytes()).await;
            _ = stream.shutdown().await;
        }
    });
    port
}

/// A server that answers so, one answer after the other, and the last one for ever.
async fn in_turn(answers: &[&str]) -> u16 {
    let whole = |answer: &&str| &*format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").leak();
    let answers: Vec<&'static str> = answers.iter().map(whole).collect();
    let count = std::sync::atomic::AtomicUsize::new(0);
    let next = move || answers[count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)];
    serve(next, |stream| async { Some(stream) }).await
}

/// The same over TLS, with a certificate that nobody has signed.
async fn tls_server(answer: &'static str) -> u16 {
    let acceptor = tls();
    serve(move || answer, move |stream| acceptor.accept(stream).map(Result::ok)).await
}

fn tls() -> tokio_rustls::TlsAcceptor {
    let key = rcgen::generate_simple_self_signed(vec!["nobody".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = config.with_single_cert(vec![key.cert.der().clone()], secret).unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A listener on `::1` alone: at the same port of 127.0.0.1 somebody is who does not listen.
async fn only_ipv6() -> (TcpListener, tokio::net::TcpSocket) {
    loop {
        let listener = TcpListener::bind("[::1]:0").await.expect("this machine has ::1");
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        if other.bind(address).is_ok() {
            return (listener, other);
        }
    }
}

/// A port on which nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// While it is held: a panic of the prober's own thread, where no test would hear of it, is passed on.
struct Overheard(watch::Sender<bool>);

impl Drop for Overheard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_replace(true);
        }
    }
}

/// Commands are not run, but answered by what they say.
struct Shell {
    /// One of these functions has panicked.
    broken: watch::Sender<bool>,
    asked: Mutex<Vec<Vec<String>>>,
    /// How many.
    count: watch::Sender<usize>,
    /// The networks of tasks can be entered; they are this one. Otherwise why not.
    networks: Result<(), NodeError>,
}

impl Shell {
    /// What comes of `work`, which waits for what the prober does with this.
    async fn unless_broken<T>(&self, work: impl Future<Output = T>) -> T {
        let mut broken = self.broken.subscribe();
        tokio::select! {
            biased;
            _ = broken.wait_for(|broken| *broken) => panic!("a stub panicked; see above"),
            done = work => done,
        }
    }
}

#[async_trait]
impl NodeAccess for Shell {
    async fn facts(&self, _: &AgentId) -> Option<NodeFacts> {
        None
    }

    async fn open_log(&self, _: Option<&AgentId>, _: &TaskId, _: LogRange) -> Result<Box<dyn LogReader>, NodeError> {
        Err(NodeError::Missing("no log".into()))
    }

    async fn socket(&self, agent: Option<&AgentId>, task: &TaskId, ipv6: bool) -> Result<OwnedFd, NodeError> {
        let _overheard = Overheard(self.broken.clone());
        assert_eq!((agent.map(AgentId::as_str), task.instance.app().as_str()), (Some("S1"), "/web"));
        self.networks.clone()?;
        let (family, flags) = (if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET }, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None).unwrap())
    }

    async fn exec(&self, _: Option<&AgentId>, _: &TaskId, request: ExecRequest) -> Result<Exec, NodeError> {
        let _overheard = Overheard(self.broken.clone());
        let command = request.command.last().cloned().unwrap_or_default();
        assert_ne!(command, "break");
        self.asked.lock().unwrap().push(request.command);
        self.count.send_modify(|count| *count += 1);
        if command == "busy" {
            return Err(NodeError::Unavailable("too many commands run".into()));
        }
        if command == "forbidden" {
            return Err(NodeError::Impossible("no command is run here".into()));
        }
        let (input, _) = mpsc::channel(1);
        let (output, from) = mpsc::channel(4);
        let code = command.trim_start_matches("exit ").to_owned();
        output.try_send(Frame { channel: Channel::Stdout, payload: b"noise".to_vec() }).unwrap();
        output.try_send(Frame { channel: Channel::Exit, payload: code.into_bytes() }).unwrap();
        Ok(Exec { input, output: from })
    }

    async fn back_up(&self, _: &BrickName, _: bool) -> Result<(u64, Pieces), NodeError> {
        Err(NodeError::Missing("no brick".into()))
    }

    async fn restore(&self, _: &BrickName, _: Pieces) -> Result<(), NodeError> {
        Err(NodeError::Missing("no brick".into()))
    }
}

/// An app with these checks, one instance of which runs; its only port is `port` on the loopback interface.
fn world(port: u16, health: Vec<HealthCheck>, readiness: Vec<ReadinessCheck>) -> (World, InstanceId) {
    let mut world = World::default();
    world.agent("S1", &["127.0.0.1"]);
    world.app("/web", "host", &["http-api:80/tcp"]);
    let mut app = crate::model::app::App::clone(world.tables.definitions.get(&"/web".parse().unwrap(), NOW).unwrap());
    app.port_definitions.iter_mut().for_each(|definition: &mut PortDefinition| definition.name = Some("http-api".into()));
    (app.health_checks, app.readiness_checks) = (health, readiness);
    world.apply(Change::Put(Record::Definition(app.into())));
    let id = world.run("/web", 1, "S1", &["127.0.0.1"], &[port]);
    (world, id)
}

fn http(path: &str) -> HealthCheck {
    let check = health_check(CheckProtocol::Http);
    HealthCheck { path: Some(path.into()), port_index: Some(0), interval_seconds: 1, timeout_seconds: 2, delay_seconds: 0, ..check }
}

struct Probed {
    handle: Handle,
    results: mpsc::Receiver<ClusterEvent>,
    shell: Arc<Shell>,
    revision: u64,
    // Ends the prober when it is dropped.
    _stop: watch::Sender<bool>,
}

impl Probed {
    fn start(world: &World) -> Self {
        Self::with(world.view())
    }

    fn with(view: View) -> Self {
        Self::at_once(view, 4)
    }

    fn at_once(view: View, max_concurrent: usize) -> Self {
        Self::on(view, max_concurrent, Err(NodeError::Impossible("not here".into())))
    }

    fn on(view: View, max_concurrent: usize, networks: Result<(), NodeError>) -> Self {
        let (handle, _) = Handle::new(view);
        let (sender, results) = mpsc::channel(64);
        let (stop, stopping) = watch::channel(false);
        let shell =
            Arc::new(Shell { broken: watch::Sender::default(), asked: Mutex::default(), count: watch::Sender::default(), networks });
        let settings = Settings { max_concurrent, nodes: Some(shell.clone()) };
        start(settings, handle.clone(), sender, stopping).unwrap();
        Self { handle, results, shell, revision: 0, _stop: stop }
    }

    fn publish(&mut self, world: &World, changed: Vec<RecordKey>) {
        self.revision += 1;
        self.handle.publish(world.view(), Published { revision: self.revision, events: Vec::new(), changed });
    }

    async fn next(&mut self) -> CheckReport {
        loop {
            let came = self.shell.unless_broken(self.results.recv()).await;
            let Some(ClusterEvent::Checked(reports)) = came else { panic!("it ended") };
            if let Some(report) = reports.into_iter().next() {
                return report;
            }
        }
    }

    /// Until so many commands were asked for.
    async fn until_asked(&self, times: usize) {
        let mut count = self.shell.count.subscribe();
        let asked = count.wait_for(|count| *count == times);
        self.shell.unless_broken(async { _ = asked.await.unwrap() }).await;
    }
}

/// What the first run of a check says.
async fn first(port: u16, check: HealthCheck) -> String {
    let (world, _) = world(port, vec![check], Vec::new());
    first_in(&world).await
}

async fn first_in(world: &World) -> String {
    match Probed::start(world).next().await.finding {
        Finding::Health { check: 0, outcome: Outcome::Passed } => "passed".into(),
        Finding::Health { check: 0, outcome: Outcome::Failed(why) } => format!("failed: {why}"),
        Finding::Health { check: 0, outcome: Outcome::Uncertain(why) } => format!("uncertain: {why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_answer_of_a_page_decides() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "passed"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "passed"),
        ("HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n", "passed"),
        ("HTTP/1.0 200 OK\r\n\r\nto the end", "passed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nnot all of it", "passed"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "failed: 404 Not Found"),
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", "failed: 500 Internal Server Error"),
        ("HTTP/1.1 599 x\r\ncontent-length: 0\r\n\r\n", "failed: 599"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "failed: no answer: invalid HTTP version parsed"),
        ("", "failed: no answer: connection closed before message completed"),
    ] {
        assert_eq!(first(server(answer).await, http("/ping")).await, expected, "{answer}");
    }
}

#[tokio::test]
async fn where_a_page_leads_is_followed_for_mesos() {
    let mesos = HealthCheck { protocol: CheckProtocol::MesosHttp, ..http("/ping") };
    let tls = tls_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let over_tls = format!("302 Found\r\nlocation: https://localhost:{tls}/");
    let closed = format!("302 Found\r\nlocation: http://localhost:{}/", closed_port().await);
    for (answers, expected) in [
        (&["302 Found\r\nlocation: /next", "200 OK"][..], "passed"),
        (&["301 Moved\r\nlocation: ../a", "308 Moved\r\nlocation: ?b", "500 x"], "failed: 500 Internal Server Error"),
        (&[&over_tls], "passed"),
        (&[&closed], "failed: connection refused"),
        (&["302 Found\r\nlocation: /next"], "failed: the page leads on and on, more than 50 times"),
        (&["304 Not Modified", "500 x"], "passed"),
        (&["200 OK\r\nlocation: /next", "500 x"], "passed"),
        (&["404 Not Found\r\nlocation: /next", "200 OK"], "failed: 404 Not Found"),
        (&["302 Found\r\nlocation: ftp://localhost/"], "failed: the page leads to ftp://localhost/, and 'ftp:' is not followed"),
    ] {
        assert_eq!(first(in_turn(answers).await, mesos.clone()).await, expected, "{answers:?}");
    }
    // Marathon's own checks take the first answer.
    assert_eq!(first(in_turn(&["302 Found\r\nlocation: /next", "500 x"]).await, http("/ping")).await, "passed");
}

#[tokio::test]
async fn a_check_of_mesos_is_made_in_the_tasks_network_and_from_outside_where_nobody_gets_in() {
    // Not accepted, and connected all the same.
    let listen = |address: &str| std::net::TcpListener::bind((address, 0)).unwrap();
    let (inside, own) = (listen("127.0.0.1"), listen("127.0.0.2"));
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    let never = || Err(NodeError::Impossible("not here".into()));
    let silent = || Err(NodeError::Unavailable("no answer".into()));
    let refused = || Outcome::Failed("connection refused".into());
    for (port, networks, expected) in [
        (port(&inside), Ok(()), Outcome::Passed),
        (port(&inside), never(), refused()),
        (port(&inside), silent(), Outcome::Uncertain("this machine could not ask: no answer".into())),
        (port(&own), Ok(()), refused()),
        (port(&own), never(), Outcome::Passed),
        (port(&own), silent(), Outcome::Passed),
        (closed_port().await, Ok(()), refused()),
        (closed_port().await, Err(NodeError::Conflict("it does not run".into())), refused()),
    ] {
        let mut world = World::default();
        world.agent("S1", &["127.0.0.3"]);
        world.app("/web", "bridge", &[&format!("{port}/tcp")]);
        let app = App::clone(world.tables.definitions.get(&"/web".parse().unwrap(), NOW).unwrap());
        let check = HealthCheck { protocol: CheckProtocol::MesosTcp, path: None, ..http("") };
        world.apply(Change::Put(Record::Definition(App { health_checks: vec![check], ..app }.into())));
        world.run("/web", 1, "S1", &["127.0.0.2"], &[]);
        let report = Probed::on(world.view(), 4, networks.clone()).next().await;
        assert_eq!(report.finding, Finding::Health { check: 0, outcome: expected }, "{port} {networks:?}");
    }
}

#[tokio::test]
async fn a_closed_port_fails_and_an_open_one_is_enough_for_tcp() {
    let tcp = HealthCheck { protocol: CheckProtocol::Tcp, path: None, ..http("") };
    assert_eq!(first(server("").await, tcp.clone()).await, "passed");
    assert_eq!(first(closed_port().await, tcp.clone()).await, "failed: connection refused");
    assert_eq!(first(closed_port().await, http("/")).await, "failed: connection refused");
    let mesos = HealthCheck { protocol: CheckProtocol::MesosTcp, ..tcp };
    assert_eq!(first(server("").await, mesos).await, "passed");
}

#[tokio::test]
async fn what_mesos_runs_asks_the_address_of_the_wanted_kind() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    use CheckProtocol::{MesosHttp, MesosHttps, MesosTcp};
    let (plain, _not_plain) = only_ipv6().await;
    let (secret, _not_secret) = only_ipv6().await;
    let acceptor = tls();
    let plain = serve_at(plain, || ANSWER, |stream| async { Some(stream) });
    let secret = serve_at(secret, || ANSWER, move |stream| acceptor.accept(stream).map(Result::ok));
    for (protocol, port) in [(MesosHttp, plain), (MesosHttps, secret), (MesosTcp, plain)] {
        for (ipv6, expected) in [(true, "passed"), (false, "failed: connection refused")] {
            let check = HealthCheck { protocol, ipv6, ..http("/ping") };
            assert_eq!(first(port, check).await, expected, "{protocol:?} {ipv6}");
        }
    }
    // And the other way round.
    let old = server(ANSWER).await;
    let check = |ipv6| HealthCheck { protocol: MesosHttp, ipv6, ..http("/ping") };
    assert_eq!(first(old, check(false)).await, "passed");
    assert_eq!(first(old, check(true)).await, "failed: connection refused");
}

#[tokio::test]
async fn a_task_with_an_ipv6_address_alone_is_asked_there_by_that_name() {
    let (listener, _other) = only_ipv6().await;
    let port = listener.local_addr().unwrap().port();
    let (heard, mut hosts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..length]).to_lowercase();
            _ = heard.send(text.lines().find(|line| line.starts_with("host: ")).unwrap_or_default().to_owned());
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    use CheckProtocol::{Http, MesosHttp, MesosTcp, Tcp};
    for (protocol, ipv6) in [(Http, false), (Tcp, false), (MesosHttp, true), (MesosTcp, true)] {
        let mut world = World::default();
        world.agent("S1", &["127.0.0.1"]);
        world.app("/web", "overlay", &[&format!("{port}/tcp")]);
        let mut app = App::clone(world.tables.definitions.get(&"/web".parse().unwrap(), NOW).unwrap());
        app.health_checks = vec![HealthCheck { protocol, ipv6, ..http("/ping") }];
        world.apply(Change::Put(Record::Definition(app.into())));
        world.run("/web", 1, "S1", &["::1"], &[]);
        assert_eq!(first_in(&world).await, "passed", "{protocol:?}");
        let host = hosts.recv().await.unwrap();
        let expected = if matches!(protocol, Http | MesosHttp) { format!("host: [::1]:{port}") } else { String::new() };
        assert_eq!(host, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_is_taken() {
    let https = HealthCheck { protocol: CheckProtocol::Https, ..http("/ping") };
    let port = tls_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert_eq!(first(port, https.clone()).await, "passed");
    let plain = first(server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await, https).await;
    assert!(plain.starts_with("failed: TLS: "), "{plain}");
}

#[tokio::test]
async fn who_does_not_answer_in_time_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = HealthCheck { timeout_seconds: 1, ..http("/") };
    assert_eq!(first(listener.local_addr().unwrap().port(), silent).await, "failed: no answer within 1 s");
}

#[tokio::test]
async fn a_command_runs_in_the_container_and_what_the_node_refuses_is_not_the_tasks_fault() {
    for (command, expected) in [
        ("exit 0", "passed"),
        ("exit 3", "failed: command exited with status 3"),
        ("busy", "uncertain: this machine could not ask: too many commands run"),
        ("forbidden", "uncertain: this machine could not ask: no command is run here"),
    ] {
        let check =
            HealthCheck { protocol: CheckProtocol::Command, path: None, port_index: None, command: Some(command.into()), ..http("") };
        assert_eq!(first(0, check).await, expected, "{command}");
    }
}

/// An app with this generic check, as [`world`].
fn generic_world(port: u16, kind: CheckKind) -> (World, InstanceId) {
    let (mut world, id) = world(port, Vec::new(), Vec::new());
    let app = App::clone(world.tables.definition_of(&world.tables.instances[&id]).unwrap());
    let check = Some(Check { kind, interval_seconds: 1, timeout_seconds: 1, delay_seconds: 0 });
    world.apply(Change::Put(Record::Definition(App { check, ..app }.into())));
    (world, id)
}

/// What readers see when this was found of the instance.
fn known_of(world: &World, id: &InstanceId, result: Option<CheckResult>) -> View {
    let mut view = world.view();
    let mut readings = Readings { since: crate::model::time::Instant(0), checks: Vec::new(), readiness: None, results: Vec::new() };
    readings.set_result(0, result);
    view.readings.insert(id.clone(), readings.into());
    view
}

#[tokio::test]
async fn a_generic_check_tells_what_was_answered() {
    let port = CheckPort::default();
    let page = |https: bool| CheckKind::Http { https, path: Some("/ping".into()), port };
    let exec = |words: &[&str]| CheckKind::Exec { command: Command::Argv(words.iter().map(|word| (*word).to_owned()).collect()) };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().map(|address| (address.port(), silent)).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (port, kind, expected) in [
        (server(answer).await, page(false), Some(CheckResult::Http(200))),
        (server("HTTP/1.1 302 Found\r\n\r\n").await, page(false), Some(CheckResult::Http(302))),
        (in_turn(&["302 Found\r\nlocation: /next", "404 Not Found"]).await, page(false), Some(CheckResult::Http(404))),
        (server("HTTP/1.1 500 Internal Server Error\r\n\r\n").await, page(false), Some(CheckResult::Http(500))),
        (tls_server(answer).await, page(true), Some(CheckResult::Http(200))),
        (server("").await, CheckKind::Tcp { port }, Some(CheckResult::Tcp(true))),
        (closed_port().await, CheckKind::Tcp { port }, Some(CheckResult::Tcp(false))),
        (0, exec(&["x", "exit 0"]), Some(CheckResult::Exec(0))),
        (0, exec(&["x", "exit 137"]), Some(CheckResult::Exec(137))),
        (0, CheckKind::Exec { command: Command::Shell("exit 3".into()) }, Some(CheckResult::Exec(3))),
        // What comes to nothing takes back what was known.
        (closed_port().await, page(false), None),
        (silent.0, page(false), None),
        (server("SSH-2.0-OpenSSH_9.2\r\n").await, page(false), None),
        (in_turn(&["302 Found\r\nlocation: /next"]).await, page(false), None),
        (0, exec(&["busy"]), None),
    ] {
        let (world, id) = generic_world(port, kind.clone());
        let known = expected.is_none().then_some(CheckResult::Exec(99));
        let report = Probed::with(known_of(&world, &id, known)).next().await;
        assert_eq!(report.finding, Finding::Check { place: 0, result: expected }, "{kind:?}");
    }
}

#[tokio::test]
async fn a_generic_check_that_finds_what_is_known_is_no_news() {
    let (world, id) = generic_world(0, CheckKind::Exec { command: Command::Shell("exit 3".into()) });
    let mut probed = Probed::with(known_of(&world, &id, Some(CheckResult::Exec(3))));
    // Runs go on, and nothing is told of them.
    probed.until_asked(3).await;
    assert!(probed.results.try_recv().is_err());
    // Until it is news again.
    probed.revision += 1;
    let published = Published { revision: probed.revision, events: Vec::new(), changed: Vec::new() };
    probed.handle.publish(known_of(&world, &id, None), published);
    assert_eq!(probed.next().await.finding, Finding::Check { place: 0, result: Some(CheckResult::Exec(3)) });
}

#[tokio::test]
#[should_panic(expected = "a stub panicked")]
async fn a_stub_that_panics_fails_its_test() {
    let (world, _) = generic_world(0, CheckKind::Exec { command: Command::Shell("break".into()) });
    Probed::start(&world).next().await;
}

#[tokio::test]
async fn a_check_is_repeated_as_long_as_its_task_runs() {
    let port = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (mut world, id) = world(port, vec![http("/")], Vec::new());
    let mut probed = Probed::start(&world);
    let task = world.tables.instances[&id].task();
    for _ in 0..3 {
        let report = probed.next().await;
        assert_eq!((report.task, report.finding), (task.clone(), Finding::Health { check: 0, outcome: Outcome::Passed }));
    }
    // The next launch is another task, elsewhere; the first one is asked no more.
    let closed = closed_port().await;
    world.change(&id, |instance| {
        instance.incarnation = 2;
        instance.placement.as_mut().unwrap().ports = vec![closed];
    });
    probed.publish(&world, vec![RecordKey::Instance(id.clone())]);
    let next = world.tables.instances[&id].task();
    let mut report = probed.next().await;
    while report.task == task {
        report = probed.next().await;
    }
    assert_eq!((report.task, report.finding), (next, Finding::Health { check: 0, outcome: Outcome::Failed("connection refused".into()) }));
    assert!(probed.shell.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_so_many_checks_are_under_way_at_once() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let patient = HealthCheck { timeout_seconds: 20, ..http("/") };
    let (mut world, _) = world(port, vec![patient], Vec::new());
    for number in 2..=6 {
        world.run("/web", number, "S1", &["127.0.0.1"], &[port]);
    }
    let mut probed = Probed::at_once(world.view(), 2);
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..2 {
        waiting.push_back(listener.accept().await.unwrap().0);
    }
    // Longer than all six take to be due. That nothing comes no event can tell.
    let another = tokio::time::timeout(Duration::from_millis(1500), listener.accept()).await;
    assert!(another.is_err(), "a third one is under way");
    // Each that has its answer makes room for one.
    for _ in 0..4 {
        waiting.pop_front().unwrap().write_all(ANSWER).await.unwrap();
        probed.next().await;
        waiting.push_back(listener.accept().await.unwrap().0);
    }
}

#[tokio::test]
async fn readiness_is_asked_for_only_while_a_deployment_runs() {
    use crate::model::deployment::{Action, ActionKind, AppChange, Deployment, Step};
    let port =
        server("HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 7\r\n\r\nnot yet").await;
    let check = ReadinessCheck {
        name: "r".into(),
        https: false,
        path: "/ready".into(),
        port_name: "http-api".into(),
        interval_seconds: 1,
        timeout_seconds: 1,
        ready_codes: vec![200],
        preserve_last_response: true,
    };
    let (mut world, id) = world(port, Vec::new(), vec![check]);
    let mut probed = Probed::start(&world);
    assert!(probed.results.try_recv().is_err());
    let app: PathId = "/web".parse().unwrap();
    let deployment = Deployment {
        id: DeploymentId::new("d"),
        version: NOW,
        changes: vec![AppChange { app: app.clone(), owner: None, from: None, to: Some(NOW) }],
        groups: Vec::new(),
        steps: vec![Step { actions: vec![Action { kind: ActionKind::Scale, app, pod: false }] }],
        current_step: 0,
        started_at: NOW,
    };
    // The app entry is what its present version is found by.
    let entry = crate::model::record::AppEntry { id: "/web".parse().unwrap(), owner: crate::model::id::Owner::new("x") };
    world.apply(Change::Put(Record::App(entry.into())));
    world.apply(Change::Put(Record::Deployment(deployment.into())));
    probed.publish(&world, vec![RecordKey::Deployment(DeploymentId::new("d"))]);
    for _ in 0..2 {
        let report = probed.next().await;
        let Finding::Readiness(answer) = report.finding else { panic!("{report:?}") };
        assert_eq!((answer.ready, answer.status, &*answer.content_type, &*answer.body), (false, 503, "text/plain", "not yet"));
    }
    world.change(&id, |instance| instance.ready = true);
    probed.publish(&world, vec![RecordKey::Instance(id)]);
}

#[test]
fn an_answer_1xx_may_be_ignored() {
    let action = |ignore_1xx: bool| {
        let place = target::Place { address: None, name: "x".into(), port: 1, within: None };
        let (path, ready_codes) = ("/".into(), Vec::new());
        Action::Http(target::Http {
            place,
            tls: false,
            path,
            ignore_1xx,
            ready_codes,
            keep_body: false,
            follows: false,
            is_elsewhere: false,
        })
    };
    let raw = Raw::Answer { status: 101, content_type: String::new(), body: String::new() };
    assert_eq!(attempt::outcome(&raw, &action(true)), None);
    assert_eq!(attempt::outcome(&raw, &action(false)), Some(doubt::Result::Bad("101 Switching Protocols".into())));
}
