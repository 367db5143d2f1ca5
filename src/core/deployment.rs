//! Deployments: how a change of definitions becomes a plan, how a plan advances, and how an app without one keeps its size.

pub(super) mod advance;
pub(super) mod arithmetic;
mod balance;
pub(super) mod plan;
pub(super) mod scale;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::turn::Turn;
use crate::model::{
    deployment::{ActionKind, Deployment},
    event::Fact,
    id::{DeploymentId, PathId},
    record::{Record, RecordKey},
};

/// How far the current step of a deployment is. Derived: after a restart each of its actions is looked at again.
///
/// Only apps that something happened to are looked at, so that a step of thousands of apps costs no more than as many steps of one.
#[derive(Clone, Debug)]
pub struct Work {
    actions: BTreeMap<PathId, Doing>,
    /// Actions of the current step that are not done.
    left: usize,
    touched: BTreeSet<PathId>,
}

/// The latest action of an app, of the current step or of an earlier one.
#[derive(Clone, Copy, Debug)]
struct Doing {
    kind: ActionKind,
    /// Once it is, its step waits for it no more; its app is still kept at its size.
    done: bool,
}

impl Work {
    pub(super) fn begin(deployment: &Deployment) -> Self {
        let mut actions = BTreeMap::new();
        for (at, step) in deployment.steps.iter().take(deployment.current_step + 1).enumerate() {
            let done = at < deployment.current_step;
            actions.extend(step.actions.iter().map(|action| (action.app.clone(), Doing { kind: action.kind, done })));
        }
        let touched: BTreeSet<PathId> = actions.keys().cloned().collect();
        let left = actions.values().filter(|doing| !doing.done).count();
        Self { actions, left, touched }
    }

    /// Something happened to an app.
    pub(super) fn touch(&mut self, app: &PathId) {
        if self.actions.contains_key(app) {
            self.touched.insert(app.clone());
        }
    }
}

/// Marathon's reason, whoever cancels, and for whatever.
const CANCELLED: &str = "The upgrade has been cancelled";

/// Ends a deployment that something else takes the place of; what it has done so far stays.
pub(super) fn cancel(turn: &mut Turn<'_, '_>, id: &DeploymentId) {
    if let Some(deployment) = turn.state.tables.deployments.get(id).cloned() {
        turn.event(None, Fact::DeploymentFailed { deployment, reason: CANCELLED.to_owned() });
        turn.delete(RecordKey::Deployment(id.clone()));
    }
}

/// Writes a deployment down, or, when it has nothing to do, only says that it has succeeded.
pub(super) fn begin(turn: &mut Turn<'_, '_>, deployment: Deployment) {
    let deployment = Arc::new(deployment);
    if deployment.steps.is_empty() {
        turn.event(None, Fact::DeploymentSuccess { deployment });
    } else {
        turn.event(None, Fact::DeploymentInfo { deployment: deployment.clone() });
        turn.put(Record::Deployment(deployment));
    }
}
