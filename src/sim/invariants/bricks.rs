//! Bricks and volumes: one mount at a time, under the lease of the records, and data that stays where it is as long as it is wanted.

use super::super::{agent::Phase, trace::short, world::World};
use crate::model::{
    brick::{Brick, BrickMount},
    id::{BrickName, TaskId},
};

impl World<'_> {
    pub(super) fn check_brick(&mut self, old: &Brick, new: Option<&Brick>) {
        let name = &old.name;
        if let Some(lease) = &old.lease
            && new.and_then(|new| new.lease.as_ref()) != Some(lease)
        {
            let mounted = self.mounts.get(name).and_then(|nodes| nodes.iter().find(|(_, epoch)| **epoch == lease.epoch));
            if let Some(at) = mounted.map(|(at, _)| *at) {
                self.violate("lease-ended-early", || format!("lease {} of {name} ends, but agent-{at} has it mounted", lease.epoch));
            }
            // A launch that is on its way to its node would still mount.
            let coming = self.launched_with(&lease.task).any(|(_, task)| task.phase == Phase::Coming && !task.order_lost);
            if coming {
                self.violate("lease-ended-early", || format!("lease {} of {name} ends, but its launch is on its way", lease.epoch));
            }
        }
        let Some(new) = new else {
            if let Some(at) = self.data.get(name).copied() {
                self.violate("data-forgotten", || format!("nothing is known of {name} any more, but its data is on agent-{at}"));
            }
            return;
        };
        let lease = new.lease.as_ref();
        if new.epoch < old.epoch || lease.is_some_and(|lease| lease.epoch != new.epoch) {
            self.violate("lease-order", || format!("{name}: epoch {} after {}, lease {lease:?}", new.epoch, old.epoch));
        }
        if lease != old.lease.as_ref() && lease.is_some() && new.epoch == old.epoch {
            self.violate("lease-order", || format!("{name}: two leases under epoch {}", new.epoch));
        }
        if old.home.is_some() && new.home != old.home {
            self.violate("data-left-behind", || format!("{name} moves from {:?} to {:?}", old.home, new.home));
        }
    }

    /// Nobody else has the brick mounted, and its data is here.
    pub(in crate::sim) fn check_mount(&mut self, at: usize, mount: &BrickMount, task: &TaskId) {
        let name = &mount.name;
        let other = self.mounts.get(name).and_then(|nodes| nodes.iter().next().map(|(at, epoch)| (*at, *epoch)));
        // Another container of the pod may have it.
        if let Some((other, epoch)) = other.filter(|other| *other != (at, mount.epoch) || task.container.is_none()) {
            let (new, id) = (mount.epoch, short(task));
            self.violate("two-holders", || format!("{name}: agent-{other} under lease {epoch}, agent-{at} under lease {new} for {id}"));
        }
        if let Some(data) = self.data.get(name).copied().filter(|data| *data != at) {
            self.violate("data-left-behind", || format!("the data of {name} is on agent-{data}, it is mounted on agent-{at}"));
        }
    }

    /// Data is deleted only when its brick was given up.
    pub(in crate::sim) fn check_destroy(&mut self, at: usize, name: &BrickName) {
        let kept = self.disk.brick(name).is_some_and(|brick| !brick.condemned);
        if kept && self.data.get(name) == Some(&at) {
            self.violate("data-destroyed", || format!("agent-{at} deletes the data of {name}, which is wanted"));
        }
    }

    pub(super) fn bricks_consistent(&self) -> Result<(), String> {
        for (name, nodes) in &self.mounts {
            for (at, epoch) in nodes {
                let leased = self.disk.brick(name).and_then(|brick| brick.lease.as_ref()).is_some_and(|lease| lease.epoch == *epoch);
                if !leased {
                    return Err(format!("agent-{at} has {name} mounted under lease {epoch}, which is not in the records"));
                }
            }
        }
        for brick in self.disk.bricks() {
            if brick.condemned {
                return Err(format!("{} was given up and is still there", brick.name));
            }
            if let Some(lease) = &brick.lease
                && !self.launched_with(&lease.task).any(|(_, task)| task.alive())
            {
                return Err(format!("{} is leased to {}, which is gone", brick.name, short(&lease.task)));
            }
        }
        Ok(())
    }
}
