//! Numbers of instances: a replacement stays between minimum health and maximum capacity by our doing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{server::Stepped, trace::short_instance, world::World};
use crate::{
    core::{Frame, Input},
    model::{
        app::{App, KillSelection, Operator},
        deployment::ActionKind,
        id::PathId,
        instance::{Condition, Goal, Instance},
        record::{Change, Record},
        request::Request,
    },
};

impl World<'_> {
    /// Running and wanted instances of the apps of which the frame ends a running one.
    pub(super) fn running_of(&self, frame: &Frame) -> BTreeMap<PathId, u32> {
        let ends = frame.changes.iter().filter_map(|change| {
            let Change::Put(Record::Instance(new)) = change else { return None };
            let old = self.disk.instance(&new.id)?;
            let ended = old.goal == Goal::Running && new.goal != Goal::Running && old.condition == Condition::Running;
            (ended && self.serves(new)).then(|| new.app().clone())
        });
        let apps: BTreeSet<PathId> = ends.collect();
        apps.into_iter().map(|app| (app.clone(), self.serving(&app))).collect()
    }

    /// It runs, is healthy if its version has a check, and has said that it is ready if its version asks.
    fn serves(&self, instance: &Instance) -> bool {
        let asks = |what: fn(&App) -> bool| self.disk.definition(instance.app(), instance.version).is_some_and(what);
        let well = instance.healthy == Some(true) || !asks(|app| !app.health_checks.is_empty());
        let ready = instance.ready || !asks(|app| !app.readiness_checks.is_empty());
        instance.condition == Condition::Running && well && ready
    }

    /// Running instances that the frame ends, unless they are named by whoever asked for it, as they are then.
    pub(in crate::sim) fn ended_by(&self, one: &Stepped) -> Vec<Instance> {
        if matches!(&one.cause, Input::Api(_, _, request) if matches!(**request, Request::KillTasks { .. })) {
            return Vec::new();
        }
        let ended = one.frame.changes.iter().filter_map(|change| {
            let Change::Put(Record::Instance(new)) = change else { return None };
            let old = self.disk.instance(&new.id)?;
            (old.goal == Goal::Running && new.goal != Goal::Running && new.condition == Condition::Running).then(|| (**new).clone())
        });
        ended.collect()
    }

    /// Whatever else decides (its version, whether it serves, evenness), among equals it is the age.
    pub(super) fn check_selection(&mut self, ended: &[Instance]) {
        for gone in ended {
            let Some(app) = self.disk.current(gone.app()) else { continue };
            if app.constraints.iter().any(|constraint| constraint.operator == Operator::GroupBy) {
                continue;
            }
            let selection = app.kill_selection;
            let kind = |instance: &Instance| (instance.version, instance.goal, instance.condition, instance.healthy, instance.ready);
            let like = (gone.version, Goal::Running, Condition::Running, gone.healthy, gone.ready);
            let equals: Vec<&Instance> = self.disk.instances_of(gone.app()).filter(|other| kind(other) == like).collect();
            let goes_before = |other: &&&Instance| match selection {
                KillSelection::YoungestFirst => other.started_at > gone.started_at,
                KillSelection::OldestFirst => other.started_at < gone.started_at,
            };
            let better = equals.iter().find(goes_before).map(|better| better.id.clone());
            self.stats.oldest_first += u64::from(selection == KillSelection::OldestFirst && !equals.is_empty());
            if let Some(better) = better {
                let (gone, better) = (short_instance(&gone.id), short_instance(&better));
                self.violate("kill-selection", || format!("{selection:?}: {gone} goes, {better} stays"));
            }
        }
    }

    /// Wanted instances that serve.
    fn serving(&self, app: &PathId) -> u32 {
        self.disk.instances_of(app).filter(|instance| instance.goal == Goal::Running && self.serves(instance)).count() as u32
    }

    /// Ending a running instance must leave the minimum.
    pub(super) fn check_minimum(&mut self, one: &Stepped, before: &BTreeMap<PathId, u32>) {
        for (id, before) in before {
            let asked = matches!(&one.cause, Input::Api(_, _, request) if matches!(**request, Request::KillTasks { .. }));
            let Some(app) = self.disk.current(id) else { continue };
            let least = (f64::from(app.instances) * app.upgrade_strategy.minimum_health_capacity).ceil() as u32;
            // None can come on top of those with volumes: one goes first (Marathon 1.11).
            let least = if app.is_resident() && least == app.instances { least.saturating_sub(1) } else { least };
            let left = self.serving(id);
            // What does not serve may go at any time.
            if !asked && left < least && left < *before {
                self.violate("below-minimum", || format!("{id}: {before} running, now {left} of at least {least}"));
            }
        }
    }

    /// Launching must not lead above the maximum. What leaves counts while a replacement is under way; what was begun for a larger number may
    /// still come when the number falls.
    pub(super) fn check_maximum(&mut self, id: &PathId) {
        let Some(app) = self.disk.current(id) else { return };
        let before = self.disk.deployments().flat_map(|deployment| &deployment.changes).find(|change| change.app == *id);
        let before = before.and_then(|change| self.disk.definition(id, change.from?));
        let most = most_of(app).max(before.map_or(0, most_of));
        let counts = self.disk.counts(id);
        let present = if self.is_replaced(id) { counts.staying + counts.leaving } else { counts.staying };
        if present > most {
            self.violate("above-maximum", || format!("{id}: {present} with this launch, at most {most}"));
        }
    }

    fn is_replaced(&self, app: &PathId) -> bool {
        self.disk.deployments().any(|deployment| {
            let step = deployment.steps.get(deployment.current_step);
            step.is_some_and(|step| step.actions.iter().any(|action| action.app == *app && action.kind == ActionKind::Restart))
        })
    }
}

/// How many instances a replacement may have at once (Marathon 1.11: one more where nothing could move otherwise).
fn most_of(app: &App) -> u32 {
    let strategy = app.upgrade_strategy;
    let least = (f64::from(app.instances) * strategy.minimum_health_capacity).ceil() as u32;
    let most = (f64::from(app.instances) * (1.0 + strategy.maximum_over_capacity)).trunc() as u32;
    if least == most { most + 1 } else { most }
}
