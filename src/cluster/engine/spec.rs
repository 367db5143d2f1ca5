//! From a launch to the container that Docker is asked for, and from a container's labels back to what it holds. Pure.
//!
//! As Mesos does it: `cmd` runs as `/bin/sh -c` in place of the image's entry point, `args` follow the entry point; CPUs are shares (1024 each), a hard
//! limit only when asked for in the settings; memory is a hard limit without swap; the task id is the label `MESOS_TASK_ID`. With `resourceLimits` the
//! limits are theirs, and the memory that was asked for is reserved.
//! Unlike Mesos: NET_RAW is dropped, processes are limited, and ports are published on the node's addresses only.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use super::{
    Settings,
    agent::{Exit, Found, Holding, Runner, Seen},
    parameters,
};
use crate::model::{
    app::{App, IpcInfo, IpcMode, LinuxInfo, Network},
    cluster::{Launch, PodLaunch},
    id::{ClusterId, TaskId},
    pod,
    resources::{ResourceLimit, ResourceLimits, Resources, Scalar},
};

/// Which installation a container belongs to. Containers without it, or with another value, are never touched.
pub const LABEL_CLUSTER: &str = "xtao.cluster";
/// The task id, as Marathon's users know the label.
pub const LABEL_TASK: &str = "MESOS_TASK_ID";
const LABEL_OWNER: &str = "xtao.owner";
const LABEL_APP: &str = "xtao.app";
const LABEL_VERSION: &str = "xtao.version";
const LABEL_HASH: &str = "xtao.definition";
const LABEL_GPUS: &str = "xtao.gpus";
const LABEL_RESOURCES: &str = "xtao.resources";
const LABEL_PORTS: &str = "xtao.ports";
const LABEL_BRICKS: &str = "xtao.bricks";
const LABEL_NETWORK: &str = "xtao.network";
const LABEL_OVERHEAD: &str = "xtao.overhead";
const LABEL_ADDRESSES: &str = "xtao.addresses";
const LABEL_MEM_LIMIT: &str = "xtao.mem-limit";
const LABEL_KILL_GRACE: &str = "xtao.kill-grace-ms";
/// Where a container sees its sandbox, as Mesos has it.
pub const SANDBOX: &str = "/mnt/mesos/sandbox";
/// Where a container sees a volume: a relative path is one in the sandbox.
pub fn in_container(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{SANDBOX}/{path}") }
}

/// Labels below this are ours alone.
pub const LABEL_PREFIX: &str = "xtao.";

/// Mesos' smallest memory limit; Docker refuses less than 6 MiB.
const MIN_MEM: Scalar = Scalar::whole(32);
/// The kernel's smallest number of shares.
const MIN_CPU_SHARES: i64 = 2;
/// Microseconds: what a quota is a part of.
const CPU_PERIOD: i64 = 100_000;
/// Microseconds of a period: the kernel's least, and more than any machine has processors for.
const MIN_CPU_QUOTA: i64 = 1_000;
const MAX_CPU_QUOTA: i64 = 10_000_000_000;
/// Processes of a holder: itself, and one that Docker may need to start it.
const HOLDER_PIDS: i64 = 16;
/// Longest container and sandbox name.
const MAX_NAME_BYTES: usize = 200;

/// A directory or file of the node, resolved and checked, and where the container sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the node; free of symbolic links.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// The container may not write.
    pub read_only: bool,
}

/// One of Docker's own volumes, and where the container sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Docker's name of it.
    pub name: String,
    /// In the container.
    pub target: String,
    /// The container may not write.
    pub read_only: bool,
}

/// The task id as a name for files and containers: itself, or its tail and a hash when it is too long.
pub fn file_name(task: &TaskId) -> String {
    let text = task.to_string();
    if text.len() <= MAX_NAME_BYTES {
        return text;
    }
    let tail = text.len() - (MAX_NAME_BYTES - 17);
    format!("{:016x}-{}", fnv(text.as_bytes()), &text[tail..]) // Task ids are ASCII.
}

/// The container's name; the same for the same task, so that a repeated creation meets the first.
pub fn container_name(task: &TaskId) -> String {
    format!("xtao-{}", file_name(task))
}

/// The label that all containers of an installation carry, as Docker filters by it.
pub fn cluster_label(cluster: &ClusterId) -> String {
    format!("{LABEL_CLUSTER}={cluster}")
}

/// What is known of a container's surroundings when it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// The id of its image.
    pub image_id: &'a str,
    /// What is mounted.
    pub binds: &'a [Bind],
    /// Docker's own volumes that are mounted.
    pub external: &'a [External],
    /// The addresses of its pod's network, if it is in one.
    pub addresses: &'a [IpAddr],
    /// Variables with secrets.
    pub secrets: &'a [(String, String)],
    /// It begins in its sandbox, if that is mounted.
    pub in_sandbox: bool,
    /// The groups that its processes are in besides, for what host volumes are to show them.
    pub groups: &'a [u32],
    /// It may write to an ordinary user's host volumes.
    pub writes_as_user: bool,
}

/// The container for `launch`.
///
/// # Errors
/// What the definition asks for and this engine does not do: a sentence for the user.
pub fn container(launch: &Launch, settings: &Settings, given: Given<'_>) -> Result<ContainerCreateBody, String> {
    let app = &launch.app;
    let docker = app.container.as_ref().and_then(|container| container.docker.as_ref());
    let docker = docker.ok_or("it has no container.docker.image")?;
    if docker.privileged && !settings.allow_privileged {
        return Err("privileged containers are not allowed here".to_owned());
    }
    let container_info = app.container.as_ref().and_then(|container| container.linux_info.as_ref());
    let is_unconfined = container_info.and_then(|info| info.seccomp.as_ref()).is_some_and(|seccomp| seccomp.unconfined);
    if is_unconfined && !settings.allow_privileged {
        return Err("containers that may use all system calls (linuxInfo.seccomp.unconfined) are not allowed here".to_owned());
    }
    let (entrypoint, cmd) = match &app.cmd {
        Some(cmd) => (Some(vec!["/bin/sh".to_owned()]), Some(vec!["-c".to_owned(), cmd.clone()])),
        None if app.args.is_empty() => (None, None),
        None => (None, Some(app.args.clone())),
    };
    let (ipc_mode, shm_size) = memory(launch, container_info);
    let mut network = own_network(launch, settings)?;
    let mut body = ContainerCreateBody {
        image: Some(given.image_id.to_owned()),
        entrypoint,
        cmd,
        user: app.user.clone(),
        env: Some(environment(launch, given)),
        tty: app.tty,
        working_dir: (given.in_sandbox && has_sandbox(given.binds)).then(|| SANDBOX.to_owned()),
        labels: Some(HashMap::new()),
        exposed_ports: Some(network.exposed()),
        host_config: Some(HostConfig {
            port_bindings: Some(network.bindings()),
            network_mode: Some(network.mode),
            mounts: Some(given.binds.iter().map(mount).chain(given.external.iter().map(mount_external)).collect()),
            privileged: Some(docker.privileged),
            cap_drop: (!docker.privileged).then(|| vec!["NET_RAW".to_owned()]),
            security_opt: is_unconfined.then(|| vec!["seccomp=unconfined".to_owned()]),
            ipc_mode,
            shm_size,
            pids_limit: Some(settings.pids_limit),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            log_config: Some(log_config(settings)),
            init: Some(false),
            device_requests: gpus(&launch.gpus),
            ..limits(&launch.resources, app.resource_limits.unwrap_or_default(), settings.cpu_hard_limit)
        }),
        ..ContainerCreateBody::default()
    };
    parameters::apply(&docker.parameters, settings.allow_privileged, &mut body)?;
    confine(given, body.host_config.get_or_insert_default());
    let own = body.labels.get_or_insert_default();
    own.extend(labels(launch, &settings.cluster_id).into_iter().chain(pod_labels(launch, given.addresses)));
    if !launch.gpus.is_empty() {
        own.insert(LABEL_GPUS.to_owned(), serde_json::to_string(&launch.gpus).unwrap_or_default());
    }
    if let Some(limit) = app.resource_limits.and_then(|limits| limits.mem) {
        own.insert(LABEL_MEM_LIMIT.to_owned(), serde_json::to_string(&limit).unwrap_or_default());
    }
    if let Some(grace_ms) = app.kill_grace_ms {
        own.insert(LABEL_KILL_GRACE.to_owned(), grace_ms.to_string());
    }
    Ok(body)
}

/// What is not enough that host volumes are shown with other ids ([`super::idmap`]): a device node there is one on the node, of the user's account; and who
/// may change owners at all may do so also where the owner has no id here, and so take what is another's.
fn confine(given: Given<'_>, host: &mut HostConfig) {
    if !given.groups.is_empty() {
        host.group_add.get_or_insert_default().extend(given.groups.iter().map(u32::to_string));
    }
    if given.writes_as_user && host.privileged != Some(true) {
        host.cap_drop.get_or_insert_default().extend(["CHOWN", "MKNOD"].map(str::to_owned));
    }
}

/// The container that holds the network of the pod that `launch` is a part of, from the image with `image_id`. It can do nothing.
///
/// # Errors
/// As for [`container`].
pub fn holder(launch: &Launch, pod: &PodLaunch, settings: &Settings, image_id: &str) -> Result<ContainerCreateBody, String> {
    let definition = pod.app.pod.as_ref();
    let resources = definition.map(|pod| pod.executor.resources()).unwrap_or_default();
    let mut network = NetworkPart {
        mode: network_mode(&pod.app.network)?,
        published: ports(&pod.app, &pod.ports, &pod.container_ports, &settings.node_addresses)?,
    };
    let task = pod::holder(&launch.task);
    let holds = Launch { task, resources: Resources::default(), ports: Vec::new(), bricks: Vec::new(), ..launch.clone() };
    Ok(ContainerCreateBody {
        image: Some(image_id.to_owned()),
        entrypoint: Some(vec![super::holder::PROGRAM.to_owned()]),
        user: Some("65534:65534".to_owned()),
        // It hears no other, and whoever stops Docker shall not wait for it.
        stop_signal: Some("SIGKILL".to_owned()),
        labels: Some(labels(&holds, &settings.cluster_id).into_iter().collect()),
        exposed_ports: Some(network.exposed()),
        host_config: Some(HostConfig {
            port_bindings: Some(network.bindings()),
            network_mode: Some(network.mode),
            cap_drop: Some(vec!["ALL".to_owned()]),
            ipc_mode: definition.filter(|pod| pod::shares_memory(pod)).map(|_| "shareable".to_owned()),
            shm_size: definition.and_then(|pod| bytes_of_memory(pod.linux_info.as_ref()?.ipc_info?)),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            pids_limit: Some(HOLDER_PIDS),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            init: Some(false),
            ..limits(&resources, ResourceLimits::default(), settings.cpu_hard_limit)
        }),
        ..ContainerCreateBody::default()
    })
}

/// `ipc_mode` and `shm_size`. Of a container that shares its pod's memory, whose is that of the holder.
fn memory(launch: &Launch, info: Option<&LinuxInfo>) -> (Option<String>, Option<i64>) {
    match info.and_then(|info| info.ipc_info) {
        None => (None, None),
        Some(ipc) if ipc.mode == IpcMode::Private => (Some("private".to_owned()), bytes_of_memory(ipc)),
        Some(_) => (Some(format!("container:{}", container_name(&pod::holder(&launch.task)))), None),
    }
}

fn bytes_of_memory(ipc: IpcInfo) -> Option<i64> {
    ipc.shm_size.map(|mib| i64::from(mib) << 20)
}

/// How a container is connected.
struct NetworkPart {
    mode: String,
    published: BTreeMap<String, Vec<PortBinding>>,
}

impl NetworkPart {
    fn exposed(&self) -> Vec<String> {
        self.published.keys().cloned().collect()
    }

    fn bindings(&mut self) -> HashMap<String, Option<Vec<PortBinding>>> {
        let published = std::mem::take(&mut self.published).into_iter();
        published.filter(|(_, to)| !to.is_empty()).map(|(port, to)| (port, Some(to))).collect()
    }
}

/// The network of a container: of a pod with an own network, that of its holder.
fn own_network(launch: &Launch, settings: &Settings) -> Result<NetworkPart, String> {
    if launch.pod.as_ref().is_some_and(|shared| pod::has_own_network(&shared.app)) {
        let mode = format!("container:{}", container_name(&pod::holder(&launch.task)));
        return Ok(NetworkPart { mode, published: BTreeMap::new() });
    }
    let published = ports(&launch.app, &launch.ports, &launch.container_ports, &settings.node_addresses)?;
    Ok(NetworkPart { mode: network_mode(&launch.app.network)?, published })
}

fn has_sandbox(binds: &[Bind]) -> bool {
    binds.iter().any(|bind| bind.target == SANDBOX)
}

/// Marathon's variables, and where the sandbox is; the definition's own win.
fn environment(launch: &Launch, given: Given<'_>) -> Vec<String> {
    let mut variables = launch.environment();
    variables.retain(|(name, _)| !given.secrets.iter().any(|(secret, _)| secret == name));
    variables.extend(given.secrets.iter().cloned());
    if has_sandbox(given.binds) && !variables.iter().any(|(name, _)| name == "MESOS_SANDBOX") {
        variables.push(("MESOS_SANDBOX".to_owned(), SANDBOX.to_owned()));
    }
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn limits(resources: &Resources, given: ResourceLimits, cpu_hard_limit: bool) -> HostConfig {
    let shares = i64::try_from(resources.cpus.0 * 1024 / 1000).unwrap_or(i64::MAX).clamp(MIN_CPU_SHARES, 262_144);
    let bytes = |mem: Scalar| i64::try_from(mem.max(MIN_MEM).bytes()).unwrap_or(i64::MAX);
    let requested = (resources.mem > Scalar::ZERO).then(|| bytes(resources.mem));
    let memory = match given.mem {
        None => requested,
        Some(ResourceLimit::Unlimited) => None,
        Some(ResourceLimit::At(limit)) => Some(bytes(limit.max(resources.mem))),
    };
    let quota = match given.cpus {
        Some(ResourceLimit::At(limit)) => Some(limit.max(resources.cpus)),
        Some(ResourceLimit::Unlimited) | None => None,
    };
    let hard = given.cpus.is_none() && cpu_hard_limit && resources.cpus > Scalar::ZERO;
    HostConfig {
        cpu_shares: Some(shares),
        nano_cpus: hard.then(|| i64::try_from(resources.cpus.0 * 1_000_000).unwrap_or(i64::MAX)),
        // Docker takes no more `nano_cpus` than the machine has; a limit above that is no mistake here.
        cpu_period: quota.map(|_| CPU_PERIOD),
        cpu_quota: quota.map(|cpus| i64::try_from(cpus.0.saturating_mul(100)).unwrap_or(i64::MAX).clamp(MIN_CPU_QUOTA, MAX_CPU_QUOTA)),
        memory,
        memory_swap: memory,
        memory_reservation: given.mem.and(requested),
        ..HostConfig::default()
    }
}

/// As `docker run --gpus device=0,3` asks for them.
fn gpus(numbers: &[u32]) -> Option<Vec<DeviceRequest>> {
    let request = DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: Some(numbers.iter().map(u32::to_string).collect()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    };
    (!numbers.is_empty()).then(|| vec![request])
}

fn log_config(settings: &Settings) -> HostConfigLogConfig {
    // Docker's own copy only bridges a restart of ours; the sandbox files are what is kept.
    let config = [("max-size", format!("{}k", (settings.log_file_bytes / 1024).max(64))), ("max-file", "2".to_owned())];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(config.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
    }
}

fn network_mode(network: &Network) -> Result<String, String> {
    match network {
        Network::Host => Ok("host".to_owned()),
        Network::Bridge => Ok("bridge".to_owned()),
        Network::Container(networks) => match networks.as_slice() {
            [network] => Ok(network.name.clone()),
            _ => Err("it names several container networks, and this engine connects a container to one".to_owned()),
        },
    }
}

/// What is published, by `port/protocol` of the container.
fn ports(
    app: &App,
    host_ports: &[u16],
    container_ports: &[u16],
    addresses: &[IpAddr],
) -> Result<BTreeMap<String, Vec<PortBinding>>, String> {
    let mut published: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    if app.network == Network::Host {
        return Ok(published);
    }
    let mut host_ports = host_ports.iter();
    for (at, mapping) in app.port_mappings().iter().enumerate() {
        let container_port = container_ports.get(at).copied().unwrap_or(mapping.container_port);
        let host_port = match mapping.host_port {
            Some(_) => Some(host_ports.next().ok_or("the launch has fewer host ports than the definition asks for")?),
            None => None,
        };
        for protocol in mapping.protocol.each() {
            let bindings = published.entry(format!("{container_port}/{protocol}")).or_default();
            let Some(host_port) = host_port else { continue };
            bindings.extend(
                addresses.iter().map(|address| PortBinding { host_ip: Some(address.to_string()), host_port: Some(host_port.to_string()) }),
            );
        }
    }
    Ok(published)
}

fn mount(bind: &Bind) -> Mount {
    Mount {
        target: Some(bind.target.clone()),
        source: Some(bind.source.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(bind.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn mount_external(volume: &External) -> Mount {
    Mount {
        target: Some(volume.target.clone()),
        source: Some(volume.name.clone()),
        typ: Some(MountType::VOLUME),
        read_only: Some(volume.read_only),
        ..Mount::default()
    }
}

/// What a volume that is made for `launch` is marked with: whose it is.
pub fn volume_labels(launch: &Launch, cluster: &ClusterId) -> HashMap<String, String> {
    let labels = [(LABEL_CLUSTER, cluster.to_string()), (LABEL_OWNER, launch.owner.to_string()), (LABEL_APP, launch.app.id.to_string())];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// True when a volume with these labels was made for the owner of `launch`.
pub fn is_own_volume(found: &HashMap<String, String>, launch: &Launch, cluster: &ClusterId) -> bool {
    let is = |name: &str, value: &str| found.get(name).is_some_and(|found| found == value);
    is(LABEL_CLUSTER, &cluster.to_string()) && is(LABEL_OWNER, launch.owner.as_str())
}

fn labels(launch: &Launch, cluster: &ClusterId) -> [(String, String); 10] {
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let bricks: Vec<(&str, u64)> = launch.bricks.iter().map(|brick| (brick.name.as_str(), brick.epoch)).collect();
    let network = if launch.app.network == Network::Host { "host" } else { "own" };
    let resources = Resources { ports: Vec::new(), ..launch.resources.clone() };
    [
        (LABEL_CLUSTER, cluster.to_string()),
        (LABEL_TASK, launch.task.to_string()),
        (LABEL_OWNER, launch.owner.to_string()),
        (LABEL_APP, launch.app.id.to_string()),
        (LABEL_VERSION, launch.app.version.to_string()),
        (LABEL_HASH, format!("{:016x}", fnv(json(serde_json::to_string(&*launch.app)).as_bytes()))),
        (LABEL_RESOURCES, json(serde_json::to_string(&resources))),
        (LABEL_PORTS, json(serde_json::to_string(&launch.ports))),
        (LABEL_BRICKS, json(serde_json::to_string(&bricks))),
        (LABEL_NETWORK, network.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// What a container of a pod has besides: its network does not show where it is, and its own amounts are not all that it holds.
fn pod_labels(launch: &Launch, addresses: &[IpAddr]) -> Vec<(String, String)> {
    let Some(shared) = &launch.pod else { return Vec::new() };
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let mut labels = vec![(LABEL_OVERHEAD.to_owned(), json(serde_json::to_string(&launch.overhead())))];
    if pod::has_own_network(&shared.app) {
        labels.push((LABEL_ADDRESSES.to_owned(), json(serde_json::to_string(addresses))));
    }
    labels
}

/// The addresses of a container in its pod's network; `None`: it is not in one.
pub fn pod_addresses(labels: &HashMap<String, String>) -> Option<Vec<IpAddr>> {
    serde_json::from_str(labels.get(LABEL_ADDRESSES)?).ok()
}

/// What a container of ours holds, by its labels, which do not say whether it was asked to end. `None`: it is not ours, or its labels make no sense.
pub fn found(labels: &HashMap<String, String>, state: Seen) -> Option<Found> {
    let task = labels.get(LABEL_TASK)?.parse().ok()?;
    let resources = serde_json::from_str(labels.get(LABEL_RESOURCES)?).ok()?;
    let ports = serde_json::from_str(labels.get(LABEL_PORTS)?).ok()?;
    let host_network = labels.get(LABEL_NETWORK)? == "host";
    let bricks = labels.get(LABEL_BRICKS)? != "[]";
    let overhead = labels.get(LABEL_OVERHEAD).map_or(Some(Resources::default()), |text| serde_json::from_str(text).ok())?;
    let in_pod = labels.contains_key(LABEL_ADDRESSES);
    let gpus = labels.get(LABEL_GPUS).map_or(Some(Vec::new()), |gpus| serde_json::from_str(gpus).ok())?;
    let mem_limit = labels.get(LABEL_MEM_LIMIT).map_or(Some(None), |limit| serde_json::from_str(limit).ok())?;
    let kill_grace_ms = labels.get(LABEL_KILL_GRACE).and_then(|grace_ms| grace_ms.parse().ok());
    let runner = Runner::Docker;
    let holding = Holding { resources, gpus, ports, host_network, bricks, runner, in_pod, overhead, mem_limit, kill_grace_ms };
    Some(Found { task, holding, state, asked: None })
}

/// How far an inspected container is.
pub fn seen(container: &bollard::models::ContainerInspectResponse, killed: bool) -> Seen {
    use bollard::models::ContainerStateStatusEnum as Status;
    let state = container.state.as_ref();
    match state.and_then(|state| state.status) {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => Seen::Running { addresses: addresses(container) },
        Some(Status::CREATED) | None => Seen::Created,
        Some(_) => Seen::Ended(Exit {
            code: state.and_then(|state| state.exit_code).unwrap_or(-1),
            oom: state.and_then(|state| state.oom_killed).unwrap_or(false),
            error: state.and_then(|state| state.error.clone()).unwrap_or_default(),
            killed,
            ..Exit::default()
        }),
    }
}

/// The container's own addresses, one for each network.
pub fn addresses(container: &bollard::models::ContainerInspectResponse) -> Vec<IpAddr> {
    if let Some(of_pod) = container.config.as_ref().and_then(|config| pod_addresses(config.labels.as_ref()?)) {
        return of_pod;
    }
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    networks.into_iter().flat_map(|networks| networks.values()).filter_map(|network| network.ip_address.as_ref()?.parse().ok()).collect()
}

/// FNV-1a: the same in every version.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
