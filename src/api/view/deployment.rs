//! Deployments. Facts (Marathon 1.11): a bare list; `currentStep` counts from 1; actions name apps only by their ids.

use serde_json::{Value, json};

use crate::model::deployment::{Action, Deployment, Step};

/// `[{"actions": [{"action", "app"}]}]`
pub fn steps(steps: &[Step]) -> Value {
    let action = |action: &Action| json!({ "action": action.kind.as_str(), "app": action.app });
    steps.iter().map(|step| json!({ "actions": step.actions.iter().map(action).collect::<Value>() })).collect()
}

/// One running deployment.
pub fn deployment(deployment: &Deployment) -> Value {
    let current = deployment.steps.get(deployment.current_step).map_or([].as_slice(), |step| &step.actions);
    let current = current.iter().map(|action| json!({ "action": action.kind.as_str(), "app": action.app, "readinessCheckResults": [] }));
    json!({
        "id": deployment.id,
        "version": deployment.version,
        "affectedApps": deployment.affected_apps().collect::<Vec<_>>(),
        "affectedPods": [],
        "steps": steps(&deployment.steps),
        "currentActions": current.collect::<Value>(),
        "currentStep": deployment.current_step + 1,
        "totalSteps": deployment.steps.len(),
    })
}
