//! The life of an instance as one table: what a status means in each condition. A test walks the whole grid.
//!
//! Facts: a status arrives at least once, late ones included; `UNREACHABLE` is not terminal: such a task may come back running (Mesos 1.11).

use crate::model::{
    cluster::{Reason, TaskState, TaskStatus},
    instance::Condition,
};

/// What a status does to an instance whose current incarnation it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing new.
    Keep,
    /// The instance is now in this condition.
    Become(Condition),
    /// This task should not exist: it is killed, the instance stays as it is.
    Kill,
}

/// The condition that a status speaks of. Marathon's mapping; `TASK_LOST` depends on its reason.
pub fn condition_of(status: &TaskStatus) -> Condition {
    match status.state {
        TaskState::Staging => Condition::Staging,
        TaskState::Starting => Condition::Starting,
        TaskState::Running => Condition::Running,
        TaskState::Killing => Condition::Killing,
        TaskState::Finished => Condition::Finished,
        TaskState::Failed => Condition::Failed,
        TaskState::Killed => Condition::Killed,
        TaskState::Error => Condition::Error,
        TaskState::Dropped => Condition::Dropped,
        TaskState::Gone | TaskState::GoneByOperator => Condition::Gone,
        TaskState::Unreachable => Condition::Unreachable,
        TaskState::Unknown => Condition::Unknown,
        TaskState::Lost => match status.reason {
            Reason::Reconciliation | Reason::AgentDisconnected | Reason::AgentRemoved => Condition::Unreachable,
            Reason::Other | Reason::AgentDraining | Reason::MemoryLimit => Condition::Gone,
        },
    }
}

/// The table. `now` is the instance's condition, `told` the one that the status speaks of.
///
/// Rules: progress never goes backwards (a late STAGING does not undo RUNNING); a kill that was asked for sticks until the end; what has ended, or
/// was never launched, has no living task.
pub fn transition(now: Condition, told: Condition) -> Outcome {
    use Condition::*;
    match (now, told) {
        (Scheduled | Finished | Failed | Killed | Error | Dropped | Gone, Staging | Starting | Running | Killing) => Outcome::Kill,
        (Scheduled | Finished | Failed | Killed | Error | Dropped | Gone, _) => Outcome::Keep,

        (_, Scheduled | Provisioned | UnreachableInactive) => Outcome::Keep,
        (_, Finished | Failed | Killed | Error | Dropped | Gone) => Outcome::Become(told),

        (Provisioned, _) => Outcome::Become(told),
        (Staging, Starting | Running | Killing | Unreachable | Unknown) => Outcome::Become(told),
        (Staging, _) => Outcome::Keep,
        (Starting, Running | Killing | Unreachable | Unknown) => Outcome::Become(told),
        (Starting, _) => Outcome::Keep,
        (Running, Killing | Unreachable | Unknown) => Outcome::Become(told),
        (Running, _) => Outcome::Keep,

        (Killing, Unreachable | Unknown) => Outcome::Become(told),
        (Killing, _) => Outcome::Keep,

        (Unreachable | UnreachableInactive | Unknown, Staging | Starting | Running | Killing) => Outcome::Become(told),
        (Unreachable | UnreachableInactive | Unknown, _) => Outcome::Keep,
    }
}

/// Whether the end in this condition delays the next launch (Marathon 1.11: a kill and a lost node do not).
pub fn costs_back_off(condition: Condition) -> bool {
    matches!(condition, Condition::Failed | Condition::Error | Condition::Dropped | Condition::Gone | Condition::Finished)
}

/// Whether a status is kept as `lastTaskFailure`.
pub fn is_failure(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Failed
            | TaskState::Error
            | TaskState::Lost
            | TaskState::Dropped
            | TaskState::Gone
            | TaskState::GoneByOperator
            | TaskState::Unknown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row a condition; columns in the order of [`Condition::ALL`]: `.` keep, `k` kill, `b` become.
    #[test]
    fn the_whole_grid_is_as_written_here() {
        // told:           Sched Prov Stag Start Run Fin Fail Killd Killg Err Drop Gone Unkn Unre UnIn
        let grid = [
            (Condition::Scheduled, "..kkk...k......"),
            (Condition::Provisioned, "..bbbbbbbbbbbb."),
            (Condition::Staging, "...bbbbbbbbbbb."),
            (Condition::Starting, "....bbbbbbbbbb."),
            (Condition::Running, ".....bbbbbbbbb."),
            (Condition::Finished, "..kkk...k......"),
            (Condition::Failed, "..kkk...k......"),
            (Condition::Killed, "..kkk...k......"),
            (Condition::Killing, ".....bbb.bbbbb."),
            (Condition::Error, "..kkk...k......"),
            (Condition::Dropped, "..kkk...k......"),
            (Condition::Gone, "..kkk...k......"),
            (Condition::Unknown, "..bbbbbbbbbb..."),
            (Condition::Unreachable, "..bbbbbbbbbb..."),
            (Condition::UnreachableInactive, "..bbbbbbbbbb..."),
        ];
        for ((now, expected), condition) in grid.into_iter().zip(Condition::ALL) {
            assert_eq!(now, condition);
            let found: String = Condition::ALL
                .into_iter()
                .map(|told| match transition(now, told) {
                    Outcome::Keep => '.',
                    Outcome::Kill => 'k',
                    Outcome::Become(next) => {
                        assert_eq!(next, told);
                        'b'
                    }
                })
                .collect();
            assert_eq!(found, expected, "{now:?}");
        }
    }

    #[test]
    fn no_row_leads_from_an_end_back_to_life() {
        for now in Condition::ALL.into_iter().filter(|now| now.is_terminal()) {
            assert!(Condition::ALL.into_iter().all(|told| !matches!(transition(now, told), Outcome::Become(_))));
        }
    }
}
