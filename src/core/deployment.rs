//! Deployments: how a change of definitions becomes a plan, how a plan advances, and how an app without one keeps its size.

pub(super) mod advance;
pub(super) mod arithmetic;
pub(super) mod scale;

use std::sync::Arc;

use super::turn::Turn;
use crate::model::{
    deployment::{Action, ActionKind, AppChange, Deployment, Step},
    event::Fact,
    id::DeploymentId,
    record::{Record, RecordKey},
};

/// What is to be done about one app.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) change: AppChange,
    /// `None`: the app stays as it is.
    pub(super) kind: Option<ActionKind>,
}

/// Marathon's order: removed apps stop, new ones start (a marker), then everything is scaled or restarted.
pub(super) fn plan(planned: &[Planned]) -> Vec<Step> {
    let actions = |kind_of: &dyn Fn(&Planned) -> Option<ActionKind>| {
        let actions =
            planned.iter().filter_map(|one| Some(Action { kind: kind_of(one)?, app: one.change.app.clone() })).collect::<Vec<_>>();
        (!actions.is_empty()).then_some(Step { actions })
    };
    let stop = actions(&|one| (one.kind == Some(ActionKind::Stop)).then_some(ActionKind::Stop));
    let start = actions(&|one| (one.kind == Some(ActionKind::Start)).then_some(ActionKind::Start));
    let change = actions(&|one| match one.kind {
        Some(ActionKind::Start) => Some(ActionKind::Scale),
        Some(ActionKind::Stop) | None => None,
        other => other,
    });
    stop.into_iter().chain(start).chain(change).collect()
}

/// Ends a deployment that something else takes the place of; what it has done so far stays.
pub(super) fn cancel(turn: &mut Turn<'_, '_>, id: &DeploymentId, reason: &str) {
    if let Some(deployment) = turn.state.tables.deployments.get(id).cloned() {
        turn.event(None, Fact::DeploymentFailed { deployment, reason: reason.to_owned() });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_stops_then_starts_then_changes() {
        let one = |app: &str, kind| Planned { change: AppChange { app: app.parse().unwrap(), owner: None, from: None, to: None }, kind };
        let planned = [
            one("/new", Some(ActionKind::Start)),
            one("/old", Some(ActionKind::Stop)),
            one("/more", Some(ActionKind::Scale)),
            one("/same", None),
        ];
        let text: Vec<String> = plan(&planned)
            .iter()
            .map(|step| step.actions.iter().map(|action| format!("{} {}", action.kind.as_str(), action.app)).collect::<Vec<_>>().join(", "))
            .collect();
        assert_eq!(text, ["StopApplication /old", "StartApplication /new", "ScaleApplication /new, ScaleApplication /more"]);
        assert_eq!(plan(&[one("/same", None)]), []);
    }
}
