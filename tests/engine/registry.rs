//! A real registry of a test's own: distribution, as Debian packages it (`docker-registry`), on a free port of loopback, which Docker trusts without
//! TLS.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A registry that runs; it ends when it is dropped.
pub struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    /// Starts one that keeps everything in `directory`.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, "")
    }

    /// The same, for whom `htpasswd` names.
    pub fn start_for(directory: &Path, htpasswd: &str) -> Self {
        std::fs::write(directory.join("htpasswd"), htpasswd).unwrap();
        Self::start_with(directory, &format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", directory.display()))
    }

    fn start_with(directory: &Path, more: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let config = format!(
            "{more}version: 0.1\nlog: {{level: info, formatter: text}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            directory.display()
        );
        std::fs::write(directory.join("config.yml"), config).unwrap();
        let path = directory.join("log");
        let log = File::create(&path).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed");
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("listening on ")
                && let Some((address, _)) = rest.split_once('"')
            {
                return Self { child, address: address.to_owned() };
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < START_LIMIT, "the registry did not start ({ended:?}):\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its host and port, as the first part of an image's name.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it: connections are refused from now on.
    pub fn stop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
