//! Running the file system tools (`mkfs.ext4`, `e2fsck` ...): found also where PATH lacks `sbin`, never interactive, with a limit on time and
//! output.

use std::{
    ffi::OsStr,
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::BrickError;

/// Bytes kept of what a tool prints.
pub const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// How often a running tool is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How a tool ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; -1 when a signal ended it.
    pub status: i32,
    /// What it printed, both streams, shortened to its last lines for messages.
    pub output: String,
}

/// Runs `tool` to its end and answers how it ended.
///
/// # Errors
/// It is not installed (the text names Debian's package), cannot be started, or runs longer than `limit` and was killed.
pub fn run<Argument: AsRef<OsStr>>(tool: &str, arguments: &[Argument], limit: Duration) -> Result<Ended, BrickError> {
    let failed = |error| BrickError::io(format!("cannot run {tool}"), error);
    let mut child = Command::new(find(tool)?)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let readers = [child.stdout.take().map(collect), child.stderr.take().map(collect)];
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if begun.elapsed() > limit {
            _ = child.kill();
            _ = child.wait();
            return Err(BrickError::Refused(format!("{tool} did not end within {} s and was stopped", limit.as_secs())));
        }
        thread::sleep(POLL);
    };
    let printed: Vec<String> = readers.into_iter().flatten().map(|reader| reader.join().unwrap_or_default()).collect();
    Ok(Ended { status: status.code().unwrap_or(-1), output: last_lines(&printed.join("\n")) })
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        _ = stream.by_ref().take(MAX_OUTPUT_BYTES).read_to_end(&mut kept);
        // The rest is read and dropped, or the tool would wait for ever.
        _ = std::io::copy(&mut stream, &mut std::io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join("; ")
}

/// Where the tool is.
///
/// # Errors
/// Not installed; the text names Debian's package.
pub fn find(tool: &str) -> Result<PathBuf, BrickError> {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin"];
    places.iter().map(|place| PathBuf::from(place).join(tool)).find(|path| path.exists()).ok_or_else(|| {
        let package = match tool {
            _ if tool.contains("xfs") => "xfsprogs",
            "sh" | "cat" => "coreutils",
            "fsfreeze" => "util-linux",
            _ => "e2fsprogs",
        };
        BrickError::Refused(format!("{tool} is not installed on this machine: apt-get install {package}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_missing_is_named_with_its_package() {
        let error = run("mkfs.xfs.not", &["-V"], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "mkfs.xfs.not is not installed on this machine: apt-get install xfsprogs");
    }

    #[test]
    fn a_tool_that_hangs_is_stopped() {
        let error = run("sleep", &["1000"], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().starts_with("sleep did not end within"), "{error}");
    }

    #[test]
    fn status_and_last_lines_are_kept() {
        let ended = run("sh", &["-c", "echo one; echo two >&2; exit 4"], Duration::from_secs(60)).unwrap();
        assert_eq!((ended.status, ended.output.as_str()), (4, "one; two"));
    }
}
