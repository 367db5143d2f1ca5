//! The shell: one command a line, with history and completion, until `exit` or Ctrl-D. Ctrl-C ends a line or a command, never the shell.
//!
//! The history is kept in the user's state directory, readable by nobody else. Lines with `--env` or `--cmd` are left out of the file, because values
//! may be passwords; they can be called back as long as the shell is open.

use std::{
    cell::RefCell,
    io::{self, IsTerminal},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::FromArgMatches;
use rustyline::{
    Config, Context as LineContext, Editor, Helper,
    completion::{Completer, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::MemHistory,
    validate::Validator,
};
use tokio::runtime::Runtime;

use super::{
    Cli, Client, Context, Error, LogIn, Manner, Reach, Role, Tokens, brick,
    complete::{self, Kind, Wanted},
    interruptible, node, run as run_command, service, without_server,
};
use crate::cli::{
    program::{EXIT_OK, Failure as _},
    tokens::{state_directory, write_private},
    words::{self, quote},
};

/// What the shell shows when it waits for a line.
pub const PROMPT: &str = "(xtcli-compute) ";

/// Lines of history that are kept.
const MAX_HISTORY: usize = 1000;

/// Longest history file that is read, in bytes.
const MAX_HISTORY_BYTES: u64 = 4 * 1024 * 1024;

/// How long completion may wait for the server.
const COMPLETION_LIMIT: Duration = Duration::from_secs(2);

/// How long names that completion has asked for hold.
const NAMES_LIMIT: Duration = Duration::from_secs(5);

/// What lines work with.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) reach: Reach,
    pub(super) manner: Manner,
    pub(super) tokens: Tokens,
}

/// The grammar of a line: that of the program, without what opened the shell.
pub(super) fn grammar() -> clap::Command {
    super::command()
        .no_binary_name(true)
        .disable_version_flag(true)
        .mut_arg("connect", |arg| arg.hide(true))
        .after_help("'exit' or Ctrl-D leaves, Ctrl-C ends a line or a command, Tab completes.")
        .override_usage("mgmt <COMMAND> ... | help [COMMAND] ... | exit")
}

/// Reads lines and runs them until there are no more. What it ends with counts only for a script.
pub(super) fn run(session: Session, runtime: &Runtime) -> Result<(), Error> {
    let config = Config::builder().max_history_size(MAX_HISTORY).and_then(|config| config.history_ignore_dups(true));
    let config = config.map_err(broken)?.history_ignore_space(true).build();
    let history = MemHistory::with_config(&config);
    let mut editor: Editor<Names<'_>, MemHistory> = Editor::with_history(config, history).map_err(broken)?;
    let is_script = !io::stdin().is_terminal();
    let file = HistoryFile::of_user();
    if !is_script {
        file.read().into_iter().for_each(|line| _ = editor.add_history_entry(line));
    }
    editor.set_helper(Some(Names::new(&session.client, runtime)));
    let mut last = Ok(());
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        };
        if !line.trim().is_empty() && !is_script {
            _ = editor.add_history_entry(line.as_str());
            if is_harmless(&line) {
                file.add(&line);
            }
        }
        match self::line(&line, &session, runtime) {
            Ok(Turn::Leave) => break,
            Ok(Turn::Stay) => last = Ok(()),
            Err(error) => {
                error.tell();
                last = if error.exit_code() == EXIT_OK { Ok(()) } else { Err(Error::Exit(error.exit_code())) };
            }
        }
    }
    if is_script { last } else { Ok(()) }
}

/// Whether the shell goes on.
enum Turn {
    Stay,
    Leave,
}

fn line(line: &str, session: &Session, runtime: &Runtime) -> Result<Turn, Error> {
    let mut words = words::split(line)?;
    // The short help is what one wants to see between two lines.
    if words.first().is_some_and(|word| word == "help") {
        words.remove(0);
        words.push("-h".to_owned());
    }
    let Some(first) = words.first() else { return Ok(Turn::Stay) };
    if matches!(first.as_str(), "exit" | "quit") {
        return Ok(Turn::Leave);
    }
    let matches = grammar().try_get_matches_from(&words).map_err(Error::Usage)?;
    let Cli { connect: _, reach, manner, command } = Cli::from_arg_matches(&matches).map_err(Error::Usage)?;
    let Some(command) = command else { return Err(Error::Word("what is to be done? 'help' lists the commands".to_owned())) };
    let work = async {
        let reach = merged(reach, &session.reach);
        let Some(command) = without_server(command, &reach, &session.tokens)? else { return Ok(()) };
        let manner = Manner { json: manner.json || session.manner.json, yes: manner.yes || session.manner.yes };
        let elsewhere = match is_same(&reach, &session.reach) {
            true => None,
            false => Some(reach.connect(Role::User, LogIn::IfNeeded, &session.tokens).await?),
        };
        run_command(command, &Context { client: elsewhere.as_ref().unwrap_or(&session.client), manner }).await
    };
    runtime.block_on(interruptible(work))?;
    Ok(Turn::Stay)
}

/// What a line says of its server, over what the shell was opened with.
fn merged(line: Reach, shell: &Reach) -> Reach {
    let node = line.node.filter(|node| !node.is_empty());
    let moved = node.is_some() && node != shell.node || line.work_dir.is_some() && line.work_dir != shell.work_dir;
    Reach {
        node: node.or_else(|| shell.node.clone().filter(|_| line.work_dir.is_none() || line.work_dir == shell.work_dir)),
        work_dir: line.work_dir.or_else(|| shell.work_dir.clone()),
        // A name does not follow to another server.
        user: line.user.or_else(|| shell.user.clone().filter(|_| !moved)),
        cacert: line.cacert.or_else(|| shell.cacert.clone()),
        insecure: line.insecure || shell.insecure,
        password: None,
    }
}

fn is_same(one: &Reach, other: &Reach) -> bool {
    (&one.node, &one.work_dir, &one.user) == (&other.node, &other.work_dir, &other.user)
}

/// True for a line without what may be a secret.
fn is_harmless(line: &str) -> bool {
    !["--env", "--cmd", "assw", "oken"].iter().any(|part| line.contains(part))
}

fn broken(error: ReadlineError) -> Error {
    Error::Failed(format!("the terminal cannot be read: {error}"))
}

/// The history between two shells.
struct HistoryFile(Option<PathBuf>);

impl HistoryFile {
    fn of_user() -> Self {
        Self(state_directory().map(|directory| directory.join("history")))
    }

    /// The oldest line first; nothing if there is none, or it is not ours.
    fn read(&self) -> Vec<String> {
        let read = || {
            let file = self.0.as_ref()?;
            let about = std::fs::symlink_metadata(file).ok().filter(|about| about.is_file() && about.len() <= MAX_HISTORY_BYTES)?;
            let is_own = std::os::unix::fs::MetadataExt::uid(&about) == rustix::process::geteuid().as_raw();
            std::fs::read_to_string(file).ok().filter(|_| is_own)
        };
        let text = read().unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(MAX_HISTORY)..].to_vec()
    }

    /// Keeps a line. A history that cannot be written is none; nobody is kept from working.
    fn add(&self, line: &str) {
        let Some(file) = &self.0 else { return };
        let mut lines = self.read();
        if lines.last().is_some_and(|last| last == line) {
            return;
        }
        lines.push(line.to_owned());
        let text = lines[lines.len().saturating_sub(MAX_HISTORY)..].join("\n") + "\n";
        _ = write_private(file, text.as_bytes());
    }
}

/// Completes words; asks the server for names.
struct Names<'a> {
    client: &'a Client,
    runtime: &'a Runtime,
    grammar: clap::Command,
    known: RefCell<Vec<(Kind, Instant, Vec<String>)>>,
}

impl<'a> Names<'a> {
    fn new(client: &'a Client, runtime: &'a Runtime) -> Self {
        let mut grammar = grammar();
        grammar.build();
        Self { client, runtime, grammar, known: RefCell::default() }
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        let mut known = self.known.borrow_mut();
        known.retain(|(_, at, _)| at.elapsed() < NAMES_LIMIT);
        if let Some((_, _, names)) = known.iter().find(|(known, _, _)| *known == kind) {
            return names.clone();
        }
        let asked = async {
            match kind {
                Kind::Service => service::ids(self.client).await,
                Kind::Brick => brick::names(self.client).await,
                Kind::Port => super::port::numbers(self.client).await,
                Kind::Node => node::names(self.client).await,
            }
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(COMPLETION_LIMIT, asked).await });
        // Completion has nobody to complain to.
        let names = answer.ok().and_then(Result::ok).unwrap_or_default();
        known.push((kind, Instant::now(), names.clone()));
        names
    }
}

impl Completer for Names<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..position).unwrap_or(line);
        let begin = before.rfind(char::is_whitespace).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let typed = &before[begin..];
        let Ok(words) = words::split(&before[..begin]) else { return Ok((begin, Vec::new())) };
        let found = match complete::wanted(&self.grammar, &words, typed) {
            Wanted::Words(words) => words,
            Wanted::Names(kind) => self.names(kind),
            Wanted::Nothing => Vec::new(),
        };
        let fitting = found.into_iter().filter(|word| word.starts_with(typed));
        Ok((begin, fitting.map(|word| Pair { replacement: format!("{} ", quote(&word)), display: word }).collect()))
    }
}

impl Hinter for Names<'_> {
    type Hint = String;
}

impl Highlighter for Names<'_> {}
impl Validator for Names<'_> {}
impl Helper for Names<'_> {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_never_in_the_history_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = HistoryFile(Some(directory.path().join("xtao/history")));
        for line in ["mgmt service list", "mgmt service --id x --env \"P=1\"", "mgmt service list", "mgmt port list"] {
            if is_harmless(line) {
                file.add(line);
            }
        }
        assert_eq!(file.read(), ["mgmt service list", "mgmt port list"]);
        let mode = std::fs::metadata(file.0.as_ref().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        (0..MAX_HISTORY + 7).for_each(|number| file.add(&format!("line {number}")));
        let lines = file.read();
        assert_eq!((lines.len(), lines[0].as_str()), (MAX_HISTORY, "line 7"));
    }

    #[test]
    fn a_line_may_name_another_server_and_takes_no_name_there() {
        let reach = |node: Option<&str>, user: Option<&str>| Reach {
            node: node.map(str::to_owned),
            user: user.map(str::to_owned),
            ..Reach::default()
        };
        let check = |line: Reach, node: Option<&str>, user: Option<&str>, same: bool| {
            let shell = reach(Some("compute1"), Some("zmfsea"));
            let found = merged(line, &shell);
            assert_eq!((found.node.as_deref(), found.user.as_deref(), is_same(&found, &shell)), (node, user, same));
        };
        check(reach(None, None), Some("compute1"), Some("zmfsea"), true);
        check(reach(Some(""), None), Some("compute1"), Some("zmfsea"), true);
        check(reach(Some("compute1"), None), Some("compute1"), Some("zmfsea"), true);
        check(reach(Some("compute2"), None), Some("compute2"), None, false);
        check(reach(None, Some("other")), Some("compute1"), Some("other"), false);
        check(reach(Some("compute2"), Some("other")), Some("compute2"), Some("other"), false);
    }
}
