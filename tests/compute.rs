//! `xtcli-compute` as a program, on a terminal and without one, against a server that answers by a script. The terminal is made by `script` of
//! util-linux.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use warp::{Filter, http::Response};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_xtcli-compute");

/// How the server sees who comes without credentials.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    /// As this account.
    Socket,
    /// As nobody.
    Port,
}

/// Knows `zmfsea` with the password `p@ssw0rd`, and one service.
fn answer(door: Door, method: &str, path: &str, authorization: &str) -> (u16, Value) {
    let basic = "Basic em1mc2VhOnBAc3N3MHJk";
    let known = authorization == "Bearer t0ken" || door == Door::Socket && authorization.is_empty();
    match (method, path) {
        ("POST", "/v2/auth/token") if authorization == basic => (200, json!({"token": "t0ken", "user": "zmfsea", "admin": false})),
        _ if !known => (401, json!({"message": "credentials are required: a user and a password, or a token"})),
        ("GET", "/v2/auth/whoami") => (200, json!({"user": "zmfsea", "admin": false})),
        ("GET", "/v2/auth/users/zmfsea") => (200, json!({"name": "zmfsea", "password": true})),
        ("GET", "/v2/apps") => (
            200,
            json!({"apps": [{"id": "/testdb", "instances": 1, "cpus": 0.5, "mem": 512, "tasksRunning": 1, "deployments": [],
                "container": {"docker": {"image": "zmfsea/cmp-postgresql"}}}]}),
        ),
        ("POST", "/v2/apps") => (
            201,
            json!({"id": "/testdb", "deployments": [], "endpoints": [{"name": "DBPORT", "host": "testdb.marathon.mesos", "port": 1066}]}),
        ),
        _ => (404, json!({"message": "URI not found"})),
    }
}

fn route(door: Door) -> impl Filter<Extract = (Response<String>,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    warp::method().and(warp::path::full()).and(warp::header::optional("authorization")).map(
        move |method: warp::http::Method, path: warp::path::FullPath, authorization: Option<String>| {
            let (status, body) = answer(door, method.as_str(), path.as_str(), authorization.as_deref().unwrap_or_default());
            Response::builder().status(status).body(body.to_string()).unwrap()
        },
    )
}

struct World {
    directory: tempfile::TempDir,
    url: String,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    /// A server with a socket and a port.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let url = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(warp::serve(route(Door::Port)).incoming(listener).run());
            let listener = tokio::net::UnixListener::bind(directory.path().join("xtao.sock")).unwrap();
            tokio::spawn(warp::serve(route(Door::Socket)).incoming(listener).run());
            url
        });
        Self { directory, url, _runtime: runtime }
    }

    fn home(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home())
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh");
        command
    }

    /// The program without a terminal: exit code, output, errors.
    fn run(&self, words: &[&str], input: &str) -> (i32, String, String) {
        let mut command = self.command(PROGRAM);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn work_dir(&self) -> &str {
        self.home().to_str().unwrap()
    }
}

/// The program on a terminal.
struct Terminal {
    child: Child,
    screen: String,
    parts: Receiver<Vec<u8>>,
}

impl Terminal {
    fn open(world: &World, words: &str) -> Self {
        let mut command = world.command("script");
        command.args(["-qfec", &format!("{PROGRAM} {words}"), "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (sender, parts) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read) = output.read(&mut part)
                && read > 0
                && sender.send(part[..read].to_vec()).is_ok()
            {}
        });
        Self { child, screen: String::new(), parts }
    }

    /// Waits until the screen shows `text` after what was waited for before; gives what was shown until then.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.screen.find(text) {
                let rest = self.screen.split_off(at + text.len());
                return std::mem::replace(&mut self.screen, rest);
            }
            match self.parts.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.screen.push_str(&String::from_utf8_lossy(&part)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no '{text}' in: {}", self.screen),
            }
        }
    }

    fn send(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, and what was shown at last.
    fn end(mut self) -> (i32, String) {
        let deadline = Instant::now() + LIMIT;
        while let Ok(part) = self.parts.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.screen.push_str(&String::from_utf8_lossy(&part));
        }
        (self.child.wait().unwrap().code().unwrap(), self.screen)
    }
}

const PROMPT: &str = "(xtcli-compute) ";

const TESTDB: &str = "mgmt service --id testdb --image zmfsea/cmp-postgresql --env \"DBUSER=zmfsea, DBPORT=@PORT\"";

#[test]
fn a_person_logs_in_with_a_password_that_never_shows_and_works_in_the_shell() {
    let world = World::start();
    let mut terminal = Terminal::open(&world, &format!("-c -d {}", world.url));
    terminal.expect("User:");
    terminal.send("zmfsea\r");
    let mut shown = terminal.expect("Password:");
    assert!(shown.contains("zmfsea"), "{shown}");
    terminal.send("wrong\r");
    shown = terminal.expect("does not accept user 'zmfsea' with this password");
    shown += &terminal.expect("User:");
    terminal.send("zmfsea\r");
    shown += &terminal.expect("Password:");
    terminal.send("p@ssw0rd\r");
    shown += &terminal.expect(PROMPT);
    assert!(!shown.contains("wrong") && !shown.contains("p@ss"), "{shown}");
    terminal.send(&format!("{TESTDB}\r"));
    terminal.expect("{\r\n    \"host\": \"testdb.marathon.mesos\",\r\n    \"port\": 1066\r\n}\r\n");
    terminal.expect(PROMPT);
    // A line that is given up, a word that is completed, a mistake, and the end.
    terminal.send("mgmt nonsense\x03");
    terminal.expect(PROMPT);
    terminal.send("mgmt serv\tlist\r");
    terminal.expect("1 of 1");
    terminal.expect(PROMPT);
    terminal.send("mgmt service show none\r");
    terminal.expect("URI not found");
    terminal.expect(PROMPT);
    terminal.send("\x04");
    assert_eq!(terminal.end().0, 0);

    let history = std::fs::read_to_string(world.home().join(".local/state/xtao/history")).unwrap();
    assert_eq!(history, "mgmt service list\nmgmt service show none\n");
    let (code, output, errors) = world.run(&["-c", "-d", &world.url, "mgmt", "service", "list"], "");
    assert_eq!((code, errors.as_str()), (0, ""), "the log-in is remembered");
    assert!(output.contains("testdb"), "{output}");
    let (code, output, _) = world.run(&["logout", "-d", &world.url], "");
    assert_eq!((code, output), (0, format!("logged out of {}\n", world.url)));
}

#[test]
fn on_a_node_only_the_check_of_a_password_asks() {
    let world = World::start();
    // A command, a script and the plain shell ask nothing.
    let (code, output, errors) = world.run(&["--work_dir", world.work_dir(), "-c", "mgmt", "service", "list"], "");
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(output.contains("zmfsea/cmp-postgresql"), "{output}");
    let (code, output, errors) = world.run(&["--work_dir", world.work_dir(), "-c"], "mgmt user whoami\nmgmt service show none\n");
    assert_eq!((code, output.as_str(), errors.as_str()), (1, "zmfsea\n", "error: URI not found\n"));
    let mut terminal = Terminal::open(&world, &format!("--work_dir {}", world.work_dir()));
    let shown = terminal.expect(PROMPT);
    assert!(!shown.contains("User:"), "{shown}");
    terminal.send("exit\r");
    assert_eq!(terminal.end().0, 0);
    // The manual's way to check a password does.
    let mut terminal = Terminal::open(&world, &format!("--work_dir {} -c", world.work_dir()));
    terminal.expect("User:");
    terminal.send("zmfsea\r");
    terminal.expect("Password:");
    terminal.send("p@ssw0rd\r");
    terminal.expect(PROMPT);
    terminal.send("mgmt user whoami\r");
    terminal.expect("zmfsea\r\n");
    terminal.send("exit\r");
    assert_eq!(terminal.end().0, 0);
    // Ctrl-C at the question is the end.
    let mut terminal = Terminal::open(&world, &format!("--work_dir {} -c", world.work_dir()));
    terminal.expect("User:");
    terminal.send("zm\x03");
    assert_eq!(terminal.end().0, 130);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let world = World::start();
    let check = |words: &[&str], code: i32, expected: &str| {
        let (found, _, errors) = world.run(words, "");
        assert!(found == code && errors.contains(expected), "{words:?}: {found} {errors}");
    };
    let here = world.work_dir();
    check(&["--work_dir", here, "mgmt", "service", "show", "none"], 1, "error: URI not found");
    check(&["--work_dir", here, "mgmt", "servic"], 2, "unrecognized subcommand 'servic'");
    check(&["--work_dir", here, "mgmt", "service", "--id", "X_Y", "--image", "i"], 2, "--id: 'X_Y' is no id of a service");
    check(&["--work_dir", "/nowhere", "mgmt", "service", "list"], 3, "no server answers on /nowhere/xtao.sock (no such file or directory)");
    check(&["-d", "127.0.0.1:1", "mgmt", "service", "list"], 3, "cannot reach the server at http://127.0.0.1:1 (connection refused)");
    check(&["-d", &world.url, "mgmt", "service", "list"], 4, "nobody is there to be asked");
}
