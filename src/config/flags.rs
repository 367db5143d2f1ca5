//! The flags of `xtao serve` that mean something, with the help that `--help` shows. Marathon's names where Marathon has the flag.

use std::{any::TypeId, net::IpAddr, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value};

use super::{
    marathon::{self, Takes},
    values::{self, Attribute, DnsClients, Domain, PortSpan, ResourceOverride, Secret},
};

/// Flags as given, or their defaults; each right by itself. What must hold between them is checked when they become a
/// [`Config`](super::Config).
#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case")]
pub struct Flags {
    /// TOML file with settings: the flags' names as keys, lists as arrays. A flag counts before the environment, the environment before the file.
    #[arg(long, value_name = "FILE", help_heading = GENERAL)]
    pub config: Option<PathBuf>,

    /// Where everything is kept: the store, bricks, the tasks' output, and the sockets for commands on this machine. Made if missing; others may
    /// pass through it to xtao.sock, and no more. Used by one server at a time.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xtao", help_heading = GENERAL)]
    pub work_dir: PathBuf,

    /// How much is logged to standard error: off, error, warn, info, debug or trace. RUST_LOG, if set, counts instead and can name modules.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = values::logging_level, help_heading = GENERAL)]
    pub logging_level: String,

    /// The name of this machine as others know it: advertised as the leader, and what constraints on `hostname` compare. Default: the machine's
    /// host name.
    #[arg(long, value_name = "NAME", value_parser = values::host_name, help_heading = GENERAL)]
    pub hostname: Option<String>,

    /// The middle part of the services' names: `web` is reached as `web.marathon.mesos`. One label: letters, digits and dashes.
    #[arg(long, value_name = "NAME", default_value = "marathon", value_parser = values::label, help_heading = GENERAL)]
    pub framework_name: String,

    /// Address of the API over plain HTTP. A loopback address: passwords and tokens can be read on the way. For others see --https_address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = values::address, help_heading = HTTP)]
    pub http_address: IpAddr,

    /// TCP port of the API over plain HTTP; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080, help_heading = HTTP)]
    pub http_port: u16,

    /// No plain HTTP: the API by TLS and through the unix sockets only.
    #[arg(long, overrides_with = "http", help_heading = HTTP)]
    pub disable_http: bool,

    /// Address of the API by TLS. Others than loopback need users with a password first ('xtao auth password'), or --http_credentials.
    /// Default: 127.0.0.1.
    #[arg(long, value_name = "ADDRESS", value_parser = values::address, help_heading = HTTP)]
    pub https_address: Option<IpAddr>,

    /// TCP port of the API by TLS; 0 takes any free one. Default: 8443.
    #[arg(long, value_name = "PORT", help_heading = HTTP)]
    pub https_port: Option<u16>,

    /// File with the certificate, its chain and its key, as PEM or PKCS#12; turns TLS on. When the file changes, the new certificate is used within
    /// seconds. (Keystores in Java's own form, JKS, are not read: convert them.)
    #[arg(long, value_name = "FILE", help_heading = HTTP)]
    pub ssl_keystore_path: Option<PathBuf>,

    /// Password of a PKCS#12 keystore. Others on the machine can read flags: give it as MARATHON_SSL_KEYSTORE_PASSWORD, or in a configuration file
    /// that only its owner may read.
    #[arg(long, value_name = "PASSWORD", help_heading = HTTP)]
    pub ssl_keystore_password: Option<Secret>,

    /// An administrator beside the users, as USER:PASSWORD; from then on credentials are required. Others on the machine can read flags: give it
    /// as MARATHON_HTTP_CREDENTIALS, or in a configuration file that only its owner may read.
    #[arg(long, value_name = "USER:PASSWORD", help_heading = HTTP)]
    pub http_credentials: Option<Secret>,

    /// off: nobody is asked who they are, and whoever reaches the API may do everything. Only for tests, or behind a proxy that asks.
    #[arg(long, value_name = "on|off", default_value = "on", action = ArgAction::Set, value_parser = values::on_or_off, help_heading = HTTP)]
    pub authentication: bool,

    /// Hours for which a token from POST /v2/auth/token is good.
    #[arg(long, value_name = "HOURS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=8760), help_heading = HTTP)]
    pub token_lifetime: u64,

    /// What browsers show when they ask for a password.
    #[arg(long, value_name = "TEXT", default_value = "Mesosphere", value_parser = values::realm, help_heading = HTTP)]
    pub http_realm: String,

    /// Requests that are answered at once; one more is refused with 503. Default: as many as there are connections, of which there are 2048.
    #[arg(long, value_name = "N", value_parser = positive, help_heading = HTTP)]
    pub http_max_concurrent_requests: Option<usize>,

    /// The origin (`https://console.example`, or `*`) whose pages may read from the API. Of several, separated by commas, the last one counts.
    #[arg(long, value_name = "ORIGIN", value_parser = values::origin, help_heading = HTTP)]
    pub access_control_allow_origin: Option<String>,

    /// Answers are sent as they are, also to clients that take them compressed.
    #[arg(long, overrides_with = "http_compression", help_heading = HTTP)]
    pub disable_http_compression: bool,

    /// What the names of all metrics begin with.
    #[arg(long, value_name = "PREFIX", default_value = "marathon", value_parser = values::label, help_heading = HTTP)]
    pub metrics_name_prefix: String,

    /// No metrics for Prometheus at /metrics/prometheus.
    #[arg(long, overrides_with = "metrics_prometheus", help_heading = HTTP)]
    pub disable_metrics_prometheus: bool,

    /// Where people find the web page, when it is not this server itself (shown in /v2/info).
    #[arg(long, value_name = "URL", help_heading = HTTP)]
    pub webui_url: Option<String>,

    /// Addresses under which this node's services are reached; names resolve to them and ports are opened on them. Repeatable, or separated by
    /// commas. Default: the address of the route out.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = values::node_address, help_heading = ENGINE)]
    pub node_address: Vec<IpAddr>,

    /// Where Docker listens: unix:///path or tcp://host:port.
    #[arg(long, value_name = "URL", default_value = "unix:///var/run/docker.sock", value_parser = values::docker_host, help_heading = ENGINE)]
    pub docker_host: String,

    /// What constraints can ask of this node, as Mesos writes it: `rack:1;disk:ssd;ports:[5-7];cards:{a,b}`.
    #[arg(long, value_name = "NAME:VALUE;...", value_delimiter = ';', value_parser = values::attribute, help_heading = ENGINE)]
    pub agent_attributes: Vec<Attribute>,

    /// Where this node is, for constraints on @region and @zone.
    #[arg(long, value_name = "REGION/ZONE", value_parser = values::domain, help_heading = ENGINE)]
    pub agent_domain: Option<Domain>,

    /// What this node offers, as Mesos writes it: `cpus:4;mem:8192;disk:100000;gpus:1;ports:[31000-32000]` (MiB). Default for each: what the machine
    /// has, no GPUs, and ports 31000-32000.
    #[arg(long, value_name = "NAME:AMOUNT;...", default_value = "", value_parser = values::resources, hide_default_value = true, help_heading = ENGINE)]
    pub agent_resources: ResourceOverride,

    /// Host directories that apps may map although they would be refused; with everything below. Repeatable, or separated by commas.
    #[arg(long, value_name = "DIR", value_delimiter = ',', value_parser = values::absolute_path, help_heading = ENGINE)]
    pub host_volume_allow: Vec<PathBuf>,

    /// Host directories that apps may not map although they could; with everything below. Counts before --host_volume_allow.
    #[arg(long, value_name = "DIR", value_delimiter = ',', value_parser = values::absolute_path, help_heading = ENGINE)]
    pub host_volume_deny: Vec<PathBuf>,

    /// The directory of the secrets that apps may name with --enable_features secrets: one file for each, at the path that its `source` names. Files are
    /// root's, closed to others, and of 64 KiB at most; what is below the name of a user is that user's, everything else administrators'.
    #[arg(long, value_name = "DIR", value_parser = values::absolute_path, help_heading = ENGINE)]
    pub secrets_dir: Option<PathBuf>,

    /// on: containers are started also when Docker has a part with a known way out of them, such as an old runc; see /v2/info?embed=engine.
    #[arg(long, value_name = "on|off", default_value = "off", action = ArgAction::Set, value_parser = values::on_or_off, help_heading = ENGINE)]
    pub allow_vulnerable_runtime: bool,

    /// Addresses of the name server. Repeatable, or separated by commas. Default: the node's addresses and 127.0.0.1.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = values::address, help_heading = DNS)]
    pub dns_address: Vec<IpAddr>,

    /// UDP and TCP port of the name server. Resolvers ask port 53 and nothing else.
    #[arg(long, value_name = "PORT", default_value_t = 53, help_heading = DNS)]
    pub dns_port: u16,

    /// TCP port of the name server's HTTP API, as Mesos-DNS has it.
    #[arg(long, value_name = "PORT", default_value_t = 8123, help_heading = DNS)]
    pub dns_http_port: u16,

    /// Whose questions about names that are not the platform's are passed on to the resolvers in /etc/resolv.conf: networks (10.1.0.0/16), single
    /// addresses, `attached` for all networks that are attached to this machine (container bridges included), `any` for everybody. This machine
    /// itself always; others are refused. Repeatable, or separated by commas.
    #[arg(
        long,
        value_name = "NETWORK",
        value_delimiter = ',',
        default_value = "attached",
        value_parser = values::dns_clients,
        help_heading = DNS
    )]
    pub dns_forward_allow: Vec<DnsClients>,

    /// TCP port on 127.0.0.1 through which this node's Docker pulls from the platform's registry; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 5001, help_heading = ENGINE)]
    pub registry_proxy_port: u16,

    /// Ports for @PORT in host mode. Outside what nodes offer, so that nothing else takes them.
    #[arg(long, value_name = "FIRST-LAST", default_value = "1024-9999", value_parser = values::port_span, help_heading = PORTS)]
    pub host_mode_ports: PortSpan,

    /// Ports for @PORT in bridge mode. Inside what nodes offer.
    #[arg(long, value_name = "FIRST-LAST", default_value = "31000-32000", value_parser = values::port_span, help_heading = PORTS)]
    pub bridge_mode_ports: PortSpan,

    /// Ports that @PORT never gets, besides those on which this server listens: numbers and ranges separated by commas.
    #[arg(
        long,
        value_name = "PORTS",
        value_delimiter = ',',
        default_value = "2181,2375,2376,3306,5000,5050,5051,5432,6379,8053,8080,8123,8443,9090",
        value_parser = values::port_or_span,
        help_heading = PORTS
    )]
    pub reserved_ports: Vec<PortSpan>,

    /// First service port that is assigned to an app which asks for any.
    #[arg(long, value_name = "PORT", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..), help_heading = PORTS)]
    pub local_port_min: u16,

    /// One past the last service port.
    #[arg(long, value_name = "PORT", default_value_t = 20_000, value_parser = clap::value_parser!(u16).range(1..), help_heading = PORTS)]
    pub local_port_max: u16,

    /// How many times the sizes of all bricks may exceed the room of their pool: bricks take only what is written into them. 1: never.
    #[arg(long, value_name = "FACTOR", default_value_t = 10.0, value_parser = values::overcommit, help_heading = BRICKS)]
    pub brick_overcommit: f64,

    /// MiB that must stay free where bricks are kept; below that none is made or grown.
    #[arg(long, value_name = "MIB", default_value_t = 2048, help_heading = BRICKS)]
    pub brick_reserve: u64,

    /// Program that makes sure that a lost node is off, called with the node and the lease's number; only its exit status 0 frees the node's bricks.
    #[arg(long, value_name = "PROGRAM", value_parser = values::absolute_path, help_heading = BRICKS)]
    pub fence_command: Option<PathBuf>,

    /// Seconds after the loss of contact with a node until --fence_command is called.
    #[arg(long, value_name = "SECONDS", default_value_t = super::DEFAULT_FENCE_AFTER_SECONDS, help_heading = BRICKS)]
    pub fence_after: u64,

    /// Deployments that may run at once; one more is refused with 403.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, help_heading = CORE)]
    pub max_running_deployments: usize,

    /// Health and readiness checks under way at once.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive, help_heading = CORE)]
    pub max_concurrent_marathon_health_checks: usize,

    /// Versions kept of each app.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = positive, help_heading = CORE)]
    pub zk_max_versions: usize,

    /// Milliseconds until a launch without any sign of life is given up.
    #[arg(long, value_name = "MS", default_value_t = 300_000, help_heading = CORE)]
    pub task_launch_confirm_timeout: u64,

    /// Milliseconds until a task that is not running yet is killed; pulling its image counts.
    #[arg(long, value_name = "MS", default_value_t = 300_000, help_heading = CORE)]
    pub task_launch_timeout: u64,

    /// Milliseconds until a kill that was not confirmed is repeated.
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..), help_heading = CORE)]
    pub kill_retry_timeout: u64,

    /// Kills in flight at once.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, help_heading = CORE)]
    pub kill_chunk_size: usize,

    /// Milliseconds for which an offer that nothing fits is refused.
    #[arg(long, value_name = "MS", default_value_t = 120_000, help_heading = CORE)]
    pub decline_offer_duration: u64,

    /// Launches on one offer at most. (Marathon: 5; here an offer is used as far as it goes.)
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive, help_heading = CORE)]
    pub max_instances_per_offer: usize,

    /// Milliseconds between two comparisons of what should run with what does.
    #[arg(long, value_name = "MS", default_value_t = 600_000, value_parser = clap::value_parser!(u64).range(1..), help_heading = CORE)]
    pub reconciliation_interval: u64,

    /// Put in front of the names of HOST and PORT variables in the tasks' environment.
    #[arg(long, value_name = "PREFIX", help_heading = CORE)]
    pub env_vars_prefix: Option<String>,

    /// The role of apps that name none.
    #[arg(long, value_name = "ROLE", default_value = "*", help_heading = CORE)]
    pub mesos_role: String,

    /// The network of apps in container mode that name none.
    #[arg(long, value_name = "NAME", help_heading = CORE)]
    pub default_network_name: Option<String>,

    /// The name that stands for bridge mode where an app names a network in `ipAddress`, as older definitions do.
    #[arg(long, value_name = "NAME", default_value = "mesos-bridge", help_heading = CORE)]
    pub mesos_bridge_name: String,

    /// Features of Marathon's that clients look for in /v2/info: vips, task_killing, external_volumes, secrets, gpu_resources. What there is of
    /// them here is there without, but for secrets, which apps may name only with it (see --secrets_dir), and task_killing: with it tasks that are
    /// being ended show as TASK_KILLING. Separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = FEATURES, help_heading = CORE)]
    pub enable_features: Vec<String>,

    /// Whether new top-level groups prescribe their name as the role of their apps: `off` or `top`.
    #[arg(long, value_name = "WHEN", value_parser = ["off", "top"], default_value = "off", help_heading = CORE)]
    pub new_group_enforce_role: String,

    /// Resources used by apps without acceptedResourceRoles: those reserved for their role (`reserved`), those of everybody (`unreserved`), or `any`.
    #[arg(long, value_name = "WHICH", value_parser = ["any", "unreserved", "reserved"], default_value = "any", help_heading = CORE)]
    pub accepted_resource_roles_default_behavior: String,

    /// Whether a node with free GPUs is kept for apps that ask for some: `restricted` or `unrestricted`. An app's label GPU_SCHEDULING_BEHAVIOR goes
    /// before it.
    #[arg(long, value_name = "HOW", value_parser = ["restricted", "unrestricted"], default_value = "restricted", help_heading = CORE)]
    pub gpu_scheduling_behavior: String,
}

/// As Marathon knows them.
const FEATURES: [&str; 6] = ["vips", "task_killing", "external_volumes", "secrets", "gpu_resources", "maintenance_mode"];

const GENERAL: &str = "General";
const HTTP: &str = "API";
const ENGINE: &str = "This node";
const DNS: &str = "Names";
const PORTS: &str = "Ports";
const BRICKS: &str = "Bricks";
const CORE: &str = "Scheduling";

/// The flags that Marathon does not have; their variables begin with `XTAO_`, those of all others with `MARATHON_`.
pub(super) const OURS: [&str; 25] = [
    "config",
    "work_dir",
    "authentication",
    "token_lifetime",
    "node_address",
    "docker_host",
    "agent_attributes",
    "agent_domain",
    "agent_resources",
    "host_volume_allow",
    "host_volume_deny",
    "secrets_dir",
    "allow_vulnerable_runtime",
    "dns_address",
    "dns_port",
    "dns_http_port",
    "dns_forward_allow",
    "registry_proxy_port",
    "host_mode_ports",
    "bridge_mode_ports",
    "reserved_ports",
    "brick_overcommit",
    "brick_reserve",
    "fence_command",
    "fence_after",
];

/// Switches that are on unless their `--disable_` form, one of [`Flags`], is given.
pub(super) const SWITCHES: [&str; 3] = ["http", "http_compression", "metrics_prometheus"];

/// `xtao serve` for clap: [`Flags`], and hidden ones for everything else that Marathon knows.
pub fn command() -> Command {
    let mut command = Flags::augment_args(Command::new("serve"))
        .about("Runs the server: the API, the scheduler, the engine on this machine and the name server")
        .long_about(
            "Runs the server: the API, the scheduler, the engine on this machine and the name server.\n\n\
             Flags are Marathon's where Marathon has one; dashes instead of underscores are fine. Each can be set in the environment, as \
             MARATHON_HTTP_PORT=8080 for Marathon's and XTAO_DNS_PORT=53 for the others, and in the file that --config names.",
        );
    for switch in SWITCHES {
        command = command.arg(Arg::new(switch).long(switch).hide(true).action(ArgAction::Count));
    }
    for known in marathon::unheeded() {
        let arg = Arg::new(known.name).long(known.name).hide(true);
        command = match known.takes {
            Takes::Value => command.arg(arg.action(ArgAction::Append)),
            Takes::Switch => {
                let disable = format!("disable_{}", known.name);
                let off = Arg::new(disable.clone()).long(disable).hide(true).action(ArgAction::Count).overrides_with(known.name);
                command.arg(arg.action(ArgAction::Count)).arg(off)
            }
        };
    }
    command
}

/// Reads `args` (without the program's name) as clap does.
pub(super) fn parse(args: &[String]) -> Result<(Flags, ArgMatches), clap::Error> {
    let arguments = std::iter::once("serve").chain(args.iter().map(String::as_str));
    let matches = command().bin_name("xtao serve").try_get_matches_from(arguments)?;
    Ok((Flags::from_arg_matches(&matches)?, matches))
}

/// Every setting that does something, with the value that counts: as text, a list separated by commas; `null` where nothing was given and nothing is
/// the default; `******` instead of a secret.
pub(super) fn shown(matches: &ArgMatches) -> Map<String, Value> {
    let command = command();
    let visible = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_long().is_some());
    let value = |arg: &Arg| {
        let values: Vec<_> = matches.get_raw(arg.get_id().as_str())?.map(|value| value.to_string_lossy()).collect();
        let secret = arg.get_value_parser().type_id() == TypeId::of::<Secret>();
        Some(if secret { "******".into() } else { values.join(",") })
    };
    visible.map(|arg| (arg.get_id().to_string(), value(arg).into())).collect()
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
