//! What the programs have in common: words in, an exit code out, and what lies between.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, FromArgMatches};
use clap_complete::Shell;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::{
    client::ClientError,
    connect::{ConnectError, WORK_DIR},
    terminal::AskError,
};

/// Done.
pub const EXIT_OK: u8 = 0;
/// The server said no, or it did not work.
pub const EXIT_FAILED: u8 = 1;
/// The words mean nothing.
pub const EXIT_USAGE: u8 = 2;
/// No server answers.
pub const EXIT_SILENCE: u8 = 3;
/// Not logged in, or not allowed.
pub const EXIT_DENIED: u8 = 4;
/// Accepted, but not done within `--timeout`.
pub const EXIT_LATE: u8 = 5;
/// Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Where an administrator's command finds the server of this machine.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The server's directory on this machine
    #[arg(long = "work_dir", alias = "work-dir", env = "XTAO_WORK_DIR", default_value = WORK_DIR, global = true)]
    pub work_dir: PathBuf,
}

/// Why a program ends otherwise than well. Its text is for the person at the terminal.
pub trait Failure: Sized + std::fmt::Display {
    /// Wrong words; or help, which was asked for.
    fn usage(error: clap::Error) -> Self;

    /// The program could not even begin, or could not write what was asked for.
    fn failed(text: String) -> Self;

    /// What it is about.
    fn cause(&self) -> Cause<'_>;

    /// What the person is told.
    fn text(&self) -> String {
        self.to_string()
    }

    /// Tells the person.
    fn tell(&self) {
        match self.cause() {
            // It knows where it belongs, and in which colours.
            Cause::Usage(error) => _ = error.print(),
            Cause::Told(_) => {}
            _ => complain(&self.text()),
        }
    }

    /// What the program ends with.
    fn exit_code(&self) -> u8 {
        match self.cause() {
            Cause::Client(error) => code_of_client(error),
            Cause::Connect(error) => code_of_connect(error),
            Cause::Ask(error) => code_of_ask(error),
            Cause::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE),
            Cause::Own(code) | Cause::Told(code) => code,
        }
    }
}

/// What a [`Failure`] is about: one of what all programs may meet, or an exit code of its own.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the types say it")]
pub enum Cause<'a> {
    Client(&'a ClientError),
    Connect(&'a ConnectError),
    Ask(&'a AskError),
    /// Wrong words, or help.
    Usage(&'a clap::Error),
    Own(u8),
    /// The person knows it already.
    Told(u8),
}

/// Reads the words, the program's own name first, does the work on threads of its own, and gives the exit code.
pub fn run<C: CommandFactory + FromArgMatches, E: Failure>(
    words: impl IntoIterator<Item = String>,
    work: impl FnOnce(C, &Runtime) -> Result<(), E>,
) -> u8 {
    let outcome = parse(words).and_then(|cli| {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| E::failed(format!("cannot start: {error}")))?;
        let outcome = work(cli, &runtime);
        // Nothing that still waits for input may keep the program.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => EXIT_OK,
        Err(error) => {
            error.tell();
            error.exit_code()
        }
    }
}

/// # Errors
/// [`Failure::usage`]
pub fn parse<C: CommandFactory + FromArgMatches, E: Failure>(words: impl IntoIterator<Item = String>) -> Result<C, E> {
    let matches = C::command().try_get_matches_from(words).map_err(E::usage)?;
    C::from_arg_matches(&matches).map_err(E::usage)
}

/// The completions of a program, as a script for a shell.
pub fn completions(mut command: clap::Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    if shell == Shell::Fish {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let mut script = String::new();
        complete_in_fish(&name, &mut Vec::new(), &command, &mut script);
        return script;
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    let script = String::from_utf8_lossy(&script);
    match shell {
        // In the script for bash a program with a dash in its name is called by two names, and what is found under one is looked for under the other.
        Shell::Bash => script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__")),
        _ => script.into_owned(),
    }
}

/// What fish is told of a command that is reached by the words in `path`, and of those below. (The usual script for fish knows two levels of commands, and
/// we have three.)
fn complete_in_fish(program: &str, path: &mut Vec<String>, command: &clap::Command, script: &mut String) {
    let names = |command: &clap::Command| {
        let aliases: Vec<&str> = command.get_visible_aliases().collect();
        std::iter::once(command.get_name()).chain(aliases).collect::<Vec<_>>().join(" ")
    };
    let below: Vec<&clap::Command> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    let mut when: Vec<String> = path.iter().map(|words| format!("__fish_seen_subcommand_from {words}")).collect();
    if !below.is_empty() {
        let words = below.iter().map(|below| names(below)).collect::<Vec<_>>().join(" ");
        when.push(format!("not __fish_seen_subcommand_from {words}"));
    }
    let when = if when.is_empty() { String::new() } else { format!(" -n '{}'", when.join("; and ")) };
    let quoted = |text: Option<&clap::builder::StyledStr>| {
        let text = text.map(ToString::to_string).unwrap_or_default();
        format!("'{}'", text.lines().next().unwrap_or_default().replace('\\', "\\\\").replace('\'', "\\'"))
    };
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
        let short = arg.get_short().map(|letter| format!(" -s {letter}")).unwrap_or_default();
        let long = arg.get_long().map(|word| format!(" -l {word}")).unwrap_or_default();
        let needs_value = arg.get_action().takes_values() && arg.get_num_args().is_none_or(|count| count.min_values() > 0);
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let value = match (needs_value, arg.get_action().takes_values() && !values.is_empty()) {
            (_, true) => format!(" -x -a '{}'", values.join(" ")),
            (true, false) => " -r".to_owned(),
            (false, false) => String::new(),
        };
        *script += &format!("complete -c {program}{when}{short}{long}{value} -d {}\n", quoted(arg.get_help()));
    }
    for arg in command.get_positionals().filter(|arg| !arg.get_possible_values().is_empty()) {
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        *script += &format!("complete -c {program}{when} -f -a '{}'\n", values.join(" "));
    }
    for below in below {
        *script += &format!("complete -c {program}{when} -f -a {} -d {}\n", below.get_name(), quoted(below.get_about()));
        path.push(names(below));
        complete_in_fish(program, path, below, script);
        path.pop();
    }
}

/// Writes the manual pages: one for the program, one for each command of it. The error names the directory.
///
/// # Errors
/// The directory cannot be written to.
pub fn write_manual(command: clap::Command, directory: &Path) -> Result<(), String> {
    // A page is the long help: all options have their text.
    fn long(command: clap::Command) -> clap::Command {
        command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(long)
    }
    let mut command = long(command.disable_help_subcommand(true));
    command.build();
    let written = write_pages(&command, &command.clone(), directory);
    written.map_err(|error| format!("cannot write manual pages to {}: {error}", directory.display()))
}

fn write_pages(program: &clap::Command, command: &clap::Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(program, below, directory)?;
    }
    let source = format!("{} {}", program.get_name(), program.get_version().unwrap_or_default());
    let page = clap_mangen::Man::new(command.clone()).source(source);
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(directory.join(page.get_filename()), unfilled(&String::from_utf8_lossy(&text)))
}

/// A page whose examples, the lines that begin with blanks, are left as they are: filled and hyphenated they could not be copied.
fn unfilled(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut inside = false;
    for line in page.lines() {
        let example = line.starts_with("  ");
        if example != inside {
            text += if example { ".nf\n" } else { ".fi\n" };
            inside = example;
        }
        text += line;
        text.push('\n');
    }
    text
}

/// Ctrl-C ends the work. Work that has more to say about that listens itself, and comes first.
///
/// # Errors
/// The work's, or `interrupted`.
pub async fn interruptible<E>(work: impl Future<Output = Result<(), E>>, interrupted: E) -> Result<(), E> {
    tokio::select! {
        biased;
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(interrupted),
    }
}

/// The exit code for what a server said, or did not say.
fn code_of_client(error: &ClientError) -> u8 {
    match error.status() {
        _ if matches!(error, ClientError::Bad(_)) => EXIT_USAGE,
        Some(401 | 403) => EXIT_DENIED,
        _ if error.is_silence() => EXIT_SILENCE,
        _ => EXIT_FAILED,
    }
}

/// The exit code when there is no connection.
fn code_of_connect(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Client(error) => code_of_client(error),
        ConnectError::Nowhere { .. } => EXIT_SILENCE,
        ConnectError::Bad(_) => EXIT_USAGE,
        ConnectError::Ask(AskError::Interrupted) => EXIT_INTERRUPTED,
        ConnectError::Ask(_) => EXIT_DENIED,
    }
}

/// The exit code when a question had no answer.
fn code_of_ask(error: &AskError) -> u8 {
    if matches!(error, AskError::Interrupted) { EXIT_INTERRUPTED } else { EXIT_FAILED }
}

/// JSON as the manual prints it, with four blanks.
pub fn json(value: &Value) -> String {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    // A value in memory has nothing that cannot be written.
    _ = serde::Serialize::serialize(value, &mut serializer);
    String::from_utf8_lossy(&text).into_owned()
}

/// An error, in colour for a person. Without a standard error there is nobody to tell.
pub fn complain(text: &str) {
    let (red, plain) = if io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    _ = writeln!(io::stderr(), "{red}error:{plain} {text}");
}
