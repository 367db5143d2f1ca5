//! Offers and nodes: an offer is answered once with no more than it holds, and the containers of a node fit into it.

use super::super::{
    master::{Pools, give},
    trace::short,
    world::World,
};
use crate::model::{cluster::Launch, id::OfferId, resources::Resources};

impl World<'_> {
    pub(super) fn answer_offer(&mut self, offer: &OfferId) {
        let answered = self.master.shown.get_mut(offer).is_some_and(|(_, answered)| std::mem::replace(answered, true));
        if answered {
            self.violate("offer-used-twice", || format!("{offer} was answered before"));
        }
    }

    pub(super) fn check_accept(&mut self, id: &OfferId, launches: &[Launch]) {
        self.answer_offer(id);
        let mut left = self.master.shown.get(id).map(|(offer, _)| Pools::of_offer(offer));
        for launch in launches {
            self.check_launch(launch);
            let Some(left) = &mut left else { continue };
            self.check_roles(launch, left);
            let takes = Pools::of(launch);
            if let Err(what) = take(&mut left.common, &takes.common).and_then(|()| take(&mut left.reserved, &takes.reserved)) {
                self.violate("offer-exceeded", || format!("{id} has not enough {what} for {}", short(&launch.task)));
            }
        }
        self.check_whole(launches);
        let agent = self.master.shown.get(id).map(|(offer, _)| offer.agent.clone());
        if let Some(launch) = launches.iter().find(|launch| agent.as_ref().is_some_and(|agent| *agent != launch.agent)) {
            self.violate("no-record", || format!("{} goes to {}, the offer is of {agent:?}", short(&launch.task), launch.agent));
        }
    }

    /// The containers of a node fit into it.
    pub(in crate::sim) fn check_room(&mut self, at: usize) {
        let total = &self.agents[at].total;
        let mut left = total.common.clone();
        give(&mut left, &total.reserved);
        left.ports.clear();
        for id in &self.agents[at].tasks {
            let task = &self.tasks[id];
            let wanted = Resources { ports: Vec::new(), ..task.launch.resources.clone() };
            if task.alive()
                && let Err(what) = take(&mut left, &wanted)
            {
                let agent = self.agents[at].id.clone();
                return self.violate("over-committed", || format!("{agent} has not enough {what}"));
            }
        }
    }
}

/// Takes `wanted` out of `left`, or says what there is too little of.
pub(super) fn take(left: &mut Resources, wanted: &Resources) -> Result<(), &'static str> {
    if wanted.cpus > left.cpus {
        return Err("cpus");
    }
    if wanted.mem > left.mem {
        return Err("memory");
    }
    if wanted.disk > left.disk {
        return Err("disk");
    }
    if wanted.gpus > left.gpus {
        return Err("gpus");
    }
    left.take_scalars(wanted);
    let ports = wanted.ports.iter().flat_map(|range| range.begin..=range.end).all(|port| left.take_port(port));
    if ports { Ok(()) } else { Err("ports") }
}
