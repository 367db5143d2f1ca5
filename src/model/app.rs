//! An app's definition in its one canonical form: what is stored, planned and launched.
//!
//! The serde form here is the *stored* form. What most apps have is left out of it, so that a change writes what makes an app its own; the defaults
//! of the types below are therefore part of it and stay as they are, whatever Marathon's JSON may leave out one day. Marathon's JSON, with its defaults,
//! legacy fields and omissions, is read by [`input`] and written by [`output`]; nothing else knows it.

pub mod input;
pub mod output;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    health::{Check, HealthCheck, ReadinessCheck},
    id::{Owner, PathId, PoolName},
    pod::{Amounts, Pod},
    resources::{ResourceLimits, Scalar},
    time::Timestamp,
};

/// Names to values, in the order in which the user wrote them (the order decides which endpoint is the first).
pub type Env = IndexMap<String, EnvValue>;

/// The definition of an app at one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Absolute, never the root.
    pub id: PathId,
    /// A shell command; exclusive with `args`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Arguments for the image's entry point; without an image the program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The user to run as; `None`: the image's own, or without an image whoever the node's rule says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `@PORT` tokens stay in the values; they are replaced at launch.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: Env,
    /// Where the secrets are that the rest names.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub secrets: IndexMap<String, Secret>,
    /// What is put into the sandbox before the start, in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<Fetch>,
    /// How many instances are wanted.
    pub instances: u32,
    /// CPUs.
    pub cpus: Scalar,
    /// MiB.
    pub mem: Scalar,
    /// MiB.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub disk: Scalar,
    /// GPUs, whole ones.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub gpus: u32,
    /// How much more a task may take than it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<ResourceLimits>,
    /// `""` means the framework's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub executor: String,
    /// Where instances may go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_resource_roles: Option<Vec<String>>,
    /// The Mesos role.
    #[serde(default = "usual_role", skip_serializing_if = "is_usual_role")]
    pub role: String,
    /// Free names and values.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// `None`: a plain command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// How it is connected.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub network: Network,
    /// Labels of the network in bridge mode, which are kept and shown; Docker's bridge does nothing with them.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub bridge_labels: IndexMap<String, String>,
    /// Host networking only; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_definitions: Vec<PortDefinition>,
    /// Host networking only: every declared port is also the host port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_ports: bool,
    /// Waiting after failures.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub backoff: Backoff,
    /// Milliseconds between SIGTERM and SIGKILL; `None`: the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_grace_ms: Option<u64>,
    /// Apps and groups that come up before it when both are deployed together. Absolute, each once; what is not there is not waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<PathId>,
    /// How it is found out whether a task is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<HealthCheck>,
    /// How it is found out whether a new task may take over; one at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readiness_checks: Vec<ReadinessCheck>,
    /// What is asked of a task only to be shown. Those of a pod are its containers'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Which instances go first when there are too many.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub kill_selection: KillSelection,
    /// How many may be missing or surplus while a new version replaces an old one.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub upgrade_strategy: UpgradeStrategy,
    /// What happens to instances whose node is out of reach.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub unreachable_strategy: UnreachableStrategy,
    /// When this definition was accepted; names it.
    pub version: Timestamp,
    /// What the version changed. `None`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_info: Option<VersionInfo>,
    /// Whose the app was when this was accepted. The instances of an app that is being destroyed are known by it; while the app exists, its entry
    /// says whose it is. `None`: written before apps had owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// True: an administrator wrote the host volumes, so that no account of the node is asked whether it may use what they name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vouched: bool,
    /// True: nobody but administrators wrote any of this (the number of instances aside), so that a command without an image may run as `user` says, or
    /// as the server. False also for what was written before this was kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administered: bool,
    /// The task has a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// What a custom executor would take: kept and shown, and without effect, because there are none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_resources: Option<Amounts>,
    /// Set: this is a pod, and what it is besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<Pod>>,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn usual_role() -> String {
    "*".into()
}

fn is_usual_role(role: &str) -> bool {
    role == "*"
}

/// Where a secret is. What it says is nowhere in a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Here a path below the directory of the secrets.
    pub source: String,
}

/// Something that is put into a task's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Where it comes from, as the user wrote it: `http:`, `https:`, `file:`, or a path.
    pub uri: String,
    /// An archive is unpacked.
    pub extract: bool,
    /// It may be run; nothing is unpacked then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// It may be kept for others. No difference here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cache: bool,
    /// Its name in the sandbox; `None`: the last part of the URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_path: Option<String>,
}

impl App {
    /// The last change of `instances`, or of everything.
    pub fn last_scaling_at(&self) -> Timestamp {
        self.version_info.map_or(self.version, |info| info.last_scaling_at)
    }

    /// The last change of anything but `instances`; an instance of an older version is outdated.
    pub fn last_config_change_at(&self) -> Timestamp {
        self.version_info.map_or(self.version, |info| info.last_config_change_at)
    }

    /// The container's port mappings; none without a container.
    pub fn port_mappings(&self) -> &[PortMapping] {
        self.container.as_ref().map_or(&[], |container| &container.port_mappings)
    }

    /// Its generic checks: an app's in place 0, those of a pod in the places of their containers.
    pub fn generic_checks(&self) -> impl Iterator<Item = (usize, &Check)> {
        let of_containers = self.pod.iter().flat_map(|pod| &pod.containers).map(|container| container.check.as_ref());
        let own = self.pod.is_none().then_some(self.check.as_ref());
        of_containers.chain(own).enumerate().filter_map(|(place, check)| Some((place, check?)))
    }

    /// The generic check in this place.
    pub fn generic_check(&self, place: usize) -> Option<&Check> {
        match &self.pod {
            Some(pod) => pod.containers.get(place)?.check.as_ref(),
            None => self.check.as_ref().filter(|_| place == 0),
        }
    }

    /// The bricks that it asks for, in the order written.
    pub fn bricks(&self) -> impl Iterator<Item = &BrickVolume> {
        self.container.iter().flat_map(|container| &container.volumes).filter_map(|volume| match volume {
            Volume::Brick(brick) => Some(brick),
            Volume::Host { .. } | Volume::Persistent(_) | Volume::External(_) | Volume::Shared { .. } | Volume::Secret { .. } => None,
        })
    }

    /// The persistent volumes of each instance, in the order written.
    pub fn persistent_volumes(&self) -> impl Iterator<Item = &PersistentVolume> {
        self.container.iter().flat_map(|container| &container.volumes).filter_map(|volume| match volume {
            Volume::Persistent(volume) => Some(volume),
            Volume::Host { .. } | Volume::Brick(_) | Volume::External(_) | Volume::Shared { .. } | Volume::Secret { .. } => None,
        })
    }

    /// True when its instances have volumes that outlive their tasks, and go where these are.
    pub fn is_resident(&self) -> bool {
        self.persistent_volumes().next().is_some()
    }

    /// The external volumes, in the order written.
    pub fn external_volumes(&self) -> impl Iterator<Item = &ExternalVolume> {
        self.container.iter().flat_map(|container| &container.volumes).filter_map(|volume| match volume {
            Volume::External(volume) => Some(volume),
            Volume::Host { .. } | Volume::Brick(_) | Volume::Persistent(_) | Volume::Shared { .. } | Volume::Secret { .. } => None,
        })
    }

    /// True when an upgrade ends an instance before it starts another, because the other needs the volumes of the first.
    pub fn is_replaced_in_place(&self) -> bool {
        self.is_resident() || self.external_volumes().next().is_some()
    }
}

/// A value of the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum EnvValue {
    /// A plain text.
    Text(String),
    /// A reference into `secrets`.
    Secret {
        /// The name of the secret.
        secret: String,
    },
}

/// One placement rule: field (`hostname` or an attribute), operator, value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// `hostname`, `@region`, `@zone` or an attribute's name.
    pub field: String,
    /// How the field is compared.
    pub operator: Operator,
    /// Meaning depends on the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Marathon's constraint operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Marathon's; their meaning is where they are evaluated")]
pub enum Operator {
    Unique,
    Cluster,
    GroupBy,
    Like,
    Unlike,
    MaxPer,
    Is,
}

/// How the app is connected to the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Shares the node's network.
    #[default]
    Host,
    /// Docker's bridge; ports are forwarded.
    Bridge,
    /// Named networks (CNI, or one Docker user network).
    Container(Vec<NamedNetwork>),
}

/// A named container network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedNetwork {
    /// Its name.
    pub name: String,
    /// Labels for the network plugin.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
}

/// What was written where a port is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortNumber {
    /// `0`: any port of the offer.
    Dynamic,
    /// This one.
    Fixed(u16),
    /// `@PORT`, not allotted yet: only between reading and accepting a definition.
    Wanted,
    /// `@PORT`, as claimed.
    Allotted(u16),
}

impl PortNumber {
    /// The number that the API shows; 0 when there is none yet.
    pub fn number(self) -> u16 {
        match self {
            Self::Dynamic | Self::Wanted => 0,
            Self::Fixed(port) | Self::Allotted(port) => port,
        }
    }
}

/// tcp, udp or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// `tcp`
    #[serde(rename = "tcp")]
    Tcp,
    /// `udp`
    #[serde(rename = "udp")]
    Udp,
    /// `udp,tcp`
    #[serde(rename = "udp,tcp")]
    Both,
}

impl Protocol {
    /// Marathon's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "udp,tcp",
        }
    }

    /// The single protocols that it stands for: `udp,tcp` is udp, then tcp.
    pub fn each(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["tcp"],
            Self::Udp => &["udp"],
            Self::Both => &["udp", "tcp"],
        }
    }
}

/// A port of an app with host networking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortDefinition {
    /// The service port; also the host port when ports are required, or when it is allotted.
    pub port: PortNumber,
    /// Its protocol.
    pub protocol: Protocol,
    /// Unique in the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free names and values.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
}

/// A port of a container with its own network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortMapping {
    /// 0: the same as the host port.
    pub container_port: u16,
    /// `None`: not reachable through the node (container networks only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<PortNumber>,
    /// The cluster-wide number for load balancers; 0 only before it is assigned.
    pub service_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Unique in the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free names and values.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// Which of the container networks it belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_names: Vec<String>,
}

/// Image, volumes and ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Who runs it.
    pub kind: ContainerKind,
    /// The image and how Docker treats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// Empty with host networking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// In the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// How it is shut off from the rest of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux_info: Option<LinuxInfo>,
}

/// Mesos' `LinuxInfo`, as much of it as Marathon knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinuxInfo {
    /// Which system calls it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Its shared memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc_info: Option<IpcInfo>,
}

/// Which system calls a container may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    /// A profile of the node. Refused here, where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_name: Option<String>,
    /// All of them.
    pub unconfined: bool,
}

/// The shared memory of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpcInfo {
    /// Whose it is.
    pub mode: IpcMode,
    /// MiB; `None`: Docker's own measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u32>,
}

/// Whose shared memory a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpcMode {
    /// Its own.
    Private,
    /// That of its pod.
    ShareParent,
}

/// Which containerizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ContainerKind {
    /// Docker.
    Docker,
    /// Mesos' own.
    Mesos,
}

/// What Docker needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docker {
    /// As the user wrote it.
    pub image: String,
    /// Pull even when the image is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_pull_image: bool,
    /// All capabilities of the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Raw `docker run` options, as (key, value).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<(String, String)>,
    /// The name of the secret with which it is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_config: Option<String>,
}

/// Something mounted into the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Volume {
    /// A directory or file of the node.
    #[serde(rename_all = "snake_case")]
    Host {
        /// Where the container sees it.
        container_path: String,
        /// Where it is on the node.
        host_path: String,
        /// Read-only or read-write.
        mode: Mode,
    },
    /// Storage that follows the app.
    Brick(BrickVolume),
    /// A directory that the containers of one instance of a pod share. Only in the container that a pod's launch is about.
    #[serde(rename_all = "snake_case")]
    Shared {
        /// Where the container sees it.
        container_path: String,
        /// The pod's name for it.
        name: String,
        /// Read-only or read-write.
        mode: Mode,
    },
    /// Storage of each instance, which stays on its node and outlives its tasks.
    Persistent(PersistentVolume),
    /// Storage that one of Docker's volume drivers has.
    External(ExternalVolume),
    /// A file with a secret in it.
    #[serde(rename_all = "snake_case")]
    Secret {
        /// Where the container sees it.
        container_path: String,
        /// The name of the secret.
        secret: String,
    },
}

impl Volume {
    /// Where the container sees it, as the user wrote it; of a persistent volume a name in the sandbox.
    pub fn container_path(&self) -> &str {
        match self {
            Self::Host { container_path, .. } | Self::Shared { container_path, .. } | Self::Secret { container_path, .. } => container_path,
            Self::Brick(brick) => &brick.container_path,
            Self::Persistent(volume) => &volume.container_path,
            Self::External(volume) => &volume.container_path,
        }
    }
}

/// Marathon's local persistent volume, on a disk of type `root`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersistentVolume {
    /// Its name in the sandbox: no path.
    pub container_path: String,
    /// Marathon allows read-write alone.
    pub mode: Mode,
    /// MiB.
    pub size: u64,
}

/// The provider of external volumes: the interface of Docker's volume drivers.
pub const DVDI: &str = "dvdi";

/// The option that names the driver.
pub const DVDI_DRIVER: &str = "dvdi/driver";

/// Marathon's external volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalVolume {
    /// Where the container sees it; a relative path is a name in the sandbox.
    pub container_path: String,
    /// Read-only or read-write.
    pub mode: Mode,
    /// By which the driver knows it; empty when the user wrote none, which is refused.
    pub name: String,
    /// [`DVDI`]; empty when the user wrote none, which is refused.
    pub provider: String,
    /// As written: the driver, and what it is told when it makes the volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// GiB, for the driver that makes the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Other apps may name it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl ExternalVolume {
    /// The name of the volume driver; empty when there is none, which is refused.
    pub fn driver(&self) -> &str {
        self.options.get(DVDI_DRIVER).map_or("", String::as_str)
    }

    /// What the driver is told when it makes the volume. As in Marathon: options of other namespaces are not for it, and `size` wins over an option.
    pub fn driver_options(&self) -> BTreeMap<String, String> {
        let own = self.options.iter().filter_map(|(key, value)| Some((key.strip_prefix("dvdi/")?, value)));
        let own = own.filter(|(key, _)| !key.eq_ignore_ascii_case("driver")).map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        own.chain(self.size.map(|size| ("size".to_owned(), size.to_string()))).collect()
    }
}

/// A brick that an app asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrickVolume {
    /// Where the container sees it, as the user wrote it.
    pub container_path: String,
    /// Read-only or read-write.
    pub mode: Mode,
    /// MiB.
    pub size: u64,
    /// Where it is allocated.
    pub pool: PoolName,
    /// `None`: the pool's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<FileSystem>,
}

/// File systems that a brick may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// The default.
    #[default]
    Ext4,
    /// On request.
    Xfs,
}

impl FileSystem {
    /// As `mount` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// Access to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Mode {
    Ro,
    Rw,
}

/// The wait before a failed instance is launched again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The first wait, milliseconds.
    pub initial_ms: u64,
    /// Each further wait is this many times longer; at least 1.
    pub factor: f64,
    /// The longest wait, milliseconds.
    pub max_ms: u64,
}

/// Marathon's.
impl Default for Backoff {
    fn default() -> Self {
        Self { initial_ms: 1000, factor: 1.15, max_ms: 300_000 }
    }
}

/// Which instances are killed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum KillSelection {
    #[default]
    YoungestFirst,
    OldestFirst,
}

/// Fractions of the wanted number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeStrategy {
    /// At least this part stays healthy; 0 to 1.
    pub minimum_health_capacity: f64,
    /// At most this part comes on top; 0 to 1.
    pub maximum_over_capacity: f64,
}

/// Marathon's.
impl Default for UpgradeStrategy {
    fn default() -> Self {
        Self { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 }
    }
}

/// What happens to an instance whose node is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UnreachableStrategy {
    /// It is waited for, for ever.
    Disabled,
    /// Both counted from the loss of contact.
    #[serde(rename_all = "snake_case")]
    Enabled {
        /// After this many seconds a replacement is scheduled.
        inactive_after_seconds: u64,
        /// After this many seconds it is forgotten; not before it is inactive.
        expunge_after_seconds: u64,
    },
}

/// Marathon's: a replacement at once.
impl Default for UnreachableStrategy {
    fn default() -> Self {
        Self::Enabled { inactive_after_seconds: 0, expunge_after_seconds: 0 }
    }
}

/// What a version that did not change everything changed, by the time of the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionInfo {
    /// The last change of `instances`.
    pub last_scaling_at: Timestamp,
    /// The last change of anything else.
    pub last_config_change_at: Timestamp,
}
