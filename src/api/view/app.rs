//! Apps: the definition, and around it what became of it.
//!
//! Facts (Marathon 1.11): `tasksStaged` counts launched instances whose state is not yet known or TASK_STAGING, `tasksRunning` those in
//! TASK_RUNNING, every other one is in neither; health is counted only for apps with health checks. What is only scheduled shows in the queue.

use std::{cell::OnceCell, collections::HashMap};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};

use super::{
    endpoints::{self, Names},
    task::{self, Task},
};
use crate::{
    api::{Info, access::Seen, query::Embed},
    model::{
        app::{App, output},
        id::{DeploymentId, PathId},
        instance::TaskFailure,
        port::PortClaim,
        time::Timestamp,
    },
};

/// What every app of one answer is shown with.
pub struct Context<'a> {
    seen: &'a Seen,
    names: Names<'a>,
    now: Timestamp,
    locks: OnceCell<HashMap<PathId, Vec<DeploymentId>>>,
    claims: OnceCell<HashMap<&'a PathId, Vec<&'a PortClaim>>>,
}

impl<'a> Context<'a> {
    /// The snapshot, the server and the time of an answer.
    pub fn new(seen: &'a Seen, info: &'a Info, now: Timestamp) -> Self {
        let names = Names { framework: &info.framework_name, domain: &info.domain };
        Self { seen, names, now, locks: OnceCell::new(), claims: OnceCell::new() }
    }

    /// An app, with what `embed` asks for. Costs in proportion to the app's own instances at most.
    pub fn app<'b>(&'b self, app: &'b App, embed: Embed) -> Shown<'b, 'a> {
        Shown { context: self, app, embed }
    }

    /// The definition and where the app is reached. The latter only when it uses what Marathon does not know, or when it is asked for: clients with
    /// typed models (marathon-python) fail on a key that Marathon never sends.
    pub fn definition(&self, app: &App, with_endpoints: bool) -> Map<String, Value> {
        let mut fields = output::definition(app);
        if !with_endpoints && !endpoints::is_extended(app) {
            return fields;
        }
        let claims = self.claims().get(&app.id).map_or([].as_slice(), Vec::as_slice);
        fields.insert("endpoints".into(), json!(endpoints::endpoints(app, claims, self.seen, self.names)));
        fields
    }

    /// What `POST /v2/apps` answers: nothing runs yet, the version is bare, and the deployment is named whether or not it still runs.
    pub fn created(&self, app: &App, deployment: &DeploymentId, embed: Embed) -> Map<String, Value> {
        let mut fields = self.definition(app, embed.endpoints);
        fields.shift_remove("versionInfo");
        for counter in ["tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy"] {
            fields.insert(counter.into(), 0.into());
        }
        fields.insert("deployments".into(), json!([{ "id": deployment }]));
        fields
    }

    fn locks(&self) -> &HashMap<PathId, Vec<DeploymentId>> {
        self.locks.get_or_init(|| {
            let mut locks: HashMap<PathId, Vec<DeploymentId>> = HashMap::new();
            for deployment in self.seen.deployments() {
                deployment.affected_apps().for_each(|app| locks.entry(app.clone()).or_default().push(deployment.id.clone()));
            }
            locks
        })
    }

    /// Once for all apps of an answer: each app looking for its own would take the number of apps times the number of claims.
    fn claims(&self) -> &HashMap<&'a PathId, Vec<&'a PortClaim>> {
        self.claims.get_or_init(|| {
            let mut claims: HashMap<&PathId, Vec<&PortClaim>> = HashMap::new();
            self.seen.ports().for_each(|claim| claims.entry(&claim.app).or_default().push(claim));
            claims
        })
    }
}

/// An app to be shown. Its parts are made when they are written, one after the other.
pub struct Shown<'b, 'a> {
    context: &'b Context<'a>,
    app: &'b App,
    embed: Embed,
}

impl Serialize for Shown<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { context, app, embed } = *self;
        let seen = context.seen;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &context.definition(app, embed.endpoints) {
            map.serialize_entry(name, value)?;
        }
        if embed.counts {
            let tally = seen.tally(&app.id);
            let (staged, running) = seen.staged_and_running(&app.id);
            map.serialize_entry("tasksStaged", &staged)?;
            map.serialize_entry("tasksRunning", &running)?;
            map.serialize_entry("tasksHealthy", &tally.map_or(0, |tally| tally.healthy()))?;
            map.serialize_entry("tasksUnhealthy", &tally.map_or(0, |tally| tally.unhealthy()))?;
        }
        if embed.deployments {
            let locks = context.locks().get(&app.id).map_or([].as_slice(), Vec::as_slice);
            map.serialize_entry("deployments", &locks.iter().map(|id| json!({ "id": id })).collect::<Value>())?;
        }
        if embed.readiness {
            let deploys = context.locks().contains_key(&app.id);
            map.serialize_entry("readinessCheckResults", &if deploys { super::health::readiness(seen, &app.id) } else { json!([]) })?;
        }
        if embed.last_task_failure
            && let Some(failure) = seen.failure(&app.id)
        {
            map.serialize_entry("lastTaskFailure", &last_task_failure(failure))?;
        }
        if embed.tasks {
            map.serialize_entry("tasks", &Tasks { seen, app })?;
        }
        if embed.task_stats {
            map.serialize_entry("tasksStats", &task::stats(seen, app, context.now))?;
        }
        map.end()
    }
}

/// The live tasks of an app.
struct Tasks<'a> {
    seen: &'a Seen,
    app: &'a App,
}

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { seen, app } = *self;
        serializer.collect_seq(task::live(seen, &app.id).map(|instance| Task::of(seen, instance, app)))
    }
}

/// Marathon's `lastTaskFailure`.
fn last_task_failure(failure: &TaskFailure) -> Value {
    json!({
        "appId": failure.app,
        "host": failure.host,
        "message": failure.message,
        "state": failure.state.as_str(),
        "taskId": failure.task,
        "timestamp": failure.timestamp,
        "version": failure.version,
        "slaveId": failure.agent,
    })
}
