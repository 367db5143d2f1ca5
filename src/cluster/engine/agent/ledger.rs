//! What the node has and who holds it.

use std::collections::{BTreeMap, BTreeSet};

use super::Holding;
use crate::model::{
    id::TaskId,
    resources::{PortRange, Resources, Scalar},
};

/// The book of holdings. What is free may be nothing although less than everything is held: settings may shrink while tasks run.
#[derive(Debug)]
pub(super) struct Ledger {
    total: Resources,
    held: BTreeMap<TaskId, Holding>,
    cpus: Scalar,
    mem: Scalar,
    disk: Scalar,
    gpus: u32,
    ports: BTreeSet<u16>,
    /// In use, when it was last looked, by somebody who is no task.
    others: BTreeSet<u16>,
    /// Given back since that look began: what it says of them may be of before.
    returned: BTreeSet<u16>,
}

impl Ledger {
    pub(super) fn new(total: Resources) -> Self {
        let none = Scalar::ZERO;
        let (ports, others, returned) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { total, held: BTreeMap::new(), cpus: none, mem: none, disk: none, gpus: 0, ports, others, returned }
    }

    /// It is looked from now on which ports are in use.
    pub(super) fn look_begins(&mut self) {
        self.returned.clear();
    }

    /// What the look has found: a task's own ports are among it while it runs, and for a moment afterwards.
    pub(super) fn found_in_use(&mut self, ports: BTreeSet<u16>) {
        self.others = ports;
        self.others.retain(|port| !self.ports.contains(port) && !self.returned.contains(port));
    }

    /// True when a port is left out because somebody who is no task uses it.
    pub(super) fn others_use_ports(&self) -> bool {
        !self.others.is_empty()
    }

    /// What nobody holds or uses.
    pub(super) fn free(&self) -> Resources {
        Resources {
            cpus: self.total.cpus.minus(self.cpus),
            mem: self.total.mem.minus(self.mem),
            disk: self.total.disk.minus(self.disk),
            gpus: self.total.gpus.saturating_sub(self.gpus),
            ports: self.total.ports.iter().flat_map(|range| self.gaps(*range)).collect(),
        }
    }

    /// True when it can be held in addition. Ports outside the offered ranges (`@PORT` with host networking) only have to be unused.
    pub(super) fn fits(&self, wanted: &Resources, ports: &[u16]) -> bool {
        wanted.cpus <= self.total.cpus.minus(self.cpus)
            && wanted.mem <= self.total.mem.minus(self.mem)
            && wanted.disk <= self.total.disk.minus(self.disk)
            && wanted.gpus <= self.total.gpus.saturating_sub(self.gpus)
            && ports.iter().all(|port| !self.ports.contains(port))
    }

    /// So many GPUs that nobody has, those with the lowest numbers.
    pub(super) fn free_gpus(&self, count: u32) -> Vec<u32> {
        let held: BTreeSet<u32> = self.held.values().flat_map(|holding| &holding.gpus).copied().collect();
        (0..self.total.gpus).filter(|number| !held.contains(number)).take(count as usize).collect()
    }

    pub(super) fn take(&mut self, task: &TaskId, holding: &Holding) {
        self.give_back(task);
        self.cpus = self.cpus.plus(holding.resources.cpus).plus(holding.overhead.cpus);
        self.mem = self.mem.plus(holding.resources.mem).plus(holding.overhead.mem);
        self.disk = self.disk.plus(holding.resources.disk).plus(holding.overhead.disk);
        self.gpus += holding.resources.gpus;
        self.ports.extend(&holding.ports);
        self.held.insert(task.clone(), holding.clone());
    }

    pub(super) fn give_back(&mut self, task: &TaskId) {
        let Some(holding) = self.held.remove(task) else { return };
        self.cpus = self.cpus.minus(holding.resources.cpus).minus(holding.overhead.cpus);
        self.mem = self.mem.minus(holding.resources.mem).minus(holding.overhead.mem);
        self.disk = self.disk.minus(holding.resources.disk).minus(holding.overhead.disk);
        self.gpus = self.gpus.saturating_sub(holding.resources.gpus);
        for port in &holding.ports {
            self.ports.remove(port);
        }
        self.returned.extend(holding.ports);
    }

    fn gaps(&self, range: PortRange) -> Vec<PortRange> {
        let mut gaps = Vec::new();
        let mut begin = u32::from(range.begin);
        let taken = self.ports.union(&self.others).skip_while(|port| **port < range.begin).take_while(|port| **port <= range.end);
        for &port in taken {
            push_range(&mut gaps, begin, u32::from(port));
            begin = u32::from(port) + 1;
        }
        push_range(&mut gaps, begin, u32::from(range.end) + 1);
        gaps
    }
}

/// Adds `begin..end` (the end excluded) unless it is empty.
fn push_range(gaps: &mut Vec<PortRange>, begin: u32, end: u32) {
    if let (Ok(first), Some(Ok(last))) = (u16::try_from(begin), end.checked_sub(1).map(u16::try_from))
        && begin < end
    {
        gaps.push(PortRange::new(first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Holding {
        Holding {
            resources: Resources::default(),
            gpus: Vec::new(),
            ports: Vec::new(),
            host_network: true,
            bricks: false,
            runner: Default::default(),
            in_pod: false,
            overhead: Resources::default(),
            mem_limit: None,
            kill_grace_ms: None,
        }
    }

    #[test]
    fn no_two_tasks_have_the_same_gpu() {
        let task = |number: u32| crate::cluster::engine::samples::task("/a", number);
        let mut ledger = Ledger::new(Resources { gpus: 4, ..Resources::default() });
        let hold = |ledger: &mut Ledger, number: u32, count: u32| {
            let gpus = ledger.free_gpus(count);
            let resources = Resources { gpus: count, ..Resources::default() };
            assert!(ledger.fits(&resources, &[]));
            let holding = Holding { resources, gpus: gpus.clone(), ..nothing() };
            ledger.take(&task(number), &holding);
            gpus
        };
        assert_eq!(hold(&mut ledger, 1, 1), [0]);
        assert_eq!(hold(&mut ledger, 2, 2), [1, 2]);
        ledger.give_back(&task(1));
        assert_eq!(hold(&mut ledger, 3, 2), [0, 3]);
        assert_eq!((ledger.free().gpus, ledger.free_gpus(1)), (0, vec![]));
    }

    #[test]
    fn free_ports_are_what_lies_between_the_held_ones() {
        let check = |held: &[u16], expected: &str| {
            let mut ledger =
                Ledger::new(Resources { ports: vec![PortRange::new(10, 14), PortRange::new(65534, 65535)], ..Resources::default() });
            ledger.ports.extend(held);
            let free: Vec<String> = ledger.free().ports.iter().map(ToString::to_string).collect();
            assert_eq!(free.join(" "), expected, "{held:?}");
        };
        check(&[], "10-14 65534-65535");
        check(&[10, 12, 65535], "11-11 13-14 65534-65534");
        check(&[14, 65534, 65535], "10-13");
        check(&[9, 15, 1066], "10-14 65534-65535");
    }

    #[test]
    fn a_port_is_not_free_while_somebody_else_uses_it_and_lost_to_nobody_who_does_not() {
        let mut ledger = Ledger::new(Resources { ports: vec![PortRange::new(10, 14), PortRange::new(20, 21)], ..Resources::default() });
        let holding = |ports: &[u16]| Holding { ports: ports.to_vec(), ..nothing() };
        let (a, b) = (crate::cluster::engine::samples::task("/a", 1), crate::cluster::engine::samples::task("/b", 1));
        let look = |ledger: &mut Ledger, found: &[u16]| {
            ledger.look_begins();
            ledger.found_in_use(found.iter().copied().collect());
        };
        let check = |ledger: &Ledger, expected: &str| {
            let free: Vec<String> = ledger.free().ports.iter().map(ToString::to_string).collect();
            assert_eq!(free.join(" "), expected);
        };
        look(&mut ledger, &[9, 12, 21, 4000]);
        check(&ledger, "10-11 13-14 20-20");
        // What a task listens on is its own, and free with its end.
        ledger.take(&a, &holding(&[10, 11]));
        look(&mut ledger, &[10, 12]);
        check(&ledger, "13-14 20-21");
        ledger.give_back(&a);
        check(&ledger, "10-11 13-14 20-21");
        // Also when it was read while the task ended.
        ledger.take(&b, &holding(&[13]));
        ledger.look_begins();
        ledger.give_back(&b);
        ledger.found_in_use([12, 13].into());
        check(&ledger, "10-11 13-14 20-21");
        // Whoever still listens at the next look is somebody else.
        look(&mut ledger, &[13]);
        check(&ledger, "10-12 14-14 20-21");
        // A task that was given a port in spite of that (by an older offer) gives it back to its user.
        ledger.take(&b, &holding(&[13]));
        ledger.give_back(&b);
        check(&ledger, "10-12 14-14 20-21");
        look(&mut ledger, &[]);
        check(&ledger, "10-14 20-21");
        assert!(!ledger.others_use_ports());
    }
}
