//! DNS messages as bytes: reads a query, writes a reply that fits. No I/O.
//!
//! Queries are read by hickory-proto. Replies are written here, because what is dropped first when a reply is too long is part of Mesos-DNS'
//! behaviour (first everything additional, then answers from the end, always with TC set), and because the cost of a reply must grow with its
//! size only. Owners are compressed; the target of an SRV record is not (RFC 2782), but what follows may point at it.

use std::collections::HashMap;

use hickory_proto::{
    op::{Message, OpCode, Query as Question},
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::zone::{Answer, Data, Kind, Owner, Rcode, Record, Soa};

/// The longest datagram for a client that does not say how long it may be (RFC 1035, 4.2.1).
pub const MIN_UDP_PAYLOAD: u16 = 512;

/// The longest datagram that is never cut on its way (DNS flag day 2020).
pub const SAFE_UDP_PAYLOAD: u16 = 1232;

/// The longest datagram that any client gets.
pub const MAX_UDP_PAYLOAD: u16 = 4096;

/// The longest message over TCP, whose length has two bytes.
pub const MAX_TCP_MESSAGE: usize = 65_535;

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_NS: u16 = 2;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
/// Pointers have 14 bits.
const POINTER: u16 = 0xc000;

/// How a question ends, for the client; the names are those of RFC 1035 and RFC 6891.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is an answer, perhaps an empty one.
    NoError = 0,
    /// The query cannot be read.
    FormatError = 1,
    /// Something went wrong here or at those whom we asked.
    ServerFailure = 2,
    /// There is no such name.
    NameError = 3,
    /// Not an ordinary query.
    NotImplemented = 4,
    /// Nobody is there who could be asked.
    Refused = 5,
    /// An EDNS version from the future.
    BadVersion = 16,
}

/// A question that was understood.
#[derive(Clone, Debug)]
pub struct Query<'p> {
    /// The client's id for it.
    pub id: u16,
    /// The name in lower case, with dots, without the last one; bytes that are no plain characters are escaped.
    pub name: String,
    /// What is asked for.
    pub kind: Kind,
    /// False for classes that we know nothing about.
    pub internet: bool,
    /// What the client says about EDNS.
    pub edns: Option<Edns>,
    /// The packet's flags that a reply repeats.
    recursion_desired: bool,
    checking_disabled: bool,
    /// Name, type and class as they came.
    question: &'p [u8],
}

/// The part of EDNS that we use (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest datagram that the client takes, as it says.
    pub payload: u16,
    /// Only 0 exists.
    pub version: u8,
}

/// Something that is no question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Too short, or itself a reply: an answer would only make more of it.
    Ignored,
    /// Answered by this header alone.
    Refused([u8; HEADER_BYTES]),
}

impl<'p> Query<'p> {
    /// Reads a packet.
    ///
    /// # Errors
    /// Anything that is not exactly one question of an ordinary query.
    pub fn read(packet: &'p [u8]) -> Result<Self, Unreadable> {
        let header: &[u8; HEADER_BYTES] = packet.first_chunk().ok_or(Unreadable::Ignored)?;
        if header[2] & 0x80 != 0 {
            return Err(Unreadable::Ignored);
        }
        let refused = |status: Status| Unreadable::Refused(header_only(header, status));
        if header[2] & 0x78 != 0 {
            return Err(refused(Status::NotImplemented));
        }
        Self::read_body(packet, header).ok_or_else(|| refused(Status::FormatError))
    }

    fn read_body(packet: &'p [u8], header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if number(4) != 1 {
            return None;
        }
        let mut decoder = BinDecoder::new(packet);
        decoder.read_slice(HEADER_BYTES).ok()?;
        let asked = Question::read(&mut decoder).ok()?;
        let question = packet.get(HEADER_BYTES..decoder.index())?;
        // A compressed question would mean something else in the reply.
        if question.len() != wire_length(&asked) + 4 {
            return None;
        }
        for section in [6, 8] {
            Message::read_records(&mut decoder, number(section).into(), false, OpCode::Query).ok()?;
        }
        let (_, edns, _) = Message::read_records(&mut decoder, number(10).into(), true, OpCode::Query).ok()?;
        let tail = question.last_chunk::<4>()?;
        let class = u16::from_be_bytes([tail[2], tail[3]]);
        Some(Self {
            id: number(0),
            name: text_of(&asked),
            kind: kind_of(u16::from_be_bytes([tail[0], tail[1]])),
            internet: class == CLASS_IN || class == CLASS_ANY,
            edns: edns.map(|edns| Edns { payload: edns.max_payload(), version: edns.version() }),
            recursion_desired: header[2] & 0x01 != 0,
            checking_disabled: header[3] & 0x10 != 0,
            question,
        })
    }

    /// The longest datagram for this client, if we send `most` at most.
    pub fn datagram_limit(&self, most: u16) -> usize {
        let most = most.clamp(MIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD);
        self.edns.map_or(MIN_UDP_PAYLOAD, |edns| edns.payload.clamp(MIN_UDP_PAYLOAD, most)).into()
    }

    /// True when `packet` is a reply to this question under the id `id`.
    pub fn is_answered_by(&self, packet: &[u8], id: u16) -> bool {
        let end = HEADER_BYTES + self.question.len();
        packet.len() >= end
            && packet[..2] == id.to_be_bytes()
            && packet[2] & 0x80 != 0
            && packet[4..6] == [0, 1]
            && packet[HEADER_BYTES..end].eq_ignore_ascii_case(self.question)
    }

    /// A reply without records.
    pub fn status(&self, status: Status) -> Vec<u8> {
        let flags = Flags { status, ..Flags::default() };
        Draft::new(self, flags).finish(self)
    }

    /// A reply that only says: ask again over TCP.
    pub fn truncated(&self) -> Vec<u8> {
        let flags = Flags { truncated: true, recursion_available: true, ..Flags::default() };
        Draft::new(self, flags).finish(self)
    }

    /// The reply with `answer`, in at most `limit` bytes.
    pub fn reply(&self, answer: &Answer, limit: usize) -> Vec<u8> {
        let status = if answer.rcode == Rcode::NameError { Status::NameError } else { Status::NoError };
        let flags = Flags { status, authoritative: true, recursion_available: true, truncated: false };
        let whole = self.draft(answer, answer.answers.len(), true, flags);
        if whole.bytes.len() <= limit {
            return whole.bytes;
        }
        let flags = Flags { truncated: true, ..flags };
        let mut draft = self.draft(answer, answer.answers.len(), false, flags);
        // What stands behind the answers takes the same room, or a little more without the names that it points at.
        let behind = draft.bytes.len() - draft.ends.last().copied().unwrap_or(draft.bytes.len());
        let mut count = draft.ends.partition_point(|end| end + behind <= limit);
        while draft.bytes.len() > limit {
            draft = self.draft(answer, count, false, flags);
            if count == 0 {
                break;
            }
            count -= 1;
        }
        draft.bytes
    }

    fn draft(&self, answer: &Answer, count: usize, additional: bool, flags: Flags) -> Finished {
        let mut draft = Draft::new(self, flags);
        let mut ends = Vec::with_capacity(count);
        for record in &answer.answers[..count] {
            draft.record(self, Section::Answer, record, answer.ttl);
            ends.push(draft.bytes.len());
        }
        answer.authority.iter().for_each(|record| draft.record(self, Section::Authority, record, answer.ttl));
        if additional {
            answer.additional.iter().for_each(|record| draft.record(self, Section::Additional, record, answer.ttl));
        }
        Finished { bytes: draft.finish(self), ends }
    }
}

/// The reply to what cannot be read further than its header.
fn header_only(header: &[u8; HEADER_BYTES], status: Status) -> [u8; HEADER_BYTES] {
    let mut reply = [0; HEADER_BYTES];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = status as u8 & 0x0f;
    reply
}

fn wire_length(question: &Question) -> usize {
    question.name().iter().map(|label| label.len() + 1).sum::<usize>() + 1
}

fn text_of(question: &Question) -> String {
    let mut text = String::new();
    for label in question.name().iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                0x21..=0x7e => text.push(char::from(byte.to_ascii_lowercase())),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    text
}

fn kind_of(record_type: u16) -> Kind {
    match record_type {
        TYPE_A => Kind::A,
        TYPE_AAAA => Kind::Aaaa,
        TYPE_SRV => Kind::Srv,
        TYPE_SOA => Kind::Soa,
        TYPE_NS => Kind::Ns,
        TYPE_ANY => Kind::Any,
        _ => Kind::Other,
    }
}

#[derive(Clone, Copy)]
struct Flags {
    status: Status,
    authoritative: bool,
    recursion_available: bool,
    truncated: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self { status: Status::NoError, authoritative: false, recursion_available: false, truncated: false }
    }
}

/// A section, by the place of its count in the header.
#[derive(Clone, Copy)]
enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// A reply being written.
struct Draft<'a> {
    bytes: Vec<u8>,
    /// Where names, and ends of names, stand already.
    places: HashMap<&'a str, u16>,
    /// Where the question's name stands in lower case.
    lower: Option<u16>,
    status: Status,
}

struct Finished {
    bytes: Vec<u8>,
    /// Where each answer ends.
    ends: Vec<usize>,
}

impl<'a> Draft<'a> {
    fn new(query: &Query<'_>, flags: Flags) -> Self {
        let mut bytes = Vec::with_capacity(usize::from(MIN_UDP_PAYLOAD));
        bytes.extend(query.id.to_be_bytes());
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bytes.push(0x80 | bit(flags.authoritative, 0x04) | bit(flags.truncated, 0x02) | bit(query.recursion_desired, 0x01));
        bytes.push(bit(flags.recursion_available, 0x80) | bit(query.checking_disabled, 0x10) | flags.status as u8 & 0x0f);
        bytes.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend(query.question);
        let in_lower_case = !query.question[..query.question.len() - 4].iter().any(u8::is_ascii_uppercase);
        Self { bytes, places: HashMap::new(), lower: in_lower_case.then_some(HEADER_BYTES as u16), status: flags.status }
    }

    /// Adds the OPT record that answers the client's, if it sent one.
    fn finish(mut self, query: &Query<'_>) -> Vec<u8> {
        if query.edns.is_some() {
            self.bytes.push(0);
            self.number(TYPE_OPT);
            self.number(SAFE_UDP_PAYLOAD);
            self.bytes.extend([(self.status as u8) >> 4, 0, 0, 0, 0, 0]);
            self.count(Section::Additional);
        }
        self.bytes
    }

    /// A record with a name that cannot be sent is left out.
    fn record(&mut self, query: &Query<'_>, section: Section, record: &'a Record, ttl: u32) {
        let start = self.bytes.len();
        if self.try_record(query, record, ttl).is_some() {
            self.count(section);
        } else {
            self.bytes.truncate(start);
            self.places.retain(|_, place| usize::from(*place) < start);
        }
    }

    fn try_record(&mut self, query: &Query<'_>, record: &'a Record, ttl: u32) -> Option<()> {
        match &record.owner {
            Owner::Asked => self.pointer(HEADER_BYTES as u16),
            Owner::AskedLower => self.asked_lower(query),
            Owner::Named(name) => self.name(name, true)?,
        }
        self.number(match &record.data {
            Data::A(_) => TYPE_A,
            Data::Aaaa(_) => TYPE_AAAA,
            Data::Srv { .. } => TYPE_SRV,
            Data::Soa(_) => TYPE_SOA,
            Data::Ns(_) => TYPE_NS,
        });
        self.number(CLASS_IN);
        self.bytes.extend(ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.number(0);
        self.data(&record.data)?;
        let length = u16::try_from(self.bytes.len() - length_at - 2).ok()?;
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    fn data(&mut self, data: &'a Data) -> Option<()> {
        match data {
            Data::A(address) => self.bytes.extend(address.octets()),
            Data::Aaaa(address) => self.bytes.extend(address.octets()),
            Data::Srv { weight, port, target } => {
                self.number(0);
                self.number(*weight);
                self.number(*port);
                self.name(target, false)?;
            }
            Data::Soa(Soa { mname, rname, serial, refresh, retry, expire, minimum }) => {
                self.name(mname, true)?;
                self.name(rname, true)?;
                [serial, refresh, retry, expire, minimum].into_iter().for_each(|number| self.bytes.extend(number.to_be_bytes()));
            }
            Data::Ns(name) => self.name(name, true)?,
        }
        Some(())
    }

    fn asked_lower(&mut self, query: &Query<'_>) {
        if let Some(place) = self.lower {
            return self.pointer(place);
        }
        self.lower = self.place();
        // The bytes before labels are below 64: no letters.
        self.bytes.extend(query.question[..query.question.len() - 4].iter().map(u8::to_ascii_lowercase));
    }

    /// `None` when the name cannot be sent.
    fn name(&mut self, name: &'a str, compressed: bool) -> Option<()> {
        if name.len() > super::zone::MAX_NAME_BYTES {
            return None;
        }
        let mut rest = name;
        while !rest.is_empty() {
            if let Some(place) = self.places.get(rest).copied().filter(|_| compressed) {
                self.pointer(place);
                return Some(());
            }
            if let Some(place) = self.place() {
                self.places.entry(rest).or_insert(place);
            }
            let (label, parents) = rest.split_once('.').unwrap_or((rest, ""));
            let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
            self.bytes.push(length);
            self.bytes.extend(label.as_bytes());
            rest = parents;
        }
        self.bytes.push(0);
        Some(())
    }

    fn place(&self) -> Option<u16> {
        u16::try_from(self.bytes.len()).ok().filter(|place| *place < 0x4000)
    }

    fn pointer(&mut self, place: u16) {
        self.number(POINTER | place);
    }

    fn number(&mut self, number: u16) {
        self.bytes.extend(number.to_be_bytes());
    }

    fn count(&mut self, section: Section) {
        let at = section as usize;
        let count = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]).saturating_add(1);
        self.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
