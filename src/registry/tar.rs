//! Tar archives, read one entry after the other and written for `docker load`. Who unpacks one to a disk has to look after the links in it.
//!
//! Read are POSIX (ustar, pax) and GNU archives. Every number comes from somebody else: names, extensions, entries and sizes have limits, sums are
//! checked, and a name that could lead out of the archive is an error. What is sparse has no place in an image's archive and is refused.

use std::io::{self, Read};

/// A block.
pub const BLOCK: u64 = 512;
/// Entries of one archive; one of many images with a hundred layers each has some thousands.
const MAX_ENTRIES: usize = 50_000;
/// Bytes of a name or of a link's target.
const MAX_NAME_BYTES: usize = 1024;
/// Bytes of one extension header.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;
/// Bytes that are copied at once.
const PIECE_BYTES: u64 = 64 * 1024;
const NO_TAR: &str = "it is no tar archive";
/// Bytes of one entry: no layer comes near.
const MAX_ENTRY_BYTES: u64 = 1 << 40;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The file, or its compression, is broken or out of reach.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no tar archive, or one that nobody should trust.
    #[error("{0}")]
    Bad(String),
}

fn bad<T>(text: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Bad(text.into()))
}

/// Where the bytes come from. Skipping may be cheaper than reading.
pub trait Source: Read {
    /// Moves on by `bytes`.
    ///
    /// # Errors
    /// The end comes before.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// What an entry is, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With contents.
    File,
    /// Another entry's contents are meant: the target, as a name in the archive.
    Link(String),
    /// The same, by a symbolic link.
    Symbolic {
        /// As it is written.
        target: String,
        /// As a name in the archive; `None`: it leads out.
        leads_to: Option<String>,
    },
    /// A directory.
    Directory,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: relative, without `.` and `..`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Who may read, write and run it; nothing else.
    pub mode: u32,
    /// Where its contents begin, in bytes from the beginning of the (unpacked) archive.
    pub offset: u64,
    /// Bytes of its contents.
    pub size: u64,
}

/// Reads one entry after the other.
pub struct Reader<S> {
    source: S,
    /// How far the source is.
    at: u64,
    /// Where the next header is.
    next: u64,
    entries: usize,
    max_bytes: u64,
}

/// What extension headers say of the entry that follows.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl<S: Source> Reader<S> {
    /// A reader of `source`, which may have `max_bytes` at most.
    pub fn new(source: S, max_bytes: u64) -> Self {
        Self { source, at: 0, next: 0, entries: 0, max_bytes }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return bad(format!("it has more than {MAX_ENTRIES} entries"));
            }
            let kind = header[156];
            // Links have no contents, whatever their header says.
            let has_contents = !matches!(kind, b'1'..=b'6');
            let size = if has_contents { extension.size.map_or_else(|| number(&header[124..136]), Ok)? } else { 0 };
            if size > MAX_ENTRY_BYTES {
                return bad(format!("an entry says it has {size} bytes"));
            }
            let offset = self.at;
            self.next = offset + size.div_ceil(BLOCK) * BLOCK;
            if self.next > self.max_bytes {
                return bad(format!("it has more than {} bytes", self.max_bytes));
            }
            match kind {
                b'x' => self.pax(size, &mut extension)?,
                b'L' => extension.name = Some(self.long_name(size)?),
                b'K' => extension.link = Some(self.long_name(size)?),
                b'g' => {}
                b'S' => return bad("it has a sparse entry, which is not read here"),
                _ => return entry(&header, extension, offset, size).map(Some),
            }
        }
    }

    /// The first bytes of the entry that was read last, eight at most.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn beginning(&mut self, entry: &Entry) -> Result<Vec<u8>, TarError> {
        self.read(entry.size.min(8))
    }

    /// The contents of the entry that was read last, behind its [`Reader::beginning`].
    ///
    /// # Errors
    /// It cannot be read. The caller has looked at its size.
    pub fn rest(&mut self, entry: &Entry) -> Result<Vec<u8>, TarError> {
        self.read(entry.offset + entry.size - self.at)
    }

    /// Writes the contents of the entry that was read last to `sink`, piece by piece; before each it asks `go_on`.
    ///
    /// # Errors
    /// It cannot be read, or the sink does not take it.
    pub fn copy(&mut self, entry: &Entry, sink: &mut impl io::Write) -> Result<(), TarError> {
        let mut left = entry.size;
        while left > 0 {
            let piece = self.read(left.min(PIECE_BYTES))?;
            sink.write_all(&piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    fn read(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut contents = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.source.read_exact(&mut contents).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it is cut off"),
            _ => error,
        })?;
        self.at += size;
        Ok(contents)
    }

    /// The next header, past what is left of the entry before; `None` for the block of zeros at the end, or for the end without it.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        self.source.skip(self.next - self.at)?;
        self.at = self.next;
        let mut header = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < header.len() {
            match self.source.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return bad(if self.entries == 0 { NO_TAR } else { "it is cut off" }),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += BLOCK;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        if number(&header[148..156]).ok() != Some(sum) {
            return bad(if self.entries == 0 { NO_TAR } else { "it is damaged: the sum of a header is wrong" });
        }
        Ok(Some(header))
    }

    fn long_name(&mut self, size: u64) -> Result<String, TarError> {
        if size > MAX_NAME_BYTES as u64 + 1 {
            return bad(format!("a name has {size} bytes"));
        }
        let bytes = self.read(size)?;
        text(&bytes)
    }

    /// `LENGTH KEY=VALUE\n`, again and again.
    fn pax(&mut self, size: u64, extension: &mut Extension) -> Result<(), TarError> {
        if size > MAX_EXTENSION_BYTES {
            return bad(format!("an extension header has {size} bytes"));
        }
        let bytes = self.read(size)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let record = pax_record(rest);
            let Some((length, key, value)) = record else { return bad("an extension header is damaged") };
            match key {
                b"path" => extension.name = Some(text(value)?),
                b"linkpath" => extension.link = Some(text(value)?),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                    extension.size = Some(size.map_or_else(|| bad("an extension header has no number as size"), Ok)?);
                }
                _ if key.starts_with(b"GNU.sparse") => return bad("it has a sparse entry, which is not read here"),
                _ => {}
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

fn pax_record(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((length, &record[..equals], &record[equals + 1..]))
}

fn entry(header: &[u8; BLOCK as usize], extension: Extension, offset: u64, size: u64) -> Result<Entry, TarError> {
    let name = match extension.name {
        Some(name) => name,
        None => {
            let name = text(&header[..100])?;
            let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500])? } else { String::new() };
            if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
        }
    };
    let target = || extension.link.clone().map_or_else(|| text(&header[157..257]), Ok);
    let clean_name = clean(&name)?;
    let kind = match header[156] {
        b'1' => Kind::Link(clean(&target()?)?),
        b'2' => {
            let folder = clean_name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = target()?;
            check_length(&target)?;
            Kind::Symbolic { leads_to: within(folder, &target), target }
        }
        b'3' | b'4' | b'6' => return bad(format!("'{}' is a device, which is not taken from an archive", shown(&name))),
        b'5' => Kind::Directory,
        _ if name.ends_with('/') => Kind::Directory,
        _ => Kind::File,
    };
    if clean_name.is_empty() && kind != Kind::Directory {
        return bad("it has an entry without a name");
    }
    let mode = number(&header[100..108]).map_or(0o644, |mode| u32::try_from(mode & 0o777).unwrap_or(0));
    Ok(Entry { name: clean_name, kind, mode, offset, size })
}

/// `path` as a name in the archive.
fn clean(path: &str) -> Result<String, TarError> {
    check_length(path)?;
    within("", path).ok_or_else(|| leads_out(path))
}

fn check_length(path: &str) -> Result<(), TarError> {
    if path.len() > MAX_NAME_BYTES { bad(format!("a name has {} bytes", path.len())) } else { Ok(()) }
}

/// `path` leads out of the archive.
pub fn leads_out(path: &str) -> TarError {
    TarError::Bad(format!("'{}' leads out of the archive", shown(path)))
}

/// `path`, which stands in `folder`, as a name in the archive; `None`: it leads out.
fn within(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut words: Vec<&str> = folder.split('/').filter(|word| !word.is_empty()).collect();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." => _ = words.pop()?,
            word => words.push(word),
        }
    }
    Some(words.join("/"))
}

/// For messages: what a terminal can show.
pub fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> Result<String, TarError> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes[..end].to_vec()).or_else(|_| bad("a name is not UTF-8"))
}

/// Octal digits, or, with the highest bit set, a binary number.
fn number(field: &[u8]) -> Result<u64, TarError> {
    let wrong = || TarError::Bad("a number in a header makes no sense".into());
    if field[0] & 0x80 != 0 {
        let bytes = field.iter().enumerate().map(|(at, byte)| if at == 0 { byte & 0x7f } else { *byte });
        return bytes.into_iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(byte))).ok_or_else(wrong);
    }
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ').take_while(|byte| *byte != b' ' && *byte != 0);
    digits
        .into_iter()
        .try_fold(0_u64, |sum, byte| (b'0'..=b'7').contains(&byte).then(|| sum * 8 + u64::from(byte - b'0')))
        .ok_or_else(wrong)
}

/// The header of a file of `size` bytes; `name` has 100 bytes at most. Its contents follow, filled up to whole blocks.
pub fn file_header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    header(name, size, b"0000644\0")
}

/// As [`file_header`], of a file that anybody may run.
pub fn program_header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    header(name, size, b"0000755\0")
}

fn header(name: &str, size: u64, mode: &[u8; 8]) -> [u8; BLOCK as usize] {
    let mut header = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, mode);
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// How many zero bytes follow contents of `size` bytes.
pub fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)
}

/// What an archive ends with.
pub const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];
