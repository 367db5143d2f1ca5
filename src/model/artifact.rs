//! What a task has fetched into its sandbox: where it comes from, where it goes, and how it is unpacked, all by names alone.
//!
//! Nothing that anybody writes may name a place outside of the sandbox; who unpacks archives applies the same rule to the names in them.

use super::app::Fetch;

/// Bytes of a URI, and of a path.
pub const MAX_URI_BYTES: usize = 4095;
/// Bytes of one name in a path: Linux' `NAME_MAX`.
const MAX_NAME_BYTES: usize = 255;

/// Ends of names by which Mesos knows that an archive is to be unpacked.
pub const ARCHIVES: [&str; 9] = [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"];

/// Where something comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By HTTP or HTTPS, from this URL.
    Web(String),
    /// From the node: an absolute path.
    Node(String),
}

/// How something is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// An archive: of which kind, its first bytes tell.
    Archive,
    /// One file, compressed with gzip.
    Gz,
}

/// Where `fetch` comes from.
///
/// # Errors
/// A sentence for the user.
pub fn origin(fetch: &Fetch) -> Result<Origin, String> {
    let uri = fetch.uri.as_str();
    if uri.starts_with('/') {
        return Ok(Origin::Node(uri.to_owned()));
    }
    let (scheme, rest) = uri.split_once(':').ok_or("is no URI: it must begin with http:, https: or file:, or be an absolute path")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => Ok(Origin::Web(uri.to_owned())),
        "file" => {
            let path = rest.strip_prefix("//localhost").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
            let text = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| "its path is not UTF-8")?;
            if text.starts_with('/') { Ok(Origin::Node(text.into_owned())) } else { Err("names no absolute path of the node".to_owned()) }
        }
        other => Err(format!("'{other}:' cannot be fetched here: http:, https: and file: can")),
    }
}

/// Where in the sandbox it goes: `destPath`, or the last part of the URI's path.
///
/// # Errors
/// A sentence for the user.
pub fn place(fetch: &Fetch) -> Result<String, String> {
    if let Some(path) = &fetch.dest_path {
        return sandbox_path(path);
    }
    let end = fetch.uri.find(['?', '#']).unwrap_or(fetch.uri.len());
    let uri = &fetch.uri[..end];
    let path = match uri.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => uri,
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    sandbox_path(name).map_err(|_| "has no last part that could be a file's name: say destPath".to_owned())
}

/// How what lies at `place` is unpacked.
pub fn packing(fetch: &Fetch, place: &str) -> Packing {
    if fetch.executable || !fetch.extract {
        return Packing::None;
    }
    // The longest end decides, so `.tar.gz` goes before `.gz`.
    let end = ARCHIVES.iter().filter(|end| place.ends_with(**end)).max_by_key(|end| end.len());
    match end {
        None => Packing::None,
        Some(&".gz") => Packing::Gz,
        Some(_) => Packing::Archive,
    }
}

/// A URI as it may be shown: without user, password and query, which may be secret.
pub fn shown(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let uri = &uri[..end];
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// True when Java's `java.net.URI` takes it, as far as single characters go.
pub fn is_uri(text: &str) -> bool {
    let excluded = |letter: char| letter.is_control() || letter.is_whitespace() || "\"<>\\^`{|}".contains(letter);
    let escaped = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    !text.contains(excluded) && text.split('%').skip(1).all(escaped)
}

/// True when the path of `uri` ends as the name of an archive does; query and fragment do not count.
pub fn names_archive(uri: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    let is_scheme = |text: &str| text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(plain);
    let text = uri.split(['?', '#']).next().unwrap_or_default();
    let path = match text.split_once(':') {
        // Without a slash after the scheme there is no path.
        Some((scheme, rest)) if !scheme.contains('/') && is_scheme(scheme) && rest.starts_with('/') => rest,
        Some((scheme, _)) if !scheme.contains('/') => return false,
        _ => text,
    };
    let path = path.strip_prefix("//").map_or(path, |rest| rest.find('/').map_or("", |at| &rest[at..]));
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    is_uri(uri) && ARCHIVES.iter().any(|end| path.ends_with(end))
}

/// `path`, without what says nothing, when it names a place in the sandbox and nowhere else.
///
/// # Errors
/// A sentence for the user.
pub fn sandbox_path(path: &str) -> Result<String, String> {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty() && *word != ".").collect();
    if path.starts_with('/') || words.contains(&"..") || words.is_empty() {
        return Err(format!("'{}' must be a path within the sandbox: relative, and without '..'", path.escape_debug()));
    }
    if path.len() > MAX_URI_BYTES || words.iter().any(|word| word.len() > MAX_NAME_BYTES) {
        return Err("is too long for a path".to_owned());
    }
    if path.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    Ok(words.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fetch(uri: &str) -> Fetch {
        Fetch { uri: uri.to_owned(), extract: true, executable: false, cache: false, dest_path: None }
    }

    #[test]
    fn the_path_of_a_uri_names_an_archive() {
        for (uri, expected) in [
            ("http://h/a.tar.gz?x=1", true),
            ("http://h/a.zip#b", true),
            ("http://h/a?b=c.zip", false),
            ("http://h/a#b.zip", false),
            ("http://h.zip", false),
            ("http://h.zip?a", false),
            ("file:/a.tgz", true),
            ("file:a.tgz", false),
            ("hdfs://h/a%2Ezip", true),
            ("//h.gz", false),
            ("//h/a.gz", true),
            ("/a b.zip", false),
            ("a.zip/b", false),
            ("3:a.zip", false),
            ("a/3:a.zip", true),
            ("", false),
        ] {
            assert_eq!(names_archive(uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_uri_says_where_something_comes_from() {
        let check = |uri: &str, expected: &str| {
            let found = match origin(&fetch(uri)) {
                Ok(Origin::Web(url)) => format!("web {url}"),
                Ok(Origin::Node(path)) => format!("node {path}"),
                Err(error) => error,
            };
            assert_eq!(found, expected, "{uri}");
        };
        check("http://a/b", "web http://a/b");
        check("HTTPS://a/b", "web HTTPS://a/b");
        check("/a/b", "node /a/b");
        check("file:///a/b%20c", "node /a/b c");
        check("file:/a", "node /a");
        check("file://localhost/a", "node /a");
        check("file://other/a", "names no absolute path of the node");
        check("file:a", "names no absolute path of the node");
        check("hdfs://a/b", "'hdfs:' cannot be fetched here: http:, https: and file: can");
        check("a/b", "is no URI: it must begin with http:, https: or file:, or be an absolute path");
    }

    #[test]
    fn it_goes_to_the_last_part_of_its_path_and_is_unpacked_by_its_name() {
        let check = |uri: &str, expected: &str| {
            let fetch = fetch(uri);
            let found = place(&fetch).map_or_else(|error| error, |place| format!("{place} {:?}", packing(&fetch, &place)));
            assert_eq!(found, expected, "{uri}");
        };
        check("http://a/b/c.tgz?x=/y.zip#/z", "c.tgz Archive");
        for end in [".tar", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip"] {
            check(&format!("http://a/c{end}"), &format!("c{end} Archive"));
        }
        check("/x/c.gz", "c.gz Gz");
        for kept in ["c.jar", "c.bz2", "c.xz", "c.tar.zst"] {
            check(&format!("http://a/{kept}"), &format!("{kept} None"));
        }
        for nameless in ["http://a", "http://a/", "http://a/b/..", "file:///"] {
            check(nameless, "has no last part that could be a file's name: say destPath");
        }
        let kept = Fetch { extract: false, ..fetch("http://a/c.tgz") };
        assert_eq!(packing(&kept, "c.tgz"), Packing::None);
        let run = Fetch { executable: true, dest_path: Some("bin/c".into()), ..fetch("http://a/c.tgz") };
        assert_eq!((packing(&run, "c.tgz"), place(&run)), (Packing::None, Ok("bin/c".into())));
    }

    #[test]
    fn secrets_in_a_uri_are_not_shown() {
        let check = |uri: &str, expected: &str| assert_eq!(shown(uri), expected);
        check("https://user:pass@host:1/a/b?token=x#y", "https://host:1/a/b");
        check("https://u@v:p@host/a", "https://host/a");
        check("https://host?token=x", "https://host");
        check("/a/b", "/a/b");
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_sandbox(path in "[a.%/\\\\\u{0}é -]{0,12}", uri in "[a.:%/?#@-]{0,16}") {
            let dest = Fetch { dest_path: Some(path), ..fetch(&uri) };
            for place in [place(&dest), place(&fetch(&uri))].into_iter().flatten() {
                let clean = std::path::Path::new(&place);
                prop_assert!(clean.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{place:?}");
                prop_assert!(clean.components().next().is_some());
            }
        }
    }
}
