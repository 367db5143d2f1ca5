//! The names of things: paths of apps, instances, tasks, and the opaque ids of agents, offers, deployments and bricks.
//!
//! Every id is parsed once, at the edge; behind it only valid ones exist. Grammar of paths and of instance and task ids: Marathon 1.11.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Longest path that is accepted, in bytes. Marathon has no limit; a host name made of it would be cut at 63 anyway.
pub const MAX_PATH_BYTES: usize = 1024;

/// Most segments of a path. `/v2/groups` nests two levels of JSON for each, and readers of JSON stop at 128 (ours too) or overflow their stack.
pub const MAX_PATH_SEGMENTS: usize = 50;

/// Last segments that are routes of the API below an app and therefore no app's name.
pub const RESERVED_SEGMENTS: [&str; 3] = ["restart", "tasks", "versions"];

/// What is wrong with a text that should be an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IdError {
    message: String,
}

impl IdError {
    /// An error whose text is shown to the user as it is.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// The absolute path of an app, pod or group: `/` or `/shop/web`. Canonical: no trailing or doubled slash, no `.` or `..`.
///
/// Compared by text. Copies share it, and every instance id has one of its app's: most comparisons in the tables are between copies and end at once.
#[derive(Clone)]
pub struct PathId(Arc<str>);

impl PartialEq for PathId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for PathId {}

impl Hash for PathId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Ord for PathId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { std::cmp::Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for PathId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PathId {
    /// The root group.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Reads `text`, resolving it against `base` unless it starts with `/`; `.` and `..` are followed, climbing above the root stays there.
    ///
    /// # Errors
    /// A segment outside Marathon's grammar, or a path longer than [`MAX_PATH_BYTES`] or [`MAX_PATH_SEGMENTS`].
    pub fn resolve(text: &str, base: &PathId) -> Result<Self, IdError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(IdError::new(format!("a path has at most {MAX_PATH_BYTES} bytes")));
        }
        if is_canonical(text) {
            return Ok(Self(Arc::from(text)));
        }
        let mut segments: Vec<&str> = if text.starts_with('/') { Vec::new() } else { base.segments().collect() };
        for segment in text.split('/').filter(|segment| !segment.is_empty()) {
            match segment {
                "." => {}
                ".." => _ = segments.pop(),
                _ if is_segment(segment) => segments.push(segment),
                _ => return Err(IdError::new(PATH_PATTERN_TEXT)),
            }
        }
        if segments.len() > MAX_PATH_SEGMENTS {
            return Err(IdError::new(format!("a path has at most {MAX_PATH_SEGMENTS} segments")));
        }
        Ok(Self(Arc::from(format!("/{}", segments.join("/")))))
    }

    /// The canonical text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The segments from the top down; none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The group that holds this path; the root is its own parent.
    pub fn parent(&self) -> Self {
        match self.0.rsplit_once('/') {
            Some(("", _)) | None => Self::root(),
            Some((head, _)) => Self(Arc::from(head)),
        }
    }

    /// The path of `segment` in this group; `segment` is one of another path.
    pub fn child(&self, segment: &str) -> Self {
        let head = if self.is_root() { "" } else { self.as_str() };
        Self(Arc::from(format!("{head}/{segment}")))
    }

    /// The groups around it, from its parent up, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.parent()), |group| Some(group.parent())).take_while(|group| !group.is_root())
    }

    /// The texts of the groups around it, from its parent up to the root. The root has none.
    pub fn around(&self) -> impl Iterator<Item = &str> {
        let parent = |text: &str| text.rfind('/').filter(|_| text != "/").map(|at| at.max(1));
        std::iter::successors(parent(&self.0), move |end| parent(&self.0[..*end])).map(|end| &self.0[..end])
    }

    /// True when this path lies below `group`, by whole segments: `/prod` is not above `/production`.
    pub fn is_below(&self, group: &PathId) -> bool {
        group.is_root() && !self.is_root() || self.0.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Segments reversed and joined by dots: `/prod/db/pg` is `pg.db.prod`. The task's name in Mesos, and the source of its domain name.
    pub fn host_form(&self) -> String {
        self.segments().rev().collect::<Vec<_>>().join(".")
    }

    /// The label of its domain name: the host form as one label, dots as dashes, cut to 63 bytes (Mesos-DNS, RFC 1123 rules). Two paths may
    /// share one: `/b/a` and `/a.b`.
    pub fn dns_label(&self) -> String {
        let mut label = self.host_form().replace('.', "-");
        label.truncate(63);
        label.truncate(label.trim_end_matches('-').len());
        label
    }

    /// Slashes as underscores, without the leading one: `prod_db_pg`. Reversible, because a segment has no underscore.
    pub fn safe_form(&self) -> String {
        self.0[1..].replace('/', "_")
    }
}

/// Marathon's text for a path outside the grammar.
pub const PATH_PATTERN_TEXT: &str = "must fully match regular expression '^(([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])\\.)*([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])|(\\.|\\.\\.)$'";

/// Already as [`PathId::resolve`] would write it.
fn is_canonical(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else { return false };
    rest.is_empty() || count_segments(rest).is_some_and(|count| count <= MAX_PATH_SEGMENTS)
}

/// How many segments `text` is, with one slash between any two. `None`: one is outside Marathon's grammar. In one pass, because every request has a path.
fn count_segments(text: &str) -> Option<usize> {
    let (mut before, mut count) = (b'/', 1);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'-' if !matches!(before, b'/' | b'.') => {}
            b'/' | b'.' if !matches!(before, b'/' | b'.' | b'-') => count += usize::from(byte == b'/'),
            _ => return None,
        }
        before = byte;
    }
    (!matches!(before, b'/' | b'.' | b'-')).then_some(count)
}

/// True when a body may have `text` as an id: Marathon's pattern `PathId`, which knows `..` but not `.`.
pub fn is_written_path(text: &str) -> bool {
    text.split('/').all(|segment| segment.is_empty() || segment == ".." || is_segment(segment))
}

fn is_segment(segment: &str) -> bool {
    count_segments(segment) == Some(1)
}

impl Borrow<str> for PathId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::resolve(text, &Self::root())
    }
}

/// The seat of one copy of an app. It survives the failure of its task, and ends with scale-down, upgrade or expunge.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    app: PathId,
    uuid: Uuid,
}

impl InstanceId {
    /// The instance of `app` named by a time-based UUID.
    pub fn new(app: PathId, uuid: Uuid) -> Self {
        Self { app, uuid }
    }

    /// The app whose instance this is.
    pub fn app(&self) -> &PathId {
        &self.app
    }

    /// The part that tells instances of one app apart.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.app.segments().enumerate() {
            out.write_str(if at > 0 { "_" } else { "" })?;
            out.write_str(segment)?;
        }
        out.write_str(".instance-")?;
        out.write_str(self.uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl FromStr for InstanceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let invalid = || IdError::new(format!("'{text}' is not an instance id"));
        let (app, uuid) = text.rsplit_once(".instance-").ok_or_else(invalid)?;
        let app = PathId::from_str(&app.replace('_', "/")).map_err(|_| invalid())?;
        Ok(Self { app, uuid: Uuid::try_parse(uuid).map_err(|_| invalid())? })
    }
}

/// One life of one process of an instance: `<instance>._app.<incarnation>`, or `<instance>.<container>.<incarnation>` in a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The instance that the task fills.
    pub instance: InstanceId,
    /// The container's name in a pod; `None` for an app.
    pub container: Option<Arc<str>>,
    /// Rises with each launch of the same instance, from 1.
    pub incarnation: u32,
}

impl TaskId {
    /// The task of an app.
    pub fn app(instance: InstanceId, incarnation: u32) -> Self {
        Self { instance, container: None, incarnation }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.instance, self.container.as_deref().unwrap_or("_app"), self.incarnation)
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let invalid = || IdError::new(format!("'{text}' is not a task id"));
        let (head, incarnation) = text.rsplit_once('.').ok_or_else(invalid)?;
        let (instance, container) = head.rsplit_once('.').ok_or_else(invalid)?;
        Ok(Self {
            instance: instance.parse().map_err(|_| invalid())?,
            container: (container != "_app").then(|| Arc::from(container)),
            incarnation: incarnation.parse().map_err(|_| invalid())?,
        })
    }
}

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Ok(Self::new(text))
            }
        }

        text_serde!($name);
    };
}

macro_rules! text_serde {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{self}")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

impl fmt::Display for PathId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

text_serde!(PathId);
text_serde!(InstanceId);
text_serde!(TaskId);

opaque_id!(
    /// A node as the cluster names it (a Mesos agent id; the embedded engine makes one per work directory).
    AgentId
);
opaque_id!(
    /// One offer of resources.
    OfferId
);
opaque_id!(
    /// A deployment: a UUID as text.
    DeploymentId
);
opaque_id!(
    /// Which installation this is. It labels every container, so that two servers on one Docker never touch each other's.
    ClusterId
);
opaque_id!(
    /// A brick, named after its app and container path; file-name safe. Made by [`crate::model::brick::brick_name`] only.
    BrickName
);
opaque_id!(
    /// A storage pool, such as `datapool`.
    PoolName
);
opaque_id!(
    /// The owner of apps, ports and bricks: a user's account name.
    Owner
);

impl Owner {
    /// Who owns what is created while nobody is asked who they are.
    pub fn default_owner() -> Self {
        Self::new("admin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_resolved_against_their_group() {
        let check = |base: &str, text: &str, expected: &str| {
            let base: PathId = base.parse().unwrap();
            let found = PathId::resolve(text, &base).map_or_else(|error| error.to_string(), |path| path.to_string());
            assert_eq!(found, expected, "{text} in {base}");
        };
        check("/a/b/c/d", "./test/../e/f/g/./../", "/a/b/c/d/e/f");
        check("/a", "/b//c/", "/b/c");
        check("/a", "../../../x", "/x");
        check("/", "web", "/web");
        check("/", "/", "/");
        check("/", "a.b-c.d", "/a.b-c.d");
        check("/", &"a/".repeat(MAX_PATH_SEGMENTS + 1), "a path has at most 50 segments");
        for bad in ["Web", "a_b", "-a", "a-", "a..b", ".a", "a b", "ä"] {
            check("/", bad, PATH_PATTERN_TEXT);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_path_is_one_of_segments(text in "[/a.-]{0,9}|/[/a-z0-9.A-]{0,9}|(/a){48,52}/?") {
            // Marathon's own, without `.` and `..`.
            let segment = regex::Regex::new(r"^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])$").unwrap();
            let fits = |rest: &str| rest.split('/').all(|one| segment.is_match(one)) && rest.split('/').count() <= MAX_PATH_SEGMENTS;
            let is_one = |rest: &str| rest.is_empty() || fits(rest);
            proptest::prop_assert_eq!(is_segment(&text), segment.is_match(&text));
            proptest::prop_assert_eq!(is_canonical(&text), text.strip_prefix('/').is_some_and(is_one));
        }

        #[test]
        fn groups_around_are_found_without_being_made(text in "(/[a-c]{1,2}){0,5}") {
            let path = PathId::resolve(&text, &PathId::root()).unwrap();
            let mut ancestors: Vec<String> = path.ancestors().map(|group| group.to_string()).collect();
            ancestors.extend((!path.is_root()).then(|| "/".to_owned()));
            proptest::prop_assert_eq!(path.around().collect::<Vec<_>>(), ancestors);
        }
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let uuid = "6b0cd2e8-b243-11e8-8b80-024247c0a575";
        for text in [format!("prod_web.instance-{uuid}._app.3"), format!("a.b_c.instance-{uuid}.nginx.1")] {
            assert_eq!(text.parse::<TaskId>().unwrap().to_string(), text);
        }
        assert_eq!(
            "prod_web.instance-6b0c".parse::<InstanceId>().unwrap_err().to_string(),
            "'prod_web.instance-6b0c' is not an instance id"
        );
        assert!("x".parse::<TaskId>().is_err());
    }

    #[test]
    fn below_means_whole_segments() {
        let path = |text: &str| text.parse::<PathId>().unwrap();
        assert!(path("/prod/web").is_below(&path("/prod")));
        assert!(!path("/production").is_below(&path("/prod")));
        assert!(!path("/prod").is_below(&path("/prod")));
        assert!(path("/prod").is_below(&PathId::root()));
        assert_eq!(path("/prod/db/pg").host_form(), "pg.db.prod");
        assert_eq!(path("/prod/db/pg").safe_form(), "prod_db_pg");
        assert_eq!(path("/a").parent(), PathId::root());
    }
}
