//! What the results of checks mean: a table ([`judge`]), and what follows from it.
//!
//! Facts (Marathon 1.11): of the checks that Marathon makes itself (HTTP, HTTPS, TCP) the test for a kill looks at the failures before the present one, so
//! that with a limit of k the kill comes with the counted failure k+1, and 0 never kills. Of those that Mesos makes (`MESOS_*` and COMMAND) it looks at the
//! present one too: the kill comes with failure k, and with the first one if k is 0. A failure is not counted, and nobody is told of it, while the check
//! never succeeded and the grace period lasts, or while the task does not run. A kill for bad health is told as the app's last failure and costs no back-off.
//! A generic check's result is for readers alone.

use std::sync::Arc;

use super::{
    state::{Reading, Readings},
    turn::Turn,
};
use crate::model::{
    app::App,
    cluster::{Reason, TaskState, TaskStatus},
    event::Fact,
    health::{CheckReport, CheckResult, CheckState, Finding, HealthCheck, Outcome, ReadinessAnswer, cause, overall},
    id::{AgentId, TaskId},
    instance::{Condition, Instance, TaskFailure},
    record::Record,
};

/// What a failure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is not counted.
    Ignore,
    /// It is counted.
    Count,
    /// It is counted, and it was one too many.
    Kill,
}

/// The table: `failures` in a row before this one, `age_ms` since the task runs.
fn judge(check: &HealthCheck, has_succeeded: bool, failures: u32, age_ms: u64) -> Verdict {
    if !has_succeeded && age_ms < u64::from(check.grace_seconds) * 1000 {
        Verdict::Ignore
    } else if tolerated(check).is_some_and(|most| failures >= most) {
        Verdict::Kill
    } else {
        Verdict::Count
    }
}

/// So many failures in a row before the present one kill nobody; `None`: nor do more.
fn tolerated(check: &HealthCheck) -> Option<u32> {
    match (check.protocol.is_mesos(), check.max_consecutive_failures) {
        (false, 0) => None,
        (false, most) => Some(most),
        (true, most) => Some(most.saturating_sub(1)),
    }
}

/// The condition of the container that a check of a pod asks.
fn of_container(app: &App, instance: &Instance, check: usize) -> Option<Condition> {
    let pod = app.pod.as_ref()?;
    Some(instance.containers.get(pod.place(&pod.checked(check)?.name)?)?.condition)
}

/// Health of an instance over its checks. A container that has finished is judged no more, whatever was seen of it on its way out (Marathon 1.11: only
/// what runs can be unhealthy). When no other has a check, nothing will be known for ever: such an instance is well, because its deployment would
/// never end (Marathon's does not).
pub(super) fn of(app: &App, instance: &Instance) -> Option<bool> {
    let is_over = |check: usize| of_container(app, instance, check) == Some(Condition::Finished);
    let judged = (0..app.health_checks.len()).filter(|check| !is_over(*check));
    let judged: Vec<CheckState> = judged.map(|check| instance.checks.get(check).cloned().unwrap_or_default()).collect();
    if judged.is_empty() && !app.health_checks.is_empty() { Some(true) } else { overall(&judged, judged.len()) }
}

/// Takes one result. One of a task that is not the present one, or does not run, is nobody's.
pub(super) fn take(turn: &mut Turn<'_, '_>, report: CheckReport) {
    let instance = turn.state.tables.instances.get(&report.task.instance).cloned();
    let current = instance.filter(|instance| instance.incarnation == report.task.incarnation && instance.condition == Condition::Running);
    let Some(instance) = current else { return };
    let Some(readings) = turn.state.readings.get(&instance.id).cloned() else { return };
    match report.finding {
        Finding::Readiness(ref answer) => ready(turn, &instance, &readings, answer.clone()),
        Finding::Check { place, result } => found(turn, &instance, &readings, &report, place, result),
        Finding::Health { check, ref outcome } => {
            let Some(definition) = turn.state.tables.definition_of(&instance).cloned() else { return };
            // A container that has done its work is asked no more.
            let container = definition.pod.as_ref().and_then(|pod| pod.checked(check));
            if of_container(&definition, &instance, check).is_some_and(|condition| condition != Condition::Running) {
                return;
            }
            let task = instance.task_of(container.map(|container| container.name.as_str()));
            let (Some(asked), Some(reading)) = (definition.health_checks.get(check), readings.checks.get(check).cloned()) else { return };
            let one = One { app: &definition, instance: &instance, task, asked, at: check, readings: &readings };
            match outcome {
                Outcome::Passed => passed(turn, &one, &report, reading),
                Outcome::Failed(why) => failed(turn, &one, &report, reading, &cause(why)),
                Outcome::Uncertain(why) => one.see(turn, Reading { uncertain: Some((report.at, cause(why))), ..reading }),
            }
        }
    }
}

/// What a generic check found, for readers. Mesos tells a change of it as a status of the task, and so does Marathon. (Of pods it does not, because it
/// makes no such checks of theirs.)
fn found(
    turn: &mut Turn<'_, '_>,
    instance: &Arc<Instance>,
    readings: &Readings,
    report: &CheckReport,
    place: usize,
    result: Option<CheckResult>,
) {
    let definition = turn.state.tables.definition_of(instance).filter(|definition| definition.generic_check(place).is_some());
    let Some(is_pod) = definition.map(|definition| definition.pod.is_some()).filter(|_| readings.result(place) != result) else { return };
    let mut readings = readings.clone();
    readings.set_result(place, result);
    turn.state.readings.insert(instance.id.clone(), readings.into());
    if !is_pod {
        let status = TaskStatus {
            task: instance.task(),
            agent: instance.placement.as_ref().map(|placement| placement.agent.clone()),
            state: TaskState::Running,
            reason: Reason::Other,
            message: String::new(),
            timestamp: report.at,
            uuid: None,
            healthy: None,
            addresses: instance.addresses.clone(),
        };
        turn.event(Some(instance.app()), Fact::StatusUpdate { status: status.into(), instance: instance.clone() });
    }
}

/// One check of one task.
struct One<'a> {
    app: &'a App,
    instance: &'a Arc<Instance>,
    task: TaskId,
    asked: &'a HealthCheck,
    /// Its place among those of the app.
    at: usize,
    readings: &'a Readings,
}

impl One<'_> {
    fn state(&self) -> CheckState {
        self.instance.checks.get(self.at).cloned().unwrap_or_default()
    }

    /// For readers, not durable.
    fn see(&self, turn: &mut Turn<'_, '_>, reading: Reading) {
        let mut readings = self.readings.clone();
        readings.checks[self.at] = reading;
        turn.state.readings.insert(self.instance.id.clone(), readings.into());
    }

    /// Of apps alone: of a pod Marathon tells only whether its instances are healthy.
    fn tell(&self, turn: &mut Turn<'_, '_>, fact: Fact) {
        if self.task.container.is_none() {
            turn.event(Some(self.instance.app()), fact);
        }
    }

    /// The instance with this check as it is now.
    fn with(&self, state: CheckState) -> Instance {
        let mut instance = (**self.instance).clone();
        instance.checks.resize(self.app.health_checks.len(), CheckState::default());
        instance.checks[self.at] = state;
        instance.healthy = of(self.app, &instance);
        instance
    }
}

fn passed(turn: &mut Turn<'_, '_>, one: &One<'_>, report: &CheckReport, reading: Reading) {
    one.see(turn, Reading { last_success: Some(report.at), failures: 0, uncertain: None, ..reading });
    let state = one.state();
    if !state.is_alive() {
        let first_success = state.first_success.or(Some(report.at));
        turn.put(Record::Instance(one.with(CheckState { first_success, failures: 0, ..state }).into()));
    }
}

fn failed(turn: &mut Turn<'_, '_>, one: &One<'_>, report: &CheckReport, reading: Reading, why: &str) {
    let state = one.state();
    let failures = reading.failures.max(state.failures);
    let verdict = judge(one.asked, state.first_success.is_some(), failures, turn.now().ms_since(one.readings.since));
    if verdict == Verdict::Ignore {
        return;
    }
    let failures = failures.saturating_add(1);
    let seen = Reading { last_failure: Some(report.at), last_failure_cause: why.to_owned(), failures, uncertain: None, ..reading };
    one.see(turn, seen);
    one.tell(turn, Fact::FailedHealthCheck { instance: one.instance.clone(), check: Box::new(one.asked.clone()) });
    // Beyond what can kill, the number is of interest to readers alone.
    let limit = tolerated(one.asked).unwrap_or_default().saturating_add(1);
    let mut changed = (state.failures < failures.min(limit)).then(|| {
        one.with(CheckState { failures: failures.min(limit), last_failure: Some(report.at), last_failure_cause: why.to_owned(), ..state })
    });
    if verdict == Verdict::Kill {
        one.tell(turn, Fact::UnhealthyInstanceKill { instance: one.instance.clone(), task: one.task.clone(), reason: why.to_owned() });
        remember(turn, one, report, why);
        let instance = changed.unwrap_or_else(|| (**one.instance).clone());
        changed = Some(Instance { condition: Condition::Killing, since: turn.wall(), ..instance });
    }
    if let Some(instance) = changed {
        turn.put(Record::Instance(instance.into()));
    }
}

fn remember(turn: &mut Turn<'_, '_>, one: &One<'_>, report: &CheckReport, why: &str) {
    let instance = one.instance;
    if !turn.state.tables.apps.contains_key(instance.app()) {
        return;
    }
    let placement = instance.placement.as_ref();
    let failure = TaskFailure {
        app: instance.app().clone(),
        task: one.task.clone(),
        state: TaskState::Killed,
        message: format!("Task was killed since health check failed. Reason: {why}"),
        host: placement.map_or_else(String::new, |placement| placement.host.to_string()),
        agent: placement.map_or_else(|| AgentId::new(""), |placement| placement.agent.clone()),
        timestamp: report.at,
        version: instance.version,
    };
    turn.put(Record::Failure(failure.into()));
}

fn ready(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, readings: &Readings, answer: ReadinessAnswer) {
    if !turn.state.locks.contains_key(instance.app()) {
        return;
    }
    let is_new = answer.ready && !instance.ready;
    turn.state.readings.insert(instance.id.clone(), Readings { readiness: Some(answer), ..readings.clone() }.into());
    if is_new {
        turn.put(Record::Instance(Instance { ready: true, ..(**instance).clone() }.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::CheckProtocol;

    fn limit(protocol: CheckProtocol, max_consecutive_failures: u32) -> HealthCheck {
        HealthCheck {
            protocol,
            path: None,
            port: None,
            port_index: Some(0),
            command: None,
            argv: Vec::new(),
            grace_seconds: 300,
            interval_seconds: 60,
            timeout_seconds: 20,
            max_consecutive_failures,
            delay_seconds: 15,
            ignore_http_1xx: false,
            ipv6: false,
        }
    }

    #[test]
    fn a_failure_is_judged_by_what_was_before_it() {
        let check = |most: u32, has_succeeded: bool, failures: u32, age_s: u64, expected: Verdict| {
            assert_eq!(
                judge(&limit(CheckProtocol::Http, most), has_succeeded, failures, age_s * 1000),
                expected,
                "{most} {has_succeeded} {failures} {age_s}"
            );
        };
        check(3, false, 0, 0, Verdict::Ignore);
        check(3, false, 0, 299, Verdict::Ignore);
        check(3, false, 9, 299, Verdict::Ignore);
        check(3, false, 0, 300, Verdict::Count);
        check(3, true, 0, 0, Verdict::Count); // what succeeded once has no grace
        check(3, true, 2, 0, Verdict::Count);
        check(3, true, 3, 0, Verdict::Kill); // the fourth
        check(3, true, 4, 0, Verdict::Kill);
        check(1, true, 0, 0, Verdict::Count);
        check(1, true, 1, 0, Verdict::Kill);
        check(0, true, 1000, 0, Verdict::Count);
        check(0, false, 1000, 300, Verdict::Count);
    }

    #[test]
    fn a_failure_that_mesos_would_see_counts_at_once() {
        for protocol in [CheckProtocol::Command, CheckProtocol::MesosHttp, CheckProtocol::MesosHttps, CheckProtocol::MesosTcp] {
            let check = |most: u32, failures: u32, expected: Verdict| {
                assert_eq!(judge(&limit(protocol, most), true, failures, 0), expected, "{protocol:?} {most} {failures}");
            };
            check(3, 1, Verdict::Count);
            check(3, 2, Verdict::Kill); // the third
            check(1, 0, Verdict::Kill);
            check(0, 0, Verdict::Kill);
            assert_eq!(judge(&limit(protocol, 0), false, 0, 0), Verdict::Ignore, "within the grace period");
        }
    }
}
