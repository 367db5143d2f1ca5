//! Deployments. Facts (Marathon 1.11): a bare list; `currentStep` counts from 1; actions name apps only by their ids.

use serde_json::{Value, json};

use super::health;
use crate::{
    api::access::Seen,
    model::deployment::{Action, Deployment, Step},
};

/// `[{"actions": [{"action", "app"}]}]`
pub fn steps(steps: &[Step]) -> Value {
    steps.iter().map(|step| json!({ "actions": step.actions.iter().map(Action::show).collect::<Value>() })).collect()
}

/// One running deployment, with what its present actions know of readiness.
pub fn deployment(seen: &Seen, deployment: &Deployment) -> Value {
    let current = deployment.steps.get(deployment.current_step).map_or([].as_slice(), |step| &step.actions);
    let current = current.iter().map(|action| {
        let readiness = health::readiness(seen, &action.app);
        let mut fields = action.show();
        fields["readinessCheckResults"] = readiness;
        fields
    });
    json!({
        "id": deployment.id,
        "version": deployment.version,
        "affectedApps": deployment.affected(false).collect::<Vec<_>>(),
        "affectedPods": deployment.affected(true).collect::<Vec<_>>(),
        "steps": steps(&deployment.steps),
        "currentActions": current.collect::<Value>(),
        "currentStep": deployment.current_step + 1,
        "totalSteps": deployment.steps.len(),
    })
}
