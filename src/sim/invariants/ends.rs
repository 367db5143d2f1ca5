//! Ends: a task is written off only by the cluster's word, and killed only when somebody asked or its health is bad.

use super::{
    super::{
        agent::{Phase, Told, is_end},
        disk::Disk,
        server::Stepped,
        trace::{short, short_instance},
        workload::{GRACE_S, MAX_FAILURES},
        world::World,
    },
    launch_of,
};
use crate::{
    core::Input,
    model::{
        cluster::{ClusterEvent, TaskState},
        health::{Finding, Outcome},
        id::TaskId,
        instance::{Condition, Goal, Instance},
        request::{KillSelector, Request},
    },
};

/// Marathon's `--task_launch_timeout`: what does not come up in this time may be killed.
const OVERDUE_MS: u64 = 300_000;

/// A launch leaves so long after it was decided at most: its own commit, and the one before.
const COMMITS_MS: u64 = 10;

/// Kills of one task within a minute that are still no loop.
const MAX_KILLS_A_MINUTE: u32 = 60;

impl World<'_> {
    /// What the server knows from here on.
    pub(super) fn learn(&mut self, cause: &Input) {
        match cause {
            Input::Cluster(ClusterEvent::Status(status)) => {
                if is_end(status.state) {
                    let ends = self.rules.ends.entry(launch_of(&status.task)).or_default();
                    ends.entry(status.task.clone()).or_insert(status.state);
                }
                if let Some(task) = self.tasks.get_mut(&status.task) {
                    task.told = match status.state {
                        state if is_end(state) => Told::Gone,
                        TaskState::Unreachable | TaskState::Unknown | TaskState::Lost => Told::Lost,
                        _ => Told::Live,
                    };
                }
            }
            Input::Api(_, _, request) => {
                let asked = tasks_to_kill(&self.disk, request);
                self.rules.asked_to_kill.extend(asked);
                if let Request::ResetDelay { app } = &**request {
                    self.rules.delays.retain(|(of, _), _| of != app);
                }
            }
            _ => {}
        }
    }

    /// What checks said, counted as Marathon says.
    pub(super) fn learn_health(&mut self, one: &Stepped) {
        let Input::Cluster(ClusterEvent::Checked(reports)) = &one.cause else { return };
        for report in reports {
            let Finding::Health { outcome: told, .. } = &report.finding else { continue };
            let honest = self.rules.honest.remove(&(report.task.clone(), report.at));
            let outcome = honest.as_ref().unwrap_or(told);
            let booted_at = self.rules.booted_at;
            let health = self.rules.health.entry(report.task.clone()).or_default();
            let graced = !health.succeeded && one.at < health.since.max(booted_at) + GRACE_S * 1000;
            match outcome {
                Outcome::Passed => (health.succeeded, health.failures) = (true, 0),
                Outcome::Failed(_) if !graced => health.failures += 1,
                Outcome::Failed(_) | Outcome::Uncertain(_) => {}
            }
        }
    }

    /// The frame of a result ends a task.
    pub(super) fn check_health_kill(&mut self, one: &Stepped, old: &Instance, new: &Instance) {
        let runs = |instance: &Instance| instance.condition == Condition::Running;
        if !runs(old) && runs(new) {
            for (task, _) in self.disk.tasks_of(new) {
                self.rules.health.entry(task).or_default().since = one.at;
            }
        }
        let by_check = matches!(&one.cause, Input::Cluster(ClusterEvent::Checked(_)));
        if !by_check || !runs(old) || new.condition != Condition::Killing {
            return;
        }
        let tasks: Vec<TaskId> = self.disk.tasks_of(old).into_iter().map(|(task, _)| task).collect();
        let of_tasks = tasks.iter().filter_map(|task| self.rules.health.get(task).copied());
        let worst = of_tasks.max_by_key(|health| health.failures).unwrap_or_default();
        // The checks are commands, which Mesos would run: the last failure that is tolerated is the one before.
        if worst.failures < MAX_FAILURES {
            self.violate("healthy-killed", || format!("{} is killed: {worst:?}", short_instance(&old.id)));
        }
        self.rules.asked_to_kill.extend(tasks);
    }

    /// What is overdue when it is told to end stays so, although it may come up before the kill is sent, or be lost meanwhile and come back.
    pub(super) fn note_overdue(&mut self, old: &Instance, new: &Instance) {
        if old.condition == Condition::Killing || new.condition != Condition::Killing || new.goal != Goal::Running {
            return;
        }
        let tasks = self.disk.tasks_of(old);
        if tasks.iter().any(|(task, condition)| is_not_up(*condition) && self.is_overdue(old, task)) {
            self.rules.asked_to_kill.extend(tasks.into_iter().map(|(task, _)| task));
        }
    }

    /// After a restart what was launched before is as old as the wall clock says, which may have been set meanwhile.
    fn is_overdue(&self, instance: &Instance, id: &TaskId) -> bool {
        let aged = instance.staged_at.map_or(0, |at| self.rules.booted_wall.ms_since(at)) + self.now.saturating_sub(self.rules.booted_at);
        self.rules.launched.get(id).is_some_and(|launched_at| {
            let of_before = *launched_at < self.rules.booted_at;
            self.now + COMMITS_MS >= launched_at + OVERDUE_MS || of_before && aged + COMMITS_MS >= OVERDUE_MS
        })
    }

    pub(super) fn check_written_off(&mut self, old: &Instance) {
        let tasks: Vec<TaskId> = self.disk.tasks_of(old).into_iter().map(|(task, _)| task).collect();
        let told = |task: &TaskId| self.tasks.get(task).map(|task| task.told);
        // A node that is out of reach is so for all that is on it.
        if tasks.iter().any(|task| told(task) == Some(Told::Lost)) {
            return;
        }
        let lives = |task: &&TaskId| self.tasks.get(*task).is_some_and(|task| task.alive() && task.told != Told::Gone);
        if let Some(id) = tasks.iter().find(lives) {
            let told = told(id);
            self.violate("forgot-live-task", || format!("{} lives, and nobody said otherwise (told: {told:?})", short(id)));
        }
    }

    /// Kills are for what was told to end, for strangers, and for what does not come up.
    ///
    /// Of a pod all containers end when one of them has not come up in time, whatever runs of the others. Proof that no less may be asked: Marathon
    /// 1.11 kills an instance as soon as any of its tasks is overdue, and kills it as a whole; and no instance that serves is lost by it, because one
    /// serves only when all of its containers run. The container that did not come up is so in the records, and its launch is that old in truth.
    pub(super) fn check_kill(&mut self, id: &TaskId) {
        self.count_kill(id);
        let Some(instance) = self.disk.instance(&id.instance).filter(|instance| instance.incarnation == id.incarnation) else { return };
        let goal = instance.goal;
        let containers = self.disk.tasks_of(instance);
        let Some(condition) = containers.iter().find(|(task, _)| task == id).map(|(_, condition)| *condition) else {
            return;
        };
        let overdue = |id: &TaskId| self.is_overdue(instance, id);
        if id.container.is_some() && containers.iter().any(|(task, condition)| is_not_up(*condition) && overdue(task)) {
            return;
        }
        let is_overdue = overdue(id);
        // A kill that nobody asked for hides behind its condition: only what never came up may be killed by us alone.
        let runs = self.tasks.get(id).is_some_and(|task| task.phase == Phase::Running && task.told == Told::Live);
        let wanted = goal == Goal::Running && (condition == Condition::Running || runs && !is_overdue);
        let taken_along = id.container.is_some()
            && self.rules.ends.get(&launch_of(id)).is_some_and(|ends| ends.values().any(|state| *state != TaskState::Finished));
        if wanted && !taken_along && !self.rules.asked_to_kill.contains(id) {
            self.violate("killed-wanted", || format!("{} runs, and nobody asked for its end", short(id)));
        }
    }
}

impl World<'_> {
    /// A kill is repeated after some seconds, in each session, and for each status of a stranger: never as fast as it is answered.
    fn count_kill(&mut self, id: &TaskId) {
        let (since, count) = self.rules.kills.entry(id.clone()).or_insert((self.now, 0));
        if self.now - *since > 60_000 {
            (*since, *count) = (self.now, 0);
        }
        *count += 1;
        if *count > MAX_KILLS_A_MINUTE {
            self.violate("hot-loop", || format!("{} is killed again and again", short(id)));
        }
    }
}

fn is_not_up(condition: Condition) -> bool {
    matches!(condition, Condition::Provisioned | Condition::Staging | Condition::Starting)
}

fn tasks_to_kill(disk: &Disk, request: &Request) -> Vec<TaskId> {
    let Request::KillTasks { selection, .. } = request else { return Vec::new() };
    let of = |instance: &Instance| disk.tasks_of(instance).into_iter().map(|(task, _)| task);
    match selection {
        KillSelector::App { app, .. } => disk.instances_of(app).flat_map(of).collect(),
        KillSelector::Task { task, .. } => task.parse().into_iter().collect(),
        KillSelector::Tasks(tasks) => tasks.clone(),
        KillSelector::Instances { instances, .. } => instances.iter().filter_map(|id| disk.instance(id)).flat_map(of).collect(),
    }
}
