//! What makes an app a pod: several containers of one instance, which share its network and its volumes.
//!
//! A pod is an [`App`] in everything that is about instances: size, place, back-off, upgrades, versions, owner. Its amounts are the sums over its
//! containers and the executor. Its ports ([`App::port_definitions`] with host networking, else [`App::port_mappings`]) and its health checks lie in
//! the order of the containers; each container says how many of them are its own, so that nothing is written down twice. Its persistent volumes are
//! those of the app, each with the volume's name for its path: they belong to an instance, whichever of its containers mount them.

pub mod input;
pub mod output;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    app::{App, Container, ContainerKind, Docker, Env, Fetch, Mode, Network, PersistentVolume, Volume},
    health::Check,
    id::{InstanceId, TaskId},
    instance::Instance,
    resources::{Resources, Scalar},
};
use indexmap::IndexMap;

/// In place of a container's name: what holds the network and the volumes of an instance. No container can have this name.
pub const HOLDER: &str = "_pod";

/// Where Mesos puts a relative mount path: the sandbox as an image sees it.
pub const SANDBOX: &str = "/mnt/mesos/sandbox";

/// The part of a definition that only pods have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// In the order written; at least one.
    pub containers: Vec<PodContainer>,
    /// In the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<PodVolume>,
    /// What one instance takes besides its containers.
    pub executor: Amounts,
    /// No network was written; that is the host's, and it is not shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub networks_left_out: bool,
    /// Kept and shown; every container has limits of its own here whatever it says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub legacy_shared_cgroups: bool,
}

/// How much something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// CPUs.
    pub cpus: Scalar,
    /// MiB.
    pub mem: Scalar,
    /// MiB.
    pub disk: Scalar,
    /// GPUs, whole ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Amounts {
    /// Without ports.
    pub fn resources(self) -> Resources {
        Resources { cpus: self.cpus, mem: self.mem, disk: self.disk, gpus: self.gpus, ports: Vec::new() }
    }
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodContainer {
    /// Unique in the pod.
    pub name: String,
    /// What runs; `None`: what the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// What it takes.
    pub amounts: Amounts,
    /// The protocols of each endpoint, as written. The endpoints themselves are as many of the app's ports, after those of the containers before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<Vec<String>>,
    /// True: one of the app's health checks, after those of the containers before, is its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_health_check: bool,
    /// What is asked of it only to be shown; its port is named by the place among the app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// `None`: a plain command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Goes over the pod's.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub environment: Env,
    /// Takes the place of the pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// In the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// What is put into its sandbox before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Fetch>,
    /// Go over the pod's.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// Milliseconds between SIGTERM and SIGKILL; `None`: the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_grace_ms: Option<u64>,
}

/// What a container runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The command.
    pub command: Command,
    /// With `argv`: its first word takes the place of the image's entry point; else all of it follows the entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_entrypoint: Option<bool>,
}

/// Mesos' two kinds of commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// For `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments; not empty.
    Argv(Vec<String>),
}

/// A container's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// As the user wrote it.
    pub id: String,
    /// Pull even when the image is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_pull: Option<bool>,
    /// Kept and shown.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
}

/// A volume that containers may mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodVolume {
    /// Unique in the pod.
    pub name: String,
    /// A directory or file of the node; `None`: the app's persistent volume of this name ([`App::persistent_volume`]), or if it has none, an empty
    /// directory for each launch of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Where a container sees a volume of its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// The volume.
    pub name: String,
    /// As written: absolute, or relative to the sandbox.
    pub mount_path: String,
    /// The container may not write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

impl VolumeMount {
    /// The path as an image sees it.
    pub fn path(&self) -> String {
        if self.mount_path.starts_with('/') { self.mount_path.clone() } else { format!("{SANDBOX}/{}", self.mount_path) }
    }

    /// Whether the container may write.
    pub fn mode(&self) -> Mode {
        if self.read_only == Some(true) { Mode::Ro } else { Mode::Rw }
    }
}

/// True for what may be the name of a container, an endpoint or a volume: safe as a file name, and never [`HOLDER`].
pub fn is_name(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

/// The task of what holds an instance's network and volumes.
pub fn holder(task: &TaskId) -> TaskId {
    TaskId { container: Some(HOLDER.into()), ..task.clone() }
}

impl Pod {
    /// Where the container of this name stands.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.containers.iter().position(|container| container.name == name)
    }

    /// Which of the app's ports are those of the container at `place`.
    pub fn ports_of(&self, place: usize) -> Range<usize> {
        let before = self.containers[..place].iter().map(|container| container.protocols.len()).sum();
        before..before + self.containers[place].protocols.len()
    }

    /// Which of the app's health checks is that of the container at `place`.
    pub fn check_of(&self, place: usize) -> Option<usize> {
        let before = self.containers[..place].iter().filter(|container| container.has_health_check).count();
        self.containers[place].has_health_check.then_some(before)
    }

    /// The container whose the health check in this place is.
    pub fn checked(&self, check: usize) -> Option<&PodContainer> {
        self.containers.iter().filter(|container| container.has_health_check).nth(check)
    }
}

/// One port of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Its name; always there.
    pub name: &'a str,
    /// The declared port of the container; `None` with host networking.
    pub container_port: Option<u16>,
    /// It has a port of the node.
    pub has_host_port: bool,
}

impl App {
    /// All ports of a pod, in order.
    pub fn endpoints(&self) -> Vec<Endpoint<'_>> {
        let of_host = self.port_definitions.iter().map(|definition| Endpoint {
            name: definition.name.as_deref().unwrap_or_default(),
            container_port: None,
            has_host_port: true,
        });
        let mapped = self.port_mappings().iter().map(|mapping| Endpoint {
            name: mapping.name.as_deref().unwrap_or_default(),
            container_port: Some(mapping.container_port),
            has_host_port: mapping.host_port.is_some(),
        });
        of_host.chain(mapped).collect()
    }

    /// The host port of each endpoint of a pod, in order; `host_ports` has one for each endpoint that has any.
    pub fn host_ports_by_endpoint(&self, host_ports: &[u16]) -> Vec<Option<u16>> {
        let mut ports = host_ports.iter().copied();
        self.endpoints().iter().map(|endpoint| endpoint.has_host_port.then(|| ports.next()).flatten()).collect()
    }

    /// The names of an instance's containers; of one that is no pod, `None`.
    pub fn containers(&self) -> impl Iterator<Item = Option<&str>> {
        let names = self.pod.iter().flat_map(|pod| &pod.containers).map(|container| Some(container.name.as_str()));
        names.chain(self.pod.is_none().then_some(None))
    }

    /// The persistent volume of a pod that has this name.
    pub fn persistent_volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.persistent_volumes().find(|volume| volume.container_path == name)
    }

    /// The user that each part of it names.
    pub fn users(&self) -> impl Iterator<Item = Option<&String>> {
        let of_containers = self.pod.iter().flat_map(|pod| &pod.containers).map(|container| container.user.as_ref());
        std::iter::once(self.user.as_ref()).chain(of_containers)
    }

    /// The container at `place` of a pod as an app of its own, for whoever runs it: it has no ports, because its network is the pod's.
    pub fn as_container(&self, place: usize) -> Option<Self> {
        let pod = self.pod.as_ref()?;
        let container = pod.containers.get(place)?;
        let (cmd, args, entrypoint) = command(container);
        let volumes = container.volume_mounts.iter().filter_map(|mount| self.mounted(pod, mount)).collect();
        let docker = container.image.as_ref().map(|image| Docker {
            image: image.id.clone(),
            force_pull_image: image.force_pull.unwrap_or_default(),
            privileged: false,
            parameters: entrypoint.into_iter().map(|program| ("entrypoint".to_owned(), program)).collect(),
        });
        let over = |lower: &Env, upper: &Env| lower.iter().chain(upper).map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Self {
            cmd,
            args,
            user: container.user.clone().or_else(|| self.user.clone()),
            env: over(&self.env, &container.environment),
            fetch: container.artifacts.clone(),
            cpus: container.amounts.cpus,
            mem: container.amounts.mem,
            disk: container.amounts.disk,
            gpus: container.amounts.gpus,
            labels: self.labels.iter().chain(&container.labels).map(|(name, value)| (name.clone(), value.clone())).collect(),
            container: Some(Container { kind: ContainerKind::Mesos, docker, port_mappings: Vec::new(), volumes }),
            port_definitions: Vec::new(),
            kill_grace_ms: container.kill_grace_ms,
            health_checks: Vec::new(),
            pod: None,
            ..self.clone()
        })
    }

    fn mounted(&self, pod: &Pod, mount: &VolumeMount) -> Option<Volume> {
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.name)?;
        let mode = mount.mode();
        let container_path = mount.path();
        Some(match (&volume.host, self.persistent_volume(&volume.name)) {
            (Some(host_path), _) => Volume::Host { container_path, host_path: host_path.clone(), mode },
            (None, Some(persistent)) => Volume::Persistent(PersistentVolume { container_path, mode, size: persistent.size }),
            (None, None) => Volume::Shared { container_path, name: volume.name.clone(), mode },
        })
    }
}

/// `cmd`, `args` and the entry point that takes the place of the image's.
fn command(container: &PodContainer) -> (Option<String>, Vec<String>, Option<String>) {
    let Some(exec) = &container.exec else { return (None, Vec::new(), None) };
    match &exec.command {
        Command::Shell(command) => (Some(command.clone()), Vec::new(), None),
        Command::Argv(argv) if exec.override_entrypoint == Some(true) && container.image.is_some() => {
            (None, argv[1..].to_vec(), argv.first().cloned())
        }
        Command::Argv(argv) => (None, argv.clone(), None),
    }
}

impl Instance {
    /// The present task of one container; `None`: that of an app.
    pub fn task_of(&self, container: Option<&str>) -> TaskId {
        TaskId { instance: self.id.clone(), container: container.map(Into::into), incarnation: self.incarnation }
    }
}

/// How Mesos names the executor of a pod's instance.
pub fn executor_id(instance: &InstanceId) -> String {
    format!("instance-{}.{}", instance.app().safe_form(), instance.uuid())
}

/// True with a network of its own, which something has to hold.
pub fn has_own_network(app: &App) -> bool {
    app.pod.is_some() && app.network != Network::Host
}
