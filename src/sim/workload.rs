//! What clients ask for: a schedule of requests drawn from a seed. All of it is data, so that a failing schedule can be made smaller.

use serde_json::{Map, Value, json};

use super::{placement::racks, rng::Rng};
use crate::model::user::Quota;

/// One request, and when it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Milliseconds of the world's time.
    pub at: u64,
    /// What is asked.
    pub ask: Ask,
    /// `force=true`
    pub force: bool,
    /// Written into what is asked for, so that it can be told from what others wrote.
    pub mark: u32,
    /// Who asks; `None`: an administrator.
    pub by: Option<&'static str>,
}

/// What a client asks for. `nth` chooses among what exists when the request is sent.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the API's requests, by name")]
pub enum Ask {
    Create(AppSpec),
    Replace(AppSpec),
    Both(AppSpec, AppSpec),
    Patch {
        app: u16,
        mem: u32,
        fate: Fate,
    },
    Scale {
        app: u16,
        instances: u32,
    },
    Restart {
        app: u16,
    },
    Destroy {
        app: u16,
    },
    KillApp {
        app: u16,
        host: Option<u64>,
        scale: bool,
        wipe: bool,
    },
    KillOne {
        app: u16,
        nth: u64,
        scale: bool,
    },
    /// Tasks of any apps, in one request.
    KillSome {
        nth: u64,
        count: u32,
        scale: bool,
        wipe: bool,
    },
    /// The apps of the group and, if written, those of the group in it; what is not named goes.
    Group {
        apps: Vec<AppSpec>,
        deep: Option<Vec<AppSpec>>,
    },
    ScaleGroup {
        percent: u32,
    },
    /// Goes back to one of the versions that are kept.
    RollBackGroup {
        nth: u64,
    },
    DestroyGroup {
        deep: bool,
    },
    Cancel {
        nth: u64,
    },
    ResetDelay {
        app: u16,
    },
    ReleasePort {
        nth: u64,
    },
    ReleaseBrick {
        nth: u64,
        force: bool,
    },
    /// Only sent when the holder's node is off, as an administrator would.
    Fence {
        nth: u64,
    },
    /// New limits of a user.
    Limit {
        user: &'static str,
        quota: Quota,
    },
    /// An app gets another owner.
    HandOver {
        app: u16,
        to: &'static str,
    },
    /// Whether [`GROUP`] prescribes the role of its apps; `None`: what is so without being said.
    EnforceRole {
        enforce: Option<bool>,
    },
}

/// An app as a client writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// Its number; the id is made of it.
    pub app: u16,
    /// Which of the interesting shapes.
    pub kind: Kind,
    /// How many.
    pub instances: u32,
    /// Thousandths of a CPU.
    pub cpus: u32,
    /// MiB.
    pub mem: u32,
    /// `minimumHealthCapacity` and `maximumOverCapacity` in percent; `None`: not written.
    pub strategy: Option<(u32, u32)>,
    /// `backoffSeconds`
    pub backoff_s: u32,
    /// `maxLaunchDelaySeconds`
    pub max_delay_s: u32,
    /// `taskKillGracePeriodSeconds`
    pub grace_s: Option<u32>,
    /// `unreachableStrategy`
    pub unreachable: Unreachable,
    /// Apps that it waits for.
    pub after: Vec<u16>,
    /// It waits for all apps of [`DEEP`].
    pub after_deep: bool,
    /// How its tasks fare.
    pub fate: Fate,
    /// With a health check.
    pub checked: bool,
    /// With a readiness check, if it has a port to ask.
    pub asked_ready: bool,
    /// `killSelection` is `OLDEST_FIRST`.
    pub oldest_first: bool,
    /// What else decides where it goes.
    pub place: Place,
}

/// What else than its shape decides where an app goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// A constraint: field, operator, value.
    pub rule: Option<(&'static str, &'static str, Option<String>)>,
    /// GPUs.
    pub gpus: u32,
    /// It has the role of its group ([`GROUP_ROLE`]).
    pub role: bool,
    /// `acceptedResourceRoles`: `*`, and its own.
    pub accepts: Option<(bool, bool)>,
}

/// Which of the interesting shapes an app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but a command; Marathon adds one dynamic port.
    Plain,
    /// This many dynamic ports.
    Dynamic(u32),
    /// This port of the offer, required.
    Fixed(u16),
    /// A mapped container port with a dynamic host port.
    Bridge,
    /// `@PORT` in `portDefinitions`.
    HostClaim,
    /// `@PORT` and `@PORT1` in `env`.
    EnvClaim,
    /// `@PORT` as a `hostPort`.
    BridgeClaim,
    /// A brick of this many MiB, and `@PORT` in `env`.
    Brick(u32),
    /// A persistent volume of this many MiB for each instance.
    Volume(u32),
    /// At most one on a node.
    Unique,
    /// At most so many on a node.
    MaxPer(u32),
    /// On this node only.
    Pinned(u64),
    /// A pod of this many containers, each with a dynamic port; the last one has the fate.
    Pod(u32),
    /// The same with a persistent volume for each instance, which all containers mount.
    VolumePod(u32),
}

/// `unreachableStrategy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Not written.
    Default,
    /// `"disabled"`
    Disabled,
    /// `inactiveAfterSeconds`, `expungeAfterSeconds`
    After(u32, u32),
}

/// How the tasks of an app fare until the world heals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They run.
    Steady,
    /// They fail soon.
    Crash,
    /// They end well, soon.
    Finish,
}

impl Fate {
    /// The text in the label `fate`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Crash => "crash",
            Self::Finish => "finish",
        }
    }
}

/// A group with a third of the apps.
pub const GROUP: &str = "/group";

/// The role that only apps of the group may have, and for which some nodes keep a part.
pub const GROUP_ROLE: &str = "group";

/// A group in it, with another third.
pub const DEEP: &str = "/group/deep";

/// The group of app number `app`; `None`: the root.
pub fn group_of(app: u16) -> Option<&'static str> {
    match app % 3 {
        0 => None,
        1 => Some(DEEP),
        _ => Some(GROUP),
    }
}

/// The id of app number `app`.
pub fn app_id(app: u16) -> String {
    format!("{}/app{app}", group_of(app).unwrap_or_default())
}

/// The host name of node number `agent`.
pub fn host_name(agent: u64) -> String {
    format!("node{agent}")
}

/// `gracePeriodSeconds` of every check.
pub const GRACE_S: u64 = 30;

/// `maxConsecutiveFailures` of every check.
pub const MAX_FAILURES: u32 = 2;

fn pod_health_check() -> Value {
    json!({"exec": {"command": {"shell": "true"}}, "gracePeriodSeconds": GRACE_S, "intervalSeconds": 5, "timeoutSeconds": 4,
        "maxConsecutiveFailures": MAX_FAILURES})
}

fn health_checks() -> Value {
    json!([{"protocol": "COMMAND", "command": {"value": "true"}, "gracePeriodSeconds": GRACE_S, "intervalSeconds": 5,
        "maxConsecutiveFailures": MAX_FAILURES}])
}

/// The labels that carry the mark and the fate.
pub fn labels(mark: u32, fate: Fate) -> Value {
    json!({"mark": mark.to_string(), "fate": fate.as_str()})
}

impl AppSpec {
    /// True for a pod.
    pub fn is_pod(&self) -> bool {
        matches!(self.kind, Kind::Pod(_) | Kind::VolumePod(_))
    }

    /// The JSON that is sent for a pod; of anything else a pod with one container is made.
    pub fn pod_json(&self, mark: u32, agents: u64) -> Value {
        let count = if let Kind::Pod(count) | Kind::VolumePod(count) = self.kind { count.max(1) } else { 1 };
        let is_resident = matches!(self.kind, Kind::VolumePod(_));
        // What such a pod takes cannot change.
        let (cpus, mem) = if is_resident { (200, 32) } else { (self.cpus, self.mem) };
        let container = |at: u32| {
            let mut container = json!({
                "name": format!("c{at}"),
                "exec": {"command": {"shell": "sleep 100000"}},
                "resources": {"cpus": f64::from(cpus) / 1000.0 / f64::from(count), "mem": mem.max(32) / count, "disk": 0},
                "endpoints": [{"name": format!("port{at}")}],
            });
            if let Some(grace) = self.grace_s {
                container["lifecycle"] = json!({"killGracePeriodSeconds": grace});
            }
            if is_resident {
                container["volumeMounts"] = json!([{"name": "data", "mountPath": "data", "readOnly": at > 0}]);
            }
            if at + 1 == count {
                container["labels"] = json!({"fate": self.fate.as_str()});
            } else if self.checked {
                container["healthCheck"] = pod_health_check();
            }
            container
        };
        let mut scheduling = json!({"backoff": {"backoff": self.backoff_s, "maxLaunchDelay": self.max_delay_s}});
        if let Some((health, over)) = self.strategy {
            let part = |percent: u32| f64::from(percent) / 100.0;
            let over = if is_resident { 0 } else { over };
            scheduling["upgrade"] = json!({"minimumHealthCapacity": part(health), "maximumOverCapacity": part(over)});
        }
        match self.unreachable {
            _ if is_resident => {}
            Unreachable::Default => {}
            Unreachable::Disabled => scheduling["unreachableStrategy"] = json!("disabled"),
            Unreachable::After(inactive, expunge) => {
                scheduling["unreachableStrategy"] = json!({"inactiveAfterSeconds": inactive, "expungeAfterSeconds": expunge});
            }
        }
        let rules: Vec<Value> = self
            .rules(agents)
            .into_iter()
            .map(|(field, operator, value)| match value {
                Some(value) => json!({"fieldName": field, "operator": operator, "value": value}),
                None => json!({"fieldName": field, "operator": operator}),
            })
            .collect();
        scheduling["placement"] = json!({"constraints": rules});
        let volume = is_resident.then(|| json!({"name": "data", "persistent": {"size": 128}}));
        json!({
            "id": app_id(self.app),
            "volumes": volume.into_iter().collect::<Value>(),
            "labels": {"mark": mark.to_string()},
            "containers": (0..count).map(container).collect::<Vec<_>>(),
            "executorResources": {"cpus": 0.1, "mem": 32, "disk": 10},
            "scaling": {"kind": "fixed", "instances": self.instances},
            "scheduling": scheduling,
        })
    }

    /// The JSON that is sent for an app.
    pub fn json(&self, mark: u32, agents: u64) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| _ = body.insert(name.into(), value);
        put("id", app_id(self.app).into());
        put("cmd", "sleep 100000".into());
        put("instances", self.instances.into());
        put("cpus", (f64::from(self.cpus) / 1000.0).into());
        put("mem", self.mem.into());
        put("labels", labels(mark, self.fate));
        put("backoffSeconds", self.backoff_s.into());
        put("maxLaunchDelaySeconds", self.max_delay_s.into());
        let deep = self.after_deep.then(|| DEEP.to_owned());
        let after: Vec<String> = self.after.iter().map(|app| app_id(*app)).chain(deep).collect();
        if !after.is_empty() {
            put("dependencies", after.into());
        }
        if let Some(grace) = self.grace_s {
            put("taskKillGracePeriodSeconds", grace.into());
        }
        if let Some((health, over)) = self.strategy {
            let part = |percent: u32| f64::from(percent) / 100.0;
            put("upgradeStrategy", json!({"minimumHealthCapacity": part(health), "maximumOverCapacity": part(over)}));
        }
        match self.unreachable {
            Unreachable::Default => {}
            Unreachable::Disabled => put("unreachableStrategy", "disabled".into()),
            Unreachable::After(inactive, expunge) => {
                put("unreachableStrategy", json!({"inactiveAfterSeconds": inactive, "expungeAfterSeconds": expunge}));
            }
        }
        if self.checked {
            put("healthChecks", health_checks());
        }
        if let Some(port) = self.ready_port() {
            put("readinessChecks", json!([{"portName": port, "intervalSeconds": 5, "timeoutSeconds": 4}]));
        }
        if self.oldest_first {
            put("killSelection", "OLDEST_FIRST".into());
        }
        self.put_place(agents, &mut put);
        self.put_shape(&mut put);
        Value::Object(body)
    }

    /// The name of the port that its readiness check asks.
    fn ready_port(&self) -> Option<&'static str> {
        let port = match self.kind {
            Kind::Dynamic(1..) | Kind::HostClaim => "main",
            Kind::Bridge | Kind::BridgeClaim => "http",
            _ => return None,
        };
        self.asked_ready.then_some(port)
    }

    /// Its constraints: field, operator, value.
    fn rules(&self, agents: u64) -> Vec<(&'static str, &'static str, Option<String>)> {
        let of_shape = match self.kind {
            Kind::Unique => Some(("hostname", "UNIQUE", None)),
            Kind::MaxPer(most) => Some(("hostname", "MAX_PER", Some(most.to_string()))),
            Kind::Pinned(agent) => Some(("hostname", "CLUSTER", Some(host_name(agent % agents.max(1))))),
            _ => None,
        };
        of_shape.into_iter().chain(self.place.rule.clone()).collect()
    }

    fn put_place(&self, agents: u64, put: &mut impl FnMut(&str, Value)) {
        let constraints: Vec<Value> = self
            .rules(agents)
            .into_iter()
            .map(|(field, operator, value)| match value {
                Some(value) => json!([field, operator, value]),
                None => json!([field, operator]),
            })
            .collect();
        if !constraints.is_empty() {
            put("constraints", constraints.into());
        }
        if self.place.gpus > 0 && !matches!(self.kind, Kind::Bridge | Kind::BridgeClaim | Kind::Brick(_)) {
            put("gpus", self.place.gpus.into());
        }
        let role = self.place.role && group_of(self.app).is_some();
        if role {
            put("role", GROUP_ROLE.into());
        }
        if let Some((common, own)) = self.place.accepts {
            let own = (own && role).then_some(GROUP_ROLE);
            let accepted: Vec<&str> = (common || own.is_none()).then_some("*").into_iter().chain(own).collect();
            put("acceptedResourceRoles", accepted.into());
        }
    }

    fn put_shape(&self, put: &mut impl FnMut(&str, Value)) {
        let bridge = |host_port: Value| json!({"type": "DOCKER", "docker": {"image": "web"}, "portMappings": [{"containerPort": 80, "hostPort": host_port, "name": "http"}]});
        let on_bridge = || json!([{"mode": "container/bridge"}]);
        match self.kind {
            Kind::Plain | Kind::Unique | Kind::MaxPer(_) | Kind::Pinned(_) | Kind::Pod(_) | Kind::VolumePod(_) => {}
            Kind::Dynamic(ports) => {
                let definition = |at: u32| if at == 0 { json!({"port": 0, "name": "main"}) } else { json!({"port": 0}) };
                put("portDefinitions", (0..ports).map(definition).collect());
            }
            Kind::Fixed(port) => {
                put("portDefinitions", json!([{"port": port}]));
                put("requirePorts", true.into());
            }
            Kind::Bridge => {
                put("container", bridge(0.into()));
                put("networks", on_bridge());
            }
            Kind::HostClaim => put("portDefinitions", json!([{"port": "@PORT", "name": "main"}, {"port": 0}])),
            Kind::EnvClaim => put("env", json!({"DBPORT": "@PORT", "URL": "http://0.0.0.0:@PORT1/"})),
            Kind::BridgeClaim => {
                put("container", bridge("@PORT".into()));
                put("networks", on_bridge());
            }
            Kind::Brick(size) => {
                let volume = json!({"containerPath": "/var/lib/data", "mode": "RW", "brick": {"size": size}});
                put("container", json!({"type": "DOCKER", "docker": {"image": "db"}, "volumes": [volume]}));
                put("env", json!({"DBPORT": "@PORT"}));
            }
            Kind::Volume(size) => {
                let volume = json!({"containerPath": "data", "mode": "RW", "persistent": {"size": size}});
                put("container", json!({"type": "MESOS", "volumes": [volume]}));
                put("portDefinitions", json!([]));
            }
        }
    }
}

/// How much a workload asks for.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Nodes there are.
    pub agents: u64,
    /// Different apps.
    pub apps: u16,
    /// Requests.
    pub ops: u64,
    /// The most instances of one app.
    pub instances: u32,
    /// Milliseconds in which they are sent.
    pub span_ms: u64,
    /// Small instances, and upgrades that do not go one by one.
    pub crowd: bool,
}

/// Gives some apps a rule, GPUs or a role: each app nearly always the same.
pub fn place(rng: &mut Rng, ops: &mut [Op], scale: Scale) {
    let places: Vec<Place> = (0..scale.apps).map(|_| draw_place(rng, scale.agents)).collect();
    for spec in ops.iter_mut().flat_map(|op| specs_of(&mut op.ask)) {
        let usual = places.get(usize::from(spec.app)).cloned().unwrap_or_default();
        spec.place = if rng.chance(900) { usual } else { draw_place(rng, scale.agents) };
    }
}

/// In every other schedule some apps are pods: each app nearly always the same.
pub fn pods(rng: &mut Rng, ops: &mut [Op], scale: Scale) {
    if rng.chance(500) {
        return;
    }
    let pod = |rng: &mut Rng, app: u16| {
        let count = rng.within(1, 4) as u32;
        if app.is_multiple_of(2) { Kind::Pod(count) } else { Kind::VolumePod(count) }
    };
    let kinds: Vec<Option<Kind>> = (0..scale.apps).map(|app| rng.chance(350).then(|| pod(rng, app))).collect();
    for spec in ops.iter_mut().flat_map(|op| specs_of(&mut op.ask)) {
        let usual = kinds.get(usize::from(spec.app)).copied().flatten();
        let odd = rng.chance(30);
        spec.kind = match usual {
            Some(kind) if !odd => kind,
            None if odd => pod(rng, spec.app),
            _ => spec.kind,
        };
    }
}

/// In every other schedule some apps have readiness checks or another `killSelection`, kills are of several apps at once and give volumes up, and
/// what goes back is gone back from.
pub fn habits(rng: &mut Rng, ops: &mut Vec<Op>, scale: Scale) {
    if rng.chance(500) {
        return;
    }
    let usual: Vec<(bool, bool)> = (0..scale.apps).map(|_| (rng.chance(500), rng.chance(400))).collect();
    let mut again = Vec::new();
    for op in ops.iter_mut() {
        for spec in specs_of(&mut op.ask) {
            (spec.asked_ready, spec.oldest_first) = usual.get(usize::from(spec.app)).copied().unwrap_or_default();
        }
        match &mut op.ask {
            Ask::KillOne { scale, .. } if rng.chance(500) => {
                let wipe = !*scale && rng.chance(500);
                op.ask = Ask::KillSome { nth: rng.bits(), count: rng.within(1, 5) as u32, scale: *scale, wipe };
            }
            Ask::KillApp { scale, wipe, .. } => *wipe |= !*scale && rng.chance(400),
            Ask::Cancel { nth } => {
                op.force = false;
                let at = op.at + rng.within(10, 5_000);
                again.push(Op { at, ask: Ask::Cancel { nth: *nth }, force: rng.chance(300), mark: op.mark, by: None });
            }
            _ => {}
        }
    }
    ops.extend(again);
    ops.sort_by_key(|op| op.at);
}

pub(super) fn specs_of(ask: &mut Ask) -> Vec<&mut AppSpec> {
    match ask {
        Ask::Create(spec) | Ask::Replace(spec) => vec![spec],
        Ask::Both(one, other) => vec![one, other],
        Ask::Group { apps, deep } => apps.iter_mut().chain(deep.iter_mut().flatten()).collect(),
        _ => Vec::new(),
    }
}

fn draw_place(rng: &mut Rng, agents: u64) -> Place {
    Place {
        rule: rng.chance(if is_small(agents) { 200 } else { 450 }).then(|| draw_rule(rng, agents)),
        gpus: if rng.chance(80) { rng.within(1, 2) as u32 } else { 0 },
        role: rng.chance(300),
        accepts: rng.chance(200).then(|| *rng.pick(&[(true, false), (false, true), (true, true)])),
    }
}

/// Of few nodes not every rule can be met.
fn is_small(agents: u64) -> bool {
    agents < 20
}

fn draw_rule(rng: &mut Rng, agents: u64) -> (&'static str, &'static str, Option<String>) {
    let racks = racks(agents);
    let some = |value: &str| Some(value.to_owned());
    match rng.below(16) {
        0 => ("rack", "GROUP_BY", Some(racks.to_string())),
        1 => ("rack", "GROUP_BY", Some(rng.within(1, racks + 1).to_string())),
        2 => ("rack", "GROUP_BY", None),
        3 => ("@zone", "GROUP_BY", some("2")),
        4 => ("rack", "MAX_PER", Some(rng.within(1, 30).to_string())),
        5 => ("rack", "UNIQUE", None),
        6 => ("rack", "CLUSTER", None),
        7 => ("rack", "CLUSTER", some("rack-0")),
        8 => ("@zone", "CLUSTER", None),
        9 => ("hostname", "LIKE", some("node[0-9]*[02468]")),
        10 => ("hostname", "UNLIKE", some("node[0-9]*1")),
        11 => ("level", "IS", some(["1.50", "2.0004"][rng.below(2) as usize])),
        12 => ("@region", "UNLIKE", some("nowhere")),
        13 => ("@region", "IS", some("east")),
        14 => ("cards", "LIKE", some(r".*[,{]b[,}].*")),
        _ => ("jdk", "UNLIKE", some(r"\[5-.*")),
    }
}

/// A schedule of requests.
pub fn draw(rng: &mut Rng, scale: Scale) -> Vec<Op> {
    let kinds: Vec<Kind> = (0..scale.apps).map(|_| draw_kind(rng, scale.agents)).collect();
    let mut ops: Vec<Op> = (0..scale.ops)
        .map(|mark| {
            // The first requests create what the others change.
            let early = mark < u64::from(scale.apps);
            let at = if early { rng.within(0, 20_000) } else { rng.within(0, scale.span_ms) };
            let app = if early { mark as u16 } else { rng.below(u64::from(scale.apps)) as u16 };
            let kind = if rng.chance(950) { kinds[usize::from(app)] } else { draw_kind(rng, scale.agents) };
            let ask = if early { Ask::Create(draw_app(rng, app, kind, scale)) } else { draw_ask(rng, app, kind, &kinds, scale) };
            Op { at, ask, force: rng.chance(600), mark: mark as u32, by: None }
        })
        .collect();
    ops.sort_by_key(|op| op.at);
    ops
}

fn draw_ask(rng: &mut Rng, app: u16, kind: Kind, kinds: &[Kind], scale: Scale) -> Ask {
    match rng.below(100) {
        0..14 => Ask::Create(draw_app(rng, app, kind, scale)),
        14..24 => Ask::Replace(draw_app(rng, app, kind, scale)),
        24..28 => {
            let other = (app + 1) % scale.apps.max(1);
            let second = draw_app(rng, other, kinds[usize::from(other)], scale);
            Ask::Both(draw_app(rng, app, kind, scale), second)
        }
        28..34 => draw_group(rng, kinds, scale),
        34..38 => Ask::Patch { app, mem: rng.within(16, 128) as u32, fate: draw_fate(rng) },
        38..40 => Ask::ScaleGroup { percent: rng.within(0, 200) as u32 },
        40..42 => Ask::RollBackGroup { nth: rng.bits() },
        42 => Ask::DestroyGroup { deep: rng.chance(500) },
        43..56 => Ask::Scale { app, instances: draw_instances(rng, kind, scale) },
        56..63 => Ask::Restart { app },
        63..73 => Ask::Destroy { app },
        73..78 => {
            let host = rng.chance(500).then(|| rng.below(scale.agents));
            Ask::KillApp { app, host, scale: rng.chance(300), wipe: rng.chance(100) }
        }
        78..86 => Ask::KillOne { app, nth: rng.bits(), scale: rng.chance(400) },
        86..92 => Ask::Cancel { nth: rng.bits() },
        92..94 => Ask::ResetDelay { app },
        94..96 => Ask::ReleasePort { nth: rng.bits() },
        96..98 => Ask::ReleaseBrick { nth: rng.bits(), force: rng.chance(500) },
        _ => Ask::Fence { nth: rng.bits() },
    }
}

fn draw_group(rng: &mut Rng, kinds: &[Kind], scale: Scale) -> Ask {
    let mut some = |group: &str| -> Vec<AppSpec> {
        let apps: Vec<u16> = (0..scale.apps).filter(|app| group_of(*app) == Some(group) && rng.chance(850)).collect();
        apps.into_iter().map(|app| draw_app(rng, app, kinds[usize::from(app)], scale)).collect()
    };
    let (apps, deep) = (some(GROUP), some(DEEP));
    Ask::Group { apps, deep: rng.chance(800).then_some(deep) }
}

fn draw_kind(rng: &mut Rng, agents: u64) -> Kind {
    match rng.below(27) {
        0..3 => Kind::Plain,
        3..6 => Kind::Dynamic(rng.within(0, 3) as u32),
        6..8 => Kind::Fixed(rng.within(31_000, 31_003) as u16),
        8..10 => Kind::Bridge,
        10..12 => Kind::HostClaim,
        12..14 => Kind::EnvClaim,
        14..16 => Kind::BridgeClaim,
        16..20 => Kind::Brick(rng.within(1, 8) as u32 * 64),
        20..22 => Kind::Unique,
        22..25 => Kind::Volume(128),
        25 => Kind::MaxPer(rng.within(1, 3) as u32),
        _ => Kind::Pinned(rng.below(agents.max(1))),
    }
}

fn draw_app(rng: &mut Rng, app: u16, kind: Kind, scale: Scale) -> AppSpec {
    // What such an app takes cannot change.
    let is_resident = matches!(kind, Kind::Volume(_));
    let exclusive = matches!(kind, Kind::HostClaim | Kind::EnvClaim | Kind::BridgeClaim | Kind::Brick(_));
    AppSpec {
        app,
        kind,
        instances: draw_instances(rng, kind, scale),
        cpus: if is_resident { 100 } else { rng.within(1, if scale.crowd { 3 } else { 10 }) as u32 * 50 },
        mem: if is_resident { 32 } else { rng.within(16, if scale.crowd { 48 } else { 128 }) as u32 },
        strategy: if exclusive || rng.chance(300) {
            None
        } else {
            Some(draw_strategy(rng, scale.crowd)).map(|(health, over)| (health, if is_resident { 0 } else { over }))
        },
        backoff_s: rng.within(1, 5) as u32,
        max_delay_s: rng.within(20, 60) as u32,
        grace_s: rng.chance(500).then(|| rng.within(0, 40) as u32),
        unreachable: match rng.below(4) {
            _ if is_resident => Unreachable::Default,
            0 | 1 => Unreachable::Default,
            2 => {
                let inactive = rng.within(0, 120) as u32;
                Unreachable::After(inactive, inactive + rng.within(0, 120) as u32)
            }
            _ => Unreachable::Disabled,
        },
        after: (0..app).filter(|_| rng.chance(300)).take(3).collect(),
        after_deep: group_of(app) != Some(DEEP) && rng.chance(200),
        fate: draw_fate(rng),
        checked: rng.chance(400),
        asked_ready: false,
        oldest_first: false,
        place: Place::default(),
    }
}

/// One by one, hundreds of instances would take longer than a world lasts.
fn draw_strategy(rng: &mut Rng, crowd: bool) -> (u32, u32) {
    let (health, over) = (*rng.pick(&[0, 30, 50, 100]), *rng.pick(&[0, 0, 30, 50, 100]));
    if crowd && over == 0 { (health.min(80), over) } else { (health, over) }
}

fn draw_fate(rng: &mut Rng) -> Fate {
    match rng.below(8) {
        0 => Fate::Crash,
        1 => Fate::Finish,
        _ => Fate::Steady,
    }
}

fn draw_instances(rng: &mut Rng, kind: Kind, scale: Scale) -> u32 {
    let most = match kind {
        Kind::Brick(_) => 1,
        Kind::HostClaim | Kind::EnvClaim | Kind::BridgeClaim | Kind::Unique | Kind::Fixed(_) => scale.instances.min(scale.agents as u32),
        _ => scale.instances,
    };
    if rng.chance(80) { 0 } else { rng.within(1, u64::from(most.max(1))) as u32 }
}
