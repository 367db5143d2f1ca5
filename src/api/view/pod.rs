//! Pods: what has become of them, as the tree that `::status` shows.
//!
//! Facts (Marathon 1.11): instances that were never launched are not shown; the resources of an instance are the executor's default and those of the
//! containers that have a task; a container's health is that of its health check, and one of which nothing is known yet counts as unhealthy.
//! Marathon drops the `check` of a container; here it is made, and `checkResult` stands where it was asked for.

use serde_json::{Map, Value, json};

use super::{health, object, task};
use crate::{
    api::access::Seen,
    model::{
        app::{App, Network, UnreachableStrategy},
        health::CheckState,
        instance::{Condition, Goal, Instance, Placement},
        pod::{Amounts, Pod, input::EXECUTOR, output},
        time::Timestamp,
    },
};

/// Marathon's default of `--mesos_bridge_name`.
const BRIDGE: &str = "mesos-bridge";

/// A pod and its instances. Its times are those of what is shown, not that of the answer (as in Marathon): the same state has the same answer.
pub fn status(seen: &Seen, pod: &App) -> Value {
    let shown = seen.instances_of(&pod.id).filter(|instance| instance.incarnation > 0);
    let instances: Vec<One> = shown.filter_map(|instance| instance_status(seen, instance)).collect();
    let stable = instances.iter().filter(|one| one.state == "STABLE").count();
    let ending = seen.ending_since(&pod.id);
    let state = match stable >= pod.instances as usize {
        _ if ending.is_some() => "TERMINAL",
        true => "STABLE",
        false => "DEGRADED",
    };
    // Without instances nothing has happened since the definition was written.
    let since = instances.iter().map(|one| one.since).chain(ending).fold(pod.version, Timestamp::max);
    let failed = seen.failure(&pod.id).map(|failure| failure.timestamp);
    let updated = instances.iter().map(|one| one.updated).chain(failed).fold(since, Timestamp::max);
    json!({
        "id": pod.id,
        "spec": output::definition(pod),
        "status": state,
        "statusSince": since,
        "instances": instances.into_iter().map(|one| one.shown).collect::<Value>(),
        "terminationHistory": terminations(seen, pod),
        "lastUpdated": updated,
        "lastChanged": since,
    })
}

/// The last failure of a container, if there was any.
fn terminations(seen: &Seen, pod: &App) -> Value {
    let failure = seen.failure(&pod.id);
    let shown = failure.map(|failure| {
        let started = seen.instance(&failure.task.instance).filter(|instance| instance.incarnation == failure.task.incarnation);
        json!({
            "instanceID": failure.task.instance,
            // Of a launch that is over nothing else is kept.
            "startedAt": started.and_then(|instance| instance.started_at.or(instance.staged_at)).unwrap_or(failure.timestamp),
            "terminatedAt": failure.timestamp,
            "message": failure.message,
            "containers": [{ "containerId": failure.task, "lastKnownState": failure.state }],
        })
    });
    shown.into_iter().collect()
}

struct One {
    state: &'static str,
    since: Timestamp,
    /// When something within it last changed: a container or what a health check says.
    updated: Timestamp,
    shown: Value,
}

fn instance_status(seen: &Seen, instance: &Instance) -> Option<One> {
    let app = seen.definition_of(instance)?;
    let pod = app.pod.as_ref()?;
    let containers: Vec<Container<'_>> =
        instance.containers.iter().enumerate().filter_map(|(place, _)| Container::of(seen, app, pod, instance, place)).collect();
    let (state, message) = state_of(seen.condition(instance), &containers);
    let mut amounts = EXECUTOR;
    for held in containers.iter().filter(|container| container.holds()) {
        let more = held.amounts();
        let gpus = amounts.gpus.saturating_add(more.gpus);
        amounts = Amounts { cpus: amounts.cpus.plus(more.cpus), mem: amounts.mem.plus(more.mem), disk: amounts.disk.plus(more.disk), gpus };
    }
    let mut fields = object(json!({ "id": instance.id, "status": state, "statusSince": instance.since }));
    let mut set = |name: &str, value: Option<Value>| value.into_iter().for_each(|value| _ = fields.insert(name.into(), value));
    set("message", message.map(Value::from));
    set("conditions", Some(json!([])));
    let placement = instance.placement.as_ref();
    let agent = placement.and_then(|placement| seen.agent(&placement.agent));
    set("agentHostname", placement.map(|placement| json!(&*placement.host)));
    set("agentId", placement.map(|placement| json!(placement.agent)));
    set("agentRegion", agent.and_then(|agent| agent.region.as_deref()).map(Value::from));
    set("agentZone", agent.and_then(|agent| agent.zone.as_deref()).map(Value::from));
    set("resources", Some(output::resources(&amounts)));
    set("networks", Some(networks(app, instance)));
    set("containers", Some(containers.iter().map(Container::show).collect()));
    set("specReference", Some(format!("/v2/pods{}::versions/{}", app.id, instance.version).into()));
    set("localVolumes", Some(seen.volumes_of(&instance.id).map(|volume| task::local_volume(volume)).collect()));
    let started = instance.containers.iter().filter_map(|container| container.started_at);
    let checked = instance.checks.iter().flat_map(|check| [check.first_success, check.last_failure]).flatten();
    let updated = started.chain(checked).fold(instance.since, Timestamp::max);
    set("lastUpdated", Some(json!(updated)));
    set("lastChanged", Some(json!(instance.since)));
    set("role", Some(json!(app.role)));
    Some(One { state, since: instance.since, updated, shown: Value::Object(fields) })
}

fn state_of(condition: Condition, containers: &[Container<'_>]) -> (&'static str, Option<&'static str>) {
    match condition {
        Condition::Scheduled | Condition::Provisioned => ("PENDING", None),
        Condition::Staging | Condition::Starting => ("STAGING", None),
        Condition::Unreachable | Condition::UnreachableInactive => ("DEGRADED", Some("pod instance has become unreachable")),
        Condition::Running if containers.iter().any(|container| container.health().is_some_and(|health| health != Some(true))) => {
            ("DEGRADED", Some("at least one container is not healthy"))
        }
        Condition::Running => ("STABLE", None),
        Condition::Error
        | Condition::Failed
        | Condition::Finished
        | Condition::Killed
        | Condition::Killing
        | Condition::Gone
        | Condition::Dropped
        | Condition::Unknown => ("TERMINAL", None),
    }
}

fn networks(app: &App, instance: &Instance) -> Value {
    if instance.addresses.is_empty() {
        return json!([]);
    }
    let addresses = &instance.addresses;
    match &app.network {
        Network::Host => json!([{ "addresses": addresses }]),
        Network::Bridge => json!([{ "name": BRIDGE, "addresses": addresses }]),
        Network::Container(networks) => networks.iter().map(|network| json!({ "name": network.name, "addresses": addresses })).collect(),
    }
}

/// One container of an instance that was launched.
struct Container<'a> {
    app: &'a App,
    pod: &'a Pod,
    instance: &'a Instance,
    placement: Option<&'a Placement>,
    place: usize,
    condition: Condition,
    since: Timestamp,
    /// What its generic check found.
    result: Option<Value>,
}

impl<'a> Container<'a> {
    fn of(seen: &Seen, app: &'a App, pod: &'a Pod, instance: &'a Instance, place: usize) -> Option<Self> {
        let state = instance.containers.get(place)?;
        let check = pod.containers.get(place)?.check.as_ref();
        let result = check.and_then(|_| health::generic(seen, instance, place));
        let since = state.started_at.or(instance.staged_at).unwrap_or(instance.since);
        // Whoever is out of reach for long is no longer waited for, but no other thing.
        let condition = state.condition;
        Some(Self { app, pod, instance, placement: instance.placement.as_ref(), place, condition, since, result })
    }

    fn amounts(&self) -> Amounts {
        self.pod.containers[self.place].amounts
    }

    /// True when it has a task, as far as Marathon counts.
    fn holds(&self) -> bool {
        use Condition::*;
        matches!(self.condition, Staging | Starting | Running | Unreachable | Killing)
    }

    /// `None`: there is no health check, or it was too early to ask. `Some(None)`: it has said nothing yet.
    fn health(&self) -> Option<Option<bool>> {
        use Condition::*;
        let check = self.pod.check_of(self.place)?;
        let early = matches!(self.condition, Scheduled | Provisioned | Staging | Starting);
        (!early).then(|| self.instance.checks.get(check).filter(|check| check.has_result()).map(CheckState::is_alive))
    }

    fn show(&self) -> Value {
        let container = &self.pod.containers[self.place];
        let mut fields = object(json!({
            "name": container.name,
            "status": task::state(self.condition),
            "statusSince": self.since,
            "conditions": self.conditions(),
            "containerId": self.instance.task_of(Some(&container.name)),
            "endpoints": self.endpoints(),
        }));
        if self.holds() {
            fields.insert("resources".into(), output::resources(&container.amounts));
        }
        if let Some(result) = &self.result {
            fields.insert("checkResult".into(), result.clone());
        }
        fields.insert("lastUpdated".into(), json!(self.since));
        fields.insert("lastChanged".into(), json!(self.since));
        Value::Object(fields)
    }

    fn conditions(&self) -> Value {
        let Some(health) = self.health() else { return json!([]) };
        let reason = if health.is_some() { "health-reported-by-mesos" } else { "health-unreported-by-mesos" };
        json!([{
            "name": "healthy",
            "lastChanged": self.since,
            "lastUpdated": self.since,
            "value": health.unwrap_or_default().to_string(),
            "reason": reason,
        }])
    }

    /// Those with a port of the node first, the one that is checked last.
    fn endpoints(&self) -> Value {
        let Some(placement) = self.placement.filter(|_| self.condition.is_live()) else { return json!([]) };
        let (all, ports) = (self.app.endpoints(), self.app.host_ports_by_endpoint(&placement.ports));
        let check = self.pod.check_of(self.place);
        let checked = check.and_then(|check| self.app.health_checks.get(check)?.port_index).map(usize::from);
        let mut own: Vec<usize> = self.pod.ports_of(self.place).collect();
        own.sort_by_key(|at| (Some(*at) == checked, !all[*at].has_host_port));
        let show = |at: usize| {
            let mut fields: Map<String, Value> = object(json!({ "name": all[at].name }));
            if let Some(port) = ports.get(at).copied().flatten() {
                fields.insert("allocatedHostPort".into(), port.into());
            }
            let said = check.and_then(|check| self.instance.checks.get(check)).filter(|check| check.has_result());
            if let Some(said) = said.filter(|_| Some(at) == checked) {
                fields.insert("healthy".into(), said.is_alive().into());
            }
            Value::Object(fields)
        };
        own.into_iter().map(show).collect()
    }
}

/// An instance as the kill of one answers it.
pub fn instance(seen: &Seen, instance: &Instance) -> Value {
    let mut state = object(json!({ "condition": seen.condition(instance).as_str(), "since": instance.since }));
    let mut set = |name: &str, value: Option<Value>| value.into_iter().for_each(|value| _ = state.insert(name.into(), value));
    set("activeSince", instance.started_at.map(|at| json!(at)));
    set("healthy", instance.healthy.map(Value::from));
    let goal = match instance.goal {
        Goal::Running => "Running",
        Goal::Stopped => "Stopped",
        Goal::Decommissioned => "Decommissioned",
    };
    set("goal", Some(goal.into()));
    let mut fields = object(json!({ "instanceId": instance.id, "state": state }));
    if let Some(placement) = &instance.placement {
        let mut info = object(json!({ "host": &*placement.host, "agentId": placement.agent }));
        let agent = seen.agent(&placement.agent);
        let mut set = |name: &str, value: Option<&str>| value.into_iter().for_each(|value| _ = info.insert(name.into(), value.into()));
        set("region", agent.and_then(|agent| agent.region.as_deref()));
        set("zone", agent.and_then(|agent| agent.zone.as_deref()));
        info.insert("attributes".into(), json!([]));
        fields.insert("agentInfo".into(), Value::Object(info));
    }
    fields.insert("runSpecVersion".into(), json!(instance.version));
    let strategy = seen.definition_of(instance).map_or(UnreachableStrategy::Disabled, |app| app.unreachable_strategy);
    fields.insert("unreachableStrategy".into(), crate::model::app::output::unreachable_strategy(strategy));
    Value::Object(fields)
}
