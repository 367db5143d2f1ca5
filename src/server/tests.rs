//! What is decided where the rooms are put together: who could log in, and what the name server's own port tells.

use serde_json::json;
use warp::Reply as _;

use super::*;
use crate::{
    config::Machine,
    core::state::View,
    model::{
        record::{Change, Record},
        request::{Origin, Request},
        time::Timestamp,
        user::{Grants, PasswordHash, Quota, User},
    },
    runtime::{handle::Submission, inbox::Inbox},
};

fn config(args: &str) -> Config {
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let machine = Machine { host_name: "node1".into(), address: None, directory: "/".into() };
    Config::from(&args, &[], None, &machine).unwrap().0
}

fn handle(with_password: bool) -> (Handle, Inbox<Submission>) {
    handle_with(with_password.then(|| PasswordHash::new("$")))
}

/// With a user `zm`.
fn handle_with(password: Option<PasswordHash>) -> (Handle, Inbox<Submission>) {
    let mut view = View::default();
    let user = User {
        name: Owner::new("zm"),
        password,
        admin: false,
        locked: false,
        monitor: false,
        generation: 1,
        quota: Quota::default(),
        grants: Grants::default(),
        created_at: Timestamp(0),
    };
    view.tables.apply(&Change::Put(Record::User(Arc::new(user))));
    Handle::new(view)
}

#[test]
fn flags_that_the_core_heeds_arrive_there() {
    let check = |args: &str, change: fn(&mut core::Settings)| {
        let plain = core_settings(&config("--work_dir /w"));
        let mut expected = plain.clone();
        change(&mut expected);
        assert_ne!(expected, plain, "{args}");
        assert_eq!(core_settings(&config(&format!("--work_dir /w {args}"))), expected, "{args}");
    };
    check("--max_instances_per_offer 7", |it| it.max_instances_per_offer = 7);
    check("--decline_offer_duration 7", |it| it.decline_offer_duration_ms = 7);
    check("--kill_chunk_size 7", |it| it.kill_chunk_size = 7);
    check("--kill_retry_timeout 7", |it| it.kill_retry_timeout_ms = 7);
    check("--task_launch_timeout 7", |it| it.task_launch_timeout_ms = 7);
    check("--task_launch_confirm_timeout 7", |it| it.task_launch_confirm_timeout_ms = 7);
    check("--reconciliation_interval 7", |it| it.reconciliation_interval_ms = 7);
    check("--zk_max_versions 7", |it| it.max_versions = 7);
    check("--max_running_deployments 7", |it| it.max_running_deployments = 7);
    check("--env_vars_prefix P_", |it| it.env_vars_prefix = Some("P_".to_owned()));
    check("--local_port_min 10007", |it| it.local_port_min = 10_007);
    check("--local_port_max 10007", |it| it.local_port_max = 10_007);
    check("--mesos_role prod", |it| it.app_defaults.role = "prod".to_owned());
    check("--default_network_name net", |it| it.app_defaults.network_name = Some("net".to_owned()));
    check("--mesos_bridge_name br", |it| it.app_defaults.bridge_name = "br".to_owned());
    check("--gpu_scheduling_behavior unrestricted", |it| it.gpus_restricted = !it.gpus_restricted);
    check("--new_group_enforce_role top", |it| it.new_group_enforce_role = true);
    check("--enable_features secrets", |it| it.secrets = true);
    check("--accepted_resource_roles_default_behavior reserved", |it| it.accepted_resource_roles = core::AcceptedResourceRoles::Reserved);
    check("--accepted_resource_roles_default_behavior unreserved", |it| {
        it.accepted_resource_roles = core::AcceptedResourceRoles::Unreserved;
    });
}

#[tokio::test]
async fn flags_that_describe_the_server_are_in_its_info() {
    let shown = async |args: &str| -> serde_json::Value {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&format!("--work_dir {} {args}", directory.path().display()));
        let (handle, _submissions) = handle(false);
        let names = warp::path!("v1").map(warp::reply::reply).map(warp::Reply::into_response).boxed();
        let identity = identity(&config, &Audit::default()).unwrap();
        let api = super::api(&config, &core_settings(&config), handle, identity, names);
        crate::api::testing::Service::of(api).ask("GET /v2/info").await.json()
    };
    let plain = shown("").await;
    let check = async |args: &str, at: &str, before: serde_json::Value, after: serde_json::Value| {
        assert_eq!(plain.pointer(at), Some(&before), "{at}");
        assert_eq!(shown(args).await.pointer(at), Some(&after), "{args}");
    };
    check("--webui_url https://console.example", "/marathon_config/webui_url", json!(null), json!("https://console.example")).await;
    check("--framework_name prod", "/marathon_config/framework_name", json!("marathon"), json!("prod")).await;
    check("--hostname node7", "/marathon_config/hostname", json!("node1"), json!("node7")).await;
}

#[test]
fn others_are_let_in_only_when_somebody_could_log_in() {
    let check = |args: &str, with_password: bool, expected: &str| {
        let outcome = somebody_could_log_in(&config(args), &handle(with_password).0);
        assert_eq!(outcome.map_or_else(|error| error.to_string(), |()| "yes".into()), expected, "{args} {with_password}");
    };
    let refused = "the API cannot listen on 0.0.0.0:8443 yet: nobody could log in. Give a user a password first, with\n    \
                   xtao auth password USER --admin --work_dir /w\n(which works while the server is stopped), or an administrator with \
                   --http_credentials USER:PASSWORD; or listen on 127.0.0.1";
    let tls = "--work_dir /w --ssl_keystore_path /k.pem";
    check("--work_dir /w", false, "yes");
    check(tls, false, "yes");
    check(&format!("{tls} --https_address 0.0.0.0"), false, refused);
    check(&format!("{tls} --https_address 0.0.0.0 --disable_http"), false, refused);
    check(&format!("{tls} --https_address 0.0.0.0"), true, "yes");
    check(&format!("{tls} --https_address 0.0.0.0 --http_credentials a:b"), false, "yes");
    check(&format!("{tls} --https_address 0.0.0.0 --authentication off"), false, "yes");
    check("--work_dir /w --http_address 0.0.0.0 --authentication off", false, "yes");
}

#[tokio::test]
async fn the_name_servers_own_port_lists_nothing_once_there_are_passwords() {
    let names = || warp::path!("v1" / String).map(|name: String| name.into_response()).boxed();
    for (with_password, lists) in [(false, 200), (true, 403)] {
        let (handle, _submissions) = handle(with_password);
        let routes = without_lists(names(), Arc::default(), Access::new(handle, false));
        let service = hyper_util::service::TowerToHyperService::new(warp::service(routes));
        for (path, expected) in [("/v1/version", 200), ("/v1/enumerate", lists), ("/v1/axfr", lists), ("/elsewhere", 404)] {
            let request = warp::http::Request::get(path).body(String::new()).unwrap();
            let response = hyper::service::Service::call(&service, request).await.unwrap();
            assert_eq!(response.status(), expected, "{path}, with a password: {with_password}");
        }
    }
}

/// The API asks who it is, and has the lists of all names for administrators.
#[tokio::test]
async fn lists_of_all_names_are_the_administrators_on_the_api_too() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&format!("--work_dir {} --http_credentials boss:secret", directory.path().display()));
    let (handle, _submissions) = handle_with(Some(crate::auth::password::hash("p@ssw0rd")));
    let names = warp::path!("v1" / "version").or(warp::path!("v1" / "enumerate")).unify().or(warp::path!("v1" / "axfr")).unify();
    let names = names.map(|| "names".into_response()).boxed();
    let api = super::api(&config, &core_settings(&config), handle, identity(&config, &Audit::default()).unwrap(), names);
    let service = hyper_util::service::TowerToHyperService::new(warp::service(crate::api::routes(api)));
    for (path, nobody, user, boss) in [
        ("/mesos_dns/v1/version", 401, 200, 200),
        ("/mesos_dns/v1/enumerate", 401, 404, 200),
        ("/mesos_dns/v1/axfr", 401, 404, 200),
        ("/mesos_dns/v1/axfr/?x=1", 401, 404, 200),
        ("/mesos_dns/v1/%65numerate", 401, 404, 404),
        ("//mesos_dns/v1/enumerate", 401, 404, 404),
        ("/marathon/mesos_dns/v1/enumerate", 401, 404, 404),
    ] {
        for (credentials, expected) in [("", nobody), ("zm:p@ssw0rd", user), ("boss:secret", boss)] {
            let mut request = warp::http::Request::get(path).header("host", "localhost");
            if !credentials.is_empty() {
                let encoded = data_encoding::BASE64.encode(credentials.as_bytes());
                request = request.header("authorization", format!("Basic {encoded}"));
            }
            let response = hyper::service::Service::call(&service, request.body(String::new()).unwrap()).await.unwrap();
            assert_eq!(response.status(), expected, "{path} as '{credentials}'");
        }
    }
}

#[test]
fn the_key_for_tokens_is_made_in_the_work_directory() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&format!("--work_dir {}", directory.path().display()));
    identity(&config, &Audit::default()).unwrap();
    assert!(directory.path().join(crate::auth::token::KEY_FILE).exists());
    std::fs::write(directory.path().join(crate::auth::token::KEY_FILE), "x").unwrap();
    assert!(identity(&config, &Audit::default()).err().unwrap().to_string().contains("token.key"));
}

/// What every change passes through goes before what waits for it. As root, as all tests.
#[tokio::test]
async fn driver_and_store_go_before_all_other_threads() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&WorkDir::open(directory.path(), ENGINE).unwrap()).unwrap();
    let (_events, arriving) = mpsc::channel(1);
    let (calls, _sent) = mpsc::channel(1);
    let (driver, handle) = Driver::open(core::Settings::default(), Box::new(store), arriving, calls).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let ended = start_driver(driver, stopping).unwrap();
    let origin = Origin { user: Owner::default_owner(), admin: true, client_ip: "".into(), uri: "".into() };
    // Its answer says that the driver runs.
    handle.submit(origin, Request::ReleasePort { port: 1 }).await.unwrap_err();
    let mut niceness: Vec<(String, String)> = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        // proc_pid_stat(5): the state is the third field, the niceness the nineteenth.
        niceness.push((name.to_owned(), rest.split(' ').nth(16).unwrap().to_owned()));
    }
    for name in ["driver", "store"] {
        assert!(niceness.contains(&(name.to_owned(), "-5".to_owned())), "{name} in {niceness:?}");
    }
    stop.send(true).unwrap();
    ended.await.unwrap().unwrap();
}
