//! Queries and percent-encoding. Lenient as JAX-RS is: a flag is true when it says `true` in any case, and false when it says anything else.

use std::borrow::Cow;

/// The parameters of a query, decoded, in the order written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// More parameters than any client sends; the rest is not looked at.
const MAX_PARAMETERS: usize = 256;

impl Query {
    /// Reads what stands behind the `?`. Everything is a query; none is refused.
    pub fn read(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(MAX_PARAMETERS);
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name, true).into_owned(), decode(value, true).into_owned())
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag. Python's clients write `True` and `False`.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.first(name).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }
}

/// What `embed=` asks for in an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Embed {
    /// The `tasks` array.
    pub tasks: bool,
    /// The four counters.
    pub counts: bool,
    /// The deployments that lock the app.
    pub deployments: bool,
    /// `readinessCheckResults`
    pub readiness: bool,
    /// `lastTaskFailure`
    pub last_task_failure: bool,
    /// `tasksStats`
    pub task_stats: bool,
    /// `endpoints`, also of an app that uses nothing of ours.
    pub endpoints: bool,
}

impl Embed {
    const NONE: Self = Self {
        tasks: false,
        counts: false,
        deployments: false,
        readiness: false,
        last_task_failure: false,
        task_stats: false,
        endpoints: false,
    };

    /// What a list of apps always has.
    pub const LIST: Self = Self { counts: true, deployments: true, ..Self::NONE };

    /// What a single app always has.
    pub const ONE: Self = Self { tasks: true, last_task_failure: true, ..Self::LIST };

    /// `self` and what the query asks for. The prefixes `apps.`, `app.` and `group.apps.` mean the same; unknown values mean nothing.
    pub fn and(mut self, query: &Query) -> Self {
        for value in query.all("embed") {
            let bare = ["group.apps.", "apps.", "app."].iter().find_map(|prefix| value.strip_prefix(prefix)).unwrap_or(value);
            match bare {
                "tasks" => (self.tasks, self.deployments) = (true, true),
                "counts" => self.counts = true,
                "deployments" => self.deployments = true,
                "readiness" => self.readiness = true,
                "lastTaskFailure" => self.last_task_failure = true,
                "failures" => (self.last_task_failure, self.tasks, self.deployments) = (true, true, true),
                "taskStats" => self.task_stats = true,
                "endpoints" => self.endpoints = true,
                _ => {}
            }
        }
        self
    }
}

/// Undoes percent-encoding; in queries `+` is a blank. What is not valid UTF-8 becomes U+FFFD, and a stray `%` stays.
pub fn decode(text: &str, plus_is_blank: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    // As nearly every path and value.
    if !bytes.iter().any(|byte| *byte == b'%' || *byte == b'+' && plus_is_blank) {
        return text.into();
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = || Some(hex(*bytes.get(at + 1)?)? * 16 + hex(*bytes.get(at + 2)?)?);
        match (bytes[at], digits()) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if plus_is_blank => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()).into()
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_never_fails() {
        let check = |text: &str, expected: &str| assert_eq!(decode(text, true), expected, "{text}");
        check("a+b%20c", "a b c");
        check("%2Fshop%2fweb", "/shop/web");
        check("%", "%");
        check("%4", "%4");
        check("%zz%41", "%zzA");
        check("%ff", "\u{fffd}");
        check("%c3%a4", "ä");
        assert_eq!(decode("a+b", false), "a+b");
    }

    #[test]
    fn flags_are_read_as_python_and_java_write_them() {
        let check = |query: &str, default: bool, expected: bool| assert_eq!(Query::read(query).flag("force", default), expected, "{query}");
        check("force=true", false, true);
        check("force=True", false, true);
        check("force=TRUE", false, true);
        check("force=False", true, false);
        check("force=1", true, false);
        check("force", true, false);
        check("", true, true);
        check("other=true&force=true", false, true);
    }

    #[test]
    fn embed_prefixes_are_synonyms() {
        let check = |query: &str, expected: Embed| assert_eq!(Embed::default().and(&Query::read(query)), expected, "{query}");
        let tasks = Embed { tasks: true, deployments: true, ..Embed::default() };
        for prefix in ["", "app.", "apps.", "group.apps."] {
            check(&format!("embed={prefix}tasks"), tasks);
        }
        check("embed=app.counts&embed=taskStats", Embed { counts: true, task_stats: true, ..Embed::default() });
        check("embed=failures", Embed { last_task_failure: true, ..tasks });
        check("embed=unknown&embed=group.groups", Embed::default());
    }
}
