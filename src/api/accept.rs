//! Content negotiation, as far as anything depends on it: `/ping` and the old plain-text list of tasks.

use warp::http::{HeaderMap, header::ACCEPT};

/// Which of the `offered` media types the client likes best; a tie goes to what it named first, then to what is offered first. Without an `Accept`
/// header that is the first one offered. `None`: it likes none of them.
pub fn best<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    let ranges: Vec<Range> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::read)
        .take(MAX_RANGES)
        .collect();
    if !headers.contains_key(ACCEPT) {
        return offered.first().copied();
    }
    let mut best: Option<(u16, &'a str)> = None;
    for range in ranges.iter().filter(|range| range.quality > 0) {
        let exact = offered.iter().find(|media| media.split_once('/') == Some((&*range.kind, &*range.subtype)));
        let Some(media) = exact.or_else(|| offered.iter().find(|media| range.covers(media))) else { continue };
        if best.is_none_or(|(quality, _)| range.quality > quality) {
            best = Some((range.quality, media));
        }
    }
    best.map(|(_, media)| media)
}

/// More ranges than any client sends; the rest is not looked at.
const MAX_RANGES: usize = 64;

struct Range {
    kind: String,
    subtype: String,
    /// In thousandths.
    quality: u16,
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
        Some(Self { kind: kind.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase(), quality })
    }

    /// `text/plain` stands for any text: a browser that asks for `text/html` can show it.
    fn covers(&self, media: &str) -> bool {
        let (kind, subtype) = media.split_once('/').unwrap_or((media, ""));
        let same = |range: &str, part: &str| range == "*" || range == part;
        same(&self.kind, kind) && (same(&self.subtype, subtype) || media == "text/plain")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses() {
        let check = |accept: Option<&str>, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            accept.into_iter().for_each(|accept| _ = headers.insert(ACCEPT, accept.parse().unwrap()));
            assert_eq!(best(&headers, &["text/plain", "application/json"]), expected, "{accept:?}");
        };
        check(None, Some("text/plain"));
        check(Some("*/*"), Some("text/plain"));
        check(Some("text/*"), Some("text/plain"));
        check(Some("text/html,application/xhtml+xml,*/*;q=0.8"), Some("text/plain"));
        check(Some("application/json"), Some("application/json"));
        check(Some("Application/JSON; charset=utf-8"), Some("application/json"));
        check(Some("application/json, */*"), Some("application/json"));
        check(Some("text/plain;q=0.1, application/json;q=0.9"), Some("application/json"));
        check(Some("application/xml"), None);
        check(Some("text/plain;q=0"), None);
        check(Some(""), None);
        check(Some("garbage"), None);
        check(Some("text/plain;q=nan"), None);
    }
}
