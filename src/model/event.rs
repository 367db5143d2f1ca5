//! What subscribers of `/v2/events` are told. Fields: Marathon 1.11.
//!
//! An event holds what happened; its JSON is made only for those who read it, because most are read by nobody.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    app::{App, output},
    cluster::TaskStatus,
    deployment::{Action, Deployment},
    health::HealthCheck,
    id::{InstanceId, Owner, PathId, TaskId},
    instance::{Condition, Instance},
    time::Timestamp,
};

/// One event, complete but for its encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub timestamp: Timestamp,
    /// The app it is about, for filters.
    pub app: Option<PathId>,
    /// Who may be told.
    pub audience: Audience,
    /// What happened.
    pub fact: Fact,
}

/// Who may be told of an event, besides the administrators, who may be told of every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever is let in at all.
    Everyone,
    /// The owners of what it is about.
    Owners(Vec<Owner>),
    /// Nobody else.
    Administrators,
}

/// What happened. The order of the variants means nothing.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are Marathon's, and the types say the rest")]
pub enum Fact {
    AddHealthCheck {
        app: PathId,
        version: Timestamp,
        check: Box<HealthCheck>,
    },
    /// `created`: by a request that creates and nothing else, whose answer does not say either what the version changed.
    ApiPost {
        client_ip: Arc<str>,
        uri: Arc<str>,
        definition: Arc<App>,
        created: bool,
    },
    AppTerminated {
        app: PathId,
    },
    DeploymentFailed {
        deployment: Arc<Deployment>,
        reason: String,
    },
    DeploymentInfo {
        deployment: Arc<Deployment>,
    },
    DeploymentStepSuccess {
        deployment: Arc<Deployment>,
    },
    DeploymentSuccess {
        deployment: Arc<Deployment>,
    },
    EventStreamAttached {
        remote_address: String,
    },
    FailedHealthCheck {
        instance: Arc<Instance>,
        check: Box<HealthCheck>,
    },
    GroupChangeFailed {
        group: PathId,
        version: Timestamp,
        reason: String,
    },
    GroupChangeSuccess {
        group: PathId,
        version: Timestamp,
    },
    HealthStatusChanged {
        instance: Arc<Instance>,
        alive: bool,
    },
    InstanceChanged(Arc<Instance>),
    InstanceHealthChanged(Arc<Instance>),
    Pod {
        change: PodChange,
        client_ip: Arc<str>,
        uri: Arc<str>,
    },
    RemoveHealthCheck {
        app: PathId,
    },
    SchedulerDisconnected {
        reason: String,
    },
    SchedulerRegistered {
        framework_id: String,
        master: String,
    },
    SchedulerReregistered {
        master: String,
    },
    StatusUpdate {
        status: Box<TaskStatus>,
        instance: Arc<Instance>,
    },
    UnhealthyInstanceKill {
        instance: Arc<Instance>,
        task: TaskId,
        reason: String,
    },
    UnknownInstanceTerminated {
        instance: InstanceId,
        condition: Condition,
    },
}

/// What was asked for about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PodChange {
    Created,
    Updated,
    Deleted,
}

impl Event {
    /// Marathon's `eventType`, such as `status_update_event`.
    pub fn kind(&self) -> &'static str {
        match &self.fact {
            Fact::AddHealthCheck { .. } => "add_health_check_event",
            Fact::ApiPost { .. } => "api_post_event",
            Fact::AppTerminated { .. } => "app_terminated_event",
            Fact::DeploymentFailed { .. } => "deployment_failed",
            Fact::DeploymentInfo { .. } => "deployment_info",
            Fact::DeploymentStepSuccess { .. } => "deployment_step_success",
            Fact::DeploymentSuccess { .. } => "deployment_success",
            Fact::EventStreamAttached { .. } => "event_stream_attached",
            Fact::FailedHealthCheck { .. } => "failed_health_check_event",
            Fact::GroupChangeFailed { .. } => "group_change_failed",
            Fact::GroupChangeSuccess { .. } => "group_change_success",
            Fact::HealthStatusChanged { .. } => "health_status_changed_event",
            Fact::InstanceChanged(_) => "instance_changed_event",
            Fact::InstanceHealthChanged(_) => "instance_health_changed_event",
            Fact::Pod { change: PodChange::Created, .. } => "pod_created_event",
            Fact::Pod { change: PodChange::Updated, .. } => "pod_updated_event",
            Fact::Pod { change: PodChange::Deleted, .. } => "pod_deleted_event",
            Fact::RemoveHealthCheck { .. } => "remove_health_check_event",
            Fact::SchedulerDisconnected { .. } => "scheduler_disconnected_event",
            Fact::SchedulerRegistered { .. } => "scheduler_registered_event",
            Fact::SchedulerReregistered { .. } => "scheduler_reregistered_event",
            Fact::StatusUpdate { .. } => "status_update_event",
            Fact::UnhealthyInstanceKill { .. } => "unhealthy_instance_kill_event",
            Fact::UnknownInstanceTerminated { .. } => "unknown_instance_terminated_event",
        }
    }

    /// The event as `user` may be told it; `None`: not at all. Of a deployment, an ordinary user is told the part that is about own apps.
    pub fn told_to(&self, user: &Owner, admin: bool) -> Option<Cow<'_, Self>> {
        match &self.audience {
            _ if admin => Some(Cow::Borrowed(self)),
            Audience::Everyone => Some(Cow::Borrowed(self)),
            Audience::Owners(owners) if owners.contains(user) => match self.fact.part_of(user)? {
                Cow::Borrowed(_) => Some(Cow::Borrowed(self)),
                Cow::Owned(fact) => Some(Cow::Owned(Self { fact, ..self.clone() })),
            },
            Audience::Owners(_) | Audience::Administrators => None,
        }
    }

    /// The body: what happened, with `eventType` and `timestamp`.
    pub fn body(&self) -> Value {
        let mut body = self.fact.fields();
        body.insert("eventType".into(), self.kind().into());
        body.insert("timestamp".into(), self.timestamp.to_string().into());
        Value::Object(body)
    }
}

impl Fact {
    /// What the owner of something in it may be told. Only a deployment can be about apps of several.
    fn part_of(&self, owner: &Owner) -> Option<Cow<'_, Self>> {
        let part = |deployment: &Arc<Deployment>| match deployment.is_all_of(owner) {
            true => Some(None),
            false => deployment.part_of(owner).map(|part| Some(Arc::new(part))),
        };
        let fact = match self {
            Self::DeploymentFailed { deployment, reason } => {
                part(deployment)?.map(|deployment| Self::DeploymentFailed { deployment, reason: reason.clone() })
            }
            Self::DeploymentInfo { deployment } => part(deployment)?.map(|deployment| Self::DeploymentInfo { deployment }),
            Self::DeploymentStepSuccess { deployment } => part(deployment)?.map(|deployment| Self::DeploymentStepSuccess { deployment }),
            Self::DeploymentSuccess { deployment } => part(deployment)?.map(|deployment| Self::DeploymentSuccess { deployment }),
            _ => None,
        };
        Some(fact.map_or(Cow::Borrowed(self), Cow::Owned))
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::AddHealthCheck { app, version, check } => fields([
                ("appId", app.as_str().into()),
                ("version", version.to_string().into()),
                ("healthCheck", output::health_check(check)),
            ]),
            Self::ApiPost { client_ip, uri, definition, created } => {
                let mut definition = output::definition(definition);
                if *created {
                    definition.shift_remove("versionInfo");
                }
                fields([("clientIp", (**client_ip).into()), ("uri", (**uri).into()), ("appDefinition", definition.into())])
            }
            Self::AppTerminated { app } => fields([("appId", app.as_str().into())]),
            Self::DeploymentFailed { deployment, reason } => {
                fields([("id", deployment.id.as_str().into()), ("plan", plan(deployment)), ("reason", reason.as_str().into())])
            }
            Self::DeploymentInfo { deployment } | Self::DeploymentStepSuccess { deployment } => {
                let step = deployment.steps.get(deployment.current_step).map_or(&[][..], |step| &step.actions);
                fields([("plan", plan(deployment)), ("currentStep", actions(step))])
            }
            Self::DeploymentSuccess { deployment } => fields([("id", deployment.id.as_str().into()), ("plan", plan(deployment))]),
            Self::EventStreamAttached { remote_address } => fields([("remoteAddress", remote_address.as_str().into())]),
            // Marathon's name for the instance here is really `taskId`.
            Self::FailedHealthCheck { instance, check } => fields([
                ("appId", instance.app().as_str().into()),
                ("taskId", instance.id.to_string().into()),
                ("healthCheck", output::health_check(check)),
            ]),
            Self::GroupChangeFailed { group, version, reason } => {
                fields([("groupId", group.as_str().into()), ("version", version.to_string().into()), ("reason", reason.as_str().into())])
            }
            Self::GroupChangeSuccess { group, version } => {
                fields([("groupId", group.as_str().into()), ("version", version.to_string().into())])
            }
            Self::HealthStatusChanged { instance, alive } => fields([
                ("appId", instance.app().as_str().into()),
                ("instanceId", instance.id.to_string().into()),
                ("version", instance.version.to_string().into()),
                ("alive", (*alive).into()),
            ]),
            Self::InstanceChanged(instance) => instance_changed(instance),
            Self::InstanceHealthChanged(instance) => fields([
                ("instanceId", instance.id.to_string().into()),
                ("runSpecId", instance.app().as_str().into()),
                ("runSpecVersion", instance.version.to_string().into()),
                ("healthy", instance.healthy.into()),
            ]),
            Self::Pod { client_ip, uri, .. } => fields([("clientIp", (**client_ip).into()), ("uri", (**uri).into())]),
            Self::RemoveHealthCheck { app } => fields([("appId", app.as_str().into())]),
            Self::SchedulerDisconnected { reason } => fields([("reason", reason.as_str().into())]),
            Self::SchedulerRegistered { framework_id, master } => {
                fields([("master", master.as_str().into()), ("frameworkId", framework_id.as_str().into())])
            }
            Self::SchedulerReregistered { master } => fields([("master", master.as_str().into())]),
            Self::StatusUpdate { status, instance } => status_update(status, instance),
            Self::UnhealthyInstanceKill { instance, task, reason } => unhealthy_instance_kill(instance, task, reason),
            Self::UnknownInstanceTerminated { instance, condition } => fields([
                ("instanceId", instance.to_string().into()),
                ("runSpecId", instance.app().as_str().into()),
                ("condition", condition.as_str().into()),
            ]),
        }
    }
}

/// What a task's node said.
fn status_update(status: &TaskStatus, instance: &Instance) -> Map<String, Value> {
    let placement = instance.placement.as_ref();
    let addresses: Vec<Value> = status
        .addresses
        .iter()
        .map(|address| json!({"ipAddress": address.to_string(), "protocol": if address.is_ipv4() { "IPv4" } else { "IPv6" }}))
        .collect();
    fields([
        ("slaveId", status.agent.as_ref().or(placement.map(|placement| &placement.agent)).map_or("", |agent| agent.as_str()).into()),
        ("taskId", status.task.to_string().into()),
        ("taskStatus", status.state.as_str().into()),
        ("message", status.message.clone().into()),
        ("appId", instance.app().as_str().into()),
        ("host", placement.map_or("", |placement| &*placement.host).into()),
        ("ipAddresses", addresses.into()),
        ("ports", placement.map_or(&[][..], |placement| &placement.ports).into()),
        ("version", instance.version.to_string().into()),
    ])
}

fn instance_changed(instance: &Instance) -> Map<String, Value> {
    let placement = instance.placement.as_ref();
    fields([
        ("instanceId", instance.id.to_string().into()),
        ("condition", instance.condition.as_str().into()),
        ("runSpecId", instance.app().as_str().into()),
        ("agentId", placement.map(|placement| placement.agent.as_str()).into()),
        ("host", placement.map(|placement| &*placement.host).into()),
        ("runSpecVersion", instance.version.to_string().into()),
    ])
}

fn unhealthy_instance_kill(instance: &Instance, task: &TaskId, reason: &str) -> Map<String, Value> {
    let placement = instance.placement.as_ref();
    fields([
        ("appId", instance.app().as_str().into()),
        ("taskId", task.to_string().into()),
        ("instanceId", instance.id.to_string().into()),
        ("version", instance.version.to_string().into()),
        ("reason", reason.into()),
        ("host", placement.map_or("", |placement| &*placement.host).into()),
        ("slaveId", placement.map(|placement| placement.agent.as_str()).into()),
    ])
}

/// A plan in its light form: ids only.
fn plan(deployment: &Deployment) -> Value {
    json!({
        "id": deployment.id.as_str(),
        "version": deployment.version.to_string(),
        "steps": deployment.steps.iter().map(|step| actions(&step.actions)).collect::<Vec<_>>(),
    })
}

/// One step: `{"actions": [{"action", "app"}]}`.
fn actions(actions: &[Action]) -> Value {
    json!({"actions": actions.iter().map(Action::show).collect::<Vec<_>>()})
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
