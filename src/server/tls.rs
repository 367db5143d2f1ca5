//! TLS for the API, 1.2 and 1.3, with rustls and ring: the certificate, its chain and its key out of one [keystore](keystore) file. The file is looked at
//! from time to time: a new certificate serves from the next connection on, and one that cannot be used leaves the former one in its place.

mod keystore;

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use self::keystore::Keystore;
use crate::config;

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// Between two looks at the file.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("--ssl_keystore_path {}: {reason}", path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

/// A file that is looked at, and what was last made of it.
pub struct Watched {
    path: PathBuf,
    password: Option<config::Secret>,
    seen: Option<Stamp>,
    acceptor: watch::Sender<TlsAcceptor>,
}

/// What is another when a file was written, or when another one was put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Watched {
    /// Reads the file for the first time. What connections are accepted with is in the receiver, always the newest.
    ///
    /// # Errors
    /// A file that cannot be read, is no keystore, lacks a certificate or a key, or has two that do not belong together.
    pub fn open(path: &Path, password: Option<config::Secret>) -> Result<(Self, watch::Receiver<TlsAcceptor>), TlsError> {
        let seen = Stamp::of(path).ok();
        let first = acceptor(path, password.as_ref())?;
        let (acceptor, newest) = watch::channel(first);
        Ok((Self { path: path.to_owned(), password, seen, acceptor }, newest))
    }

    /// Looks every so often, for ever.
    pub async fn run(mut self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(watched) => self = watched,
                Err(error) => return error!(%error, "The keystore is not looked at any more."),
            }
        }
    }

    /// Reads the file again if it is another one than last time. Each that cannot be used is told once.
    fn look(&mut self) {
        // From before the reading: what is written after it is seen next time.
        let stamp = Stamp::of(&self.path).ok();
        if stamp == self.seen {
            return;
        }
        self.seen = stamp;
        match acceptor(&self.path, self.password.as_ref()) {
            Ok(acceptor) => {
                self.acceptor.send_replace(acceptor);
                info!(keystore = %self.path.display(), "The new certificate is used.");
            }
            Err(error) => error!(%error, "The new keystore cannot be used; the former certificate stays until there is one that can."),
        }
    }
}

fn acceptor(path: &Path, password: Option<&config::Secret>) -> Result<TlsAcceptor, TlsError> {
    let failed = |reason: String| TlsError { path: path.to_owned(), reason };
    let content = read(path).map_err(|error| failed(format!("it cannot be read: {error}")))?;
    let keystore = Keystore::read(&content, password.map(config::Secret::reveal)).map_err(failed)?;
    let config = server_config(keystore).map_err(failed)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        return Err(io::Error::other(format!("it has {size} bytes, more than any certificate")));
    }
    std::fs::read(path)
}

fn server_config(keystore: Keystore) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(keystore.chain, keystore.key))
        .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
