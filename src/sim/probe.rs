//! The prober's part in the world: every few seconds each running task whose app has a check is asked. Some are sick for a while; now and then the
//! prober itself is starved, and says so.

use std::collections::BTreeSet;

use super::{
    agent::Phase,
    rng::Rng,
    trace::short,
    world::{What, World},
};
use crate::model::{
    cluster::{ClusterEvent, Launch},
    health::{CheckReport, Finding, Outcome, ReadinessAnswer},
    id::{PathId, TaskId},
    instance::Condition,
    time::Timestamp,
};

/// Between two rounds, milliseconds.
pub(super) const ROUND_MS: u64 = 5_000;

/// Of a node that is cut off, so many in a thousand results are taken for the task's fault.
const BLAMED: u32 = 500;

/// The longest time from its launch until a task says that it is ready, milliseconds.
const MAX_UNREADY_MS: u64 = 60_000;

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
        let mut reports: Vec<CheckReport> = reports.collect();
        reports.extend(self.readiness(at));
        if !reports.is_empty() {
            self.deliver(ClusterEvent::Checked(reports));
        }
    }

    /// During a deployment each running task of its apps is asked whether it is ready; it takes up to a minute until it is.
    fn readiness(&mut self, at: Timestamp) -> Vec<CheckReport> {
        let deployed: BTreeSet<&PathId> = self.disk.deployments().flat_map(|deployment| deployment.affected_apps()).collect();
        let is_asked = |id: &TaskId| {
            let instance = self.disk.instance(&id.instance);
            instance.is_some_and(|instance| {
                instance.incarnation == id.incarnation && instance.condition == Condition::Running && !instance.ready
            })
        };
        let has_check = |launch: &Launch| !launch.app.readiness_checks.is_empty() && deployed.contains(&launch.app.id);
        let asked = self.tasks.iter().filter(|(id, task)| has_check(&task.launch) && is_asked(id));
        let asked: Vec<TaskId> = asked.map(|(id, _)| id.clone()).collect();
        let mut reports = Vec::new();
        for task in asked {
            let answers = self.outcome(&task) == Outcome::Passed;
            let takes_ms = Rng::new(task.instance.uuid().as_u64_pair().0).below(MAX_UNREADY_MS);
            let ready = answers && self.tasks.get(&task).is_some_and(|known| self.now >= known.launched_at + takes_ms);
            if let Some(known) = self.tasks.get(&task).filter(|_| ready) {
                self.rules.is_ready(&known.launch);
            }
            let status = if ready { 200 } else { 503 };
            let answer = ReadinessAnswer { ready, status, content_type: String::new(), body: String::new() };
            reports.push(CheckReport { task, at, finding: Finding::Readiness(answer) });
        }
        reports
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
