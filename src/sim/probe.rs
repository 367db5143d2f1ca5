//! The prober's part in the world: every few seconds each running task whose app has a check is asked. Some are sick for a while; now and then the
//! prober itself is starved, and says so.

use super::{
    agent::Phase,
    trace::short,
    world::{What, World},
};
use crate::model::{
    cluster::{ClusterEvent, Launch},
    health::{CheckReport, Finding, Outcome},
    id::TaskId,
    instance::Condition,
};

/// Between two rounds, milliseconds.
pub(super) const ROUND_MS: u64 = 5_000;

/// Of a node that is cut off, so many in a thousand results are taken for the task's fault.
const BLAMED: u32 = 500;

/// The place of a task's only check in its definition, if it has one.
fn check_of(launch: &Launch) -> Option<usize> {
    let Some(pod) = launch.pod.as_ref().and_then(|pod| pod.app.pod.as_ref()) else {
        return (!launch.app.health_checks.is_empty()).then_some(0);
    };
    pod.check_of(pod.place(launch.task.container.as_deref()?)?)
}

impl World<'_> {
    /// One round.
    pub(super) fn probe(&mut self) {
        self.after(ROUND_MS, What::Probe);
        if self.server.is_none() {
            return;
        }
        let is_asked = |id: &TaskId| {
            let instance = self.disk.instance(&id.instance);
            instance.is_some_and(|instance| instance.incarnation == id.incarnation && instance.condition == Condition::Running)
        };
        let asked = self.tasks.iter().filter_map(|(id, task)| Some((id, check_of(&task.launch)?)));
        let asked: Vec<(TaskId, usize)> = asked.filter(|(id, _)| is_asked(id)).map(|(id, check)| (id.clone(), check)).collect();
        let at = self.wall();
        let reports = asked.into_iter().map(|(task, check)| {
            let mut outcome = self.outcome(&task);
            if let Some(told) = self.sabotage_check(&outcome) {
                self.rules.told_otherwise(&task, at, std::mem::replace(&mut outcome, told));
            }
            CheckReport { task, at, finding: Finding::Health { check, outcome } }
        });
        let reports: Vec<CheckReport> = reports.collect();
        if !reports.is_empty() {
            self.deliver(ClusterEvent::Checked(reports));
        }
    }

    fn outcome(&mut self, id: &TaskId) -> Outcome {
        let blamed = self.rng_probe.chance(BLAMED);
        let Some(task) = self.tasks.get(id) else { return Outcome::Failed("gone".into()) };
        if self.now < self.starved_until {
            Outcome::Uncertain("the prober was starved".into())
        } else if !self.agents[task.agent].reachable() {
            if blamed { Outcome::Failed("no answer".into()) } else { Outcome::Uncertain("many fail at once".into()) }
        } else if task.phase != Phase::Running {
            Outcome::Failed("connection refused".into())
        } else if self.now < task.sick_until && !self.settled {
            Outcome::Failed("500 Internal Server Error".into())
        } else {
            Outcome::Passed
        }
    }

    /// One of the running tasks answers badly for a while.
    pub(super) fn sicken_some_task(&mut self, nth: u64, ms: u64) {
        let running: Vec<TaskId> = self.tasks.iter().filter(|(_, task)| task.phase == Phase::Running).map(|(id, _)| id.clone()).collect();
        let Some(id) = running.get(nth.checked_rem(running.len() as u64).unwrap_or_default() as usize) else { return };
        let until = self.now + ms;
        self.note(|| format!("{} is sick for {ms} ms", short(id)));
        if let Some(task) = self.tasks.get_mut(id) {
            task.sick_until = until;
        }
    }
}
