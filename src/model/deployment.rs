//! Deployments: a durable plan that takes apps from one version to another, in steps.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    group::GroupChange,
    id::{DeploymentId, Owner, PathId},
    time::Timestamp,
};

/// A running deployment. It names versions; the definitions are kept beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// When it was accepted; the version of everything it creates.
    pub version: Timestamp,
    /// What it changes.
    pub changes: Vec<AppChange>,
    /// The groups that came, went or changed with it, so that it can be taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupChange>,
    /// Never empty while it runs.
    pub steps: Vec<Step>,
    /// Index of the step that runs, from 0.
    pub current_step: usize,
    /// What [`ActionKind::Restart`] recorded about its app, so that the arithmetic goes on where it was.
    #[serde(default)]
    pub started_at: Timestamp,
}

impl Deployment {
    /// The apps that are locked by it, the pods among them.
    pub fn affected_apps(&self) -> impl Iterator<Item = &PathId> {
        self.changes.iter().map(|change| &change.app)
    }

    /// Of those, the pods, or what is none.
    pub fn affected(&self, pods: bool) -> impl Iterator<Item = &PathId> {
        let acted: std::collections::BTreeSet<&PathId> =
            self.steps.iter().flat_map(|step| &step.actions).filter(|action| action.pod).map(|action| &action.app).collect();
        self.changes.iter().map(|change| &change.app).filter(move |app| acted.contains(app) == pods)
    }

    /// Whose apps it changes, each once.
    pub fn owners(&self) -> Vec<Owner> {
        let mut owners: Vec<Owner> = self.changes.iter().filter_map(|change| change.owner.clone()).collect();
        owners.sort();
        owners.dedup();
        owners
    }

    /// True when nothing but apps of `owner` is changed.
    pub fn is_all_of(&self, owner: &Owner) -> bool {
        self.changes.iter().all(|change| change.owner.as_ref() == Some(owner))
    }

    /// What `owner` may see of it: the part that is about own apps. Steps in which nothing of that happens stay, without actions, so that counting
    /// them goes on meaning the same. `None`: nothing of it.
    pub fn part_of(&self, owner: &Owner) -> Option<Self> {
        let changes: Vec<AppChange> = self.changes.iter().filter(|change| change.owner.as_ref() == Some(owner)).cloned().collect();
        if changes.is_empty() {
            return None;
        }
        let own = |action: &&Action| changes.iter().any(|change| change.app == action.app);
        let steps = self.steps.iter().map(|step| Step { actions: step.actions.iter().filter(own).cloned().collect() }).collect();
        Some(Self { steps, changes, groups: Vec::new(), ..self.clone() })
    }
}

/// One app before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppChange {
    /// The app.
    pub app: PathId,
    /// Whose it is; kept here because the app may be gone before the deployment. `None`: written before apps had owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// `None`: it did not exist.
    pub from: Option<Timestamp>,
    /// `None`: it is removed.
    pub to: Option<Timestamp>,
}

/// Actions that run side by side; the next step begins when all are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Never empty.
    pub actions: Vec<Action>,
}

/// What is done to one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// To which app.
    pub app: PathId,
    /// It is a pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pod: bool,
}

impl Action {
    /// As Marathon shows it: `{"action": "StartApplication", "app": "/x"}`, or `{"action": "StartPod", "pod": "/x"}`.
    pub fn show(&self) -> Value {
        let (key, name) = if self.pod { ("pod", self.kind.as_pod_str()) } else { ("app", self.kind.as_str()) };
        json!({ "action": name, key: self.app.as_str() })
    }
}

/// Marathon's deployment actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionKind {
    /// A marker: the app comes into being with no instances.
    Start,
    /// Every instance goes.
    Stop,
    /// The number of instances changes.
    Scale,
    /// Every instance of an older version is replaced.
    Restart,
}

impl ActionKind {
    /// `StartApplication` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "StartApplication",
            Self::Stop => "StopApplication",
            Self::Scale => "ScaleApplication",
            Self::Restart => "RestartApplication",
        }
    }

    /// `StartPod` and so on.
    pub fn as_pod_str(self) -> &'static str {
        match self {
            Self::Start => "StartPod",
            Self::Stop => "StopPod",
            Self::Scale => "ScalePod",
            Self::Restart => "RestartPod",
        }
    }
}
