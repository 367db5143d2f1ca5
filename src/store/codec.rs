//! Records as bytes: a versioned, checksummed envelope around JSON, and keys that sort like [`RecordKey`]. A version may be stored under the key of
//! another one of its [`family`]; every other record is stored under its own.
//!
//! An envelope is, in every format there will ever be, one byte of format first and eight bytes of checksum (XXH3, little endian) last; the
//! checksum covers the storage key and everything before it. So damage is told from a newer format, and a value never passes under another
//! record's key. Format 1 between the two: kind, schema of that kind, form of the text (0: as it is, 1: deflate), length of the text (`u32`,
//! little endian), the text.
//!
//! The text is strict: an unknown field or enum value is an error, because a program that drops what it does not know destroys it.
//! When the stored form of a kind changes, its number in `SCHEMAS` rises, `upgrade` learns the step, and `fixtures/` gains a file.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{Read, Write},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3Default;

use super::StoreError;
use crate::model::{
    id::{AgentId, BrickName, DeploymentId, InstanceId, Owner, PathId},
    record::{Record, RecordKey},
    time::Timestamp,
};

/// The latest envelope format.
pub const FORMAT: u8 = 1;

/// A text of more bytes than this is compressed.
pub const COMPRESS_ABOVE: usize = 4096;

/// The longest text of one record. What the API lets in is far below.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

const HEADER_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;

const PLAIN: u8 = 0;
const DEFLATE: u8 = 1;

/// What a record is, as the first byte of its key. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Head = 0,
    Meta = 1,
    App = 2,
    Definition = 3,
    Instance = 4,
    Deployment = 5,
    Port = 6,
    Brick = 7,
    Agent = 8,
    Failure = 9,
    User = 10,
    Group = 11,
    RootVersion = 12,
    Archived = 13,
}

/// The latest schema of each kind, by the kind's number.
const SCHEMAS: [u8; 14] = [1, 1, 2, 10, 3, 4, 1, 2, 1, 1, 2, 1, 2, 8];

impl Kind {
    const ALL: [Self; 14] = [
        Self::Head,
        Self::Meta,
        Self::App,
        Self::Definition,
        Self::Instance,
        Self::Deployment,
        Self::Port,
        Self::Brick,
        Self::Agent,
        Self::Failure,
        Self::User,
        Self::Group,
        Self::RootVersion,
        Self::Archived,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// The key of the store's own record, which is none of the model's.
pub const HEAD_KEY: &[u8] = &[Kind::Head as u8];

/// The bytes under which a record is stored. They sort as the keys do: by kind, then by app, then by version or instance.
pub fn key_bytes(key: &RecordKey) -> Vec<u8> {
    let of = |kind: Kind, parts: &[&[u8]]| {
        let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        bytes.push(kind as u8);
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    };
    match key {
        RecordKey::Meta => of(Kind::Meta, &[]),
        RecordKey::App(app) => of(Kind::App, &[app.as_str().as_bytes()]),
        RecordKey::Definition(app, version) => of(Kind::Definition, &[app.as_str().as_bytes(), &[0], &sortable(version.0).to_be_bytes()]),
        RecordKey::Instance(id) => of(Kind::Instance, &[id.app().as_str().as_bytes(), &[0], id.uuid().as_bytes()]),
        RecordKey::Deployment(id) => of(Kind::Deployment, &[id.as_str().as_bytes()]),
        RecordKey::Port(port) => of(Kind::Port, &[&port.to_be_bytes()]),
        RecordKey::Brick(name) => of(Kind::Brick, &[name.as_str().as_bytes()]),
        RecordKey::Agent(id) => of(Kind::Agent, &[id.as_str().as_bytes()]),
        RecordKey::Failure(app) => of(Kind::Failure, &[app.as_str().as_bytes()]),
        RecordKey::User(name) => of(Kind::User, &[name.as_str().as_bytes()]),
        RecordKey::Group(id) => of(Kind::Group, &[id.as_str().as_bytes()]),
        RecordKey::RootVersion(version) => of(Kind::RootVersion, &[&sortable(version.0).to_be_bytes()]),
        RecordKey::Archived(app, version) => of(Kind::Archived, &[app.as_str().as_bytes(), &[0], &sortable(version.0).to_be_bytes()]),
    }
}

/// The version in the key of a version: its last bytes.
pub(super) type Version = [u8; 8];

/// What comes before the version in the key of a version, and the version. `None`: of a record that is always stored under its own key.
pub(super) fn family(key: &[u8]) -> Option<(&[u8], Version)> {
    let is_version = |kind: u8| kind == Kind::Definition as u8 || kind == Kind::RootVersion as u8;
    let (family, version) = key.split_last_chunk()?;
    is_version(*family.first()?).then_some((family, *version))
}

/// The key of another version in the same family.
pub(super) fn with_version(mut key: Vec<u8>, version: Version) -> Vec<u8> {
    if let Some(last) = key.last_chunk_mut() {
        *last = version;
    }
    key
}

/// The record that `bytes` name; `None` when they name none.
pub fn parse_key(bytes: &[u8]) -> Option<RecordKey> {
    let (kind, rest) = bytes.split_first()?;
    let text = || std::str::from_utf8(rest).ok();
    let path = || canonical_path(rest);
    let key = match Kind::from_byte(*kind)? {
        Kind::Head => return None,
        Kind::Meta if rest.is_empty() => RecordKey::Meta,
        Kind::Meta => return None,
        Kind::App => RecordKey::App(path()?),
        Kind::Definition | Kind::Archived => {
            let (app, version) = split_tail::<8>(rest)?;
            let (app, version) = (canonical_path(app)?, Timestamp(unsortable(u64::from_be_bytes(version))));
            if *kind == Kind::Archived as u8 { RecordKey::Archived(app, version) } else { RecordKey::Definition(app, version) }
        }
        Kind::Instance => {
            let (app, uuid) = split_tail::<16>(rest)?;
            RecordKey::Instance(InstanceId::new(canonical_path(app)?, uuid::Uuid::from_bytes(uuid)))
        }
        Kind::Deployment => RecordKey::Deployment(DeploymentId::new(text()?)),
        Kind::Port => RecordKey::Port(u16::from_be_bytes(rest.try_into().ok()?)),
        Kind::Brick => RecordKey::Brick(BrickName::new(text()?)),
        Kind::Agent => RecordKey::Agent(AgentId::new(text()?)),
        Kind::Failure => RecordKey::Failure(path()?),
        Kind::User => RecordKey::User(Owner::new(text()?)),
        Kind::Group => RecordKey::Group(path()?),
        Kind::RootVersion => RecordKey::RootVersion(Timestamp(unsortable(u64::from_be_bytes(rest.try_into().ok()?)))),
    };
    Some(key)
}

/// A record's name for people: `instance /shop/web 6b0cd2e8-b243-11e8-8b80-024247c0a575`.
pub fn describe(key: &RecordKey) -> String {
    match key {
        RecordKey::Meta => "meta".into(),
        RecordKey::App(app) => format!("app {app}"),
        RecordKey::Definition(app, version) => format!("definition {app} {version}"),
        RecordKey::Instance(id) => format!("instance {} {}", id.app(), id.uuid()),
        RecordKey::Deployment(id) => format!("deployment {id}"),
        RecordKey::Port(port) => format!("port {port}"),
        RecordKey::Brick(name) => format!("brick {name}"),
        RecordKey::Agent(id) => format!("agent {id}"),
        RecordKey::Failure(app) => format!("failure {app}"),
        RecordKey::User(name) => format!("user {name}"),
        RecordKey::Group(id) => format!("group {id}"),
        RecordKey::RootVersion(version) => format!("root version {version}"),
        RecordKey::Archived(app, version) => format!("archived definition {app} {version}"),
    }
}

/// As [`describe`], for bytes that may name no record.
pub fn describe_bytes(key: &[u8]) -> String {
    if key == HEAD_KEY {
        return "head".into();
    }
    parse_key(key).map_or_else(
        || {
            key.iter().take(64).fold("with the key ".to_owned(), |mut text, byte| {
                // Writing to a String cannot fail.
                _ = write!(text, "{byte:02x}");
                text
            })
        },
        |key| describe(&key),
    )
}

/// The envelope of `record`, to be stored under `key`: [`key_bytes`] of its key, or of another version in its [`family`].
///
/// # Errors
/// A record longer than [`MAX_RECORD_BYTES`], or one with a number that JSON cannot carry.
pub fn encode(key: &[u8], record: &Record) -> Result<Vec<u8>, StoreError> {
    match record {
        Record::Meta(value) => seal(Kind::Meta, key, &**value),
        Record::App(value) => seal(Kind::App, key, &**value),
        Record::Definition(value) => seal(Kind::Definition, key, &**value),
        Record::Instance(value) => seal(Kind::Instance, key, &**value),
        Record::Deployment(value) => seal(Kind::Deployment, key, &**value),
        Record::Port(value) => seal(Kind::Port, key, &**value),
        Record::Brick(value) => seal(Kind::Brick, key, &**value),
        Record::Agent(value) => seal(Kind::Agent, key, &**value),
        Record::Failure(value) => seal(Kind::Failure, key, &**value),
        Record::User(value) => seal(Kind::User, key, &**value),
        Record::Group(value) => seal(Kind::Group, key, &**value),
        Record::RootVersion(value) => seal(Kind::RootVersion, key, &**value),
        Record::Archived(value) => seal(Kind::Archived, key, &**value),
    }
}

/// The record in the envelope stored under `key`.
///
/// # Errors
/// [`StoreError::Corrupt`] names the record; [`StoreError::TooNew`] for a format or schema from the future.
pub fn decode(key: &[u8], envelope: &[u8]) -> Result<Record, StoreError> {
    let kind = key.first().copied().and_then(Kind::from_byte).ok_or_else(|| corrupt(key, "its key is of no known kind"))?;
    let record = match kind {
        Kind::Head => return Err(corrupt(key, "it is none of the records")),
        Kind::Meta => Record::Meta(Arc::new(open(kind, key, envelope)?)),
        Kind::App => Record::App(Arc::new(open(kind, key, envelope)?)),
        Kind::Definition => Record::Definition(Arc::new(open(kind, key, envelope)?)),
        Kind::Instance => Record::Instance(Arc::new(open(kind, key, envelope)?)),
        Kind::Deployment => Record::Deployment(Arc::new(open(kind, key, envelope)?)),
        Kind::Port => Record::Port(Arc::new(open(kind, key, envelope)?)),
        Kind::Brick => Record::Brick(Arc::new(open(kind, key, envelope)?)),
        Kind::Agent => Record::Agent(Arc::new(open(kind, key, envelope)?)),
        Kind::Failure => Record::Failure(Arc::new(open(kind, key, envelope)?)),
        Kind::User => Record::User(Arc::new(open(kind, key, envelope)?)),
        Kind::Group => Record::Group(Arc::new(open(kind, key, envelope)?)),
        Kind::RootVersion => Record::RootVersion(Arc::new(open(kind, key, envelope)?)),
        Kind::Archived => Record::Archived(Arc::new(open(kind, key, envelope)?)),
    };
    let own = key_bytes(&record.key());
    let family_of = |key| family(key).map(|(family, _)| family);
    if own != key && (family_of(&own).is_none() || family_of(&own) != family_of(key)) {
        return Err(corrupt(key, &format!("it holds the record {}", describe(&record.key()))));
    }
    Ok(record)
}

/// The envelope of the store's own record.
pub(super) fn encode_head(head: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    seal(Kind::Head, HEAD_KEY, head)
}

/// What [`encode_head`] made.
pub(super) fn decode_head<T: DeserializeOwned>(envelope: &[u8]) -> Result<T, StoreError> {
    open(Kind::Head, HEAD_KEY, envelope)
}

/// The checksum of an envelope, which covers its key too. 0 for what is no envelope.
pub(super) fn checksum_of(envelope: &[u8]) -> u64 {
    envelope.last_chunk::<CHECKSUM_BYTES>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn seal(kind: Kind, key: &[u8], value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let failed = |reason: String| StoreError::Failed { what: format!("the record {} cannot be written", describe_bytes(key)), reason };
    let mut envelope = Vec::with_capacity(512);
    envelope.extend_from_slice(&[FORMAT, kind as u8, SCHEMAS[kind as usize], PLAIN, 0, 0, 0, 0]);
    serde_json::to_writer(&mut envelope, value).map_err(|error| failed(error.to_string()))?;
    let length = envelope.len() - HEADER_BYTES;
    if length > MAX_RECORD_BYTES {
        return Err(failed(format!("it has {length} bytes, more than the {MAX_RECORD_BYTES} that one record may have")));
    }
    envelope[4..HEADER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    if length > COMPRESS_ABOVE {
        envelope = compress(&envelope).map_err(|error| failed(error.to_string()))?;
    }
    let checksum = checksum(key, &envelope);
    envelope.extend_from_slice(&checksum.to_le_bytes());
    Ok(envelope)
}

fn compress(envelope: &[u8]) -> std::io::Result<Vec<u8>> {
    let (header, text) = envelope.split_at(HEADER_BYTES);
    let mut compressed = Vec::with_capacity(envelope.len() / 2);
    compressed.extend_from_slice(header);
    compressed[3] = DEFLATE;
    let mut encoder = flate2::write::DeflateEncoder::new(compressed, flate2::Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

fn open<T: DeserializeOwned>(kind: Kind, key: &[u8], envelope: &[u8]) -> Result<T, StoreError> {
    let (schema, text) = unseal(kind, key, envelope)?;
    let damaged = |error: serde_json::Error| corrupt(key, &error.to_string());
    if schema == SCHEMAS[kind as usize] {
        return serde_json::from_slice(&text).map_err(damaged);
    }
    let old = serde_json::from_slice(&text).map_err(damaged)?;
    serde_json::from_value(upgrade(kind, schema, old).map_err(|reason| corrupt(key, &reason))?).map_err(damaged)
}

/// The present form of a value that was written with an earlier schema of its kind: one step after the other.
fn upgrade(kind: Kind, schema: u8, value: Value) -> Result<Value, String> {
    match (kind, schema) {
        // Owners came. Whatever there was before, an administrator had written, because there was nobody else.
        (Kind::Definition, 1) => Ok(with(value, "vouched", true.into())),
        (Kind::Deployment, 1) => Ok(value),
        // Dependencies, groups, checks and what is fetched came; nothing written before has any.
        (Kind::Definition | Kind::Deployment, 2) | (Kind::Instance, 1) => Ok(value),
        // GPUs came.
        (Kind::Definition, 3) | (Kind::Archived, 1) => Ok(value),
        // Pods came; nothing written before is one.
        (Kind::Definition, 4) | (Kind::Deployment, 3) | (Kind::Instance, 2) | (Kind::Archived, 2) => Ok(value),
        // Users who read the metrics alone came.
        (Kind::User, 1) => Ok(value),
        // Persistent and external volumes came.
        (Kind::Definition, 5) | (Kind::Archived, 3) | (Kind::Brick, 1) => Ok(value),
        // Generic checks came, and the last fields of Marathon's definitions.
        (Kind::Definition, 6) | (Kind::Archived, 4) => Ok(value),
        // Labels of networks in bridge mode came.
        (Kind::Definition, 7) | (Kind::Archived, 5) => Ok(value),
        // What most apps have is left out.
        (Kind::Definition, 8) | (Kind::Archived, 6) => Ok(value),
        // The latest definition of an app is its present one, without being named.
        (Kind::App, 1) => Ok(without(value, "version")),
        // A version may be stored in the place of another one, and what changed everything has no dates of its own.
        (Kind::Definition, 9) | (Kind::RootVersion, 1) | (Kind::Archived, 7) => Ok(value),
        _ => Err(format!("there is no schema {schema} of {kind:?}")),
    }
}

/// An object with one more field.
fn with(mut value: Value, field: &str, content: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.insert(field.to_owned(), content);
    }
    value
}

/// An object with one field less.
fn without(mut value: Value, field: &str) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.remove(field);
    }
    value
}

fn unseal<'a>(kind: Kind, key: &[u8], envelope: &'a [u8]) -> Result<(u8, Cow<'a, [u8]>), StoreError> {
    let too_short = || corrupt(key, &format!("it has only {} bytes", envelope.len()));
    let (sealed, stored) = envelope.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(too_short)?;
    if checksum(key, sealed) != u64::from_le_bytes(*stored) {
        return Err(corrupt(key, "its checksum is wrong"));
    }
    let format = *sealed.first().ok_or_else(too_short)?;
    match format {
        0 => return Err(corrupt(key, "it has no format")),
        FORMAT => {}
        newer => return Err(StoreError::TooNew { found: newer.into(), known: FORMAT.into() }),
    }
    let (header, text) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or_else(too_short)?;
    let [_, found, schema, form, length @ ..] = *header;
    if found != kind as u8 {
        return Err(corrupt(key, &format!("it is of kind {found}, not {}", kind as u8)));
    }
    if schema > SCHEMAS[kind as usize] {
        return Err(StoreError::TooNew { found: schema.into(), known: SCHEMAS[kind as usize].into() });
    }
    let length = u32::from_le_bytes(length) as usize;
    let text: Cow<'a, [u8]> = match form {
        PLAIN => text.into(),
        DEFLATE if length <= MAX_RECORD_BYTES => {
            let mut plain = Vec::with_capacity(length);
            // One byte more than announced, so that a longer text is noticed without being read.
            let read = flate2::read::DeflateDecoder::new(text).take(length as u64 + 1).read_to_end(&mut plain);
            read.map_err(|error| corrupt(key, &format!("it cannot be decompressed: {error}")))?;
            plain.into()
        }
        DEFLATE => return Err(corrupt(key, &format!("its text has {length} bytes"))),
        other => return Err(corrupt(key, &format!("its text is in the unknown form {other}"))),
    };
    if text.len() != length {
        return Err(corrupt(key, "its text has another length than it says"));
    }
    Ok((schema, text))
}

fn checksum(key: &[u8], sealed: &[u8]) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(key);
    hasher.update(sealed);
    hasher.digest()
}

fn corrupt(key: &[u8], reason: &str) -> StoreError {
    StoreError::Corrupt { key: describe_bytes(key), reason: reason.to_owned() }
}

/// Big-endian bytes of the result sort as `number` does, negative ones first.
fn sortable(number: i64) -> u64 {
    (number as u64) ^ (1 << 63)
}

fn unsortable(bits: u64) -> i64 {
    (bits ^ (1 << 63)) as i64
}

/// `path`, NUL, then exactly `N` bytes.
fn split_tail<const N: usize>(bytes: &[u8]) -> Option<(&[u8], [u8; N])> {
    let (head, tail) = bytes.split_last_chunk::<N>()?;
    let (separator, path) = head.split_last()?;
    (*separator == 0).then_some((path, *tail))
}

fn canonical_path(bytes: &[u8]) -> Option<PathId> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse::<PathId>().ok().filter(|path| path.as_str() == text)
}

#[cfg(test)]
mod tests;
