//! Pods: their containers are tasks like others, but for what they share. A holder, which is no task, has the network and publishes the ports; it is
//! there before the first container of an instance, and goes with the last one.
//!
//! The end of the last container is told when the holder is gone: what the instance held is really free then, its ports above all.

use std::collections::BTreeSet;

use super::{Action, Agent, Ctx, Found, Phase, Seen, Signal};
use crate::model::{
    cluster::TaskState,
    id::TaskId,
    pod::{HOLDER, holder},
};

/// True for what holds the network of a pod's instance.
pub fn is_holder(task: &TaskId) -> bool {
    task.container.as_deref() == Some(HOLDER)
}

/// True for containers of one and the same launch of an instance, and for what stands for all of them.
pub fn is_beside(one: &TaskId, other: &TaskId) -> bool {
    one.instance == other.instance && one.incarnation == other.incarnation
}

impl Agent {
    /// The tasks of a pod's instance; what they have in common is the beginning of their order.
    pub(super) fn beside<'a>(&'a self, task: &TaskId) -> impl Iterator<Item = &'a TaskId> + use<'a> {
        let first = TaskId { instance: task.instance.clone(), container: None, incarnation: 0 };
        let task = task.clone();
        let of_instance = self.tasks.range(first..).map(|(other, _)| other);
        let instance = task.instance.clone();
        of_instance.take_while(move |other| other.instance == instance).filter(move |other| is_beside(other, &task))
    }

    /// True when nothing else of the pod lives, and its holder has not been dealt with.
    pub(super) fn closes_its_pod(&self, task: &TaskId) -> bool {
        let lives = |other: &TaskId| {
            self.tasks.get(other).is_some_and(|known| matches!(known.phase, Phase::Launching | Phase::Up | Phase::Closing { .. }))
        };
        self.tasks.get(task).is_some_and(|known| known.holding.in_pod && !matches!(known.phase, Phase::Closing { .. }))
            && !self.beside(task).any(|other| other != task && lives(other))
    }

    pub(super) fn close(&mut self, task: &TaskId, container: bool, end: (TaskState, String), out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        known.phase = Phase::Closing { container };
        known.end = Some(end);
        out.push(Action::Remove { task: holder(task), at_leisure: false });
    }

    fn closing(&self, holder: &TaskId) -> Option<TaskId> {
        let closing = |other: &&TaskId| self.tasks.get(*other).is_some_and(|known| matches!(known.phase, Phase::Closing { .. }));
        self.beside(holder).find(closing).cloned()
    }

    pub(super) fn holder_removed(&mut self, holder: &TaskId, gone: bool, ctx: &mut Ctx, out: &mut Vec<Action>) {
        // Not gone: the next listing shows it again.
        let Some(task) = self.closing(holder).filter(|_| gone) else { return };
        let Some(known) = self.tasks.get_mut(&task) else { return };
        let Phase::Closing { container } = known.phase else { return };
        let Some((state, message)) = known.end.take() else { return };
        self.over(&task, container, state, message, ctx, out);
    }

    /// Without it the containers of its pod are cut off: they end, and the pod is launched anew.
    pub(super) fn holder_gone(&self, holder: &TaskId, out: &mut Vec<Action>) {
        let up =
            self.beside(holder).filter(|task| self.tasks.get(*task).is_some_and(|known| known.phase == Phase::Up && known.stop.is_none()));
        out.extend(up.map(|task| Action::Signal(task.clone(), Signal::Kill)));
    }

    /// What a complete listing says of holders.
    pub(super) fn holders_listed(&mut self, listed: &[Found], ctx: &mut Ctx, out: &mut Vec<Action>) {
        for found in listed {
            let alone = self.beside(&found.task).next().is_none();
            if alone || self.closing(&found.task).is_some() {
                out.push(Action::Remove { task: found.task.clone(), at_leisure: false });
            } else if matches!(found.state, Seen::Ended(_)) {
                self.holder_gone(&found.task, out);
            }
        }
        let is_listed = |task: &TaskId| listed.iter().any(|found| is_beside(&found.task, task));
        let bare = self.tasks.iter().filter(|(task, known)| known.holding.in_pod && !is_listed(task));
        let bare: Vec<(TaskId, Phase)> = bare.map(|(task, known)| (task.clone(), known.phase)).collect();
        let mut gone = BTreeSet::new();
        for (task, phase) in bare {
            match phase {
                Phase::Closing { .. } => self.holder_removed(&holder(&task), true, ctx, out),
                Phase::Up => _ = gone.insert(holder(&task)),
                Phase::Launching | Phase::Ended { .. } | Phase::Removing => {}
            }
        }
        gone.iter().for_each(|holder| self.holder_gone(holder, out));
    }
}
