//! Server-sent events out of a stream of bytes. Pure.

/// Longest event that is kept, in bytes; a longer one is left out.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// Its name.
    pub kind: String,
    /// What it carries; JSON here.
    pub data: String,
}

/// What has come of the event that is not complete yet.
#[derive(Debug, Default)]
pub struct Sse {
    line: Vec<u8>,
    kind: String,
    data: String,
    too_long: bool,
}

impl Sse {
    /// Takes the next bytes, however they are cut; gives the events that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_of_line(&String::from_utf8_lossy(&line)));
                }
                _ if self.line.len() + self.data.len() >= MAX_EVENT_BYTES => self.too_long = true,
                byte => self.line.push(*byte),
            }
        }
        events
    }

    fn end_of_line(&mut self, line: &str) -> Option<SseEvent> {
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            let event = SseEvent { kind: std::mem::take(&mut self.kind), data: std::mem::take(&mut self.data) };
            let whole = !std::mem::take(&mut self.too_long);
            return (whole && !event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.kind = value.to_owned(),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"event: a\r\nid: 7\r\ndata: {\"x\":1}\r\n\r\n\r\n: comment\n\nevent:b\ndata:1\ndata: 2\n\nevent: empty\n\n";

    fn shown(events: &[SseEvent]) -> String {
        events.iter().map(|event| format!("{}={}", event.kind, event.data.replace('\n', "|"))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_too_long_is_left_out_and_the_next_one_comes() {
        let mut sse = Sse::default();
        assert_eq!(sse.push(&[b"data: ".as_slice(), &vec![b'x'; MAX_EVENT_BYTES], b"\n\n"].concat()), []);
        assert_eq!(shown(&sse.push(b"event: a\ndata: 1\n\n")), "a=1");
    }

    proptest! {
        #[test]
        fn events_come_out_however_the_stream_is_cut(cuts in prop::collection::vec(0..TEXT.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut sse = Sse::default();
            let mut events = Vec::new();
            let mut begin = 0;
            for cut in cuts.into_iter().chain([TEXT.len()]) {
                events.extend(sse.push(&TEXT[begin..cut]));
                begin = cut;
            }
            prop_assert_eq!(shown(&events), "a={\"x\":1} b=1|2");
        }

        #[test]
        fn noise_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            Sse::default().push(&noise);
        }
    }
}
