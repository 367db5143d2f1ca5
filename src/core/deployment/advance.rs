//! One deployment, one look: what its step may do now, whether the step is done, and what comes next. Computed from the present counts each time,
//! so that a restart goes on where it was.

use std::sync::Arc;

use super::{arithmetic, scale};
use crate::{
    core::{state::Tally, turn::Turn},
    model::{
        app::App,
        deployment::{Action, ActionKind, Deployment},
        event::Fact,
        id::DeploymentId,
        instance::Condition,
        record::{Record, RecordKey},
        time::Timestamp,
    },
};

/// Steps that one look may finish; a plan has four at most.
const MAX_STEPS_AT_ONCE: usize = 8;

/// Moves the deployment on as far as it gets.
pub(in crate::core) fn advance(turn: &mut Turn<'_, '_>, id: &DeploymentId) {
    for _ in 0..MAX_STEPS_AT_ONCE {
        let Some(deployment) = turn.state.tables.deployments.get(id).cloned() else { return };
        let Some(step) = deployment.steps.get(deployment.current_step) else { return };
        let unfinished = step.actions.iter().filter(|action| !is_done(turn, action)).count();
        if unfinished > 0 {
            return;
        }
        turn.event(None, Fact::DeploymentStepSuccess { deployment: deployment.clone() });
        let next = deployment.current_step + 1;
        if next < deployment.steps.len() {
            let deployment = Arc::new(Deployment { current_step: next, ..(*deployment).clone() });
            turn.event(None, Fact::DeploymentInfo { deployment: deployment.clone() });
            turn.put(Record::Deployment(deployment));
        } else {
            turn.delete(RecordKey::Deployment(id.clone()));
            turn.event(None, Fact::DeploymentSuccess { deployment });
            return;
        }
    }
}

/// Does what the action may do now; true when nothing of it is left.
fn is_done(turn: &mut Turn<'_, '_>, action: &Action) -> bool {
    match action.kind {
        ActionKind::Start => true,
        ActionKind::Stop => stop(turn, action),
        ActionKind::Scale => turn.state.tables.app(&action.app).cloned().is_none_or(|app| scale(turn, &app)),
        ActionKind::Restart => turn.state.tables.app(&action.app).cloned().is_none_or(|app| restart(turn, &app)),
    }
}

fn stop(turn: &mut Turn<'_, '_>, action: &Action) -> bool {
    scale::end_all(turn, &action.app);
    let done = !turn.state.tables.tallies.contains_key(&action.app);
    if done {
        turn.event(Some(&action.app), Fact::AppTerminated { app: action.app.clone() });
    }
    done
}

fn scale(turn: &mut Turn<'_, '_>, app: &App) -> bool {
    let right = scale::adjust(turn, app);
    let tally = turn.state.tables.tallies.get(&app.id).cloned().unwrap_or_default();
    let adds = tally.wanted_since(app.version, |_| true) > 0;
    // Where nothing is added nobody is waited for: what was not well before must not hold up its own removal.
    let up = if adds { serving(turn, &tally, app, |_| true) } else { tally.wanted_since(Timestamp(i64::MIN), runs) };
    right && up >= app.instances && tally.leaving(|_| true) == 0
}

fn restart(turn: &mut Turn<'_, '_>, app: &App) -> bool {
    let changed = app.version_info.last_config_change_at;
    let tally = turn.state.tables.tallies.get(&app.id).cloned().unwrap_or_default();
    // As in Marathon: whatever runs of the old counts, because what failed a check may be well again; the unhealthy go first, so that none that
    // serves goes below the minimum.
    let old_healthy = tally.wanted_before(changed, runs);
    let new_healthy = serving(turn, &tally, app, |version| version >= changed);
    let counts = arithmetic::Counts {
        target: app.instances,
        old_healthy,
        old_other: tally.wanted_before(changed, |_| true).saturating_sub(old_healthy),
        new_healthy,
        new_other: tally.wanted_since(changed, scale::counts).saturating_sub(new_healthy),
        new_waiting: tally.wanted_since(changed, |condition| condition == Condition::Scheduled),
        leaving: tally.leaving(|_| true),
    };
    if arithmetic::is_done(counts) {
        return true;
    }
    let moves = arithmetic::moves(counts, app.upgrade_strategy);
    let Some(index) = turn.state.index.get(&app.id) else {
        scale::add(turn, app, moves.start);
        return false;
    };
    let mut victims = index.victims(moves.kill_old as usize, app.kill_selection, |version| version < changed);
    victims.extend(index.victims(moves.kill_new as usize, app.kill_selection, |version| version >= changed));
    scale::add(turn, app, moves.start);
    victims.iter().for_each(|id| scale::decommission(turn, id));
    false
}

/// How many wanted instances of these versions serve: they run, are healthy if their version has health checks, and said that they are ready if it
/// has a readiness check. The one place where that is asked.
fn serving(turn: &Turn<'_, '_>, tally: &Tally, app: &App, version: impl Fn(Timestamp) -> bool) -> u32 {
    tally.serving(version, |at| turn.state.tables.needs(&app.id, at))
}

fn runs(condition: Condition) -> bool {
    condition == Condition::Running
}
