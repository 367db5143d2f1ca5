//! The environment of an app's task, as Marathon 1.11 sets it: what describes the app, then host and ports, then the user's own variables. What
//! comes later wins.

use indexmap::IndexMap;

use super::{
    app::{App, ContainerKind, EnvValue, Network, PortMapping},
    cluster::PodLaunch,
    id::TaskId,
    pod::executor_id,
    port::token,
    resources::Scalar,
};

/// A label's value of this length or more, in UTF-16 units, gets no variable (Marathon's limit).
pub const MAX_LABEL_VALUE_UNITS: usize = 512;

/// A label's name of this length or more, in UTF-16 units, gets no variable (Marathon's limit: 512 without the prefix).
pub const MAX_LABEL_NAME_UNITS: usize = MAX_LABEL_VALUE_UNITS - LABEL_PREFIX.len();

const LABEL_PREFIX: &str = "MARATHON_APP_LABEL_";

/// Where a task is placed: what an environment needs besides the app.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The task.
    pub task: &'a TaskId,
    /// The node's host name.
    pub host: &'a str,
    /// The host port of each port definition, or of each mapping that has one, in order.
    pub ports: &'a [u16],
    /// The container's port for each mapping, in order; a declared 0 is filled in.
    pub container_ports: &'a [u16],
    /// The top-level group that the app is in prescribes its role.
    pub enforce_role: bool,
}

/// The whole environment of a task: unique names, in the order in which they were first set. `prefix` goes before the names of host and port
/// variables; `allotted` gives the number of `@PORT` (0), `@PORT1` (1) and so on.
pub fn environment(app: &App, place: Place<'_>, prefix: Option<&str>, allotted: impl Fn(u16) -> Option<u16>) -> Vec<(String, String)> {
    let mut variables = description(app, place);
    for (name, value) in ports(app, place).into_iter().chain([("HOST".to_owned(), place.host.to_owned())]) {
        variables.insert(format!("{}{name}", prefix.unwrap_or_default()), value);
    }
    for (name, value) in &app.env {
        if let EnvValue::Text(text) = value {
            variables.insert(name.clone(), token::substitute(text, &allotted));
        }
    }
    variables.into_iter().collect()
}

/// As [`environment`], of a container of a pod, whose own variables count for less than what describes it (Marathon 1.11).
pub fn pod_environment(
    container: &App,
    pod: &PodLaunch,
    place: Place<'_>,
    prefix: Option<&str>,
    allotted: impl Fn(u16) -> Option<u16>,
) -> Vec<(String, String)> {
    let mut variables: IndexMap<String, String> = IndexMap::new();
    for (name, value) in &container.env {
        if let EnvValue::Text(text) = value {
            variables.insert(name.clone(), token::substitute(text, &allotted));
        }
    }
    let mut set = |name: &str, value: String| _ = variables.insert(name.to_owned(), value);
    set("HOST", place.host.to_owned());
    set("MESOS_TASK_ID", place.task.to_string());
    set("MESOS_EXECUTOR_ID", executor_id(&place.task.instance));
    set("MARATHON_APP_ID", container.id.to_string());
    set("MARATHON_APP_VERSION", container.version.to_string());
    set("MARATHON_CONTAINER_ID", place.task.container.as_deref().unwrap_or_default().to_owned());
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", truth(place.enforce_role));
    set("MARATHON_CONTAINER_RESOURCE_CPUS", decimal(container.cpus));
    set("MARATHON_CONTAINER_RESOURCE_MEM", decimal(container.mem));
    set("MARATHON_CONTAINER_RESOURCE_DISK", decimal(container.disk));
    set("MARATHON_CONTAINER_RESOURCE_GPUS", container.gpus.to_string());
    variables.extend(label_variables(container));
    variables.extend(endpoints(pod, prefix));
    variables.into_iter().collect()
}

/// `ENDPOINT_HTTP`, `EP_HOST_HTTP` and `EP_CONTAINER_HTTP` of every endpoint of the pod.
fn endpoints(pod: &PodLaunch, prefix: Option<&str>) -> Vec<(String, String)> {
    let prefix = prefix.unwrap_or_default().to_uppercase();
    let hosts = pod.app.host_ports_by_endpoint(&pod.ports);
    let of_host = pod.app.network == Network::Host;
    let mut variables = Vec::new();
    for (at, endpoint) in pod.app.endpoints().into_iter().enumerate() {
        let host = hosts.get(at).copied().flatten();
        // A declared 0 is filled in: Marathon shows the 0.
        let inside = endpoint.container_port.map(|declared| pod.container_ports.get(at).copied().unwrap_or(declared));
        let name = variable_name(endpoint.name);
        for (kind, port) in [("ENDPOINT", if of_host { host } else { inside }), ("EP_HOST", host), ("EP_CONTAINER", inside)] {
            variables.extend(port.map(|port| (format!("{prefix}{kind}_{name}"), port.to_string())));
        }
    }
    variables
}

fn description(app: &App, place: Place<'_>) -> IndexMap<String, String> {
    let mut variables = IndexMap::new();
    let mut set = |name: &str, value: String| _ = variables.insert(name.to_owned(), value);
    set("MESOS_TASK_ID", place.task.to_string());
    set("MARATHON_APP_ID", app.id.to_string());
    set("MARATHON_APP_VERSION", app.version.to_string());
    if let Some(container) = &app.container
        && container.kind == ContainerKind::Docker
        && let Some(docker) = &container.docker
    {
        set("MARATHON_APP_DOCKER_IMAGE", docker.image.clone());
    }
    set("MARATHON_APP_RESOURCE_CPUS", decimal(app.cpus));
    set("MARATHON_APP_RESOURCE_MEM", decimal(app.mem));
    set("MARATHON_APP_RESOURCE_DISK", decimal(app.disk));
    set("MARATHON_APP_RESOURCE_GPUS", app.gpus.to_string());
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", truth(place.enforce_role));
    variables.extend(label_variables(app));
    variables
}

fn truth(is: bool) -> String {
    if is { "TRUE" } else { "FALSE" }.to_owned()
}

fn label_variables(app: &App) -> Vec<(String, String)> {
    let labels = labels(app);
    let names = labels.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    let each = labels.into_iter().map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value));
    [("MARATHON_APP_LABELS".to_owned(), names)].into_iter().chain(each).collect()
}

/// The labels that are short enough, by their names as variables. Of two that become one name the later wins.
fn labels(app: &App) -> IndexMap<String, String> {
    let units = |text: &str| text.encode_utf16().count();
    app.labels
        .iter()
        .filter(|(name, value)| units(name) < MAX_LABEL_NAME_UNITS && units(value) < MAX_LABEL_VALUE_UNITS)
        .map(|(name, value)| (variable_name(name), value.clone()))
        .collect()
}

/// Upper case, each run of characters that a variable's name may not have as one `_`.
fn variable_name(label: &str) -> String {
    let mut name = String::with_capacity(label.len());
    let mut in_run = false;
    for letter in label.chars() {
        let allowed = letter.is_ascii_alphanumeric() || letter == '_';
        if allowed {
            name.push(letter.to_ascii_uppercase());
        } else if !in_run {
            name.push('_');
        }
        in_run = !allowed;
    }
    name
}

/// One declared port as the variables describe it.
struct Port<'a> {
    /// 0: none was declared.
    declared: u16,
    /// `None`: reachable within its network only.
    host: Option<u16>,
    /// The container's port, when there is no host port.
    container: u16,
    name: Option<&'a str>,
}

impl Port<'_> {
    fn effective(&self) -> u16 {
        self.host.unwrap_or(self.container)
    }
}

/// `PORT0`, `PORT_80`, `PORT_HTTP`, `PORT` and `PORTS`; nothing for an app without ports.
fn ports(app: &App, place: Place<'_>) -> IndexMap<String, String> {
    let ports = declared_ports(app, place);
    let mut variables = IndexMap::new();
    if ports.is_empty() {
        return variables;
    }
    for (index, port) in ports.iter().enumerate() {
        variables.insert(format!("PORT{index}"), port.effective().to_string());
    }
    for port in &ports {
        let number = if port.declared == 0 { port.effective() } else { port.declared };
        variables.insert(format!("PORT_{number}"), port.effective().to_string());
    }
    for port in &ports {
        if let Some(name) = port.name {
            variables.insert(format!("PORT_{}", name.to_uppercase()), port.effective().to_string());
        }
    }
    let generated = ports.iter().filter(|port| port.host.is_none() && port.declared == 0).map(|port| port.container);
    let chosen: Vec<String> = ports.iter().filter_map(|port| port.host).chain(generated).map(|port| port.to_string()).collect();
    if let Some(first) = chosen.first() {
        variables.insert("PORT".into(), first.clone());
    }
    variables.insert("PORTS".into(), chosen.join(","));
    variables
}

fn declared_ports<'a>(app: &'a App, place: Place<'_>) -> Vec<Port<'a>> {
    if app.port_mappings().is_empty() {
        let definitions = app.port_definitions.iter().zip(place.ports);
        return definitions
            .map(|(definition, &host)| Port {
                declared: definition.port.number(),
                host: Some(host),
                container: host,
                name: definition.name.as_deref(),
            })
            .collect();
    }
    let mut hosts = place.ports.iter().copied();
    let describe = |(index, mapping): (usize, &'a PortMapping)| Port {
        declared: mapping.container_port,
        host: mapping.host_port.and_then(|_| hosts.next()),
        container: place.container_ports.get(index).copied().unwrap_or(mapping.container_port),
        name: mapping.name.as_deref(),
    };
    app.port_mappings().iter().enumerate().map(describe).collect()
}

/// As Java prints a double, which is what Marathon does: at least one decimal, and an exponent from ten millions up.
fn decimal(amount: Scalar) -> String {
    let number = amount.as_f64();
    if number == 0.0 || (1e-3..1e7).contains(&number) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        app::input::{AppInput, Defaults},
        id::{InstanceId, PathId},
        time::Timestamp,
    };
    use serde_json::{Value, json};

    fn app(id: &str, json: &Value) -> App {
        let id: PathId = id.parse().unwrap();
        let mut app = AppInput::read(json).unwrap().create(&id, &Defaults::default()).unwrap();
        app.version = "2020-01-31T12:34:56.789Z".parse::<Timestamp>().unwrap();
        app
    }

    fn environment_of(json: &Value, ports: &[u16], container_ports: &[u16], prefix: Option<&str>) -> Vec<(String, String)> {
        let app = app("/prod/web", json);
        let instance = InstanceId::new(app.id.clone(), "6b0cd2e8-b243-11e8-8b80-024247c0a575".parse().unwrap());
        let place = Place { task: &TaskId::app(instance, 2), host: "node1", ports, container_ports, enforce_role: false };
        environment(&app, place, prefix, |index| Some(1066 + index))
    }

    /// Only the variables that tell ports, as `NAME=value NAME=value`.
    fn check_ports(json: Value, ports: &[u16], container_ports: &[u16], expected: &str) {
        let found = environment_of(&json, ports, container_ports, None);
        let found: Vec<String> =
            found.iter().filter(|(name, _)| name.starts_with("PORT")).map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found.join(" "), expected, "{json}");
    }

    #[test]
    fn the_whole_environment_of_a_bridged_app() {
        insta::assert_json_snapshot!(environment_of(
            &json!({
                "container": {
                    "type": "DOCKER",
                    "docker": {"image": "registry/web:1"},
                    "portMappings": [
                        {"containerPort": 80, "hostPort": 0, "name": "http-api"},
                        {"containerPort": 0, "hostPort": 0},
                    ],
                },
                "networks": [{"mode": "container/bridge"}],
                "cpus": 0.5, "mem": 512, "disk": 12345678,
                "labels": {"HAPROXY_0_VHOST": "a.b", "owner (team)": "x", "owner--team": "y"},
                "env": {"DBPORT": "@PORT", "URL": "http://0:@PORT1/ user@PORTAL", "HOST": "mine", "MARATHON_APP_ID": "overridden"},
            }),
            &[31005, 31006],
            &[80, 31006],
            None
        ));
    }

    #[test]
    fn the_prefix_goes_before_host_and_port_variables_only() {
        let variables = environment_of(&json!({"cmd": "x", "env": {"A": "1"}}), &[31000], &[], Some("X_"));
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            &names[names.len() - 8..],
            ["MARATHON_APP_LABELS", "X_PORT0", "X_PORT_31000", "X_PORT_DEFAULT", "X_PORT", "X_PORTS", "X_HOST", "A"]
        );
    }

    #[test]
    fn ports_are_told_by_index_number_and_name() {
        let host = |definitions: Value| json!({"cmd": "x", "portDefinitions": definitions});
        let bridge = |mappings: Value| json!({"container": {"docker": {"image": "i"}, "portMappings": mappings}, "networks": [{"mode": "container/bridge"}]});
        let named =
            |mappings: Value| json!({"container": {"docker": {"image": "i"}, "portMappings": mappings}, "networks": [{"name": "net"}]});
        check_ports(host(json!([])), &[], &[], "");
        check_ports(host(json!([{"port": 0}])), &[31000], &[], "PORT0=31000 PORT_31000=31000 PORT=31000 PORTS=31000");
        check_ports(
            host(json!([{"port": 10000, "name": "a"}, {"port": 10001}])),
            &[31000, 31001],
            &[],
            "PORT0=31000 PORT1=31001 PORT_10000=31000 PORT_10001=31001 PORT_A=31000 PORT=31000 PORTS=31000,31001",
        );
        check_ports(
            bridge(json!([{"containerPort": 80, "name": "http-api"}, {"containerPort": 0}])),
            &[31000, 31001],
            &[80, 31001],
            "PORT0=31000 PORT1=31001 PORT_80=31000 PORT_31001=31001 PORT_HTTP-API=31000 PORT=31000 PORTS=31000,31001",
        );
        check_ports(named(json!([{"containerPort": 80, "name": "a"}])), &[], &[80], "PORT0=80 PORT_80=80 PORT_A=80 PORTS=");
        check_ports(
            named(json!([{"containerPort": 0, "name": "a"}, {"containerPort": 81, "hostPort": 0}, {"containerPort": 82}])),
            &[31000],
            &[2000, 81, 82],
            "PORT0=2000 PORT1=31000 PORT2=82 PORT_2000=2000 PORT_81=31000 PORT_82=82 PORT_A=2000 PORT=31000 PORTS=31000,2000",
        );
    }

    #[test]
    fn long_labels_get_no_variable() {
        let labelled = |name: usize, value: usize| {
            let app = app("/a", &json!({"cmd": "x", "labels": {"n".repeat(name): "v".repeat(value)}}));
            !labels(&app).is_empty()
        };
        assert!(labelled(492, 511));
        assert!(!labelled(493, 1));
        assert!(!labelled(1, 512));
    }

    #[test]
    fn numbers_are_printed_as_java_prints_doubles() {
        let check = |number: f64, expected: &str| assert_eq!(decimal(Scalar::from_f64(number)), expected);
        check(0.0, "0.0");
        check(1.0, "1.0");
        check(128.0, "128.0");
        check(0.1, "0.1");
        check(0.001, "0.001");
        check(9_999_999.0, "9999999.0");
        check(10_000_000.0, "1.0E7");
        check(12_345_678.5, "1.23456785E7");
    }
}
