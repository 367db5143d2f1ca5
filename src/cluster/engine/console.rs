//! The output of a container with a terminal, as Docker tells it: both outputs in one, and no frames around what was written.
//!
//! Fact (Docker's `daemon/logger/copier.go`): an entry is a line, or [`MAX_TEXT`] bytes of a longer one. With time stamps asked for, a stamp and a blank
//! stand before each entry. A program may draw for days without ending a line, so what is waited for is limited to one entry.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use super::logs::STAMP_BYTES;

/// Bytes of one entry without its stamp.
const MAX_TEXT: usize = 16 * 1024;
/// Bytes of one entry.
const MAX_ENTRY: usize = STAMP_BYTES + 1 + MAX_TEXT;

/// The entries of `body`, each with its stamp.
pub fn entries<E>(body: impl Stream<Item = Result<Bytes, E>>) -> impl Stream<Item = Result<Bytes, E>> {
    let state = (Box::pin(body), Entries::default(), false);
    stream::unfold(state, |(mut body, mut entries, mut ended)| async move {
        loop {
            if let Some(entry) = entries.next(ended) {
                return Some((Ok(entry), (body, entries, ended)));
            }
            if ended {
                return None;
            }
            match body.next().await {
                Some(Ok(bytes)) => entries.kept.extend_from_slice(&bytes),
                Some(Err(error)) => return Some((Err(error), (body, Entries::default(), true))),
                None => ended = true,
            }
        }
    })
}

/// What has come and is not yet an entry.
#[derive(Debug, Default)]
struct Entries {
    kept: BytesMut,
}

impl Entries {
    /// The next entry; at the end what is left is one.
    fn next(&mut self, ended: bool) -> Option<Bytes> {
        let beginning = &self.kept[..self.kept.len().min(MAX_ENTRY)];
        let length = match beginning.iter().position(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if beginning.len() == MAX_ENTRY || ended && !beginning.is_empty() => beginning.len(),
            None => return None,
        };
        Some(self.kept.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2024-05-06T07:08:09.123456789Z ";

    fn check(pieces: &[&str], expected: &[&str]) {
        let body = stream::iter(pieces.iter().map(|piece| Ok::<_, ()>(Bytes::copy_from_slice(piece.as_bytes()))));
        let found = futures_util::FutureExt::now_or_never(entries(body).collect::<Vec<_>>()).unwrap();
        let found: Vec<String> = found.into_iter().map(|entry| String::from_utf8(entry.unwrap().to_vec()).unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_entry_is_a_line_or_a_full_piece_of_one() {
        check(&[], &[]);
        check(&["2024 a\r\n2024 b\r\n"], &["2024 a\r\n", "2024 b\r\n"]);
        check(&["20", "24 a", "\r\n20", "24 no end"], &["2024 a\r\n", "2024 no end"]);
        // A long line comes in pieces, each with a stamp of its own.
        let full = format!("{STAMP}{}", "x".repeat(MAX_TEXT));
        let all = format!("{full}{STAMP}y\r\n{STAMP}z");
        let (first, second) = all.split_at(10_000);
        check(&[first, second], &[&full, &format!("{STAMP}y\r\n"), &format!("{STAMP}z")]);
    }

    #[test]
    fn a_line_without_an_end_is_not_waited_for() {
        let mut entries = Entries::default();
        entries.kept.extend_from_slice(&vec![b'x'; MAX_ENTRY - 1]);
        assert_eq!(entries.next(false), None);
        entries.kept.extend_from_slice(b"y");
        assert_eq!(entries.next(false).unwrap().len(), MAX_ENTRY);
        assert!(entries.kept.is_empty());
    }
}
