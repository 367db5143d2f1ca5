//! Launches: once for each task, a pod's as a whole, after the back-off, and after what the app depends on.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        agent::is_end,
        server::Stepped,
        trace::{short, short_instance},
        world::World,
    },
    Delay, launch_of,
};
use crate::{
    core::Input,
    model::{
        cluster::{ClusterCall, ClusterEvent, Launch, TaskState},
        id::{InstanceId, PathId},
        instance::{Goal, Instance},
    },
};

impl World<'_> {
    pub(super) fn check_launch(&mut self, launch: &Launch) {
        let id = &launch.task;
        if self.rules.launched.insert(id.clone(), self.now).is_some() {
            return self.violate("launched-twice", || format!("{} was launched before", short(id)));
        }
        if let Err(reason) = self.has_record(launch) {
            return self.violate("no-record", || format!("{}: {reason}", short(id)));
        }
        if let Err((rule, reason)) = self.has_right_ports(launch) {
            return self.violate(rule, || format!("{}: {reason}", short(id)));
        }
        self.check_dependencies(launch);
        self.check_maximum(&launch.app.id);
    }

    /// What is launched of a pod is all of it.
    pub(super) fn check_whole(&mut self, launches: &[Launch]) {
        let mut parts: BTreeMap<(InstanceId, u32), Vec<&Launch>> = BTreeMap::new();
        for launch in launches.iter().filter(|launch| launch.pod.is_some()) {
            parts.entry(launch_of(&launch.task)).or_default().push(launch);
        }
        for (of, launches) in parts {
            let named: Vec<Option<&str>> = launches.iter().map(|launch| launch.task.container.as_deref()).collect();
            let expected: Vec<Option<&str>> = launches[0].pod.as_ref().map(|pod| pod.app.containers().collect()).unwrap_or_default();
            if named != expected || launches.iter().any(|launch| launch.agent != launches[0].agent) {
                return self.violate("torn-pod", || format!("of {} there is {named:?}, not {expected:?}", short_instance(&of.0)));
            }
        }
    }

    /// Within a deployment nothing is started before what it waits for. Not judged by what the records say of tasks, but by what has run.
    fn check_dependencies(&mut self, launch: &Launch) {
        let app = &launch.app;
        let deployment = self.disk.deployments().find(|deployment| deployment.changes.iter().any(|change| change.app == app.id));
        let Some(deployment) = deployment.filter(|deployment| deployment.version == app.last_config_change_at()) else { return };
        let waits_for = |id: &PathId| app.dependencies.iter().any(|one| id == one || id.is_below(one) && self.disk.app(one).is_none());
        let late = deployment.affected_apps().filter(|id| waits_for(id)).filter_map(|id| self.disk.current(id)).find_map(|other| {
            let key = (other.id.clone(), other.last_config_change_at());
            // Whoever is replaced here is asked whether it is ready; whoever stays may have come up when nobody asked.
            let change = deployment.changes.iter().find(|change| change.app == other.id);
            let before = change.and_then(|change| self.disk.definition(&other.id, change.from?));
            let stays = before.is_some_and(|before| before.last_config_change_at() == key.1);
            let asks = !other.readiness_checks.is_empty() && !stays;
            let up = if asks { &self.rules.ready } else { &self.rules.came_up };
            let up = up.get(&key).map_or(0, BTreeSet::len);
            (up < other.instances as usize).then(|| format!("{} of {} of {} have come up", up, other.instances, other.id))
        });
        if let Some(late) = late {
            let id = short(&launch.task);
            self.violate("started-early", || format!("{id} is launched, but {late}"));
        }
    }

    /// Nothing is launched while its app has to wait.
    pub(super) fn check_back_off(&mut self, one: &Stepped) {
        let accepts =
            one.frame.calls.iter().filter_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None });
        for launch in accepts.flatten() {
            let Some(current) = self.disk.current(&launch.app.id) else { continue };
            let key = (launch.app.id.clone(), current.last_config_change_at());
            if let Some(until) = self.rules.delays.get(&key).map(|delay| delay.until).filter(|until| one.at < *until) {
                let id = short(&launch.task);
                self.violate("back-off", || format!("{id} has to wait until {}.{:03}", until / 1000, until % 1000));
            }
        }
    }

    /// The second opinion on back-off (Marathon 1.11: doubled, capped, forgotten after a quiet time as long as the cap).
    pub(super) fn note_failure(&mut self, one: &Stepped, old: &Instance) {
        use TaskState::*;
        let Input::Cluster(ClusterEvent::Status(status)) = &one.cause else { return };
        let is_its = launch_of(&status.task) == (old.id.clone(), old.incarnation);
        if !is_its || !is_end(status.state) || old.goal != Goal::Running {
            return;
        }
        // Of a pod it is enough that one of its containers ended so.
        let mut ends = self.rules.ends.get(&(old.id.clone(), old.incarnation)).into_iter().flat_map(BTreeMap::values);
        if !ends.any(|state| matches!(state, Failed | Error | Dropped | Gone | GoneByOperator | Finished)) {
            return;
        }
        let Some(app) = self.disk.current(old.app()) else { return };
        let key = (app.id.clone(), app.last_config_change_at());
        // What is about to be replaced says nothing about what comes after it.
        if old.version < key.1 && self.disk.deployments().any(|deployment| deployment.affected_apps().any(|id| *id == app.id)) {
            return;
        }
        let (initial, most) = (app.backoff.initial_ms as f64, app.backoff.max_ms as f64);
        let before = self.rules.delays.get(&key).filter(|delay| one.at <= delay.until + delay.forget_ms);
        let wait_ms = before.map_or(initial, |delay| delay.wait_ms * app.backoff.factor).min(most);
        let delay = Delay { wait_ms, until: one.at + wait_ms as u64, forget_ms: app.backoff.max_ms };
        self.rules.delays.insert(key, delay);
    }
}
