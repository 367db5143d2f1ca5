//! A new password from the person at the terminal: asked for twice, and not shown. From a pipe it is the first line.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longest line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 4096;

/// # Errors
/// The two differ, the input ends, or the terminal fails.
pub fn new_password(user: &str) -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let first = hidden(&format!("New password of {user}: "))?;
    let second = hidden("Once more: ")?;
    if first == second { Ok(first) } else { Err(io::Error::other("the two passwords differ; nothing was changed")) }
}

fn hidden(prompt: &str) -> io::Result<String> {
    let mut terminal = io::stderr();
    let silence = Silence::begin()?;
    write!(terminal, "{prompt}")?;
    terminal.flush()?;
    let answer = line();
    drop(silence);
    writeln!(terminal)?;
    answer
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    let read = io::Read::take(io::stdin().lock(), MAX_LINE_BYTES).read_line(&mut line)?;
    if read == 0 {
        return Err(io::Error::other("no password was given: nobody is there to be asked"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it lives nothing that is typed shows.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
