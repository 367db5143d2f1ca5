//! After healing: everything becomes as wanted, but for what there is no room for.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{
    super::{
        agent::Phase,
        master::Pools,
        trace::{short, short_instance},
        world::World,
    },
    offers::take,
};
use crate::model::{
    app::{App, Network, PortNumber},
    brick::Brick,
    deployment::Deployment,
    id::{AgentId, PathId, TaskId},
    instance::{Condition, Goal, Instance},
    resources::Resources,
    time::Timestamp,
};

impl World<'_> {
    /// Whether everything is as wanted: `Err` says what is not. `Ok(true)`: all but what there is no room for.
    pub(in crate::sim) fn unsettled(&mut self) -> Result<bool, String> {
        let Some(server) = &self.server else { return Err("the server is down".into()) };
        if !self.link.up {
            return Err("the server is not connected".into());
        }
        let tables = server.state.view().tables;
        let idle = server.is_idle();
        self.no_leftovers()?;
        self.bricks_consistent()?;
        let saturated = self.apps_complete()?;
        if idle {
            self.check_past(&tables);
            self.check_tables(&tables);
        }
        if self.violation.is_some() {
            return Err("memory and disk differ".into());
        }
        Ok(saturated)
    }

    fn no_leftovers(&self) -> Result<(), String> {
        for (id, task) in &self.tasks {
            if task.alive() && self.rules.doomed.contains(id) {
                return Err(format!("{} still lives, although its kill was acknowledged", short(id)));
            }
            let wanted = self.disk.instance(&id.instance).is_some_and(|instance| {
                instance.incarnation == id.incarnation && instance.goal == Goal::Running && instance.condition == Condition::Running
            });
            if task.alive() && !wanted {
                return Err(format!("{} lives, and the records do not want it", short(id)));
            }
            if !task.updates.is_empty() {
                return Err(format!("a status of {} was never acknowledged", short(id)));
            }
        }
        for instance in self.disk.instances() {
            if self.disk.app(instance.app()).is_none() {
                return Err(format!("instance {} of an app that is gone: {:?}", short_instance(&instance.id), instance.condition));
            }
            if instance.goal != Goal::Running {
                return Err(format!("instance {} should be gone: {:?}", short_instance(&instance.id), instance.condition));
            }
        }
        Ok(())
    }

    fn apps_complete(&mut self) -> Result<bool, String> {
        let mut without_room: BTreeSet<PathId> = BTreeSet::new();
        let mut unfinished: Vec<(&App, String)> = Vec::new();
        for app in self.disk.apps().filter_map(|entry| self.disk.current(&entry.id)) {
            if let Err(state) = self.is_complete(app) {
                if self.has_room_for_more(app) {
                    unfinished.push((app, state));
                } else if self.only_waits(app) {
                    without_room.insert(app.id.clone());
                } else {
                    return Err(format!("{} has no room for more, and yet: {state}", app.id));
                }
            }
        }
        let mut waiting = Vec::new();
        for (app, state) in unfinished {
            match self.has_to_wait(app, &without_room) {
                Some(reason) => waiting.push(format!("{} waits for {reason}", app.id)),
                None => return Err(format!("{}: {state}", app.id)),
            }
        }
        let stuck = self.disk.deployments().find(|deployment| waits_for(deployment, &without_room).is_none());
        if let Some(deployment) = stuck {
            return Err(format!("deployment {} does not end at step {}: {:?}", deployment.id, deployment.current_step, deployment.steps));
        }
        waiting.into_iter().for_each(|line| self.note(|| line));
        let saturated = !without_room.is_empty();
        without_room.iter().for_each(|app| self.note(|| format!("{app} has no room")));
        Ok(saturated)
    }

    /// Lack of room excuses that instances wait, and nothing else: what there is beside them runs, and outside of deployments the number is right.
    fn only_waits(&self, app: &App) -> bool {
        let is_deployed = self.disk.deployments().any(|deployment| deployment.changes.iter().any(|change| change.app == app.id));
        let runs_or_waits = |instance: &Instance| {
            instance.condition == Condition::Scheduled || instance.condition == Condition::Running && self.lives(instance)
        };
        let count = self.disk.instances_of(&app.id).count();
        (is_deployed || count == app.instances as usize) && self.disk.instances_of(&app.id).all(runs_or_waits)
    }

    /// An app may wait for ever, as in Marathon, for its turn in a deployment in which an earlier step cannot be done for lack of room. Says for
    /// whom it waits. Meanwhile it keeps what it has: whatever it has must run, or have no room.
    fn has_to_wait(&self, app: &App, without_room: &BTreeSet<PathId>) -> Option<String> {
        let deployment = self.disk.deployments().find(|deployment| deployment.changes.iter().any(|change| change.app == app.id))?;
        let blocking = waits_for(deployment, without_room)?;
        let mut later = deployment.steps.iter().skip(deployment.current_step + 1).flat_map(|step| &step.actions);
        let keeps = |instance: &Instance| {
            let lives = self.lives(instance);
            let no_room = || self.disk.definition(&app.id, instance.version).is_some_and(|version| !self.has_room_for(version));
            instance.condition == Condition::Running && lives || instance.condition == Condition::Scheduled && no_room()
        };
        let its_turn_comes = later.any(|action| action.app == app.id);
        (its_turn_comes && self.disk.instances_of(&app.id).all(keeps)).then(|| blocking.to_string())
    }

    /// Its task runs, or those of a pod that have not done their work.
    fn lives(&self, instance: &Instance) -> bool {
        let runs = |task: &TaskId| self.tasks.get(task).is_some_and(|task| task.phase == Phase::Running);
        self.disk.tasks_of(instance).iter().all(|(task, condition)| *condition == Condition::Finished || runs(task))
    }

    fn is_complete(&self, app: &App) -> Result<(), String> {
        let config = app.last_config_change_at();
        let half_way = self.rules.half_way.contains(&app.id);
        let instances: Vec<&Instance> = self.disk.instances_of(&app.id).collect();
        let runs = |instance: &&&Instance| {
            instance.condition == Condition::Running && (instance.version >= config || half_way) && self.lives(instance)
        };
        let running = instances.iter().filter(runs).count();
        if running == app.instances as usize && instances.len() == running {
            return Ok(());
        }
        let states = instances.iter().map(|instance| format!("{} {:?}", short_instance(&instance.id), instance.condition));
        let states = states.collect::<Vec<_>>().join(", ");
        let queue = self.server.as_ref().and_then(|server| server.state.view().queue.get(&app.id).cloned());
        let why =
            queue.map(|entry| format!("not before {:?}, rejected {:?}, held by {:?}", entry.not_before, entry.rejected, entry.held_by));
        Err(format!("{running} of {} run ({states}); queue: {}", app.instances, why.unwrap_or_else(|| "not in it".into())))
    }

    /// True when one that waits has room, each by its own version, or one that should wait.
    fn has_room_for_more(&self, app: &App) -> bool {
        let present = self.disk.instances_of(&app.id).count();
        let waiting = self.disk.instances_of(&app.id).filter(|instance| instance.condition == Condition::Scheduled);
        let versions: BTreeSet<Timestamp> = waiting.map(|instance| instance.version).collect();
        let now = versions.is_empty() || versions.contains(&app.version) || present < app.instances as usize;
        let mut outdated = versions.iter().filter(|version| **version != app.version);
        let has_room = |version: &Timestamp| self.disk.definition(&app.id, *version).is_some_and(|version| self.has_room_for(version));
        now && self.has_room_for(app) || outdated.any(has_room)
    }

    /// True when some node could take one more instance, as the world is.
    fn has_room_for(&self, app: &App) -> bool {
        let home =
            app.bricks().next().and_then(|_| self.disk.bricks().find(|brick| brick.app == app.id)).and_then(|brick| brick.home.clone());
        let volumes = self.volumes_waited_for(app);
        (0..self.agents.len()).any(|at| {
            let agent = &self.agents[at];
            let mut left = agent.total.clone();
            for task in agent.tasks.iter().map(|id| &self.tasks[id]).filter(|task| task.phase != Phase::Ended) {
                let takes = Pools::of(&task.launch);
                if take(&mut left.common, &takes.common).and_then(|()| take(&mut left.reserved, &takes.reserved)).is_err() {
                    return false;
                }
            }
            let waited_for = volumes.as_ref().is_some_and(|homes| homes.contains(&agent.id));
            let at_home = home.as_ref().is_some_and(|home| *home == agent.id);
            let Some(mut usable) = Self::usable(app, &left, at_home || waited_for) else { return false };
            let scalars = Resources { cpus: app.cpus, mem: app.mem, disk: app.disk, gpus: app.gpus, ..Resources::default() };
            take(&mut usable, &scalars).is_ok()
                && (home.is_none() || at_home)
                && (volumes.is_none() || waited_for)
                && self.ports_free(at, app, &usable)
                && self.constraints_allow(at, app)
        })
    }

    /// Where the next instance of an app has to go because a volume waits for it there; `None`: anywhere.
    fn volumes_waited_for(&self, app: &App) -> Option<BTreeSet<AgentId>> {
        let volumes: Vec<_> = self.disk.bricks().filter(|brick| brick.app == app.id && brick.reservation.is_some()).collect();
        // What was scaled since it began to wait waits for the present size.
        let wanted = self.disk.current(&app.id).map_or(app.instances, |present| present.instances) as usize;
        if !app.is_resident() || volumes.len() < wanted {
            return None;
        }
        let holder = |brick: &Brick| brick.reservation.as_ref().and_then(|reservation| self.disk.instance(&reservation.instance));
        let (own, mut left): (Vec<_>, Vec<_>) = volumes.iter().partition(|brick| holder(brick).is_some());
        // Whoever has none yet takes over what was left last, and nothing else; of what was left at one moment any.
        let present = self.disk.instances_of(&app.id).count().max(wanted);
        let age =
            |brick: &&Brick| Reverse((brick.lease.is_some(), brick.reservation.as_ref().and_then(|reservation| reservation.released_at)));
        left.sort_by_key(age);
        match present.saturating_sub(own.len()).checked_sub(1) {
            None => left.clear(),
            Some(last) => {
                if let Some(last) = left.get(last).map(age) {
                    left.retain(|brick| age(brick) <= last);
                }
            }
        }
        let free = own.into_iter().chain(left).filter(|brick| brick.lease.is_none());
        Some(free.filter_map(|brick| brick.home.clone()).collect())
    }

    fn ports_free(&self, at: usize, app: &App, left: &Resources) -> bool {
        let agent = &self.agents[at];
        let claims = self.disk.ports().filter(|claim| claim.app == app.id);
        if claims.into_iter().any(|claim| agent.bound.contains_key(&claim.port)) {
            return false;
        }
        let numbers = app.port_definitions.iter().map(|definition| definition.port);
        let numbers = numbers.chain(app.port_mappings().iter().filter_map(|mapping| mapping.host_port));
        let mut dynamic = 0;
        for number in numbers {
            match number {
                PortNumber::Fixed(port) if app.require_ports || app.network != Network::Host => {
                    let offered = left.ports.iter().any(|range| range.contains(port));
                    if !offered || self.disk.port(port).is_some() {
                        return false;
                    }
                }
                // Of a bridge it comes with the offer, of what the app may use.
                PortNumber::Allotted(port) if app.network != Network::Host && !left.ports.iter().any(|range| range.contains(port)) => {
                    return false;
                }
                PortNumber::Allotted(_) => {}
                _ => dynamic += 1,
            }
        }
        let free = left.ports.iter().flat_map(|range| range.begin..=range.end).filter(|port| self.disk.port(*port).is_none());
        free.take(dynamic).count() == dynamic
    }
}

/// The app without room that the present step of a deployment waits for.
fn waits_for<'a>(deployment: &'a Deployment, without_room: &BTreeSet<PathId>) -> Option<&'a PathId> {
    let step = deployment.steps.get(deployment.current_step)?;
    step.actions.iter().map(|action| &action.app).find(|app| without_room.contains(*app))
}
