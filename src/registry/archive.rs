//! What `docker save` writes, read without unpacking it: a table of contents first, then one layer at a time, as a stream.
//!
//! | layout | its table | what becomes of it |
//! | --- | --- | --- |
//! | Docker (`manifest.json`; also what Docker 25 and later write) | configuration, tags, and the layers' files | a schema 2 manifest; layers that are plain are compressed when sent |
//! | OCI (`index.json`, without `manifest.json`) | manifests by digest | sent as they are, media types included |
//!
//! The archive may be compressed with gzip as a whole; a layer in it is then reached by decompressing what lies before it, once for layers that are
//! asked for in their order. Layers are named by the digest of their plain contents (diff id), which the configuration lists.
//!
//! Facts: Docker Image Specification v1.2 ("combined image JSON + file system changeset format"); OCI image layout 1.0. Docker before 25 writes a layer
//! that occurs twice as a symbolic link to the first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use flate2::bufread::MultiGzDecoder;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::tar::{self, Entry, Kind, Source, TarError};
use crate::model::image;

/// Bytes of a whole archive, unpacked. A bomb of one gigabyte would otherwise keep a processor busy for hours.
pub const MAX_ARCHIVE_BYTES: u64 = 256 << 30;
/// Bytes of `manifest.json`, of an index, of a manifest. The registry takes no more for a manifest.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of an image's configuration.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Bytes of all tables and configurations of one archive, which are held in memory.
const MAX_HELD_BYTES: u64 = 64 << 20;
/// Layers of an image. Docker's storage stops at 128.
pub const MAX_LAYERS: usize = 512;
/// Images of one archive.
const MAX_IMAGES: usize = 256;
/// Names of one image.
const MAX_NAMES: usize = 256;
/// A link to a link to a link is no layer.
const MAX_LINKS: usize = 4;
/// Decompressors that are kept for the layer that comes next.
const MAX_STREAMS: usize = 4;

/// Media types.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Of an image's configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Of a layer compressed with gzip.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// The OCI's.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Why an archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read as a tar archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// It is a tar archive, but none of images, or not a sound one: what is wrong, and what to do.
    #[error("{0}")]
    Bad(String),
}

fn bad<T>(text: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Bad(text.into()))
}

/// An archive: its images, and the way to their layers.
#[derive(Debug)]
pub struct Archive {
    opener: Opener,
    /// In the order of the archive's table.
    pub images: Vec<Image>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As they stand in the archive: `zmfsea/cmp-postgresql:latest`. None when the image was saved by its id.
    pub names: Vec<String>,
    /// The configuration, byte for byte.
    pub config: Vec<u8>,
    /// From the lowest one up.
    pub layers: Vec<Layer>,
    /// The manifest, byte for byte, with its media type, when the archive has one; the layers are then sent as they are.
    pub manifest: Option<(String, Vec<u8>)>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:...` of its plain contents, as the configuration says.
    pub diff_id: String,
    /// Where its file lies in the archive.
    pub offset: u64,
    /// Bytes of the file.
    pub size: u64,
    /// `sha256:...` of the file, when the archive says it.
    pub digest: Option<String>,
    /// True when the file is compressed already and is sent as it is.
    pub compressed: bool,
}

impl Archive {
    /// Reads the table of contents of `file`, which must be a regular one: it is read in several places.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn open(file: File) -> Result<Self, ArchiveError> {
        let opener = Opener::new(file)?;
        let contents = Contents::read(opener.at(0).map_err(TarError::from)?)?;
        let images = if contents.held.contains_key("manifest.json") {
            contents.docker_images()?
        } else if contents.held.contains_key("index.json") {
            contents.oci_images()?
        } else {
            return bad("it has no manifest.json: it was not written by `docker save` (`docker export` writes something else)");
        };
        Ok(Self { opener, images })
    }

    /// An archive that has nothing but a table.
    #[cfg(test)]
    pub(crate) fn of_images(images: Vec<Image>) -> Self {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&tar::END).unwrap();
        Self { opener: Opener::new(file).unwrap(), images }
    }

    /// The file of a layer, from its beginning.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub fn layer(&self, layer: &Layer) -> Result<LayerReader<'_>, ArchiveError> {
        let stream = self.opener.at(layer.offset).map_err(TarError::from)?;
        Ok(LayerReader { opener: &self.opener, stream: Some(stream), left: layer.size })
    }
}

/// A layer's file. An end before the end is an error.
pub struct LayerReader<'a> {
    opener: &'a Opener,
    stream: Option<Stream>,
    left: u64,
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let count = stream.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(cut_off());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl Drop for LayerReader<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.opener.keep(stream);
        }
    }
}

// === The bytes of the archive ===

/// Gives streams that begin where they are wanted.
#[derive(Debug)]
struct Opener {
    file: Arc<File>,
    bytes: u64,
    packed: bool,
    /// Streams of a packed archive that were used and may be used for what lies behind.
    kept: Mutex<Vec<Stream>>,
}

/// The unpacked archive from some place on.
enum Stream {
    Plain(BufReader<Cursor>),
    Packed { inner: Box<MultiGzDecoder<BufReader<Cursor>>>, at: u64 },
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Stream")
    }
}

/// A place of its own in a file that others read too.
#[derive(Debug)]
struct Cursor {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Opener {
    fn new(file: File) -> Result<Self, ArchiveError> {
        let metadata = file.metadata().map_err(TarError::from)?;
        if !metadata.is_file() {
            return bad("it is not a regular file; save the image to one first");
        }
        let mut magic = [0; 6];
        let got = file.read_at(&mut magic, 0).map_err(TarError::from)?;
        let other = match magic[..got] {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
            [b'B', b'Z', b'h', ..] => Some("bzip2"),
            [] => return bad("it is empty"),
            _ => None,
        };
        if let Some(kind) = other {
            return bad(format!("it is compressed with {kind}; only gzip is read: unpack it first"));
        }
        Ok(Self { file: Arc::new(file), bytes: metadata.len(), packed: is_gzip(&magic), kept: Mutex::default() })
    }

    fn at(&self, offset: u64) -> io::Result<Stream> {
        let cursor = |at| BufReader::with_capacity(128 * 1024, Cursor { file: self.file.clone(), at, end: self.bytes });
        if !self.packed {
            return Ok(Stream::Plain(cursor(offset)));
        }
        let mut stream = self.kept(offset).unwrap_or_else(|| Stream::Packed { inner: Box::new(MultiGzDecoder::new(cursor(0))), at: 0 });
        let behind = offset - stream.position();
        stream.skip(behind)?;
        Ok(stream)
    }

    /// The kept stream that is nearest before `offset`.
    fn kept(&self, offset: u64) -> Option<Stream> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, _) =
            kept.iter().enumerate().filter(|(_, stream)| stream.position() <= offset).max_by_key(|(_, stream)| stream.position())?;
        Some(kept.swap_remove(at))
    }

    fn keep(&self, stream: Stream) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.packed && kept.len() < MAX_STREAMS {
            kept.push(stream);
        }
    }
}

impl Stream {
    /// Of a packed one; others do not ask.
    fn position(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Packed { at, .. } => *at,
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off")
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buffer),
            Self::Packed { inner, at } => {
                let count = inner.read(buffer).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => cut_off(),
                    _ => error,
                })?;
                *at += count as u64;
                Ok(count)
            }
        }
    }
}

impl Source for Stream {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Plain(inner) => {
                let buffered = inner.buffer().len() as u64;
                if bytes <= buffered {
                    inner.consume(usize::try_from(bytes).unwrap_or(0));
                    return Ok(());
                }
                let cursor = inner.get_ref();
                let at = cursor.at.checked_add(bytes - buffered).filter(|at| *at <= cursor.end).ok_or_else(cut_off)?;
                // Also forgets what is buffered, and lies before the new place.
                inner.seek(SeekFrom::Start(at)).map(drop)
            }
            Self::Packed { .. } => {
                let copied = io::copy(&mut self.take(bytes), &mut io::sink())?;
                if copied == bytes { Ok(()) } else { Err(cut_off()) }
            }
        }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => self.at = at,
            SeekFrom::End(_) | SeekFrom::Current(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(self.at)
    }
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

// === Its table of contents ===

/// What lies where; tables and configurations are held.
#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Found>,
    links: BTreeMap<String, String>,
    held: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Found {
    offset: u64,
    size: u64,
    compressed: bool,
}

impl Contents {
    fn read(source: impl Source) -> Result<Self, ArchiveError> {
        let mut reader = tar::Reader::new(source, MAX_ARCHIVE_BYTES);
        let mut contents = Self::default();
        let mut held = 0;
        while let Some(entry) = reader.entry()? {
            let Entry { name, kind, offset, size, .. } = &entry;
            if *kind != Kind::Directory && (contents.files.contains_key(name) || contents.links.contains_key(name)) {
                return bad(format!("it has {} twice", tar::shown(name)));
            }
            match kind {
                Kind::Directory => {}
                Kind::Symbolic { target, leads_to: None } => return Err(tar::leads_out(target).into()),
                Kind::Link(target) | Kind::Symbolic { leads_to: Some(target), .. } => {
                    contents.links.insert(name.clone(), target.clone());
                }
                Kind::File => {
                    let mut bytes = reader.beginning(&entry)?;
                    contents.files.insert(name.clone(), Found { offset: *offset, size: *size, compressed: is_gzip(&bytes) });
                    if *size > MAX_CONFIG_BYTES || !matches!(bytes.first(), Some(b'{' | b'[')) {
                        continue;
                    }
                    held += size;
                    if held > MAX_HELD_BYTES {
                        return bad(format!("its tables have more than {MAX_HELD_BYTES} bytes"));
                    }
                    bytes.extend(reader.rest(&entry)?);
                    contents.held.insert(name.clone(), bytes);
                }
            }
        }
        Ok(contents)
    }

    /// The file behind a name, links followed within the archive.
    fn file(&self, name: &str) -> Result<(String, Found), ArchiveError> {
        let mut at = name;
        for _ in 0..=MAX_LINKS {
            if let Some(found) = self.files.get(at) {
                return Ok((at.to_owned(), *found));
            }
            let Some(target) = self.links.get(at) else { return bad(format!("{} is missing in it: it is not complete", tar::shown(name))) };
            at = target;
        }
        bad(format!("{} is a link to a link, and so on", tar::shown(name)))
    }

    /// A table, as bytes and as JSON.
    fn json(&self, name: &str, limit: u64) -> Result<(&[u8], Value), ArchiveError> {
        let (file, found) = self.file(name)?;
        if found.size > limit {
            return bad(format!("{} has {} bytes, and {limit} are allowed", tar::shown(name), found.size));
        }
        let Some(bytes) = self.held.get(&file) else { return bad(format!("{} is not JSON", tar::shown(name))) };
        let value = serde_json::from_slice(bytes).map_err(|error| ArchiveError::Bad(format!("{name} cannot be read: {error}")))?;
        Ok((bytes, value))
    }

    /// A table that is named by its digest.
    fn blob(&self, descriptor: &Value, limit: u64) -> Result<(&[u8], Value), ArchiveError> {
        let digest = digest_of(descriptor)?;
        let (bytes, value) = self.json(&blob_name(digest), limit)?;
        if sha256(bytes) != digest {
            return bad(format!("{digest} has other contents than its name says: the archive is damaged"));
        }
        Ok((bytes, value))
    }

    fn docker_images(&self) -> Result<Vec<Image>, ArchiveError> {
        let (_, table) = self.json("manifest.json", MAX_MANIFEST_BYTES)?;
        let Some(table) = table.as_array() else { return bad("manifest.json is not a list") };
        if table.is_empty() || table.len() > MAX_IMAGES {
            return bad(format!("manifest.json lists {} images; 1 to {MAX_IMAGES} are read", table.len()));
        }
        table.iter().map(|row| self.docker_image(row)).collect()
    }

    fn docker_image(&self, row: &Value) -> Result<Image, ArchiveError> {
        let Some(config_name) = row["Config"].as_str() else { return bad("manifest.json names no configuration") };
        let (config, parsed) = self.json(config_name, MAX_CONFIG_BYTES)?;
        let names = texts(&row["RepoTags"], MAX_NAMES, "RepoTags in manifest.json")?;
        let files = texts(&row["Layers"], MAX_LAYERS, "Layers in manifest.json")?;
        let diff_ids = diff_ids(&parsed)?;
        if files.len() != diff_ids.len() {
            return bad(format!("manifest.json lists {} layers, and the configuration {}", files.len(), diff_ids.len()));
        }
        let layers = files.iter().zip(diff_ids).map(|(name, diff_id)| {
            let (_, found) = self.file(name)?;
            Ok(Layer { diff_id, offset: found.offset, size: found.size, digest: None, compressed: found.compressed })
        });
        Ok(Image { names, config: config.to_vec(), layers: layers.collect::<Result<_, ArchiveError>>()?, manifest: None })
    }

    fn oci_images(&self) -> Result<Vec<Image>, ArchiveError> {
        let (_, index) = self.json("index.json", MAX_MANIFEST_BYTES)?;
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for descriptor in manifests(&index)? {
            let names = names_of(descriptor);
            for descriptor in self.platforms(descriptor)? {
                let digest = digest_of(&descriptor)?;
                match images.get_mut(digest) {
                    Some(image) => image.names.extend(names.clone()),
                    None => _ = images.insert(digest.to_owned(), self.oci_image(&descriptor, names.clone())?),
                }
            }
        }
        if images.is_empty() {
            return bad("index.json lists no image for this kind of machine");
        }
        if images.values().any(|image| image.names.len() > MAX_NAMES) {
            return bad(format!("an image has more than {MAX_NAMES} names"));
        }
        Ok(images.into_values().collect())
    }

    /// The manifest itself, or the one for this kind of machine out of an index.
    fn platforms(&self, descriptor: &Value) -> Result<Vec<Value>, ArchiveError> {
        if !matches!(descriptor["mediaType"].as_str(), Some(OCI_INDEX | DOCKER_LIST)) {
            return Ok(vec![descriptor.clone()]);
        }
        let (_, index) = self.blob(descriptor, MAX_MANIFEST_BYTES)?;
        let machine = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |descriptor: &&Value| {
            let platform = &descriptor["platform"];
            platform.is_null() || platform["os"] == "linux" && platform["architecture"] == machine
        };
        // One that the archive only mentions was not saved.
        let here = |descriptor: &&Value| digest_of(descriptor).is_ok_and(|digest| self.files.contains_key(&blob_name(digest)));
        Ok(manifests(&index)?.iter().filter(fits).filter(here).take(1).cloned().collect())
    }

    fn oci_image(&self, descriptor: &Value, names: Vec<String>) -> Result<Image, ArchiveError> {
        let (bytes, manifest) = self.blob(descriptor, MAX_MANIFEST_BYTES)?;
        let stated = manifest["mediaType"].as_str().or(descriptor["mediaType"].as_str()).unwrap_or(OCI_MANIFEST);
        if ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&stated) {
            return bad(format!("its index lists something of the type '{}', which is no image", stated.escape_debug()));
        }
        let (config, parsed) = self.blob(&manifest["config"], MAX_CONFIG_BYTES)?;
        let descriptors = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let diff_ids = diff_ids(&parsed)?;
        if descriptors.len() > MAX_LAYERS || descriptors.len() != diff_ids.len() {
            return bad(format!("the manifest lists {} layers, and the configuration {}", descriptors.len(), diff_ids.len()));
        }
        let layers = descriptors.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            let digest = digest_of(descriptor)?;
            let (_, found) = self.file(&blob_name(digest))?;
            if descriptor["size"].as_u64() != Some(found.size) {
                return bad(format!("the layer {digest} has {} bytes, and its manifest says otherwise", found.size));
            }
            Ok(Layer { diff_id, offset: found.offset, size: found.size, digest: Some(digest.to_owned()), compressed: true })
        });
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Image { names, config: config.to_vec(), layers, manifest: Some((stated.to_owned(), bytes.to_vec())) })
    }
}

fn manifests(index: &Value) -> Result<&[Value], ArchiveError> {
    match index["manifests"].as_array() {
        Some(list) if list.len() <= MAX_IMAGES => Ok(list),
        Some(list) => bad(format!("an index lists {} images; {MAX_IMAGES} are read at most", list.len())),
        None => bad("an index has no list of manifests"),
    }
}

/// The full name that containerd and Docker write beside the tag alone, or what stands in the place of the tag if it is a whole name.
fn names_of(descriptor: &Value) -> Vec<String> {
    let annotations = &descriptor["annotations"];
    let full = annotations["io.containerd.image.name"].as_str();
    let reference = annotations["org.opencontainers.image.ref.name"].as_str().filter(|name| name.contains(['/', ':']));
    full.or(reference).map(str::to_owned).into_iter().collect()
}

fn texts(value: &Value, limit: usize, what: &str) -> Result<Vec<String>, ArchiveError> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) if list.len() <= limit => list,
        _ => return bad(format!("{what} is not a list of at most {limit}")),
    };
    list.iter()
        .map(|text| text.as_str().map(str::to_owned).ok_or_else(|| ArchiveError::Bad(format!("{what} is not a list of texts"))))
        .collect()
}

fn diff_ids(config: &Value) -> Result<Vec<String>, ArchiveError> {
    let ids = texts(&config["rootfs"]["diff_ids"], MAX_LAYERS, "rootfs.diff_ids in the configuration")?;
    match ids.iter().find(|id| !image::is_digest(id)) {
        Some(wrong) => bad(format!("the configuration names a layer '{}', which is no SHA-256 digest", wrong.escape_debug())),
        None => Ok(ids),
    }
}

fn digest_of(descriptor: &Value) -> Result<&str, ArchiveError> {
    match descriptor["digest"].as_str() {
        Some(digest) if image::is_digest(digest) => Ok(digest),
        _ => bad("a manifest names something without a SHA-256 digest"),
    }
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// `sha256:...` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hex_digest(digest(&SHA256, bytes).as_ref())
}

/// `sha256:...` for a finished sum.
pub fn hex_digest(sum: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in sum {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    text
}

/// Opens the archive `path`.
///
/// # Errors
/// See [`ArchiveError`].
pub fn open(path: &Path) -> Result<Archive, ArchiveError> {
    Archive::open(File::open(path).map_err(TarError::from)?)
}

#[cfg(test)]
mod tests;
