//! Pushing an image out of an archive: layers that the registry does not have, several at a time, then the configuration, then the manifest under each
//! tag, so that a tag never names something incomplete.
//!
//! A plain layer is compressed while it is sent, and its sum compared with what the configuration says of it. What came of it is remembered
//! ([`Known`]), so that the next push asks the registry whether it has the blob and reads nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, TryStreamExt, stream};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    archive::{Archive, ArchiveError, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Image, Layer, hex_digest, sha256},
    client::{Registry, RegistryError},
};

/// Layers under way at once.
const AT_ONCE: usize = 3;
/// How often one layer is tried.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes that are handed on at once, and how many such pieces wait for the network.
const PIECE: usize = 256 * 1024;
const WAITING_PIECES: usize = 4;
/// The size that `docker push` reaches, in 0.6 of its time (measured with 1.2 GB). Level 1 takes a sixth of its time, and is larger by a sixth.
const LEVEL: Compression = Compression::new(4);

/// Why a push ended.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The token: the server's words.
    #[error("{0}")]
    Token(String),
    /// A layer has other contents than the configuration says.
    #[error("the layer {0} has other contents than the archive says: the archive is damaged; save the image again")]
    Damaged(String),
    /// A layer of the archive cannot be read.
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
}

impl PushError {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_passing())
    }
}

/// Gives tokens that are good for a while.
#[async_trait]
pub trait Tokens: Sync {
    /// One that allows to pull from and push to `repository`, and to pull from `source` if there is one.
    ///
    /// # Errors
    /// [`PushError::Token`]
    async fn token(&self, repository: &str, source: Option<&str>) -> Result<String, PushError>;
}

/// Which blob a plain layer became. What it says is checked with the registry.
pub trait Known: Sync {
    /// `sha256:...` of the blob for the layer `diff_id`.
    fn blob(&self, diff_id: &str) -> Option<String>;
    /// Remembers one.
    fn remember(&self, diff_id: &str, blob: &str);
}

/// What happens, for whoever watches. Layers are named by their diff id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The layer is there already.
    Present(&'a str),
    /// The layer is sent from the beginning; so many bytes of the archive.
    Sending(&'a str, u64),
    /// So many more bytes of the archive were read for it.
    Read(&'a str, u64),
    /// The layer is there now; so many bytes were sent.
    Sent(&'a str, u64),
    /// The layer is tried again, for this reason.
    Again(&'a str, &'a str),
    /// The image is there under this repository and tag.
    Tagged(&'a str, &'a str),
}

/// Hears of every [`Step`].
pub trait Watch: Send + Sync {
    /// One step.
    fn step(&self, step: Step<'_>);
}

/// A blob of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob {
    digest: String,
    size: u64,
}

/// What a push needs besides the image.
pub struct Push<'a> {
    /// Where to.
    pub registry: &'a Registry,
    /// In whose name.
    pub tokens: &'a dyn Tokens,
    /// Where from.
    pub archive: Arc<Archive>,
    /// What earlier pushes learned.
    pub known: &'a dyn Known,
    /// Who watches.
    pub watch: Arc<dyn Watch>,
}

impl Push<'_> {
    /// Sends `image` and stores it in `repository` under each of `tags`; answers the manifest's digest.
    ///
    /// # Errors
    /// See [`PushError`]. Nothing is tagged then that was not complete; blobs may have been stored.
    pub async fn run(&self, image: &Image, repository: &str, tags: &[String]) -> Result<String, PushError> {
        let mut seen = BTreeSet::new();
        let layers = image.layers.iter().filter(|layer| seen.insert(&layer.diff_id));
        let sent =
            stream::iter(layers).map(|layer| async move { Ok::<_, PushError>((&layer.diff_id, self.layer(layer, repository).await?)) });
        let blobs: BTreeMap<&String, Blob> = sent.buffer_unordered(AT_ONCE).try_collect().await?;
        let config = sha256(&image.config);
        self.small(repository, &config, &image.config).await?;
        let (kind, manifest) = match &image.manifest {
            Some((kind, bytes)) => (kind.as_str(), bytes.clone()),
            None => (DOCKER_MANIFEST, manifest(image, &config, &blobs).to_string().into_bytes()),
        };
        for tag in tags {
            let token = self.tokens.token(repository, None).await?;
            self.registry.put_manifest(&token, repository, tag, kind, manifest.clone()).await?;
            self.watch.step(Step::Tagged(repository, tag));
        }
        Ok(sha256(&manifest))
    }

    /// Makes an image of `from` one of `repository` as well; its blobs are in the same registry.
    ///
    /// # Errors
    /// See [`PushError`].
    pub async fn copy(&self, image: &Image, from: &str, tag: &str, repository: &str) -> Result<(), PushError> {
        let token = self.tokens.token(repository, Some(from)).await?;
        let Some(manifest) = self.registry.manifest(&token, from, tag).await? else {
            return Err(RegistryError::Nonsense(format!("{from}:{tag} is gone")).into());
        };
        let parsed = manifest.parse()?;
        let layers = parsed["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let digests = layers.iter().chain([&parsed["config"]]).filter_map(|blob| blob["digest"].as_str());
        for digest in digests.take(image.layers.len() + 1) {
            let there = self.registry.blob_size(&token, repository, digest).await?.is_some();
            if !there && !self.registry.mount(&token, repository, digest, from).await? {
                return Err(RegistryError::Nonsense(format!("{digest} of {from} cannot be used in {repository}")).into());
            }
        }
        Ok(self.registry.put_manifest(&token, repository, tag, &manifest.kind, manifest.bytes).await?)
    }

    async fn layer(&self, layer: &Layer, repository: &str) -> Result<Blob, PushError> {
        if let Some(digest) = layer.digest.clone().or_else(|| self.known.blob(&layer.diff_id)) {
            let token = self.tokens.token(repository, None).await?;
            if let Some(size) = self.registry.blob_size(&token, repository, &digest).await? {
                self.watch.step(Step::Present(&layer.diff_id));
                return Ok(Blob { digest, size });
            }
        }
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.send(layer, repository).await {
                Err(error) if error.is_passing() => {
                    self.watch.step(Step::Again(&layer.diff_id, &error.to_string()));
                    tokio::time::sleep(pause).await;
                    pause *= 4;
                }
                other => return other,
            }
        }
        self.send(layer, repository).await
    }

    async fn send(&self, layer: &Layer, repository: &str) -> Result<Blob, PushError> {
        self.watch.step(Step::Sending(&layer.diff_id, layer.size));
        let upload = self.registry.begin(&self.tokens.token(repository, None).await?, repository).await?;
        let (sender, receiver) = mpsc::channel(WAITING_PIECES);
        let (archive, watch, read) = (self.archive.clone(), self.watch.clone(), layer.clone());
        let packing = tokio::task::spawn_blocking(move || pack(&archive, &read, &*watch, sender));
        let pieces = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
        let token = self.tokens.token(repository, None).await?;
        let sent = self.registry.send_contents(&token, upload, pieces).await;
        // Its end of the channel is gone when the request is over, and then it ends too.
        let packed = packing.await.unwrap_or_else(|error| Err(PushError::Read(io::Error::other(error.to_string()))));
        let upload = match (sent, &packed) {
            (Ok(upload), _) => upload,
            (Err(_), Err(error @ (PushError::Read(_) | PushError::Damaged(_) | PushError::Archive(_)))) if !is_hung_up(error) => {
                return packed.map(|packed| packed.blob);
            }
            (Err(error), _) => return Err(error.into()),
        };
        let packed = packed?;
        let expected = layer.digest.as_ref().unwrap_or(&packed.blob.digest);
        if packed.blob.digest != *expected || packed.diff_id.as_ref().is_some_and(|diff_id| *diff_id != layer.diff_id) {
            return Err(PushError::Damaged(layer.diff_id.clone()));
        }
        // A long layer outlives its token.
        let token = self.tokens.token(repository, None).await?;
        self.registry.finish(&token, upload, &packed.blob.digest, Vec::new()).await?;
        self.known.remember(&layer.diff_id, &packed.blob.digest);
        self.watch.step(Step::Sent(&layer.diff_id, packed.blob.size));
        Ok(packed.blob)
    }

    async fn small(&self, repository: &str, digest: &str, bytes: &[u8]) -> Result<(), PushError> {
        let token = self.tokens.token(repository, None).await?;
        if self.registry.blob_size(&token, repository, digest).await?.is_none() {
            let upload = self.registry.begin(&token, repository).await?;
            self.registry.finish(&token, upload, digest, bytes.to_vec()).await?;
        }
        Ok(())
    }
}

fn is_hung_up(error: &PushError) -> bool {
    matches!(error, PushError::Read(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// A schema 2 manifest.
fn manifest(image: &Image, config: &str, blobs: &BTreeMap<&String, Blob>) -> Value {
    let layer = |layer: &Layer| {
        let blob = blobs.get(&layer.diff_id);
        json!({ "mediaType": DOCKER_LAYER, "size": blob.map(|blob| blob.size), "digest": blob.map(|blob| &blob.digest) })
    };
    json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": { "mediaType": DOCKER_CONFIG, "size": image.config.len(), "digest": config },
        "layers": image.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

/// What a layer has become.
struct Packed {
    blob: Blob,
    /// The sum of the plain contents, when they were seen.
    diff_id: Option<String>,
}

/// Reads a layer, compresses it unless it is, and hands it on.
fn pack(archive: &Archive, layer: &Layer, watch: &dyn Watch, sender: mpsc::Sender<Result<Bytes, io::Error>>) -> Result<Packed, PushError> {
    let outcome = try_pack(archive, layer, watch, sender.clone());
    if let Err(error) = &outcome {
        // Without it the request would end as if the layer did. Nobody may be listening.
        _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
    }
    outcome
}

fn try_pack(
    archive: &Archive,
    layer: &Layer,
    watch: &dyn Watch,
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
) -> Result<Packed, PushError> {
    let mut reader = archive.layer(layer)?;
    let mut out = Pieces { sender, waiting: Vec::with_capacity(PIECE), sum: Context::new(&SHA256), size: 0 };
    let mut buffer = vec![0; PIECE];
    let mut next = |buffer: &mut [u8]| {
        let count = reader.read(buffer).map_err(PushError::Read)?;
        watch.step(Step::Read(&layer.diff_id, count as u64));
        Ok::<_, PushError>(count)
    };
    let mut diff_id = None;
    if layer.compressed {
        loop {
            let count = next(&mut buffer)?;
            if count == 0 {
                break;
            }
            out.write_all(&buffer[..count]).map_err(PushError::Read)?;
        }
    } else {
        let mut plain = Context::new(&SHA256);
        let mut encoder = GzEncoder::new(out, LEVEL);
        loop {
            let count = next(&mut buffer)?;
            if count == 0 {
                break;
            }
            plain.update(&buffer[..count]);
            encoder.write_all(&buffer[..count]).map_err(PushError::Read)?;
        }
        out = encoder.finish().map_err(PushError::Read)?;
        diff_id = Some(hex_digest(plain.finish().as_ref()));
    }
    // Told apart here, so that nothing with a wrong sum is ever finished.
    if diff_id.as_ref().is_some_and(|diff_id| *diff_id != layer.diff_id) {
        return Err(PushError::Damaged(layer.diff_id.clone()));
    }
    out.flush().map_err(PushError::Read)?;
    Ok(Packed { blob: Blob { digest: hex_digest(out.sum.finish().as_ref()), size: out.size }, diff_id })
}

/// Collects what is written into pieces, and adds up their sum.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    waiting: Vec<u8>,
    sum: Context,
    size: u64,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sum.update(bytes);
        self.size += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Known for Nothing {
    fn blob(&self, _diff_id: &str) -> Option<String> {
        None
    }

    fn remember(&self, _diff_id: &str, _blob: &str) {}
}

impl Watch for Nothing {
    fn step(&self, _step: Step<'_>) {}
}

/// Remembers in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<String, String>>);

impl Known for Memory {
    fn blob(&self, diff_id: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(diff_id).cloned()
    }

    fn remember(&self, diff_id: &str, blob: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id.to_owned(), blob.to_owned());
    }
}

impl Memory {
    /// Begins with what is known.
    pub fn new(known: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(Mutex::new(known.into_iter().collect()))
    }

    /// All that is known, diff id and blob.
    pub fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(diff_id, blob)| (diff_id.clone(), blob.clone())).collect()
    }
}
