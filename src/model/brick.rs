//! Bricks: storage that belongs to (app id, container path), outlives the app, and has at most one holder.

use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::{
    app::FileSystem,
    id::{AgentId, BrickName, InstanceId, Owner, PathId, PoolName, TaskId},
    time::Timestamp,
};

/// The pool that is used when none is named.
pub const DEFAULT_POOL: &str = "datapool";

/// The durable record of a brick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brick {
    /// Derived from app and path by [`brick_name`], of a persistent volume by [`volume_name`].
    pub name: BrickName,
    /// Whose it is; kept when the app is gone.
    pub app: PathId,
    /// Normalised: no trailing slash. Of a persistent volume the name in the sandbox.
    pub container_path: String,
    /// MiB, as wanted; the file system may still be smaller until the next mount.
    pub size: u64,
    /// Where it is allocated.
    pub pool: PoolName,
    /// Chosen at creation.
    pub file_system: FileSystem,
    /// Who may use, release and restore it.
    pub owner: Owner,
    /// When it was first asked for.
    pub created_at: Timestamp,
    /// The node that has the data, for pools that are local to a node; set at the first lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<AgentId>,
    /// The number of the last lease; rises with each one, never falls (see [`super::record::Meta::last_epoch`]).
    pub epoch: u64,
    /// The one holder there may be. It ends only when the node reports the release, or was fenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// When the last lease began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_mounted: Option<Timestamp>,
    /// True once it was released for good: its data is being deleted, and the record goes when the node says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub condemned: bool,
    /// Set for a persistent volume, which belongs to one instance. `None`: it belongs to the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Reservation>,
}

/// Whose a persistent volume is. All volumes of an instance go from one instance to the next together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The instance that has it, or had it last: when that is gone, the next one of the app takes it over.
    pub instance: InstanceId,
    /// The end of the volume's id.
    pub uuid: Uuid,
    /// When the last lease ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
}

impl Brick {
    /// The brick without its lease, which has ended at `now`.
    pub fn released(&self, now: Timestamp) -> Self {
        let reservation = self.reservation.clone().map(|reservation| Reservation { released_at: Some(now), ..reservation });
        Self { lease: None, reservation, ..self.clone() }
    }

    /// The id that Mesos would know a persistent volume by: `<app>#<containerPath>#<uuid>`.
    pub fn persistence_id(&self) -> Option<String> {
        let reservation = self.reservation.as_ref()?;
        Some(format!("{}#{}#{}", self.app.safe_form(), self.container_path, reservation.uuid))
    }
}

/// The right of one task on one node to mount a brick. Durable before the launch is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The holder; of a pod [`super::pod::holder`], for any container may have it mounted.
    pub task: TaskId,
    /// The node on which it may be mounted.
    pub agent: AgentId,
    /// Equal to the brick's epoch at that time.
    pub epoch: u64,
}

/// A brick as a launch carries it to the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickMount {
    /// Which brick.
    pub name: BrickName,
    /// The lease under which it is mounted; a node refuses a lower one than it has seen.
    pub epoch: u64,
    /// MiB; a larger size than the present one grows the brick before it is mounted.
    pub size: u64,
    /// Where it is allocated.
    pub pool: PoolName,
    /// Used when it has to be created.
    pub file_system: FileSystem,
    /// Where the container sees it; a relative path is one in the sandbox.
    pub container_path: String,
    /// True: the container may not write.
    pub read_only: bool,
}

/// A path inside a container in the one form that names a brick: single slashes, no trailing one, no `.`.
///
/// # Errors
/// A relative path, the root, a path with `..`, a NUL or control character, or longer than 255 bytes.
pub fn normal_container_path(text: &str) -> Result<String, super::id::IdError> {
    use super::id::IdError;
    if !text.starts_with('/') {
        return Err(IdError::new("must be an absolute path"));
    }
    if text.len() > 255 || text.chars().any(char::is_control) {
        return Err(IdError::new("must have at most 255 bytes and no control characters"));
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
    if segments.is_empty() {
        return Err(IdError::new("must not be the root directory"));
    }
    if segments.contains(&"..") {
        return Err(IdError::new("must not contain '..'"));
    }
    Ok(format!("/{}", segments.join("/")))
}

/// The name of the brick of `app` at `container_path` (normalised): readable, safe as a file name, at most 80 bytes, and different for
/// different pairs (the tail is a hash of both).
pub fn brick_name(app: &PathId, container_path: &str) -> BrickName {
    let readable = readable(app, &container_path[1..], 60);
    // FNV-1a: stable for ever, which the standard library's hasher is not.
    let hash = app
        .as_str()
        .bytes()
        .chain([0])
        .chain(container_path.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    BrickName::new(format!("{readable}-{hash:016x}"))
}

/// The name of a persistent volume's brick: readable, safe as a file name, at most 80 bytes, and different for different uuids.
pub fn volume_name(app: &PathId, container_path: &str, uuid: Uuid) -> BrickName {
    BrickName::new(format!("{}-{}", readable(app, container_path, 47), uuid.simple()))
}

fn readable(app: &PathId, path: &str, most: usize) -> String {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' || letter == '-' { letter.to_ascii_lowercase() } else { '-' };
    format!("{}-{path}", app.safe_form()).chars().map(plain).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_names_the_same_brick() {
        let app: PathId = "/testdb".parse().unwrap();
        let name = |path: &str| brick_name(&app, &normal_container_path(path).unwrap());
        assert_eq!(name("/var/lib/pgsql/9.6/data/"), name("/var//lib/pgsql/./9.6/data"));
        assert_ne!(name("/data/a-b"), name("/data/a/b"));
        assert!(name("/var/lib/pgsql/9.6/data/").as_str().starts_with("testdb-var-lib-pgsql-9.6-data-"));
        let uuid = Uuid::from_u128(7);
        let volume = volume_name(&app, &"Däta".repeat(40), uuid);
        assert!(
            volume.as_str().starts_with("testdb-d-tad-ta") && volume.as_str().ends_with("0007") && volume.as_str().len() == 80,
            "{volume}"
        );
        assert_ne!(volume_name(&app, "data", uuid), volume_name(&app, "data", Uuid::from_u128(8)));
        for bad in ["data", "/", "//", "/a/../b", "/a\0b"] {
            assert!(normal_container_path(bad).is_err(), "{bad:?}");
        }
    }
}
