//! The format of a backup. All numbers little endian.
//!
//! | part | contents |
//! | --- | --- |
//! | magic | `XTAOBRIK` |
//! | header | length (u32), then JSON: [`Header`] |
//! | record, any number | offset (u64), length (u32, at most [`MAX_RECORD_BYTES`]), that many bytes; offsets rise; what is not in one is zero |
//! | end | offset 2^64-1 (u64), length 0 (u32) |
//! | digest | SHA-256 of everything before it |

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};

use crate::model::{
    app::FileSystem,
    id::{BrickName, PoolName},
    time::Timestamp,
};

/// The version of the format that is written, and the latest that is read.
pub const VERSION: u32 = 1;

/// The longest record.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;

/// The longest header.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// The largest brick, in bytes: 1 PiB. More is a damaged header.
const MAX_SIZE: u64 = 1 << 50;

const MAGIC: &[u8; 8] = b"XTAOBRIK";
const END: u64 = u64::MAX;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Of the format.
    pub version: u32,
    /// What was backed up.
    pub brick: BrickName,
    /// Where it was.
    pub pool: PoolName,
    /// Its file system.
    pub file_system: FileSystem,
    /// Bytes.
    pub size: u64,
    /// When.
    pub created_at: Timestamp,
    /// True: it was mounted, and stood still meanwhile.
    pub frozen: bool,
}

/// Writes a backup.
pub struct Writer<W> {
    to: W,
    digest: Context,
    data: u64,
}

impl<W: Write> Writer<W> {
    /// Writes magic and header.
    ///
    /// # Errors
    /// As `to` says.
    pub fn begin(to: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { to, digest: Context::new(&SHA256), data: 0 };
        let header = serde_json::to_vec(header)?;
        writer.write(MAGIC)?;
        writer.write(&u32::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes())?;
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds a record; `bytes` are at most [`MAX_RECORD_BYTES`], and come after those before.
    ///
    /// # Errors
    /// As `to` says.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(&offset.to_le_bytes())?;
        self.write(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.write(bytes)?;
        self.data += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of data so far.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// Writes end and digest; answers the bytes of data.
    ///
    /// # Errors
    /// As `to` says.
    pub fn end(mut self) -> io::Result<u64> {
        self.write(&END.to_le_bytes())?;
        self.write(&0_u32.to_le_bytes())?;
        self.to.write_all(self.digest.finish().as_ref())?;
        self.to.flush()?;
        Ok(self.data)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Reads a backup. What is wrong with it is an error of kind `InvalidData` with a text for people.
pub struct Reader<R> {
    from: R,
    digest: Context,
    header: Header,
    data: u64,
    /// The next record begins here or later.
    at: u64,
}

/// What comes next in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Data, in the buffer.
    Data {
        /// Its place in the brick.
        offset: u64,
    },
    /// The end; the digest was right.
    End,
}

impl<R: Read> Reader<R> {
    /// Reads magic and header.
    ///
    /// # Errors
    /// It is no backup, or one of a later version.
    pub fn begin(mut from: R) -> io::Result<Self> {
        let mut digest = Context::new(&SHA256);
        let magic: [u8; 8] = take(&mut from, &mut digest).map_err(|error| cut_short(error, "it is no backup of a brick"))?;
        if magic != *MAGIC {
            return Err(invalid("it is no backup of a brick"));
        }
        let length = u32::from_le_bytes(take(&mut from, &mut digest).map_err(|error| cut_short(error, CUT_SHORT))?);
        if length > MAX_HEADER_BYTES {
            return Err(invalid("its header is damaged"));
        }
        let mut text = vec![0; length as usize];
        from.read_exact(&mut text).map_err(|error| cut_short(error, CUT_SHORT))?;
        digest.update(&text);
        let version = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|header| header["version"].as_u64());
        if version.is_some_and(|version| version > u64::from(VERSION)) {
            return Err(invalid("it was made by a later version of xtao: upgrade first"));
        }
        let header: Header = serde_json::from_slice(&text).map_err(|error| invalid(format!("its header is damaged ({error})")))?;
        if header.size > MAX_SIZE {
            return Err(invalid("its header is damaged (absurd size)"));
        }
        Ok(Self { from, digest, header, data: 0, at: 0 })
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of data so far.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// The next record, its data in `buffer`. Not to be called after [`Record::End`].
    ///
    /// # Errors
    /// Damaged or cut short.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Record> {
        let short = |error| cut_short(error, CUT_SHORT);
        let offset = u64::from_le_bytes(take(&mut self.from, &mut self.digest).map_err(short)?);
        let length = u32::from_le_bytes(take(&mut self.from, &mut self.digest).map_err(short)?) as usize;
        if offset == END {
            return self.end();
        }
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.header.size);
        let (Some(end), true, 1..=MAX_RECORD_BYTES) = (end, offset >= self.at, length) else {
            return Err(invalid(DAMAGED));
        };
        buffer.resize(length, 0);
        self.from.read_exact(buffer).map_err(short)?;
        self.digest.update(buffer);
        self.at = end;
        self.data += length as u64;
        Ok(Record::Data { offset })
    }

    fn end(&mut self) -> io::Result<Record> {
        let mut digest = [0; SHA256_OUTPUT_LEN];
        self.from.read_exact(&mut digest).map_err(|error| cut_short(error, CUT_SHORT))?;
        if self.digest.clone().finish().as_ref() != digest || self.from.read(&mut [0])? != 0 {
            return Err(invalid(DAMAGED));
        }
        Ok(Record::End)
    }
}

const CUT_SHORT: &str = "it ends too early; was it copied wholly?";
const DAMAGED: &str = "it is damaged; its checksum is wrong";

fn take<const LENGTH: usize>(from: &mut impl Read, digest: &mut Context) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    from.read_exact(&mut bytes)?;
    digest.update(&bytes);
    Ok(bytes)
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn cut_short(error: io::Error, text: &str) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { invalid(text) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let header = Header {
            version: VERSION,
            brick: BrickName::new("db"),
            pool: PoolName::new("datapool"),
            file_system: FileSystem::Ext4,
            size: 1 << 20,
            created_at: Timestamp(0),
            frozen: false,
        };
        let mut file = Vec::new();
        let mut writer = Writer::begin(&mut file, &header).unwrap();
        writer.put(4096, b"one").unwrap();
        writer.put(1 << 19, &[7; 5000]).unwrap();
        assert_eq!(writer.end().unwrap(), 5003);
        file
    }

    fn read(file: &[u8]) -> io::Result<Vec<(u64, usize)>> {
        let mut reader = Reader::begin(file)?;
        let (mut found, mut buffer) = (Vec::new(), Vec::new());
        while let Record::Data { offset } = reader.next(&mut buffer)? {
            found.push((offset, buffer.len()));
        }
        Ok(found)
    }

    #[test]
    fn a_backup_reads_back_what_was_written() {
        assert_eq!(read(&sample()).unwrap(), [(4096, 3), (1 << 19, 5000)]);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let file = sample();
        for length in 0..file.len() {
            let error = read(&file[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "cut at {length}: {error}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged).is_err(), "flipped at {at}");
        }
        let longer = [&file[..], b"x"].concat();
        assert_eq!(read(&longer).unwrap_err().to_string(), DAMAGED);
    }

    #[test]
    fn a_later_version_asks_for_an_upgrade() {
        let mut text = sample();
        let at = text.windows(11).position(|window| window == b"\"version\":1").unwrap();
        text[at + 10] = b'2';
        assert!(Reader::begin(&text[..]).err().unwrap().to_string().contains("upgrade first"));
    }
}
