//! Settings: flags over environment over file, one struct per subsystem, validated once.
//!
//! [`Config::from`] is pure: the environment, the file's text and what the [`Machine`] has come in as values. Behind it every setting is right by
//! itself and together with the others. Durations are [`Duration`]s, amounts of storage MiB.

mod flags;
mod layers;
mod machine;
mod marathon;
mod values;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use layers::Merged;
use serde_json::{Map, Value};

pub use flags::command;
pub use machine::Machine;
pub use values::{Attribute, DnsClients, Domain, PortSpan, ResourceOverride, Secret};

/// Exit status for settings that cannot be used, as Marathon's.
pub const EXIT_BAD_SETTINGS: u8 = 112;

/// Everything that `xtao serve` needs to know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// All of it by the flags' names, for people who look: text, or `null` where nothing was given and nothing is the default; no secrets.
    pub shown: Map<String, Value>,
    /// Where everything is kept. Absolute.
    pub work_dir: PathBuf,
    /// How much is logged: off, error, warn, info, debug or trace.
    pub logging_level: String,
    /// Who we say we are.
    pub identity: Identity,
    /// The API's listener.
    pub http: Http,
    /// What decisions depend on.
    pub core: Core,
    /// The embedded engine and the node that it makes of this machine.
    pub engine: Engine,
    /// The name server.
    pub dns: Dns,
    /// Storage that follows its service.
    pub bricks: Bricks,
    /// Where Docker reaches the platform's registry: on 127.0.0.1, which it trusts.
    pub registry_proxy: SocketAddr,
}

/// Who we say we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As others know this machine.
    pub hostname: String,
    /// The middle part of the services' names.
    pub framework_name: String,
    /// Where people find the web page.
    pub webui_url: Option<String>,
}

/// The API's listeners, and who is asked for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where plain HTTP is listened for, if it is. Loopback unless nobody is asked who they are. Port 0: any free one.
    pub address: SocketAddr,
    /// False: no plain HTTP.
    pub plain: bool,
    /// HTTP over TLS.
    pub tls: Option<Tls>,
    /// False: nobody is asked who they are.
    pub authentication: bool,
    /// An administrator beside the users.
    pub credentials: Option<Credentials>,
    /// What browsers show when they ask for a password. Fit for a header.
    pub realm: String,
    /// How long a token is good.
    pub token_lifetime: Duration,
    /// Requests that are answered at once; `None`: as many as there are connections.
    pub max_concurrent_requests: Option<usize>,
    /// Pages of this origin may read.
    pub allow_origin: Option<String>,
    /// Answers are compressed for who takes that.
    pub compression: bool,
    /// What the names of all metrics begin with.
    pub metrics_name_prefix: String,
    /// Metrics are served for Prometheus too.
    pub metrics_prometheus: bool,
}

/// HTTP over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Port 0: any free one.
    pub address: SocketAddr,
    /// Certificate, chain and key: PEM, or PKCS#12.
    pub keystore: PathBuf,
    /// Of a PKCS#12 keystore.
    pub keystore_password: Option<Secret>,
}

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl Http {
    /// Where the API is reached first of all: plain if there is that, otherwise by TLS.
    pub fn main_address(&self) -> SocketAddr {
        match &self.tls {
            Some(tls) if !self.plain => tls.address,
            _ => self.address,
        }
    }

    /// Every TCP address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.plain.then_some(self.address).into_iter().chain(self.tls.as_ref().map(|tls| tls.address))
    }

    /// True when nobody from elsewhere can connect.
    pub fn is_loopback_only(&self) -> bool {
        self.addresses().all(|address| address.ip().is_loopback())
    }
}

/// What decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Service ports: first.
    pub local_port_min: u16,
    /// Service ports: one past the last.
    pub local_port_max: u16,
    /// `@PORT` in host mode.
    pub host_mode_ports: PortSpan,
    /// `@PORT` in bridge mode; apart from those of host mode.
    pub bridge_mode_ports: PortSpan,
    /// Never allotted: what was given, and the ports on which this server listens. Ascending, each once.
    pub reserved_ports: Vec<u16>,
    /// Deployments that may run at once.
    pub max_running_deployments: usize,
    /// Health and readiness checks under way at once.
    pub max_concurrent_health_checks: usize,
    /// Versions kept of each app.
    pub max_versions: usize,
    /// Until a launch without any status is given up.
    pub task_launch_confirm_timeout: Duration,
    /// Until a task that is not running is killed.
    pub task_launch_timeout: Duration,
    /// Until a kill is repeated.
    pub kill_retry_timeout: Duration,
    /// Kills in flight at once.
    pub kill_chunk_size: usize,
    /// How long an unused offer is refused.
    pub decline_offer_duration: Duration,
    /// Launches on one offer at most.
    pub max_instances_per_offer: usize,
    /// Between two reconciliations.
    pub reconciliation_interval: Duration,
    /// In front of HOST and PORT variables.
    pub env_vars_prefix: Option<String>,
    /// The role of apps that name none.
    pub default_role: String,
    /// The network of apps in container mode that name none.
    pub default_network_name: Option<String>,
    /// The network that stands for bridge mode in `ipAddress`.
    pub bridge_name: String,
    /// Features of Marathon's that are to be named to clients. Each once.
    pub features: Vec<String>,
    /// New top-level groups prescribe their name as the role of their apps.
    pub new_group_enforce_role: bool,
    /// Which resources are used by what names no roles: `any`, `unreserved` or `reserved`.
    pub accepted_resource_roles: String,
    /// Nodes with GPUs are kept for what asks for GPUs.
    pub gpus_restricted: bool,
}

/// The embedded engine and the node that it makes of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    /// `unix:///path` or `tcp://host:port`.
    pub docker_host: String,
    /// Where services are reached, the preferred one first; never empty.
    pub node_addresses: Vec<IpAddr>,
    /// For constraints.
    pub attributes: Vec<Attribute>,
    /// Where the node is.
    pub domain: Option<Domain>,
    /// Instead of what the machine has.
    pub resources: ResourceOverride,
    /// Host directories that may be mapped although they would be refused.
    pub host_volume_allow: Vec<PathBuf>,
    /// Host directories that may not be mapped; counts before `host_volume_allow`.
    pub host_volume_deny: Vec<PathBuf>,
    /// The directory of the secrets.
    pub secrets_dir: Option<PathBuf>,
    /// Containers are started also when Docker has a part with a known way out of them.
    pub allow_vulnerable_runtime: bool,
}

/// The name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where it and its HTTP API listen; never empty, each once.
    pub addresses: Vec<IpAddr>,
    /// UDP and TCP.
    pub port: u16,
    /// The HTTP API's.
    pub http_port: u16,
    /// For whom other resolvers are asked, beside this machine itself.
    pub forward_allow: Vec<DnsClients>,
}

/// Storage that follows its service.
#[derive(Clone, Debug, PartialEq)]
pub struct Bricks {
    /// At least 1.0, which means not at all.
    pub overcommit: f64,
    /// MiB that must stay free.
    pub reserve: u64,
    /// Makes sure that a lost node is off.
    pub fence_command: Option<PathBuf>,
    /// From the loss of contact to the fence command.
    pub fence_after: Duration,
}

/// Something that was given and is not heeded, or works less well than it could. For the log; the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Why the server cannot start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The flags; or a request for help, which is none ([`ConfigError::exit_code`]).
    #[error("{0}")]
    Flags(clap::Error),
    /// One setting, named as it was given: `--flag`, `VARIABLE` or `key in FILE`.
    #[error("{at}: {reason}")]
    Setting {
        /// Where it stands.
        at: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The configuration file as a whole.
    #[error("the configuration file {path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    /// 0 for a request for help, [`EXIT_BAD_SETTINGS`] otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flags(error) if !error.use_stderr() => 0,
            _ => EXIT_BAD_SETTINGS,
        }
    }

    fn setting(at: &str, reason: impl Into<String>) -> Self {
        Self::Setting { at: at.to_owned(), reason: reason.into() }
    }
}

impl Config {
    /// The settings of this process: its environment, this machine, and the file that they name. `args` come after the word `serve`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(args: &[String]) -> Result<(Self, Vec<Warning>), ConfigError> {
        let readable =
            |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let mut env: Vec<(String, String)> = std::env::vars_os().filter_map(readable).collect();
        env.sort();
        let file = config_file(args, &env);
        let text = file.as_ref().map(std::fs::read_to_string).transpose();
        let text = text
            .map_err(|error| ConfigError::File { path: file.clone().unwrap_or_default(), reason: format!("it cannot be read: {error}") })?;
        Self::from(args, &env, file.as_deref().zip(text.as_deref()), &Machine::detect())
    }

    /// What `args`, `env` and `file` say, in this order of weight; the rest are defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from(
        args: &[String],
        env: &[(String, String)],
        file: Option<(&Path, &str)>,
        machine: &Machine,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let Merged { flags, shown, mut warnings } = layers::merge(args, env, file)?;
        let config = assemble(flags, shown, machine, &mut warnings)?;
        check(&config, &mut warnings)?;
        Ok((config, warnings))
    }
}

/// The file that `--config` or `XTAO_CONFIG` names.
fn config_file(args: &[String], env: &[(String, String)]) -> Option<PathBuf> {
    let args = layers::with_underscores(args);
    let flag = args.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix("--config")? {
        "" => args.get(at + 1).cloned(),
        rest => rest.strip_prefix('=').map(str::to_owned),
    });
    let variable = || env.iter().find(|(name, value)| name == "XTAO_CONFIG" && !value.is_empty()).map(|(_, value)| value.clone());
    flag.or_else(variable).map(PathBuf::from)
}

fn assemble(flags: flags::Flags, shown: Map<String, Value>, machine: &Machine, warnings: &mut Vec<Warning>) -> Result<Config, ConfigError> {
    let node_addresses = node_addresses(&flags, machine, warnings);
    let dns = Dns {
        addresses: dns_addresses(&flags, &node_addresses),
        port: flags.dns_port,
        http_port: flags.dns_http_port,
        forward_allow: flags.dns_forward_allow.clone(),
    };
    let http = http(&flags, warnings)?;
    let others = [dns.port, dns.http_port, flags.registry_proxy_port];
    let listeners: Vec<u16> = http.addresses().map(|address| address.port()).chain(others).collect();
    let ms = Duration::from_millis;
    Ok(Config {
        shown,
        work_dir: machine.directory.join(flags.work_dir),
        logging_level: flags.logging_level,
        identity: Identity {
            hostname: flags.hostname.unwrap_or_else(|| machine.host_name.clone()),
            framework_name: flags.framework_name,
            webui_url: flags.webui_url,
        },
        http,
        core: Core {
            local_port_min: flags.local_port_min,
            local_port_max: flags.local_port_max,
            host_mode_ports: flags.host_mode_ports,
            bridge_mode_ports: flags.bridge_mode_ports,
            reserved_ports: reserved_ports(&flags.reserved_ports, &listeners),
            max_running_deployments: flags.max_running_deployments,
            max_concurrent_health_checks: flags.max_concurrent_marathon_health_checks,
            max_versions: flags.zk_max_versions,
            task_launch_confirm_timeout: ms(flags.task_launch_confirm_timeout),
            task_launch_timeout: ms(flags.task_launch_timeout),
            kill_retry_timeout: ms(flags.kill_retry_timeout),
            kill_chunk_size: flags.kill_chunk_size,
            decline_offer_duration: ms(flags.decline_offer_duration),
            max_instances_per_offer: flags.max_instances_per_offer,
            reconciliation_interval: ms(flags.reconciliation_interval),
            env_vars_prefix: flags.env_vars_prefix,
            default_role: flags.mesos_role,
            default_network_name: flags.default_network_name,
            bridge_name: flags.mesos_bridge_name,
            features: each_once(flags.enable_features.into_iter()),
            new_group_enforce_role: flags.new_group_enforce_role == "top",
            accepted_resource_roles: flags.accepted_resource_roles_default_behavior,
            gpus_restricted: flags.gpu_scheduling_behavior == "restricted",
        },
        engine: Engine {
            docker_host: flags.docker_host,
            node_addresses,
            attributes: flags.agent_attributes,
            domain: flags.agent_domain,
            resources: flags.agent_resources,
            host_volume_allow: flags.host_volume_allow,
            host_volume_deny: flags.host_volume_deny,
            secrets_dir: flags.secrets_dir,
            allow_vulnerable_runtime: flags.allow_vulnerable_runtime,
        },
        dns,
        bricks: Bricks {
            overcommit: flags.brick_overcommit,
            reserve: flags.brick_reserve,
            fence_command: flags.fence_command,
            fence_after: Duration::from_secs(flags.fence_after),
        },
        registry_proxy: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), flags.registry_proxy_port),
    })
}

fn node_addresses(flags: &flags::Flags, machine: &Machine, warnings: &mut Vec<Warning>) -> Vec<IpAddr> {
    let mut addresses = each_once(flags.node_address.iter().copied());
    if addresses.is_empty() {
        addresses.extend(machine.address);
    }
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    if addresses.iter().all(IpAddr::is_loopback) {
        warnings.push(Warning(format!(
            "services are reached at {} only, which means from this machine alone; see --node_address",
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
        )));
    }
    addresses
}

fn dns_addresses(flags: &flags::Flags, node_addresses: &[IpAddr]) -> Vec<IpAddr> {
    if flags.dns_address.is_empty() {
        return each_once(node_addresses.iter().copied().chain([Ipv4Addr::LOCALHOST.into()]));
    }
    each_once(flags.dns_address.iter().copied())
}

/// TLS where nothing else is said.
const DEFAULT_HTTPS_PORT: u16 = 8443;

fn http(flags: &flags::Flags, warnings: &mut Vec<Warning>) -> Result<Http, ConfigError> {
    let tls = flags.ssl_keystore_path.clone().map(|keystore| {
        let address = flags.https_address.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let address = SocketAddr::new(address, flags.https_port.unwrap_or(DEFAULT_HTTPS_PORT));
        Tls { address, keystore, keystore_password: flags.ssl_keystore_password.clone() }
    });
    let http = Http {
        address: SocketAddr::new(flags.http_address, flags.http_port),
        plain: !flags.disable_http,
        tls,
        authentication: flags.authentication,
        credentials: flags.http_credentials.as_ref().map(credentials).transpose()?,
        realm: flags.http_realm.clone(),
        token_lifetime: Duration::from_secs(flags.token_lifetime * 3600),
        max_concurrent_requests: flags.http_max_concurrent_requests,
        allow_origin: flags.access_control_allow_origin.clone(),
        compression: !flags.disable_http_compression,
        metrics_name_prefix: flags.metrics_name_prefix.clone(),
        metrics_prometheus: !flags.disable_metrics_prometheus,
    };
    check_http(&http, flags, warnings)?;
    Ok(http)
}

/// The secret itself is in no message.
fn credentials(given: &Secret) -> Result<Credentials, ConfigError> {
    match given.reveal().split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Credentials { user: user.to_owned(), password: password.into() })
        }
        _ => Err(ConfigError::setting("--http_credentials", "must be USER:PASSWORD, neither of them empty")),
    }
}

fn check_http(http: &Http, flags: &flags::Flags, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    if !http.plain && http.tls.is_none() {
        let reason = "without HTTP there must be TLS: give a certificate with --ssl_keystore_path FILE";
        return Err(ConfigError::setting("--disable_http", reason));
    }
    if http.tls.is_none() && flags.https_address.is_some_and(|address| !address.is_loopback()) {
        let reason = "TLS needs a certificate: give one with --ssl_keystore_path FILE (certificate, chain and key as PEM or PKCS#12)";
        return Err(ConfigError::setting("--https_address", reason));
    }
    if http.tls.is_none() && (flags.https_address.is_some() || flags.https_port.is_some()) {
        warnings.push(Warning("--https_address and --https_port have no effect without --ssl_keystore_path".into()));
    }
    if http.tls.is_none() && flags.ssl_keystore_password.is_some() {
        warnings.push(Warning("--ssl_keystore_password has no effect without --ssl_keystore_path".into()));
    }
    if let Some(tls) = &http.tls
        && http.plain
        && tls.address.port() != 0
        && tls.address.port() == http.address.port()
        && (tls.address.ip() == http.address.ip() || tls.address.ip().is_unspecified() || http.address.ip().is_unspecified())
    {
        return Err(ConfigError::setting("--https_port", format!("{} is also the port of plain HTTP (--http_port)", tls.address.port())));
    }
    let exposed = http.plain && !http.address.ip().is_loopback();
    if exposed && http.authentication {
        let reason = format!(
            "the API does not listen on {0} without TLS: everybody on the way could read passwords and tokens. Use --https_address {0} with \
             --ssl_keystore_path FILE and leave --http_address on loopback; or let others in through an SSH tunnel or a proxy",
            http.address.ip()
        );
        return Err(ConfigError::setting("--http_address", reason));
    }
    if !http.authentication {
        let who = if http.is_loopback_only() { "everybody on this machine" } else { "EVERYBODY WHO REACHES ITS ADDRESS" };
        let listed = http.addresses().map(|address| address.to_string()).collect::<Vec<_>>().join(" and ");
        warnings.push(Warning(format!(
            "--authentication off: nobody is asked who they are. The API on {listed} gives {who} the rights of root on this machine"
        )));
    }
    Ok(())
}

fn reserved_ports(given: &[PortSpan], listeners: &[u16]) -> Vec<u16> {
    let mut ports: Vec<u16> =
        given.iter().flat_map(|span| span.first..=span.last).chain(listeners.iter().copied().filter(|port| *port > 0)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// What must hold between settings.
fn check(config: &Config, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let Config { http, core, engine, dns, bricks, .. } = config;
    if core.local_port_min >= core.local_port_max {
        let reason = format!("must be above --local_port_min, which is {}", core.local_port_min);
        return Err(ConfigError::setting("--local_port_max", reason));
    }
    if core.host_mode_ports.overlaps(core.bridge_mode_ports) {
        let reason = format!("{} overlaps --host_mode_ports {}", core.bridge_mode_ports, core.host_mode_ports);
        return Err(ConfigError::setting("--bridge_mode_ports", reason));
    }
    let taken = |port: u16, by: &str| ConfigError::setting("--dns_http_port", format!("{port} is also the port of {by} there"));
    for (api, flag) in [(http.plain.then_some(http.address), "--http_port"), (http.tls.as_ref().map(|tls| tls.address), "--https_port")] {
        let Some(api) = api.filter(|api| listens_beside(&dns.addresses, api.ip())) else { continue };
        if dns.http_port != 0 && dns.http_port == api.port() {
            return Err(taken(dns.http_port, &format!("the API ({flag})")));
        }
        if dns.port != 0 && dns.port == api.port() {
            return Err(ConfigError::setting("--dns_port", format!("{} is also the port of the API ({flag}) there", dns.port)));
        }
    }
    if dns.http_port != 0 && dns.http_port == dns.port {
        return Err(taken(dns.http_port, "the name server (--dns_port)"));
    }
    check_registry_proxy(config)?;
    let ports = &engine.resources.ports;
    if !ports.is_empty() && !ports.iter().any(|span| span.contains(core.bridge_mode_ports)) {
        warnings.push(Warning(format!(
            "--bridge_mode_ports {} are not all among the ports of --agent_resources; those outside are never used",
            core.bridge_mode_ports
        )));
    }
    if engine.docker_host.starts_with("tcp://") || engine.docker_host.starts_with("http://") {
        warnings.push(Warning(format!("--docker_host {} is neither encrypted nor protected by a password", engine.docker_host)));
    }
    if bricks.fence_command.is_some() || bricks.fence_after != Duration::from_secs(DEFAULT_FENCE_AFTER_SECONDS) {
        let reason = "this version runs one node, which it cannot lose contact with; see xtao brick fence";
        warnings.push(Warning(format!("--fence_command and --fence_after have no effect yet: {reason}")));
    }
    Ok(())
}

fn check_registry_proxy(config: &Config) -> Result<(), ConfigError> {
    let Config { http, dns, registry_proxy, .. } = config;
    let port = registry_proxy.port();
    let names = [(dns.port, "the name server (--dns_port)"), (dns.http_port, "the name server (--dns_http_port)")];
    let mut others = http.addresses().map(|address| (address.port(), "the API")).chain(names);
    match others.find(|(other, _)| *other == port && port != 0) {
        Some((_, by)) => Err(ConfigError::setting("--registry_proxy_port", format!("{port} is also the port of {by}"))),
        None => Ok(()),
    }
}

/// The default of `--fence_after`.
const DEFAULT_FENCE_AFTER_SECONDS: u64 = 60;

fn listens_beside(addresses: &[IpAddr], other: IpAddr) -> bool {
    addresses.iter().any(|address| *address == other || address.is_unspecified())
}

fn each_once<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

#[cfg(test)]
mod tests;
