//! Requests about tasks: which are to be killed, and what a kill does besides killing.

use std::{collections::BTreeMap, sync::Arc};

use super::{Draft, deploy, prepare};
use crate::{
    core::{
        deployment::scale,
        launch::residency,
        ownership::{self, Source},
        status,
        turn::Turn,
    },
    model::{
        app::App,
        id::{InstanceId, PathId, TaskId},
        instance::{Condition, Instance},
        record::Record,
        request::{KillSelector, Origin, Reply, RequestError},
    },
};

/// How tasks are killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) scale: bool,
    pub(super) force: bool,
    /// The instance goes too, and another one takes its place.
    pub(super) wipe: bool,
}

pub(super) fn kill(turn: &mut Turn<'_, '_>, origin: &Origin, selection: &KillSelector, manner: Manner) -> Result<Reply, RequestError> {
    let Manner { scale, force, wipe } = manner;
    let victims = match select(turn, origin, selection) {
        Err(RequestError::NoApp(app)) if scale => return Err(RequestError::NoPath(app)),
        // A deployment without effect, as long as the app has any instance.
        Err(RequestError::NoTask(_)) if scale => Vec::new(),
        victims => victims?,
    };
    if let (true, KillSelector::App { app, .. } | KillSelector::Task { app, .. }) = (scale, selection)
        && !turn.state.tables.tallies.contains_key(app)
    {
        return Err(RequestError::NoPath(app.clone()));
    }
    // Both at once make no sense, and the API refuses them.
    if wipe && !scale {
        victims.iter().for_each(|victim| residency::wipe(turn, &victim.id));
    }
    if !scale {
        for victim in &victims {
            match victim.condition.is_live() {
                _ if wipe => scale::decommission(turn, &victim.id),
                true => kill_one(turn, victim),
                false => {}
            }
        }
        return Ok(Reply::Killed(victims.iter().map(|victim| (**victim).clone()).collect()));
    }
    let mut draft = Draft::new(turn, PathId::root());
    draft.posts = false;
    let mut sizes: BTreeMap<PathId, u32> = BTreeMap::new();
    victims.iter().for_each(|victim| *sizes.entry(victim.app().clone()).or_default() += 1);
    for (id, killed) in sizes {
        let current = ownership::spec(turn, origin, &id)?;
        let app = App { instances: current.instances.saturating_sub(killed), ..(*current).clone() };
        prepare(turn, origin, app, Source::Stored, &mut draft)?;
    }
    let reply = deploy(turn, origin, draft, force)?;
    victims.iter().for_each(|victim| scale::decommission(turn, &victim.id));
    Ok(reply)
}

fn select(turn: &Turn<'_, '_>, origin: &Origin, selection: &KillSelector) -> Result<Vec<Arc<Instance>>, RequestError> {
    let tables = &turn.state.tables;
    match selection {
        KillSelector::App { app, host } => {
            ownership::app(turn, origin, app)?;
            let on_host = |instance: &Instance| {
                let placed = instance.placement.as_ref().map(|placement| &*placement.host);
                host.as_deref().is_none_or(|host| host == "*" || placed == Some(host))
            };
            Ok(tables.instances_of(app).filter(|instance| instance.condition.is_live() && on_host(instance)).cloned().collect())
        }
        KillSelector::Task { app, task } => {
            ownership::app(turn, origin, app)?;
            let missing = || RequestError::NoTask(task.clone());
            let by_task = task.parse::<TaskId>().ok().map(|id| (id.instance, Some(id.incarnation)));
            let (id, incarnation) = by_task.or_else(|| Some((task.parse::<InstanceId>().ok()?, None))).ok_or_else(missing)?;
            let found = tables.instances.get(&id).filter(|instance| instance.app() == app && instance.condition.is_live());
            let found = found.filter(|instance| incarnation.is_none_or(|incarnation| incarnation == instance.incarnation));
            found.map(|instance| vec![instance.clone()]).ok_or_else(missing)
        }
        KillSelector::Instances { pod, instances } => {
            ownership::pod(turn, origin, pod)?;
            let own = instances.iter().filter(|id| id.app() == pod).filter_map(|id| tables.instances.get(id));
            Ok(own.cloned().collect())
        }
        KillSelector::Tasks(ids) => {
            let found =
                ids.iter().filter_map(|id| tables.instances.get(&id.instance).filter(|instance| instance.incarnation == id.incarnation));
            // What is another's is skipped as what is not there.
            let own = |instance: &&Arc<Instance>| origin.may_touch(tables.owner_of(instance.app()));
            // What a pod runs is killed as a whole, by its own routes.
            let of_app = |instance: &&Arc<Instance>| instance.condition.is_live() && instance.containers.is_empty();
            Ok(found.filter(of_app).filter(own).cloned().collect())
        }
    }
}

/// The task ends; its instance is launched again. Durable by its condition, so that a restart does not forget it.
fn kill_one(turn: &mut Turn<'_, '_>, victim: &Arc<Instance>) {
    let lost = matches!(victim.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
    if lost && !turn.state.holders.contains_key(&victim.id) {
        status::forget(turn, victim, victim.condition);
    } else {
        let since = turn.wall();
        turn.put(Record::Instance(Instance { condition: Condition::Killing, since, ..(**victim).clone() }.into()));
    }
}
