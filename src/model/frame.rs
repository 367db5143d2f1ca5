//! The frames of a command that runs inside a task, both ways on one connection: a byte for the channel, four bytes for the length of the payload
//! (big-endian), the payload. An empty frame on channel 0 is the end of the input.

/// The longest payload, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// Channel and length.
const HEADER_BYTES: usize = 5;

/// What a frame is about; the number is its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// To the command's standard input.
    Stdin = 0,
    /// From its standard output; with a terminal all of its output.
    Stdout = 1,
    /// From its standard error.
    Stderr = 2,
    /// To its terminal: `{"columns": n, "lines": n}`.
    Resize = 3,
    /// Its exit code as a decimal number; the last frame.
    Exit = 4,
    /// Why it was ended before its time, as text; the last frame then.
    End = 5,
}

impl Channel {
    fn read(number: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr, Self::Resize, Self::Exit, Self::End].into_iter().find(|channel| *channel as u8 == number)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub channel: Channel,
    /// At most [`MAX_PAYLOAD_BYTES`].
    pub payload: Vec<u8>,
}

/// Why a stream of frames cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such channel.
    #[error("there is no channel {0}; there are 0 to 5")]
    Channel(u8),
    /// A length beyond the limit.
    #[error("a frame of {0} bytes; at most {MAX_PAYLOAD_BYTES} are taken")]
    TooLong(u32),
}

/// Puts `payload` into frames, appended to `out`: as many as it needs, and one if it is empty.
pub fn write(channel: Channel, payload: &[u8], out: &mut Vec<u8>) {
    let mut rest = payload;
    loop {
        let (part, more) = rest.split_at(rest.len().min(MAX_PAYLOAD_BYTES));
        out.push(channel as u8);
        out.extend((part.len() as u32).to_be_bytes());
        out.extend(part);
        rest = more;
        if rest.is_empty() {
            return;
        }
    }
}

/// Reads frames from bytes that come in pieces of any size. It keeps no more than what it was given and one frame needs.
#[derive(Clone, Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    read: usize,
}

impl FrameReader {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend(piece);
    }

    /// The next whole frame; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The stream makes no sense from here on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let unread = &self.bytes[self.read..];
        let Some(([number, length @ ..], rest)) = unread.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let channel = Channel::read(*number).ok_or(FrameError::Channel(*number))?;
        let length = u32::from_be_bytes(*length);
        if length as usize > MAX_PAYLOAD_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let Some(payload) = rest.get(..length as usize) else { return Ok(None) };
        let frame = Frame { channel, payload: payload.to_vec() };
        self.read += HEADER_BYTES + length as usize;
        Ok(Some(frame))
    }
}

/// Columns and lines of a [`Channel::Resize`] frame.
pub fn size(payload: &[u8]) -> Option<(u16, u16)> {
    let size: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let number = |name: &str| size.get(name)?.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    Some((number("columns")?, number("lines")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_a_channel_a_length_and_a_payload() {
        let check = |bytes: &[u8], expected: Result<Option<Frame>, FrameError>| {
            let mut reader = FrameReader::default();
            reader.push(bytes);
            assert_eq!(reader.next_frame(), expected, "{bytes:?}");
        };
        let frame = |channel, payload: &[u8]| Ok(Some(Frame { channel, payload: payload.to_vec() }));
        check(&[0, 0, 0, 0, 0], frame(Channel::Stdin, b""));
        check(&[1, 0, 0, 0, 2, b'h', b'i', 9], frame(Channel::Stdout, b"hi"));
        check(&[4, 0, 0, 0, 1, b'0'], frame(Channel::Exit, b"0"));
        check(&[1, 0, 0, 0, 2, b'h'], Ok(None));
        check(&[1, 0, 0, 0], Ok(None));
        check(&[], Ok(None));
        check(&[5, 0, 0, 0, 1, b'x'], frame(Channel::End, b"x"));
        check(&[6, 0, 0, 0, 0], Err(FrameError::Channel(6)));
        check(&[0, 0, 1, 0, 1], Err(FrameError::TooLong(65_537)));
        check(&[0, 255, 255, 255, 255], Err(FrameError::TooLong(u32::MAX)));
    }

    #[test]
    fn a_long_payload_takes_several_frames() {
        let mut bytes = Vec::new();
        write(Channel::Stdout, &vec![7; MAX_PAYLOAD_BYTES * 2 + 1], &mut bytes);
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        let lengths: Vec<usize> = std::iter::from_fn(|| reader.next_frame().unwrap()).map(|frame| frame.payload.len()).collect();
        assert_eq!(lengths, [MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES, 1]);
    }

    fn channel() -> impl Strategy<Value = Channel> {
        prop::sample::select(vec![Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Resize, Channel::Exit])
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            frames in prop::collection::vec((channel(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            piece in 1_usize..64,
        ) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|(channel, payload)| write(*channel, payload, &mut bytes));
            let mut reader = FrameReader::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(piece) {
                reader.push(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    found.push((frame.channel, frame.payload));
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn noise_never_takes_more_than_it_brings(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
            let mut reader = FrameReader::default();
            for piece in pieces {
                reader.push(&piece);
                while let Ok(Some(frame)) = reader.next_frame() {
                    prop_assert!(frame.payload.len() <= 2000);
                }
            }
        }
    }

    #[test]
    fn a_terminal_has_columns_and_lines() {
        let check = |text: &str, expected: Option<(u16, u16)>| assert_eq!(size(text.as_bytes()), expected, "{text}");
        check(r#"{"columns": 80, "lines": 24}"#, Some((80, 24)));
        check(r#"{"columns": 80}"#, None);
        check(r#"{"columns": 0, "lines": 24}"#, None);
        check(r#"{"columns": 80, "lines": 70000}"#, None);
        check(r#"{"columns": "80", "lines": 24}"#, None);
        check("", None);
    }
}
