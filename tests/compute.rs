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
fn answer(door: Door, method: &str, path: &str, authorization: &str, body: &[u8]) -> (u16, Value) {
    let basic = "Basic em1mc2VhOnBAc3N3MHJk";
    let known = authorization == "Bearer t0ken" || door == Door::Socket && authorization.is_empty();
    match (method, path) {
        ("POST", "/v2/auth/token") if authorization == basic => (200, json!({"token": "t0ken", "user": "zmfsea", "admin": false})),
        _ if !known => (401, json!({"message": "credentials are required: a user and a password, or a token"})),
        ("GET", "/v2/auth/whoami") => (200, json!({"user": "zmfsea", "admin": false})),
        ("GET", "/v2/auth/users/zmfsea") => (200, json!({"name": "zmfsea", "password": true})),
        ("PUT", "/v2/auth/users/zmfsea") if body == br#"{"password":"of two words"}"# => (200, json!({})),
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
    let authorization = warp::header::optional("authorization");
    warp::method().and(warp::path::full()).and(authorization).and(warp::body::bytes()).map(
        move |method: warp::http::Method, path: warp::path::FullPath, authorization: Option<String>, body: bytes::Bytes| {
            let (status, body) = answer(door, method.as_str(), path.as_str(), authorization.as_deref().unwrap_or_default(), &body);
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
        self.run_program(PROGRAM, words, input)
    }

    fn run_program(&self, program: &str, words: &[&str], input: &str) -> (i32, String, String) {
        let mut command = self.command(program);
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
        Self::with(world, &format!("{PROGRAM} {words}"))
    }

    /// Another program on a terminal.
    fn with(world: &World, line: &str) -> Self {
        let mut command = world.command("script");
        command.args(["-qfec", line, "/dev/null"]);
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
fn a_password_from_a_pipe_is_its_first_line() {
    let world = World::start();
    let check = |input: &str, code: i32, output: &str, error: u8| {
        let (found, answer, shown) =
            world.run_program(PROGRAMS[2].1, &["auth", "password", "zmfsea", "--work_dir", world.work_dir()], input);
        assert_eq!((found, answer.as_str()), (code, format!("{{\n     \"output\": \"{output}\",\n     \"error\": {error}\n}}\n").as_str()));
        assert_eq!(shown, "New password of zmfsea: \n");
    };
    check("of two words\nand more\n", 0, "success to set the passwd", 0);
    check("of two words\r\n", 0, "success to set the passwd", 0);
    check("\n", 1, "a password must not be empty", 1);
    check("", 1, "nobody is there to be asked: the input has ended", 1);
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
    check(&["-d", "ftp://x", "mgmt", "service", "list"], 2, "'ftp://x' is no address of a server (only http and https are spoken)");
    check(&["-d", &world.url, "mgmt", "service", "list"], 4, "nobody is there to be asked");
}

const PROGRAMS: [(&str, &str); 3] =
    [("xtcli-compute", PROGRAM), ("imgcli", env!("CARGO_BIN_EXE_imgcli")), ("xtao", env!("CARGO_BIN_EXE_xtao"))];

/// What a shell makes of the beginning of a line: words that come next, of which some must be there and one must not.
const COMPLETED: [(&str, &str, &str); 9] = [
    ("xtcli-compute mg", "mgmt", "logout"),
    ("xtcli-compute mgmt service lo", "logs", "list"),
    ("xtcli-compute -j mgmt service --dr", "--dry-run", "--detach"),
    ("xtcli-compute mgmt brick backup --fr", "--freeze", "--force"),
    ("xtcli-compute mgmt user quota --cp", "--cpu", "--mem"),
    ("xtcli-compute completion z", "zsh", "bash"),
    ("imgcli push --na", "--name", "--node"),
    ("xtao auth unl", "unlock", "list"),
    ("xtao serve --dns_p", "--dns_port", "--dns_address"),
];

impl World {
    /// The completions of all programs for a shell, in one file.
    fn completions(&self, shell: &str) -> String {
        let file = self.home().join(format!("completions.{shell}"));
        let mut text = String::new();
        for (name, program) in PROGRAMS {
            let output = self.command(program).args(["completion", shell]).output().unwrap();
            assert!(output.status.success() && !output.stdout.is_empty(), "{name}: {output:?}");
            text += &String::from_utf8(output.stdout).unwrap();
        }
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

#[test]
fn shells_complete_what_is_typed() {
    let world = World::start();
    let check = |shell: &str, line: &str, found: &str, wanted: &str, other: &str| {
        assert!(found.contains(wanted) && !found.contains(other), "{shell}: {line}: {found}");
    };
    // In bash, the function that the script has registered is called as bash calls it.
    let script = "source \"$1\"; COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); name=${COMP_WORDS[0]}
        called=$(complete -p \"$name\"); called=${called##*-F }; ${called%% *} \"$name\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        echo \"${COMPREPLY[@]} \"";
    let file = world.completions("bash");
    for (line, wanted, other) in COMPLETED {
        let output = world.command("bash").args(["-c", script, "bash", &file, line]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        check("bash", line, &(text(&output.stdout) + &text(&output.stderr)), wanted, other);
    }
    let file = world.completions("fish");
    for (line, wanted, other) in COMPLETED {
        let output = world.command("fish").args(["-c", &format!("source {file}; complete -C '{line}'")]).output();
        check("fish", line, &String::from_utf8_lossy(&output.expect("fish is installed").stdout), wanted, other);
    }
    world.command("zsh").arg("--version").output().expect("zsh is installed");
    let file = world.completions("zsh");
    let mut terminal = Terminal::with(&world, "zsh -f");
    terminal.send(&format!("PS1='ready> '; autoload -U compinit; compinit -u -D; source {file}; echo load''ed\r"));
    terminal.expect("loaded");
    for (line, wanted, _) in COMPLETED {
        terminal.expect("ready> ");
        // What is the only one that fits is put into the line, which is then thrown away.
        terminal.send(&format!("{line}\t"));
        let typed = line.rsplit(' ').next().unwrap();
        terminal.expect(typed);
        terminal.expect(wanted.strip_prefix(typed).unwrap());
        terminal.send("\x15\r");
    }
    terminal.expect("ready> ");
    terminal.send("exit\r");
    terminal.end();
}

#[test]
fn manual_pages_say_what_every_option_is_for() {
    let world = World::start();
    let directory = world.home().join("man1");
    std::fs::create_dir(&directory).unwrap();
    for (name, program) in PROGRAMS {
        let output = world.command(program).args(["man", directory.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
    let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let mut pages = 0;
    for file in std::fs::read_dir(&directory).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let text = page(&name);
        pages += 1;
        let lines: Vec<&str> = text.lines().collect();
        for at in 0..lines.len() {
            assert!(lines[at] != ".TP" || !lines[at + 2].is_empty(), "{name}: {} has no text", lines[at + 1]);
            assert!(!lines[at].starts_with("  ") || lines[..at].iter().rev().any(|line| *line == ".nf"), "{name}: {}", lines[at]);
        }
    }
    assert!(pages > 50, "{pages}");
    assert!(page("xtcli-compute-mgmt-service.1").contains("storage in MB"));
    assert!(page("imgcli-push.1").contains("\"imgcli 0."), "{}", page("imgcli-push.1"));
    assert!(page("xtao-serve.1").contains("\\-\\-http_port"), "{}", page("xtao-serve.1"));
    let (code, _, errors) = world.run(&["man", "/nowhere"], "");
    assert_eq!((code, errors.as_str()), (1, "error: cannot write manual pages to /nowhere: No such file or directory (os error 2)\n"));
}

#[test]
fn wrong_words_end_with_two_and_help_with_nothing() {
    let world = World::start();
    for (name, program) in PROGRAMS {
        for (word, code) in [("--nonsense", 2), ("nonsense", 2), ("--help", 0), ("--version", 0)] {
            assert_eq!(world.command(program).arg(word).output().unwrap().status.code(), Some(code), "{name} {word}");
        }
    }
    // What is the server's is Marathon's.
    let serve = |word: &str| world.command(PROGRAMS[2].1).args(["serve", word]).output().unwrap().status.code();
    assert_eq!((serve("--nonsense"), serve("--help")), (Some(112), Some(0)));
}
