//! Faults put in deliberately, between the core and the world: a simulator that never found a bug is not trusted. The core knows nothing of them.

use std::{fmt, str::FromStr};

use super::{rng::Rng, server::Stepped, workload::GROUP_ROLE, world::World};
use crate::{
    core::Input,
    model::{
        app::{App, Operator},
        brick::BrickMount,
        cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, TaskState},
        health::Outcome,
        id::PathId,
        instance::{Goal, Instance},
        record::{Change, Record, RecordKey},
        request::{KillSelector, Origin, Request},
        resources::{PortRange, Scalar},
    },
};

/// Each must be found within this many seeds.
pub const MAX_SEEDS_TO_FIND: u64 = 30;

/// The deliberate faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A launch is sent a second time, on another offer.
    DoubleLaunch,
    /// A disk that said "synced" forgets its last commits when the server dies.
    LostWrite,
    /// A brick is reported as released while it is still mounted.
    TwoHolders,
    /// An offer contains ports that are in use.
    OversubscribedPort,
    /// Some tasks' kills never reach the cluster.
    ForgottenKill,
    /// Acknowledgements leave before the commit of their frame.
    EarlyAck,
    /// A task that is only starting is reported as running.
    FalseStart,
    /// What a check cannot tell, because we are slow or cut off ourselves, is reported as the task's failure.
    BlamedTask,
    /// One container of a pod is not launched.
    HalfPod,
    /// An instance is given the persistent volume of another one.
    SharedVolume,
    /// A brick or volume that was given up is reported as deleted, and is not.
    ForgottenVolume,
    /// What some nodes have free is not seen, so that what could go there waits for ever.
    ForgottenRoom,
    /// Of two equal instances the wrong one is ended.
    WrongVictim,
    /// What a user makes of the own apps is looked at as if an administrator had asked.
    BoundlessUser,
    /// What a user does to another's apps is done as if an administrator had asked.
    Impostor,
    /// What is written into a group that prescribes a role loses it.
    ForgottenRole,
}

impl Sabotage {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::DoubleLaunch,
        Self::LostWrite,
        Self::TwoHolders,
        Self::OversubscribedPort,
        Self::ForgottenKill,
        Self::EarlyAck,
        Self::FalseStart,
        Self::BlamedTask,
        Self::HalfPod,
        Self::SharedVolume,
        Self::ForgottenVolume,
        Self::ForgottenRoom,
        Self::WrongVictim,
        Self::BoundlessUser,
        Self::Impostor,
        Self::ForgottenRole,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DoubleLaunch => "double-launch",
            Self::LostWrite => "lost-write",
            Self::TwoHolders => "two-holders",
            Self::OversubscribedPort => "oversubscribed-port",
            Self::ForgottenKill => "forgotten-kill",
            Self::EarlyAck => "early-ack",
            Self::FalseStart => "false-start",
            Self::BlamedTask => "blamed-task",
            Self::HalfPod => "half-pod",
            Self::SharedVolume => "shared-volume",
            Self::ForgottenVolume => "forgotten-volume",
            Self::ForgottenRoom => "forgotten-room",
            Self::WrongVictim => "wrong-victim",
            Self::BoundlessUser => "boundless-user",
            Self::Impostor => "impostor",
            Self::ForgottenRole => "forgotten-role",
        }
    }

    /// The rules that may find it.
    pub fn found_by(self) -> &'static [&'static str] {
        match self {
            Self::DoubleLaunch => &["launched-twice"],
            Self::LostWrite => &["lost-write", "launched-twice"],
            Self::TwoHolders => &["two-holders", "lease-ended-early"],
            Self::OversubscribedPort => &["port-used-twice"],
            Self::ForgottenKill => &["progress"],
            Self::EarlyAck => &["early-ack"],
            Self::FalseStart => &["started-early"],
            Self::BlamedTask => &["healthy-killed"],
            Self::HalfPod => &["torn-pod"],
            Self::SharedVolume => &["no-record"],
            Self::ForgottenVolume => &["data-forgotten"],
            Self::ForgottenRoom => &["progress"],
            Self::WrongVictim => &["kill-selection"],
            Self::BoundlessUser => &["quota"],
            Self::Impostor => &["foreign-write"],
            Self::ForgottenRole => &["group-role"],
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|one| one.as_str()).collect();
            format!("unknown sabotage '{text}'; there are: {}", names.join(", "))
        })
    }
}

/// Carries a sabotage out, now and then.
#[derive(Debug)]
pub(super) struct Saboteur {
    what: Option<Sabotage>,
    rng: Rng,
    held: Option<Launch>,
    /// The volume of an instance that was launched.
    volume: Option<BrickMount>,
    salt: u64,
}

impl Saboteur {
    pub(super) fn new(what: Option<Sabotage>, seed: u64) -> Self {
        let mut rng = Rng::part(seed, 99);
        Self { what, salt: rng.bits(), rng, held: None, volume: None }
    }

    fn strikes(&mut self, what: Sabotage, per_mille: u32) -> bool {
        self.what == Some(what) && self.rng.chance(per_mille)
    }
}

impl World<'_> {
    /// What becomes of a call on its way out.
    pub(super) fn sabotage_call(&mut self, mut call: ClusterCall) -> Vec<ClusterCall> {
        match &mut call {
            ClusterCall::Accept { launches, .. } if self.saboteur.what == Some(Sabotage::HalfPod) => self.forget_container(launches),
            ClusterCall::Accept { launches, .. } if self.saboteur.what == Some(Sabotage::SharedVolume) => self.share_volume(launches),
            ClusterCall::Accept { launches, .. } => self.launch_again(launches),
            ClusterCall::Kill { task, .. } if self.saboteur.what == Some(Sabotage::ForgottenKill) => {
                // The same tasks each time, or the kill would only be late.
                let chosen = task.instance.uuid().as_u64_pair().0 ^ self.saboteur.salt;
                if Rng::new(chosen).chance(500) {
                    return Vec::new();
                }
            }
            ClusterCall::ReleaseBrick { brick, epoch, agent, .. } if self.saboteur.strikes(Sabotage::TwoHolders, 500) => {
                self.report(BrickReport::Released { brick: brick.clone(), epoch: *epoch, agent: agent.clone() });
            }
            ClusterCall::DestroyBrick { brick, epoch, .. } if self.saboteur.strikes(Sabotage::ForgottenVolume, 500) => {
                self.report(BrickReport::Destroyed { brick: brick.clone(), epoch: *epoch });
                return Vec::new();
            }
            ClusterCall::Acknowledge { .. } if self.early_acknowledgements() => return Vec::new(),
            _ => {}
        }
        vec![call]
    }

    fn launch_again(&mut self, launches: &mut Vec<Launch>) {
        if let Some(mut again) = self.saboteur.held.take() {
            again.agent = launches[0].agent.clone();
            launches.push(again);
        } else if self.saboteur.strikes(Sabotage::DoubleLaunch, 300) {
            self.saboteur.held = launches.first().cloned();
        }
    }

    fn forget_container(&mut self, launches: &mut Vec<Launch>) {
        let last = launches.iter().rposition(|launch| launch.task.container.is_some());
        if let Some(last) = last.filter(|_| self.saboteur.strikes(Sabotage::HalfPod, 300)) {
            launches.remove(last);
        }
    }

    fn share_volume(&mut self, launches: &mut [Launch]) {
        let residents = launches.iter_mut().filter(|launch| launch.app.is_resident());
        for mount in residents.filter_map(|launch| launch.bricks.first_mut()) {
            match self.saboteur.volume.take().filter(|other| other.name != mount.name) {
                Some(other) if self.saboteur.strikes(Sabotage::SharedVolume, 500) => {
                    *mount = BrickMount { container_path: mount.container_path.clone(), ..other };
                }
                _ => self.saboteur.volume = Some(mount.clone()),
            }
        }
    }

    /// What becomes of an event on its way in.
    pub(super) fn sabotage_event(&mut self, event: ClusterEvent) -> Option<ClusterEvent> {
        match event {
            ClusterEvent::Offers(mut offers) if self.saboteur.what == Some(Sabotage::OversubscribedPort) => {
                offers.iter_mut().for_each(|offer| self.offer_used_ports(offer));
                Some(ClusterEvent::Offers(offers))
            }
            ClusterEvent::Offers(mut offers) if self.saboteur.what == Some(Sabotage::ForgottenRoom) => {
                offers.iter_mut().for_each(|offer| self.hide_room(offer));
                Some(ClusterEvent::Offers(offers))
            }
            ClusterEvent::Status(mut status)
                if status.state == TaskState::Starting && self.saboteur.strikes(Sabotage::FalseStart, 1000) =>
            {
                status.state = TaskState::Running;
                Some(ClusterEvent::Status(status))
            }
            event => Some(event),
        }
    }

    /// What becomes of a request on its way in.
    pub(super) fn sabotage_input(&mut self, input: Input) -> Input {
        let Input::Api(id, origin, request) = input else { return input };
        let owner = |app: &PathId| self.disk.app(app).map(|entry| &entry.owner);
        let mut named = apps_of(&request).into_iter().map(owner);
        let strikes = match self.saboteur.what {
            Some(Sabotage::BoundlessUser) => {
                let grows = matches!(&*request, Request::UpdateApps { .. } | Request::UpdatePod { .. });
                grows && named.all(|owner| owner == Some(&origin.user))
            }
            Some(Sabotage::Impostor) => named.any(|owner| owner.is_some_and(|owner| *owner != origin.user)),
            _ => false,
        };
        let admin = origin.admin || strikes;
        Input::Api(id, Origin { admin, ..origin }, request)
    }

    /// What becomes of a frame before it is written; `None`: nothing.
    pub(super) fn sabotage_frame(&mut self, one: &Stepped) -> Option<Stepped> {
        let (at, spoilt) = match self.saboteur.what? {
            Sabotage::WrongVictim => self.another_victim(one)?,
            Sabotage::ForgottenRole => self.without_role(one)?,
            _ => return None,
        };
        let mut one = one.clone();
        one.frame.changes[at] = Change::Put(spoilt);
        Some(one)
    }

    /// In place of an instance that goes, one like it.
    fn another_victim(&self, one: &Stepped) -> Option<(usize, Record)> {
        let is_changed = |other: &Instance| one.frame.changes.iter().any(|change| change.key() == RecordKey::Instance(other.id.clone()));
        let kind = |instance: &Instance| (instance.version, instance.goal, instance.condition, instance.healthy, instance.ready);
        self.ended_by(one).into_iter().find_map(|gone| {
            let like = (gone.version, Goal::Running, gone.condition, gone.healthy, gone.ready);
            let mut others = self.disk.instances_of(gone.app()).filter(|other| !is_changed(other));
            let other = others.find(|other| kind(other) == like && other.started_at != gone.started_at)?;
            let app = self.disk.current(gone.app())?;
            // Evenness goes before age.
            let is_spread = app.constraints.iter().any(|constraint| constraint.operator == Operator::GroupBy);
            let at = one.frame.changes.iter().position(|change| change.key() == RecordKey::Instance(gone.id.clone()))?;
            (!is_spread).then(|| (at, Record::Instance(Instance { goal: gone.goal, ..other.clone() }.into())))
        })
    }

    /// A new definition with the role of its group, without it.
    fn without_role(&self, one: &Stepped) -> Option<(usize, Record)> {
        let top = PathId::root().child(GROUP_ROLE);
        self.disk.group(&top).filter(|group| group.enforce_role)?;
        one.frame.changes.iter().enumerate().find_map(|(at, change)| {
            let Change::Put(Record::Definition(app)) = change else { return None };
            let keeps = self.disk.current(&app.id).is_some_and(|current| current.role != GROUP_ROLE);
            let spoils = app.id.is_below(&top) && app.role == GROUP_ROLE && !keeps;
            spoils.then(|| (at, Record::Definition(App { role: "*".to_owned(), ..(**app).clone() }.into())))
        })
    }

    /// What becomes of what a check found: what is told instead, if anything.
    pub(super) fn sabotage_check(&self, honest: &Outcome) -> Option<Outcome> {
        match honest {
            Outcome::Uncertain(why) if self.saboteur.what == Some(Sabotage::BlamedTask) => Some(Outcome::Failed(why.clone())),
            _ => None,
        }
    }

    /// The same nodes each time, or their room would only be seen later.
    fn hide_room(&self, offer: &mut Offer) {
        let chosen = self.agent_at(offer.agent.as_str()).unwrap_or_default() as u64 ^ self.saboteur.salt;
        if Rng::new(chosen).chance(500) {
            offer.resources.cpus = Scalar(1);
            offer.reserved.clear();
        }
    }

    fn offer_used_ports(&mut self, offer: &mut Offer) {
        if !self.saboteur.strikes(Sabotage::OversubscribedPort, 300) {
            return;
        }
        let Some(at) = self.agent_at(offer.agent.as_str()) else { return };
        let used: Vec<PortRange> =
            self.agents[at].bound.keys().filter(|port| **port >= 31_000).map(|port| PortRange::new(*port, *port)).collect();
        if !used.is_empty() {
            offer.resources.ports = used;
            if let Some((shown, _)) = self.master.shown.get_mut(&offer.id) {
                *shown = offer.clone();
            }
        }
    }

    /// What a lying disk does when the server dies.
    pub(super) fn sabotage_disk(&mut self) {
        if self.saboteur.strikes(Sabotage::LostWrite, 700) {
            self.disk.lose(3);
        }
    }

    /// What leaves before its commit.
    pub(super) fn sabotage_before_commit(&mut self, stepped: &[Stepped]) {
        if !self.early_acknowledgements() {
            return;
        }
        for call in stepped.iter().flat_map(|one| &one.frame.calls) {
            if matches!(call, ClusterCall::Acknowledge { .. }) {
                self.check_call(call);
                self.send_call(call.clone());
            }
        }
    }
}

/// The apps that a request names.
fn apps_of(request: &Request) -> Vec<&PathId> {
    match request {
        Request::UpdateApps { updates, .. } => updates.iter().map(|(app, _)| app).collect(),
        Request::UpdatePod { pod: app, .. }
        | Request::DeletePod { pod: app, .. }
        | Request::DeleteApp { app, .. }
        | Request::RestartApp { app, .. }
        | Request::KillTasks { selection: KillSelector::App { app, .. } | KillSelector::Task { app, .. }, .. } => vec![app],
        _ => Vec::new(),
    }
}
