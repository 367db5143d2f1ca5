//! Nodes: what they are, what they have, what our tasks use of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    api::access::Seen,
    model::{
        agent::Agent,
        id::AgentId,
        resources::{PortRange, Scalar},
    },
    runtime::node::NodeFacts,
};

/// What the tasks on one node take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    tasks: usize,
    cpus: Scalar,
    mem: Scalar,
    disk: Scalar,
    ports: Vec<u16>,
}

/// What live tasks take, by node: those that the caller may see.
pub fn used(seen: &Seen) -> BTreeMap<AgentId, Used> {
    let mut all: BTreeMap<AgentId, Used> = BTreeMap::new();
    for instance in seen.instances().filter(|instance| instance.condition.is_live()) {
        let Some(placement) = &instance.placement else { continue };
        let used = all.entry(placement.agent.clone()).or_default();
        used.tasks += 1;
        used.ports.extend(&placement.ports);
        if let Some(app) = seen.definition_of(instance) {
            used.cpus = used.cpus.plus(app.cpus);
            used.mem = used.mem.plus(app.mem);
            used.disk = used.disk.plus(app.disk);
        }
    }
    all.values_mut().for_each(|used| used.ports.sort_unstable());
    all
}

/// One node. Memory and disk in MiB. `connectedSince` is absent while the cluster is out of reach, `lastSeen` until it has said something to this
/// process; `total`, `engine` and `cgroupVersion` are what the node itself says, absent when it cannot be asked.
pub fn node(seen: &Seen, agent: &Agent, used: &Used, facts: Option<&NodeFacts>) -> Value {
    let addresses = facts.filter(|facts| !facts.addresses.is_empty()).map_or(&agent.addresses, |facts| &facts.addresses);
    let attributes: Map<String, Value> =
        agent.attributes.iter().map(|attribute| (attribute.name.clone(), Value::from(attribute.text.as_str()))).collect();
    let mut fields = json!({
        "id": agent.id,
        "host": agent.host,
        "addresses": addresses,
        "attributes": attributes,
        "tasks": used.tasks,
        "resources": { "used": { "cpus": used.cpus, "mem": used.mem, "disk": used.disk, "ports": used.ports } },
        "connected": seen.is_connected(),
        "firstSeen": agent.seen_at,
    });
    let mut set = |name: &str, value: Option<Value>| value.into_iter().for_each(|value| fields[name] = value);
    set("region", agent.region.as_deref().map(Value::from));
    set("zone", agent.zone.as_deref().map(Value::from));
    set("connectedSince", seen.connected_since().map(|at| json!(at)));
    set("lastSeen", seen.heard_of(&agent.id).map(|at| json!(at)));
    if let Some(facts) = facts {
        let total = &facts.total;
        let ports: Vec<String> = total.ports.iter().map(PortRange::to_string).collect();
        fields["resources"]["total"] = json!({ "cpus": total.cpus, "mem": total.mem, "disk": total.disk, "ports": ports });
        fields["engine"] = engine(facts);
        fields["cgroupVersion"] = json!(facts.cgroup_version);
    }
    fields
}

/// A node's engine: what it is made of, what is known against it, and why it is not used, if so.
pub fn engine(facts: &NodeFacts) -> Value {
    let mut fields =
        json!({ "name": facts.engine, "version": facts.engine_version, "runtime": facts.runtime, "weaknesses": facts.weaknesses });
    if let Some(reason) = &facts.refusal {
        fields["refused"] = json!(reason);
    }
    fields
}
