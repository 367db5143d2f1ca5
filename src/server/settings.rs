//! The rooms' settings out of the configuration, which knows none of their types.

use std::{net::SocketAddr, path::PathBuf};

use super::Settings;
use crate::{
    cluster::engine::ResourceSettings,
    config::{self, Config, PortSpan},
    core,
    model::{agent::Attribute, app::input::Defaults, host_volume::HostVolumeRule, resources::PortRange, resources::Scalar},
};

impl From<Config> for Settings {
    fn from(config: Config) -> Self {
        let Config { work_dir, logging_level: _, identity, http, core, engine, dns, bricks } = config;
        let dns_http = dns_http(&dns);
        let host_volumes = HostVolumeRule { allow: texts(engine.host_volume_allow), deny: texts(engine.host_volume_deny), own: Vec::new() };
        Self {
            work_dir,
            http: http.address,
            hostname: identity.hostname,
            framework_name: identity.framework_name,
            webui_url: identity.webui_url,
            node_addresses: engine.node_addresses,
            docker_host: engine.docker_host,
            dns: dns.addresses.iter().map(|address| SocketAddr::new(*address, dns.port)).collect(),
            dns_http: Some(dns_http),
            core: core_settings(core, host_volumes),
            resources: resources(&engine.resources),
            attributes: engine.attributes.into_iter().map(|given| Attribute { name: given.name, text: given.value }).collect(),
            brick_overcommit: bricks.overcommit,
            brick_reserve: bricks.reserve,
        }
    }
}

/// One address for it: all, if the name server has all; loopback, if it has that; otherwise its first.
fn dns_http(dns: &config::Dns) -> SocketAddr {
    let preferred = dns
        .addresses
        .iter()
        .find(|address| address.is_unspecified())
        .or_else(|| dns.addresses.iter().find(|address| address.is_loopback()));
    let address = preferred.or(dns.addresses.first()).copied().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(address, dns.http_port)
}

fn core_settings(given: config::Core, host_volumes: HostVolumeRule) -> core::Settings {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    core::Settings {
        local_port_min: given.local_port_min,
        local_port_max: given.local_port_max,
        host_mode_ports: range(given.host_mode_ports),
        bridge_mode_ports: range(given.bridge_mode_ports),
        reserved_ports: given.reserved_ports,
        max_running_deployments: given.max_running_deployments,
        max_versions: given.max_versions,
        task_launch_confirm_timeout_ms: ms(given.task_launch_confirm_timeout),
        task_launch_timeout_ms: ms(given.task_launch_timeout),
        kill_retry_timeout_ms: ms(given.kill_retry_timeout),
        kill_chunk_size: given.kill_chunk_size,
        decline_offer_duration_ms: ms(given.decline_offer_duration),
        max_instances_per_offer: given.max_instances_per_offer,
        reconciliation_interval_ms: ms(given.reconciliation_interval),
        env_vars_prefix: given.env_vars_prefix,
        host_volumes,
        app_defaults: Defaults { role: given.default_role, network_name: given.default_network_name },
    }
}

fn resources(given: &config::ResourceOverride) -> ResourceSettings {
    let ports: Vec<PortRange> = given.ports.iter().copied().map(range).collect();
    ResourceSettings {
        cpus: given.cpus.map(Scalar::from_f64),
        mem: given.mem.map(Scalar::whole),
        disk: given.disk.map(Scalar::whole),
        ports: if ports.is_empty() { ResourceSettings::default().ports } else { ports },
    }
}

fn range(span: PortSpan) -> PortRange {
    PortRange::new(span.first, span.last)
}

fn texts(paths: Vec<PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Machine;

    fn settings(args: &[&str]) -> Settings {
        let machine = Machine { host_name: "compute1".into(), address: Some("10.0.0.5".parse().unwrap()), directory: "/".into() };
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Config::from(&args, &[], None, &machine).unwrap().0.into()
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_rooms() {
        let found = settings(&[]);
        // The configuration adds the port of the name server to the reserved ones.
        let mut reserved = core::Settings::default().reserved_ports;
        reserved.insert(0, 53);
        assert_eq!(found.core, core::Settings { reserved_ports: reserved, ..core::Settings::default() });
        assert_eq!(found.resources.ports, ResourceSettings::default().ports);
        assert_eq!((found.resources.cpus, found.resources.mem, found.resources.disk), (None, None, None));
    }

    #[test]
    fn the_name_servers_http_api_is_beside_it() {
        let check = |args: &[&str], expected: &str| assert_eq!(settings(args).dns_http, Some(expected.parse().unwrap()), "{args:?}");
        check(&[], "127.0.0.1:8123");
        check(&["--dns_address", "10.0.0.5,10.0.0.6"], "10.0.0.5:8123");
        check(&["--dns_address", "10.0.0.5,0.0.0.0", "--dns_http_port", "1"], "0.0.0.0:1");
    }
}
