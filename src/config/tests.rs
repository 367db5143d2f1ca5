//! Layers, defaults, refusals, warnings: each a line of a table.

use super::{
    marathon::{Known, Meaning, Takes},
    *,
};

fn machine() -> Machine {
    Machine { host_name: "compute1".into(), address: Some("10.0.0.5".parse().unwrap()), directory: "/home/me".into() }
}

/// Words in `args` and `NAME=value` in `env` are separated by blanks.
fn load(args: &str, env: &str, file: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let env: Vec<(String, String)> =
        env.split_whitespace().map(|pair| pair.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap()).collect();
    Config::from(&args, &env, (!file.is_empty()).then_some((Path::new("xtao.toml"), file)), &machine())
}

fn good(args: &str, env: &str, file: &str) -> Config {
    let (config, warnings) = load(args, env, file).unwrap_or_else(|error| panic!("{args} {env} {file}: {error}"));
    assert_eq!(warnings, [], "{args} {env} {file}");
    config
}

fn error(args: &str, env: &str, file: &str) -> String {
    let error = load(args, env, file).map(|(config, _)| panic!("{args} {env} {file}: {config:?}")).unwrap_err();
    assert_eq!(error.exit_code(), 112);
    error.to_string()
}

fn warnings(args: &str, env: &str, file: &str) -> Vec<String> {
    load(args, env, file).unwrap().1.into_iter().map(|warning| warning.0).collect()
}

#[test]
fn without_anything_given_the_defaults_hold() {
    insta::assert_debug_snapshot!(good("", "", ""));
}

#[test]
fn the_help_teaches() {
    let mut command = command().bin_name("xtao serve");
    insta::assert_snapshot!(command.render_long_help().to_string());
    let help = load("--help", "", "").unwrap_err();
    assert_eq!(help.exit_code(), 0);
}

#[test]
fn flags_come_before_the_environment_and_it_before_the_file() {
    let port = |args: &str, env: &str, file: &str| good(args, env, file).http.address.port();
    let (flag, variable, file) = ("--http_port 1", "MARATHON_HTTP_PORT=2", "http_port = 3");
    assert_eq!(port(flag, variable, file), 1);
    assert_eq!(port("", variable, file), 2);
    assert_eq!(port("", "", file), 3);
    assert_eq!(port("", "", ""), 8080);
    // A list is replaced as a whole.
    let lists = |args: &str, env: &str, file: &str| good(args, env, file).engine.node_addresses.len();
    assert_eq!(lists("--node_address 10.0.0.1", "XTAO_NODE_ADDRESS=10.0.0.2,10.0.0.3", "node_address = [\"10.0.0.4\"]"), 1);
    assert_eq!(lists("", "XTAO_NODE_ADDRESS=10.0.0.2,10.0.0.3", "node_address = [\"10.0.0.4\"]"), 2);
}

#[test]
fn names_may_have_dashes_and_values_keep_theirs() {
    let config = good("--framework-name=my-cloud --local-port-min 100 --env-vars-prefix a-b", "", "host-mode-ports = \"2000-3000\"");
    assert_eq!(config.identity.framework_name, "my-cloud");
    assert_eq!(config.core.local_port_min, 100);
    assert_eq!(config.core.env_vars_prefix.as_deref(), Some("a-b"));
    assert_eq!(config.core.host_mode_ports, PortSpan { first: 2000, last: 3000 });
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let file = r#"
        work_dir = "data"
        logging_level = "debug"
        hostname = "n1"
        framework_name = "prod"
        http_address = "::1"
        http_port = 8081
        https_address = "0.0.0.0"
        https_port = 8444
        ssl_keystore_path = "/etc/xtao/server.pem"
        ssl_keystore_password = "key's secret"
        http_credentials = "boss:secret"
        authentication = "on"
        token_lifetime = 2
        http_max_concurrent_requests = 100
        access_control_allow_origin = "https://a, https://b"
        disable_http_compression = true
        metrics_name_prefix = "xtao"
        metrics_prometheus = false
        webui_url = "https://ui"
        node_address = ["10.0.0.7", "fd00::7", "10.0.0.7"]
        docker_host = "unix:///run/d.sock"
        agent_attributes = "rack:1;disk:ssd"
        agent_domain = "eu/eu-1"
        agent_resources = "cpus:1.5;mem:1000;disk:2000;gpus:2;ports:[30000-40000]"
        host_volume_allow = "/srv,/data"
        host_volume_deny = ["/srv/secret"]
        secrets_dir = "/etc/xtao-secrets"
        allow_vulnerable_runtime = "on"
        dns_address = ["10.0.0.7"]
        dns_port = 5353
        dns_http_port = 8124
        dns_forward_allow = ["10.1.0.0/16", "any"]
        host_mode_ports = "1100-1199"
        bridge_mode_ports = "31100-31199"
        reserved_ports = [1110, "1120-1122"]
        local_port_min = 11000
        local_port_max = 12000
        brick_overcommit = 1.5
        brick_reserve = 100
        fence_command = "/usr/local/bin/fence"
        fence_after = 5
        max_running_deployments = 1
        max_concurrent_marathon_health_checks = 32
        zk_max_versions = 2
        task_launch_confirm_timeout = 3
        task_launch_timeout = 4
        kill_retry_timeout = 5
        kill_chunk_size = 6
        decline_offer_duration = 7
        max_instances_per_offer = 8
        reconciliation_interval = 9
        env_vars_prefix = "P_"
        mesos_role = "role"
        default_network_name = "net"
        mesos_bridge_name = "br"
        enable_features = ["vips", "vips,secrets"]
        http_realm = "Compute"
        new_group_enforce_role = "top"
        accepted_resource_roles_default_behavior = "reserved"
        gpu_scheduling_behavior = "unrestricted"
    "#;
    let (config, warnings) = load("", "", file).unwrap();
    assert_eq!(warnings.len(), 1, "of the fence: {warnings:?}");
    insta::assert_debug_snapshot!(config);
}

#[test]
fn plain_http_stays_on_loopback() {
    for address in ["127.0.0.1", "127.0.0.9", "::1", "localhost"] {
        assert!(good("", &format!("MARATHON_HTTP_ADDRESS={address}"), "").http.is_loopback_only());
    }
    for address in ["0.0.0.0", "::", "10.0.0.5"] {
        let found = error(&format!("--http_address {address} --http_credentials a:b"), "", "");
        assert!(found.starts_with(&format!("--http_address: the API does not listen on {address} without TLS")), "{found}");
        assert!(found.contains("--https_address") && found.contains("--ssl_keystore_path"), "{found}");
        // Without plain HTTP its address does not matter.
        good(&format!("--http_address {address} --disable_http --ssl_keystore_path /k.pem"), "", "");
    }
}

#[test]
fn tls_begins_with_a_certificate() {
    let tls = |args: &str, env: &str, file: &str| {
        let http = good(args, env, file).http;
        let addresses: Vec<String> = http.addresses().map(|address| address.to_string()).collect();
        format!("{} main {}", addresses.join(" "), http.main_address())
    };
    assert_eq!(tls("", "", ""), "127.0.0.1:8080 main 127.0.0.1:8080");
    assert_eq!(tls("--ssl_keystore_path /k.pem", "", ""), "127.0.0.1:8080 127.0.0.1:8443 main 127.0.0.1:8080");
    assert_eq!(
        tls("--disable_http", "MESOSPHERE_KEYSTORE_PATH=/k.pem MARATHON_HTTPS_PORT=443", "https_address = '0.0.0.0'"),
        "0.0.0.0:443 main 0.0.0.0:443"
    );
    assert_eq!(tls("", "", "http = false\nssl_keystore_path = '/k.pem'"), "127.0.0.1:8443 main 127.0.0.1:8443");
    assert_eq!(tls("--http", "MARATHON_DISABLE_HTTP=", ""), "127.0.0.1:8080 main 127.0.0.1:8080");
    let check = |args: &str, expected: &str| {
        let found = error(args, "", "");
        assert!(found.starts_with(expected), "{found}");
    };
    check("--disable_http", "--disable_http: without HTTP there must be TLS: give a certificate with --ssl_keystore_path FILE");
    check("--https_address 0.0.0.0", "--https_address: TLS needs a certificate: give one with --ssl_keystore_path FILE");
    check("--ssl_keystore_path /k.pem --https_port 8080", "--https_port: 8080 is also the port of plain HTTP (--http_port)");
    check("--ssl_keystore_path /k.pem --dns_http_port 8443", "--dns_http_port: 8443 is also the port of the API (--https_port) there");
    assert_eq!(warnings("--https_port 443", "", ""), ["--https_address and --https_port have no effect without --ssl_keystore_path"]);
    let password = good("--ssl_keystore_path /k.p12", "MESOSPHERE_KEYSTORE_PASS=sesame", "").http.tls.unwrap().keystore_password;
    assert_eq!(password.unwrap().reveal(), "sesame");
    let hidden = format!("{:?}", good("--ssl_keystore_path /k.p12 --ssl_keystore_password sesame", "", ""));
    assert!(!hidden.contains("sesame"), "{hidden}");
    assert_eq!(warnings("--ssl_keystore_password x", "", ""), ["--ssl_keystore_password has no effect without --ssl_keystore_path"]);
}

#[test]
fn who_is_asked_for_what_is_said() {
    let http = good("--token_lifetime 1", "MESOSPHERE_HTTP_CREDENTIALS=boss:se:cret", "").http;
    assert_eq!((http.authentication, http.token_lifetime), (true, Duration::from_secs(3600)));
    let credentials = http.credentials.unwrap();
    assert_eq!((credentials.user.as_str(), credentials.password.reveal()), ("boss", "se:cret"));
    let (off, said) = load("", "XTAO_AUTHENTICATION=off", "").unwrap();
    assert!(!off.http.authentication);
    assert_eq!(
        said[0].0,
        "--authentication off: nobody is asked who they are. The API on 127.0.0.1:8080 gives everybody on this machine the rights of root on \
         this machine"
    );
    let said = warnings("--authentication off --http_address 0.0.0.0", "", "");
    assert!(said[0].contains("0.0.0.0:8080 gives EVERYBODY WHO REACHES ITS ADDRESS the rights of root"), "{said:?}");
    for bad in ["sesame", ":sesame", "boss:"] {
        let found = error(&format!("--http_credentials {bad}"), "", "");
        assert_eq!(found, "--http_credentials: must be USER:PASSWORD, neither of them empty");
    }
    let hidden = format!("{:?}", good("--http_credentials boss:sesame", "", ""));
    assert!(!hidden.contains("sesame"), "{hidden}");
    assert!(error("--authentication maybe", "", "").contains("must be on or off"));
    assert!(error("--token_lifetime 0", "", "").contains("0 is not in 1..=8760"));
}

#[test]
fn services_are_reached_by_the_route_out_unless_told_otherwise() {
    let addresses = |config: &Config| (config.engine.node_addresses.clone(), config.dns.addresses.clone());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(addresses(&good("", "", "")), (vec![ip("10.0.0.5")], vec![ip("10.0.0.5"), ip("127.0.0.1")]));
    let config = good("--node_address 10.0.0.6,10.0.0.7 --node_address 10.0.0.6 --dns_address 0.0.0.0", "", "");
    assert_eq!(addresses(&config), (vec![ip("10.0.0.6"), ip("10.0.0.7")], vec![ip("0.0.0.0")]));
    let alone = Machine { address: None, ..machine() };
    let (config, warnings) = Config::from(&[], &[], None, &alone).unwrap();
    assert_eq!(addresses(&config), (vec![ip("127.0.0.1")], vec![ip("127.0.0.1")]));
    assert!(warnings[0].0.contains("from this machine alone; see --node_address"));
}

#[test]
fn what_cannot_be_used_is_said_with_its_place() {
    let check = |args: &str, env: &str, file: &str, expected: &str| {
        let found = error(args, env, file);
        assert!(found.contains(expected), "{args} {env} {file}:\n{found}");
    };
    check("--http_prot 1", "", "", "a similar argument exists: '--http_port'");
    check("--no-such-thing", "", "", "unexpected argument '--no_such_thing'");
    check("stray", "", "", "unexpected argument 'stray'");
    check("--http_port 70000", "", "", "invalid value '70000' for '--http_port <PORT>'");
    check("--http_port 1 --http_port 2", "", "", "cannot be used multiple times");
    check("", "MARATHON_HTTP_PORT=x", "", "MARATHON_HTTP_PORT: invalid value 'x' for '--http_port <PORT>'");
    check("--http_port 1", "MARATHON_HTTP_PORT=x", "", "MARATHON_HTTP_PORT: invalid value 'x'");
    check("", "MARATHON_HTTP_PORT=", "", "MARATHON_HTTP_PORT: a value is required");
    check("", "XTAO_DNS_PORT=x", "", "XTAO_DNS_PORT: invalid value 'x'");
    check("", "", "dns_port = 'x'", "dns_port in xtao.toml: invalid value 'x'");
    check("", "", "dns_prot = 1", "dns_prot in xtao.toml: there is no such setting; did you mean dns_port?");
    check("", "", "xyzzy = true", "xyzzy in xtao.toml: there is no such setting");
    check("", "", "[dns]\nport = 1", "dns in xtao.toml: there is no such setting");
    check("", "", "dns_port = true", "dns_port in xtao.toml: must be a text, a number or a list of them");
    check("", "", "dns_address = [[1]]", "dns_address in xtao.toml: must be a list of texts or numbers");
    check("", "", "ha = 1", "ha in xtao.toml: must be true or false");
    check("", "", "config = 'x'", "config in xtao.toml: a file cannot name another one");
    check("", "", "dns_port =", "the configuration file xtao.toml: it is not TOML");
    check("--local_port_min 20000", "", "", "--local_port_max: must be above --local_port_min, which is 20000");
    check("--host_mode_ports 1024-31000", "", "", "--bridge_mode_ports: 31000-32000 overlaps --host_mode_ports 1024-31000");
    check("--dns_http_port 8080", "", "", "--dns_http_port: 8080 is also the port of the API (--http_port) there");
    check("--dns_http_port 53", "", "", "--dns_http_port: 53 is also the port of the name server");
    check("--dns_port 8080", "", "", "--dns_port: 8080 is also the port of the API");
    check("--kill_chunk_size 0", "", "", "must be at least 1");
    check("--enable_features vips,warp_drive", "", "", "invalid value 'warp_drive' for '--enable_features <NAMES>'");
    check("--http_realm=\"x\"", "", "", "without quotation marks");
}

#[test]
fn what_would_be_dangerous_to_ignore_is_refused() {
    let check = |args: &str, env: &str, file: &str, expected: &str| {
        let found = error(args, env, file);
        assert!(found.starts_with(expected), "{found}");
    };
    check("--master zk://localhost:2181/mesos", "", "", "--master: this version runs tasks with the embedded Docker engine only");
    check("--zk=zk://localhost:2181/marathon", "", "", "--zk: this version keeps its state in the embedded store only");
    check("", "MARATHON_MASTER=http://m:5050", "", "MARATHON_MASTER: this version runs tasks with the embedded Docker engine only");
    check("", "", "zk = 'zk://x'", "zk in xtao.toml: this version keeps its state in the embedded store only");
    check("--plugin_dir /x --plugin_conf /y", "", "", "--plugin_dir: this version has no plugins");
    good("--http", "", "");
}

#[test]
fn what_has_no_effect_is_said() {
    let check = |args: &str, env: &str, file: &str, expected: &[&str]| assert_eq!(warnings(args, env, file), expected);
    check("--ha", "", "", &["--ha has no effect: there is one server and no election"]);
    check("--disable-ha", "", "", &["--ha has no effect: there is one server and no election"]);
    check("", "MARATHON_DISABLE_HA=", "", &["MARATHON_DISABLE_HA has no effect: there is one server and no election"]);
    check("", "", "disable_ha = true", &["disable_ha in xtao.toml has no effect: there is one server and no election"]);
    check(
        "--zk_timeout 5",
        "MARATHON_ZK_TIMEOUT=7",
        "",
        &["--zk_timeout has no effect: there is no ZooKeeper: state is kept in --work_dir"],
    );
    check("", "MARATHON_FOO=1", "", &["MARATHON_FOO has no effect: Marathon has no such flag"]);
    check("", "MARATHON_DNS_PORT=1", "", &["MARATHON_DNS_PORT has no effect: Marathon has no such flag; use XTAO_DNS_PORT"]);
    check("", "XTAO_HTTP_PORT=1", "", &["XTAO_HTTP_PORT has no effect: there is no such setting; use MARATHON_HTTP_PORT"]);
    check("", "XTAO_DNS_PROT=1", "", &["XTAO_DNS_PROT has no effect: there is no such setting"]);
    check("", "MARATHON_APP_ID=/x MARATHON_APP_VERSION=1 PATH=/bin HOST=h", "", &[]);
    check(
        "--fence_command /bin/fence",
        "",
        "",
        &[
            "--fence_command and --fence_after have no effect yet: this version runs one node, which it cannot lose contact with; see xtao brick fence",
        ],
    );
    check(
        "--agent_resources ports:[31000-31500]",
        "",
        "",
        &["--bridge_mode_ports 31000-32000 are not all among the ports of --agent_resources; those outside are never used"],
    );
    check("--docker_host tcp://h:2375", "", "", &["--docker_host tcp://h:2375 is neither encrypted nor protected by a password"]);
}

/// How `known` is written as a flag, with `value`.
fn as_flag(known: &Known, value: &str) -> String {
    match known.takes {
        Takes::Value => format!("--{}={value}", known.name),
        Takes::Switch if value == "disable" => format!("--disable_{}", known.name),
        Takes::Switch => format!("--{}", known.name),
    }
}

/// How `known` is written as a variable, with `value`. Names with capitals, and those that look like what tasks have, have none, in Marathon either.
fn as_variable(known: &Known, value: &str) -> Option<String> {
    let name = known.name.to_uppercase();
    let has_one = known.name.to_lowercase() == known.name && !known.name.starts_with("app_");
    has_one.then(|| match known.takes {
        Takes::Value => format!("MARATHON_{name}={value}"),
        Takes::Switch if value == "disable" => format!("MARATHON_DISABLE_{name}="),
        Takes::Switch => format!("MARATHON_{name}="),
    })
}

/// Some flags say something only beside others.
fn beside(name: &str) -> &'static str {
    match name {
        "http" | "https_address" | "https_port" | "ssl_keystore_path" | "ssl_keystore_password" => {
            "ssl_keystore_path = '/etc/xtao/server.pem'"
        }
        _ => "",
    }
}

#[test]
fn every_flag_of_marathon_does_what_the_table_says() {
    for known in &marathon::TABLE {
        let name = known.name;
        let sample = if let Meaning::Works(sample) = known.meaning { sample } else { "1" };
        let forms = [Some((as_flag(known, sample), String::new())), as_variable(known, sample).map(|variable| (String::new(), variable))];
        for (args, env) in forms.into_iter().flatten() {
            match known.meaning {
                Meaning::Works(_) => assert_ne!(good(&args, &env, beside(name)), good("", "", beside(name)), "{args}{env}"),
                Meaning::Nothing(why) => {
                    let (config, warnings) = load(&args, &env, "").unwrap();
                    let at = if args.is_empty() { env.split('=').next().unwrap().to_owned() } else { format!("--{name}") };
                    assert_eq!(config, good("", "", ""), "{args}{env}");
                    assert_eq!(warnings, [Warning(format!("{at} has no effect: {why}"))]);
                }
                Meaning::Refused(why) => assert!(error(&args, &env, "").ends_with(why), "{args}{env}"),
            }
        }
    }
}

#[test]
fn every_flag_is_in_one_place() {
    let mut names: Vec<&str> = marathon::TABLE.iter().map(|known| known.name).chain(flags::OURS).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert_eq!(twice, Vec::<&[&str]>::new());
    let command = command();
    command.clone().debug_assert();
    let unknown = |name: &&str| !names.contains(name) && *name != "help";
    let declared = command.get_arguments().filter_map(clap::Arg::get_long).map(|flag| flag.strip_prefix("disable_").unwrap_or(flag));
    assert_eq!(declared.filter(unknown).collect::<Vec<_>>(), Vec::<&str>::new());
    for name in &names {
        assert!(command.get_arguments().any(|arg| arg.get_long() == Some(name)), "{name} is in a table and is no flag");
    }
}

#[test]
fn the_file_is_named_by_flag_or_variable() {
    let check = |args: &[&str], variable: &str, expected: Option<&str>| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = [("XTAO_CONFIG".to_owned(), variable.to_owned())];
        assert_eq!(config_file(&args, &env), expected.map(PathBuf::from));
    };
    check(&["--config", "/a"], "/b", Some("/a"));
    check(&["--http_port", "1", "--config=/a"], "", Some("/a"));
    check(&[], "/b", Some("/b"));
    check(&[], "", None);
    check(&["--config_x", "/a"], "", None);
}

#[test]
fn what_counts_is_shown_without_secrets() {
    let config = good(
        "--http_port 9090 --enable_features vips,secrets --disable_http_compression",
        "MARATHON_HTTP_CREDENTIALS=boss:xyzzy",
        "zk_max_versions = 7",
    );
    let shown = |name: &str| config.shown.get(name).unwrap_or_else(|| panic!("{name}")).clone();
    assert_eq!(shown("http_port"), "9090");
    assert_eq!(shown("enable_features"), "vips,secrets");
    assert_eq!(shown("disable_http_compression"), "true");
    assert_eq!(shown("zk_max_versions"), "7");
    assert_eq!(shown("framework_name"), "marathon");
    assert_eq!(shown("ssl_keystore_path"), serde_json::Value::Null);
    assert_eq!(shown("http_credentials"), "******");
    assert!(!serde_json::to_string(&config.shown).unwrap().contains("xyzzy"));
}
