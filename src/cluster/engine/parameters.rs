//! `docker.parameters`: raw `docker run` options. Only options that give a container no power over its node are known; a few more need
//! [`super::Settings::allow_privileged`]. Everything else is refused by name, with what to use instead where there is such a thing.

use bollard::models::{ContainerCreateBody, DeviceMapping, HostConfig, ResourcesUlimits};

use super::spec::LABEL_PREFIX;

/// Applies the options in order.
///
/// # Errors
/// An option that is not known, not allowed or malformed: a sentence that names it.
pub fn apply(parameters: &[(String, String)], allow_privileged: bool, body: &mut ContainerCreateBody) -> Result<(), String> {
    for (key, value) in parameters {
        let key = key.trim_start_matches('-');
        let known = harmless(key, value, body)?;
        if known {
            continue;
        }
        if !is_powerful(key, value) {
            return Err(format!("docker parameter '{key}' is not supported{}", instead(key)));
        }
        if !allow_privileged {
            return Err(format!("docker parameter '{key}={value}' gives power over the node and is not allowed here"));
        }
        powerful(key, value, body.host_config.get_or_insert_default())?;
    }
    Ok(())
}

/// Applies an option that anyone may use; false when it is not one.
fn harmless(key: &str, value: &str, body: &mut ContainerCreateBody) -> Result<bool, String> {
    let bad = |what: &str| format!("docker parameter '{key}={value}': {what}");
    let text = || Some(value.to_owned());
    let host = body.host_config.get_or_insert_default();
    match key {
        "label" | "l" => {
            let (name, label) = value.split_once('=').unwrap_or((value, ""));
            if name.starts_with(LABEL_PREFIX) {
                return Err(bad("labels with this prefix are the platform's own"));
            }
            body.labels.get_or_insert_default().insert(name.to_owned(), label.to_owned());
        }
        "env" | "e" => {
            let (name, _) = value.split_once('=').ok_or_else(|| bad("NAME=value is wanted"))?;
            let env = body.env.get_or_insert_default();
            // What the definition sets in `env` wins.
            if !env.iter().any(|entry| entry.split_once('=').is_some_and(|(known, _)| known == name)) {
                env.push(value.to_owned());
            }
        }
        "hostname" | "h" => body.hostname = text(),
        "domainname" => body.domainname = text(),
        "user" | "u" => body.user = text(),
        "workdir" | "w" => body.working_dir = text(),
        "entrypoint" => body.entrypoint = Some(vec![value.to_owned()]),
        "stop-signal" => body.stop_signal = text(),
        "add-host" => host.extra_hosts.get_or_insert_default().push(value.to_owned()),
        "dns" => host.dns.get_or_insert_default().push(value.to_owned()),
        "dns-search" => host.dns_search.get_or_insert_default().push(value.to_owned()),
        "dns-opt" | "dns-option" => host.dns_options.get_or_insert_default().push(value.to_owned()),
        "group-add" => host.group_add.get_or_insert_default().push(value.to_owned()),
        "cap-drop" => host.cap_drop.get_or_insert_default().push(value.to_owned()),
        "ulimit" => host.ulimits.get_or_insert_default().push(ulimit(value).ok_or_else(|| bad("name=soft[:hard] is wanted"))?),
        "shm-size" => host.shm_size = Some(bytes(value).ok_or_else(|| bad("a size such as 64m is wanted"))?),
        "pids-limit" => host.pids_limit = Some(count(value).ok_or_else(|| bad("a number above 0 is wanted"))?),
        "read-only" => host.readonly_rootfs = Some(truth(value).ok_or_else(|| bad("true or false is wanted"))?),
        "init" => host.init = Some(truth(value).ok_or_else(|| bad("true or false is wanted"))?),
        "tmpfs" => {
            let (path, options) = value.split_once(':').unwrap_or((value, ""));
            host.tmpfs.get_or_insert_default().insert(path.to_owned(), options.to_owned());
        }
        "log-driver" => match value {
            "json-file" | "local" => host.log_config.get_or_insert_default().typ = text(),
            _ => return Err(bad("json-file or local is wanted, so that the output can be shown")),
        },
        "log-opt" => {
            let (name, option) = value.split_once('=').ok_or_else(|| bad("NAME=value is wanted"))?;
            if !matches!(name, "max-size" | "max-file" | "compress" | "mode" | "max-buffer-size" | "labels" | "tag") {
                return Err(bad("max-size, max-file, compress, mode, max-buffer-size, labels or tag is wanted"));
            }
            host.log_config.get_or_insert_default().config.get_or_insert_default().insert(name.to_owned(), option.to_owned());
        }
        "security-opt" if value.starts_with("no-new-privileges") => host.security_opt.get_or_insert_default().push(value.to_owned()),
        "oom-score-adj" => {
            let score = value.parse().ok().filter(|score| (0..=1000).contains(score)).ok_or_else(|| bad("0 to 1000 is wanted"))?;
            host.oom_score_adj = Some(score);
        }
        "sysctl" if value.starts_with("net.") => {
            let (name, setting) = value.split_once('=').ok_or_else(|| bad("NAME=value is wanted"))?;
            host.sysctls.get_or_insert_default().insert(name.to_owned(), setting.to_owned());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_powerful(key: &str, value: &str) -> bool {
    match key {
        "cap-add" | "device" | "security-opt" | "privileged" => true,
        "pid" | "ipc" | "uts" | "userns" => value == "host",
        _ => false,
    }
}

fn powerful(key: &str, value: &str, host: &mut HostConfig) -> Result<(), String> {
    let text = || Some(value.to_owned());
    match key {
        "cap-add" => {
            let dropped = host.cap_drop.get_or_insert_default();
            dropped.retain(|name| !name.eq_ignore_ascii_case(value.trim_start_matches("CAP_")));
            host.cap_add.get_or_insert_default().push(value.to_owned());
        }
        "device" => {
            let mut parts = value.splitn(3, ':');
            let path = parts.next().unwrap_or_default().to_owned();
            let inside = parts.next().map_or_else(|| path.clone(), str::to_owned);
            let device = DeviceMapping {
                path_on_host: Some(path),
                path_in_container: Some(inside),
                cgroup_permissions: Some(parts.next().unwrap_or("rwm").to_owned()),
            };
            host.devices.get_or_insert_default().push(device);
        }
        "security-opt" => host.security_opt.get_or_insert_default().push(value.to_owned()),
        "privileged" => {
            let wanted = truth(value).ok_or_else(|| format!("docker parameter 'privileged={value}': true or false is wanted"))?;
            host.privileged = Some(wanted);
            if wanted {
                host.cap_drop = None;
            }
        }
        "pid" => host.pid_mode = text(),
        "ipc" => host.ipc_mode = text(),
        "uts" => host.uts_mode = text(),
        _ => host.userns_mode = text(),
    }
    Ok(())
}

fn instead(key: &str) -> &'static str {
    match key {
        "volume" | "v" | "mount" | "volumes-from" | "volume-driver" => "; use container.volumes",
        "publish" | "p" | "expose" | "publish-all" | "P" => "; use container.portMappings",
        "net" | "network" => "; use networks",
        "memory" | "m" | "memory-swap" | "cpus" | "cpu-shares" | "c" | "cpu-quota" => "; use cpus and mem",
        "name" | "restart" | "rm" | "detach" | "d" | "cgroup-parent" | "cidfile" => ": it is the platform's own",
        "env-file" => "; use env",
        _ => "",
    }
}

/// An absent value is true, as on the command line.
fn truth(value: &str) -> Option<bool> {
    match value {
        "" | "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn count(value: &str) -> Option<i64> {
    value.parse().ok().filter(|number| *number > 0)
}

/// `64m` and the like, in bytes.
fn bytes(value: &str) -> Option<i64> {
    let lower = value.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = lower.split_at(lower.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(lower.len()));
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    count(digits)?.checked_mul(1 << shift)
}

fn ulimit(value: &str) -> Option<ResourcesUlimits> {
    let (name, limits) = value.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft.parse().ok()?), hard: Some(hard.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(parameters: &[(&str, &str)], allow_privileged: bool) -> Result<ContainerCreateBody, String> {
        let mut body = ContainerCreateBody { env: Some(vec!["A=mine".to_owned()]), ..ContainerCreateBody::default() };
        body.host_config.get_or_insert_default().cap_drop = Some(vec!["NET_RAW".to_owned()]);
        let parameters: Vec<_> = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        apply(&parameters, allow_privileged, &mut body).map(|()| body)
    }

    fn sorted(body: impl serde::Serialize) -> serde_json::Value {
        let mut value = serde_json::to_value(body).unwrap();
        value.sort_all_objects();
        value
    }

    #[test]
    fn an_option_with_power_over_the_node_is_refused_by_name() {
        let check = |key: &str, value: &str, expected: &str| assert_eq!(applied(&[(key, value)], false).unwrap_err(), expected);
        check("pid", "host", "docker parameter 'pid=host' gives power over the node and is not allowed here");
        check("cap-add", "SYS_ADMIN", "docker parameter 'cap-add=SYS_ADMIN' gives power over the node and is not allowed here");
        check("--device", "/dev/sda", "docker parameter 'device=/dev/sda' gives power over the node and is not allowed here");
        check("privileged", "true", "docker parameter 'privileged=true' gives power over the node and is not allowed here");
        check(
            "security-opt",
            "seccomp=unconfined",
            "docker parameter 'security-opt=seccomp=unconfined' gives power over the node and is not allowed here",
        );
        check("pid", "container:x", "docker parameter 'pid' is not supported");
        check("v", "/:/host", "docker parameter 'v' is not supported; use container.volumes");
        check("net", "host", "docker parameter 'net' is not supported; use networks");
        check("sysctl", "kernel.msgmax=1", "docker parameter 'sysctl' is not supported");
        check("restart", "always", "docker parameter 'restart' is not supported: it is the platform's own");
        check("label", "xtao.cluster=other", "docker parameter 'label=xtao.cluster=other': labels with this prefix are the platform's own");
        check("ulimit", "nofile", "docker parameter 'ulimit=nofile': name=soft[:hard] is wanted");
        check("shm-size", "many", "docker parameter 'shm-size=many': a size such as 64m is wanted");
        check(
            "log-driver",
            "syslog",
            "docker parameter 'log-driver=syslog': json-file or local is wanted, so that the output can be shown",
        );
        check("oom-score-adj", "-1000", "docker parameter 'oom-score-adj=-1000': 0 to 1000 is wanted");
    }

    #[test]
    fn harmless_options_end_in_the_container() {
        let body = applied(
            &[
                ("label", "a=b"),
                ("env", "A=theirs"),
                ("env", "B=2"),
                ("hostname", "h"),
                ("ulimit", "nofile=10:20"),
                ("shm-size", "64m"),
                ("add-host", "x:1.2.3.4"),
                ("cap-drop", "CHOWN"),
            ],
            false,
        )
        .unwrap();
        insta::assert_json_snapshot!(sorted(&body));
    }

    #[test]
    fn an_administrator_may_allow_what_has_power() {
        let body = applied(&[("cap-add", "NET_RAW"), ("pid", "host"), ("device", "/dev/fuse")], true).unwrap();
        insta::assert_json_snapshot!(sorted(body.host_config.unwrap()));
    }
}
