//! What waits to be launched, and when it may be: back-off, and asking the cluster for offers. The waiting instances themselves are in the index.
//!
//! Back-off is per app and configuration, kept in memory only: after a restart everything may be launched at once (as in Marathon 1.11).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::OrdMap;

use crate::{
    core::{
        owned::{State, Timer},
        state::QueueEntry,
        turn::Turn,
    },
    model::{
        cluster::ClusterCall,
        id::PathId,
        instance::Instance,
        time::{Instant, Timestamp},
    },
};

/// While something waits, offers are asked for again after this long, milliseconds: a lost call must not stop launching.
pub const REVIVE_INTERVAL_MS: u64 = 15_000;

/// The second wait of an app whose first one is 0, milliseconds: a task that cannot live must not be launched in a hot loop.
const LEAST_REPEATED_WAIT_MS: f64 = 1_000.0;

/// The volatile side of waiting.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// For readers: every app with something to launch.
    pub entries: OrdMap<PathId, Arc<QueueEntry>>,
    /// Apps that can use an offer now.
    pub(in crate::core) ready: BTreeSet<PathId>,
    delays: BTreeMap<PathId, Delay>,
    /// The app after which the next matching begins, so that none starves.
    pub(in crate::core) cursor: Option<PathId>,
    /// Offers are wanted that we do not have.
    revive: bool,
    /// The cluster believes that we want offers.
    reviving: bool,
}

#[derive(Clone, Debug)]
struct Delay {
    /// The configuration that failed; another one starts without delay.
    config: Timestamp,
    wait_ms: f64,
    until: Instant,
    until_wall: Timestamp,
    /// After this long without a failure the next one counts as the first.
    forget_ms: u64,
}

impl Queue {
    /// The wait is over.
    pub(in crate::core) fn end_delay(&mut self, app: &PathId) {
        if let Some(entry) = self.entries.get_mut(app) {
            Arc::make_mut(entry).not_before = None;
        }
    }

    /// Forgets that the app ever failed.
    pub(in crate::core) fn reset_delay(&mut self, app: &PathId) {
        self.delays.remove(app);
        self.end_delay(app);
    }

    /// A new session knows nothing of what we asked for before.
    pub(in crate::core) fn connected(&mut self) {
        self.reviving = false;
        self.revive = true;
    }

    /// Asks again, in case the last call was lost.
    pub(in crate::core) fn revive_again(&mut self) {
        self.revive = true;
    }

    fn delayed_until(&self, app: &PathId, now: Instant) -> Option<&Delay> {
        self.delays.get(app).filter(|delay| delay.until > now)
    }
}

/// A task of the app has failed: the next launch waits, longer each time. What fails while it is being replaced is not launched again, and must not
/// hold up what replaces it.
pub(in crate::core) fn delay(turn: &mut Turn<'_, '_>, instance: &Instance) {
    let Some(app) = turn.state.tables.app(instance.app()).cloned() else { return };
    let (now, wall) = (turn.now(), turn.wall());
    let (backoff, config) = (app.backoff, app.last_config_change_at());
    if instance.version < config && turn.state.locks.contains_key(&app.id) {
        return;
    }
    let before =
        turn.state.queue.delays.get(&app.id).filter(|delay| delay.config == config && now <= delay.until.after_ms(delay.forget_ms));
    let wait_ms = match before {
        Some(delay) if delay.wait_ms == 0.0 => LEAST_REPEATED_WAIT_MS.min(backoff.max_ms as f64),
        Some(delay) => (delay.wait_ms * backoff.factor).min(backoff.max_ms as f64),
        None => (backoff.initial_ms as f64).min(backoff.max_ms as f64),
    };
    let whole_ms = wait_ms as u64;
    let until = now.after_ms(whole_ms);
    let until_wall = Timestamp(wall.0.saturating_add_unsigned(whole_ms));
    turn.state.queue.delays.insert(app.id.clone(), Delay { config, wait_ms, until, until_wall, forget_ms: backoff.max_ms });
    turn.state.timers.set(Timer::Backoff(app.id.clone()), until);
}

/// Brings the app's entry and its readiness in line with what waits.
pub(in crate::core) fn upkeep(turn: &mut Turn<'_, '_>, app: &PathId) {
    let (now, wall) = (turn.now(), turn.wall());
    let state = &mut *turn.state;
    let waiting = state.index.get(app).is_some_and(|index| !index.scheduled.is_empty());
    if !waiting {
        state.queue.entries.remove(app);
        state.queue.ready.remove(app);
        if state.queue.delays.contains_key(app) && !state.tables.apps.contains_key(app) {
            state.queue.delays.remove(app);
            state.timers.clear(&Timer::Backoff(app.clone()));
        }
        return;
    }
    let config = state.tables.app(app).map(|app| app.last_config_change_at());
    if state.queue.delays.get(app).is_some_and(|delay| Some(delay.config) != config) {
        state.queue.delays.remove(app);
        state.timers.clear(&Timer::Backoff(app.clone()));
    }
    let not_before = state.queue.delayed_until(app, now).map(|delay| delay.until_wall);
    let held_by = held_by(state, app);
    let before = state.queue.entries.get(app);
    if before.is_none_or(|entry| entry.not_before != not_before || entry.held_by != held_by) {
        let mut entry = before.map_or_else(|| new_entry(app, wall), |entry| (**entry).clone());
        entry.not_before = not_before;
        entry.held_by = held_by.clone();
        state.queue.entries.insert(app.clone(), entry.into());
    }
    if not_before.is_some() || held_by.is_some() {
        state.queue.ready.remove(app);
    } else if state.queue.ready.insert(app.clone()) {
        state.queue.revive = true;
    }
}

fn new_entry(app: &PathId, since: Timestamp) -> QueueEntry {
    QueueEntry {
        app: app.clone(),
        since,
        not_before: None,
        processed: 0,
        unused: 0,
        last_unused_at: None,
        last_used_at: None,
        rejected: [0; 10],
        last_unused_offers: OrdMap::new(),
        held_by: None,
        undecided: None,
    }
}

/// Why the app may not be launched even if there is room: a brick of it has a holder that is not known to be gone.
fn held_by(state: &State, app: &PathId) -> Option<String> {
    let definition = state.tables.app(app)?;
    definition.bricks().find_map(|volume| {
        let path = crate::model::brick::normal_container_path(&volume.container_path).ok()?;
        let name = crate::model::brick::brick_name(app, &path);
        let brick = state.tables.bricks.get(&name)?;
        if brick.condemned {
            return Some(format!("brick '{name}' is being deleted; the app starts with a new one when it is gone"));
        }
        let lease = brick.lease.as_ref()?;
        let stuck = state.brick_usage.get(&name).and_then(|usage| usage.stuck.as_deref()).unwrap_or("not yet reported as unmounted");
        Some(format!("brick '{name}' is still held by task '{}' on node '{}' (epoch {}): {stuck}", lease.task, lease.agent, lease.epoch))
    })
}

/// Tells the cluster whether we want offers: once when that begins, again from time to time while it lasts, once when it ends.
pub(in crate::core) fn revive_or_suppress(turn: &mut Turn<'_, '_>) {
    if turn.state.connected_to.is_none() {
        return;
    }
    let now = turn.now();
    let queue = &mut turn.state.queue;
    if queue.ready.is_empty() {
        queue.revive = false;
        if std::mem::take(&mut queue.reviving) {
            turn.state.timers.clear(&Timer::Revive);
            turn.call(ClusterCall::Suppress);
        }
    } else if std::mem::take(&mut queue.revive) || !queue.reviving {
        queue.reviving = true;
        turn.state.timers.set(Timer::Revive, now.after_ms(REVIVE_INTERVAL_MS));
        turn.call(ClusterCall::Revive);
    }
}
