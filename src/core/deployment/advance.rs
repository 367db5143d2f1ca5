//! One deployment, one look: what its step may do now, whether the step is done, and what comes next. Computed from the present counts each time,
//! so that a restart goes on where it was.

use std::sync::Arc;

use super::{Doing, arithmetic, scale};
use crate::{
    core::{state::Tally, turn::Turn},
    model::{
        app::App,
        deployment::{ActionKind, Deployment},
        event::Fact,
        id::{DeploymentId, PathId},
        instance::Condition,
        record::{Record, RecordKey},
        time::Timestamp,
    },
};

/// Steps that one look may finish; the rest follows in the next one.
const MAX_STEPS_AT_ONCE: usize = 8;

/// Moves the deployment on as far as it gets.
pub(in crate::core) fn advance(turn: &mut Turn<'_, '_>, id: &DeploymentId) {
    for _ in 0..MAX_STEPS_AT_ONCE {
        let Some(work) = turn.state.works.get_mut(id) else { return };
        for app in std::mem::take(&mut work.touched) {
            look(turn, id, &app);
        }
        if turn.state.works.get(id).is_none_or(|work| work.left > 0) {
            return;
        }
        let Some(deployment) = turn.state.tables.deployments.get(id).cloned() else { return };
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

/// Does what the action of an app may do now. One that is done stays done, as in Marathon, but goes on keeping its app as it should be: a step may
/// take long, and what is lost meanwhile may be what the next ones wait for.
fn look(turn: &mut Turn<'_, '_>, id: &DeploymentId, app: &PathId) {
    let doing = |turn: &Turn<'_, '_>| turn.state.works.get(id).and_then(|work| work.actions.get(app).copied());
    let Some(Doing { kind, done: was_done }) = doing(turn) else { return };
    let done = match kind {
        ActionKind::Start => true,
        ActionKind::Stop => stop(turn, app),
        ActionKind::Scale => turn.state.tables.app(app).cloned().is_none_or(|app| scale(turn, &app)),
        ActionKind::Restart => turn.state.tables.app(app).cloned().is_none_or(|app| restart(turn, &app)),
    };
    if !done || was_done {
        return;
    }
    if kind == ActionKind::Stop {
        turn.event(Some(app), Fact::AppTerminated { app: app.clone() });
    }
    if let Some(work) = turn.state.works.get_mut(id) {
        work.left -= 1;
        work.actions.insert(app.clone(), Doing { kind, done });
    }
}

fn stop(turn: &mut Turn<'_, '_>, app: &PathId) -> bool {
    scale::end_all(turn, app);
    !turn.state.tables.tallies.contains_key(app)
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
    let changed = app.last_config_change_at();
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
    let moves = arithmetic::moves(counts, app.upgrade_strategy, app.is_replaced_in_place());
    let Some(index) = turn.state.index.get(&app.id) else {
        scale::add(turn, app, moves.start);
        return false;
    };
    let needs = |version| turn.state.tables.needs(&app.id, version);
    let (old, new) = (|version| (version < changed).then(|| needs(version)), |version| (version >= changed).then(|| needs(version)));
    let mut victims = index.victims(moves.kill_old as usize, app.kill_selection, old);
    victims.extend(index.victims(moves.kill_new as usize, app.kill_selection, new));
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
