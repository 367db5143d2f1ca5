//! A mounted file system that stands still, and goes on whatever happens to us: a helper process waits on a pipe, and thaws it when the pipe
//! closes without a word, which also `kill -9` of this process does.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::brick::{BrickError, ioctl, tool};

/// The helper: deaf to the terminal's signals, which may end us.
const SCRIPT: &str = "trap '' INT TERM HUP QUIT; echo ready; read -r word || exec \"$1\" --unfreeze \"$2\"";

/// Stands still until [`Frozen::end`], or until it is dropped.
#[derive(Debug)]
pub struct Frozen {
    directory: File,
    target: PathBuf,
    helper: Child,
    is_frozen: bool,
}

impl Frozen {
    /// Writes everything out and stops all writing to the file system at `target`.
    ///
    /// # Errors
    /// It is frozen already, or cannot be.
    pub fn begin(target: &Path) -> Result<Self, BrickError> {
        let failed = |error| BrickError::io(format!("cannot make {} stand still", target.display()), error);
        let directory = File::open(target).map_err(failed)?;
        let helper = start_helper(target)?;
        let mut frozen = Self { directory, target: target.to_owned(), helper, is_frozen: false };
        match ioctl::freeze(&frozen.directory) {
            Ok(()) => frozen.is_frozen = true,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(BrickError::Refused(format!(
                    "{target} is frozen already, perhaps by another backup; if by none: fsfreeze --unfreeze {target}",
                    target = target.display()
                )));
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(frozen)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It cannot be thawed: the text says what to do.
    pub fn end(mut self) -> Result<(), BrickError> {
        self.thaw().map_err(|error| {
            BrickError::io(format!("cannot let {target} go on; try: fsfreeze --unfreeze {target}", target = self.target.display()), error)
        })
    }

    /// What the kernel does when this process is killed: the pipe closes, and nothing else happens.
    #[cfg(test)]
    pub fn lose(mut self) {
        self.is_frozen = false;
        drop(self.helper.stdin.take());
        _ = self.helper.wait();
    }

    fn thaw(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_frozen) { ioctl::thaw(&self.directory) } else { Ok(()) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // If this fails, the helper tries too: it is not told that all is well.
        let is_thawed = self.thaw().is_ok();
        if let Some(mut pipe) = self.helper.stdin.take()
            && is_thawed
        {
            _ = pipe.write_all(b"done\n");
        }
        _ = self.helper.wait();
    }
}

fn start_helper(target: &Path) -> Result<Child, BrickError> {
    let failed = |error| BrickError::io("cannot start the helper that ends a freeze", error);
    let thaw = tool::find("fsfreeze")?;
    let mut helper = Command::new(tool::find("sh")?)
        .args(["-c", SCRIPT, "sh"])
        .args([&thaw, target])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // Before it is ready a signal could still end it.
    let mut word = [0; 6];
    let ready = helper.stdout.take().map(|mut pipe| io::Read::read_exact(&mut pipe, &mut word));
    match ready {
        Some(Ok(())) => Ok(helper),
        _ => {
            _ = helper.kill();
            _ = helper.wait();
            Err(failed(io::ErrorKind::BrokenPipe.into()))
        }
    }
}
