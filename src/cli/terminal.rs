//! The person at the terminal: told, asked, and asked without showing the answer.
//!
//! Answers are read letter by letter with the terminal's own editing off, so that Ctrl-C ends the question (and nothing else) and a password never
//! shows; the terminal is put back however the question ends. Without a terminal, an answer is a line of standard input.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::client::Secret;

/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Ctrl-C.
    #[error("nothing was done")]
    Interrupted,
    /// The end of the input came first.
    #[error("nobody is there to be asked: {0}")]
    Nobody(&'static str),
    /// No, said the person.
    #[error("nothing was done")]
    Declined,
    /// The terminal failed.
    #[error("cannot read the answer: {0}")]
    Broken(#[from] io::Error),
}

/// Prints a line; a reader that has gone away (`| head`) is no error.
pub fn say(text: &str) {
    _ = writeln!(io::stdout(), "{}", text.trim_end());
}

/// Prints a line that is not the answer.
pub fn note(text: &str) {
    _ = writeln!(io::stderr(), "{}", text.trim_end());
}

/// True when a person can be asked.
pub fn is_present() -> bool {
    io::stdin().is_terminal()
}

/// Goes on only if the person says yes, or has said so before.
///
/// # Errors
/// [`AskError`]; without a terminal there is nobody to ask.
pub fn confirm(yes: bool, question: &str) -> Result<(), AskError> {
    if yes {
        return Ok(());
    }
    if !is_present() {
        return Err(AskError::Nobody("confirm with -y"));
    }
    let answer = ask(&format!("{question} [y/N] "))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(AskError::Declined) }
}

/// Asks for one line.
///
/// # Errors
/// [`AskError`]
pub fn ask(prompt: &str) -> Result<String, AskError> {
    answer(prompt, true)
}

/// Asks for one line that does not show.
///
/// # Errors
/// [`AskError`]
pub fn ask_hidden(prompt: &str) -> Result<Secret, AskError> {
    answer(prompt, false).map(Secret::new)
}

/// Width and height of the terminal, in letters.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// The terminal in another mode; dropping it puts the old mode back.
pub struct Mode {
    before: Termios,
}

impl Mode {
    /// Every key as it is, nothing shown: what a program at the other end wants.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn raw() -> io::Result<Self> {
        Self::change(|mode| mode.make_raw())
    }

    /// Keys one by one, none shown, none special.
    fn keys() -> io::Result<Self> {
        Self::change(|mode| mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN))
    }

    fn change(change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut mode = before.clone();
        change(&mut mode);
        // Not flushed: what was typed ahead counts.
        tcsetattr(io::stdin(), OptionalActions::Drain, &mode)?;
        Ok(Self { before })
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

fn answer(prompt: &str, shown: bool) -> Result<String, AskError> {
    let mut stderr = io::stderr();
    // Before the prompt shows: who answers it at once must not be shown either.
    let mode = if is_present() { Some(Mode::keys()?) } else { None };
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let typed = if mode.is_some() { keys(io::stdin().as_fd(), &mut stderr, shown) } else { line() };
    drop(mode);
    // Enter was not shown, or nobody pressed it.
    writeln!(stderr)?;
    typed
}

fn line() -> Result<String, AskError> {
    let mut line = String::new();
    let read = io::Read::take(io::stdin().lock(), MAX_ANSWER_BYTES as u64).read_line(&mut line)?;
    if read == 0 { Err(AskError::Nobody("the input has ended")) } else { Ok(line.trim_end_matches(['\r', '\n']).to_owned()) }
}

/// Reads until Enter.
fn keys(from: BorrowedFd<'_>, to: &mut impl Write, shown: bool) -> Result<String, AskError> {
    let mut typed: Vec<u8> = Vec::new();
    let mut key = [0_u8];
    loop {
        match rustix::io::read(from, &mut key) {
            Ok(0) => return Err(AskError::Nobody("the terminal is gone")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(AskError::Broken(error.into())),
        }
        match key[0] {
            b'\r' | b'\n' => break,
            // Ctrl-C, Ctrl-D.
            3 => return Err(AskError::Interrupted),
            4 if typed.is_empty() => return Err(AskError::Interrupted),
            // Backspace takes a whole letter.
            8 | 127 => {
                if !typed.is_empty() {
                    redraw(to, shown, "\u{8} \u{8}")?;
                }
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            // Ctrl-U.
            21 => {
                let letters = String::from_utf8_lossy(&typed).chars().count();
                typed.clear();
                redraw(to, shown, &"\u{8} \u{8}".repeat(letters))?;
            }
            byte if byte >= 32 && typed.len() < MAX_ANSWER_BYTES => {
                typed.push(byte);
                if shown {
                    to.write_all(&[byte])?;
                    to.flush()?;
                }
            }
            _ => {}
        }
    }
    Ok(String::from_utf8_lossy(&typed).into_owned())
}

fn redraw(to: &mut impl Write, shown: bool, text: &str) -> io::Result<()> {
    if shown { to.write_all(text.as_bytes()).and_then(|()| to.flush()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// What is understood and what is shown of the bytes that a terminal sends.
    fn check(typed: &[u8], shown: bool, expected: &str, echo: &str) {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(typed).unwrap();
        drop(writer);
        let mut screen = Vec::new();
        let answer = keys(reader.as_fd(), &mut screen, shown).unwrap_or_else(|error| format!("error: {error}"));
        assert_eq!((answer.as_str(), String::from_utf8(screen).unwrap().as_str()), (expected, echo));
    }

    #[test]
    fn keys_make_an_answer() {
        check(b"zmfsea\r", true, "zmfsea", "zmfsea");
        check(b"p@ss\n", false, "p@ss", "");
        check("a\u{e9}\u{7f}b\r".as_bytes(), true, "ab", "a\u{e9}\u{8} \u{8}b");
        check(b"\x7f\x7fa\x15xy\r", false, "xy", "");
        check(b"ab\x03", true, "error: nothing was done", "ab");
        check(b"\x04", true, "error: nothing was done", "");
        check(b"a\x04b\r", true, "ab", "ab");
        check(b"ab", true, "error: nobody is there to be asked: the terminal is gone", "ab");
        check(&[b"x".as_slice(), &[0x1b, b'\r']].concat(), true, "x", "x");
        check(&[vec![b'x'; MAX_ANSWER_BYTES + 9], b"\r".to_vec()].concat(), false, &"x".repeat(MAX_ANSWER_BYTES), "");
    }
}
