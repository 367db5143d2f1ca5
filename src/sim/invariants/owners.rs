//! Owners: an ordinary user changes what is the user's own, and has no more than the limits allow; a group that prescribes a role gives it.

use std::collections::BTreeMap;

use super::super::{server::Stepped, world::World};
use crate::{
    core::{Frame, Input, holdings::Usage, validate::MIN_BRICK_SIZE},
    model::{
        app::App,
        brick::Brick,
        id::{Owner, PathId},
        record::{Change, Record},
        request::{Origin, Reply, Request, RequestError},
        user::{Quota, User},
    },
};

/// What an owner has, by the records alone: limits that are counted in whole numbers, each with the limit that holds for it.
fn rows(quota: &Quota, usage: Usage) -> [(&'static str, Option<u128>, u128); 5] {
    [
        ("cpus", quota.cpus.map(|limit| limit.0.into()), usage.cpus),
        ("mem", quota.mem.map(|limit| limit.0.into()), usage.mem),
        ("brick", quota.brick.map(u128::from), usage.brick),
        ("ports", quota.ports.map(u128::from), usage.ports.into()),
        ("instances", quota.instances.map(u128::from), usage.instances.into()),
    ]
}

impl World<'_> {
    /// The ordinary user who asked.
    fn ordinary(one: &Stepped) -> Option<&Owner> {
        match &one.cause {
            Input::Api(_, Origin { user, admin: false, .. }, _) => Some(user),
            _ => None,
        }
    }

    /// Who is no administrator writes nothing that is another's.
    pub(super) fn check_own(&mut self, one: &Stepped, owners: &[&Owner], what: &dyn Fn() -> String) {
        let Some(user) = Self::ordinary(one) else { return };
        if let Some(other) = owners.iter().find(|owner| **owner != user) {
            self.violate("foreign-write", || format!("{user} changes {} of {other}", what()));
        }
    }

    /// Nor ends what is another's.
    pub(super) fn check_killed(&mut self, one: &Stepped) {
        let killed =
            one.frame.replies.iter().filter_map(|(_, reply)| if let Ok(Reply::Killed(killed)) = reply { Some(killed) } else { None });
        for instance in killed.flatten() {
            let Some(owner) = self.disk.app(instance.app()).map(|entry| entry.owner.clone()) else { continue };
            self.check_own(one, &[&owner], &|| format!("an instance of {}", instance.app()));
        }
    }

    /// What an owner has and was promised: every wanted instance with what it needs, claimed ports, bricks and volumes, and those that its apps are
    /// still to get. A volume that is given up counts no more: what takes its place was promised with it.
    fn owned(&self) -> BTreeMap<Owner, Usage> {
        let mut owned: BTreeMap<Owner, Usage> = BTreeMap::new();
        let mut add = |owner: &Owner, usage: Usage| {
            let sum = owned.entry(owner.clone()).or_default();
            *sum = sum.plus(usage);
        };
        let bricks: Vec<&Brick> = self.disk.bricks().collect();
        for entry in self.disk.apps() {
            let Some(app) = self.disk.current(&entry.id) else { continue };
            let times = |amount: u64| u128::from(amount) * u128::from(app.instances);
            let brick = promised(app, &bricks);
            add(
                &entry.owner,
                Usage { cpus: times(app.cpus.0), mem: times(app.mem.0), instances: app.instances.into(), brick, ..Usage::default() },
            );
        }
        for brick in bricks.iter().filter(|brick| brick.reservation.is_none() || !brick.condemned) {
            add(&brick.owner, Usage { brick: brick.size.into(), ..Usage::default() });
        }
        self.disk.ports().for_each(|claim| add(&claim.owner, Usage { ports: 1, ..Usage::default() }));
        owned
    }

    /// Nothing but what an administrator does brings anyone above a limit, or further above it: neither the own requests, nor what comes of them in
    /// time.
    pub(super) fn check_quota(&mut self, one: &Stepped) {
        let counts = |change: &Change| {
            use crate::model::record::RecordKey::{App, Brick, Definition, Port, User};
            matches!(change.key(), App(_) | Brick(_) | Definition(..) | Port(_) | User(_))
        };
        if self.is_everybody_an_administrator() || !one.frame.changes.iter().any(counts) {
            return;
        }
        let after = self.owned();
        let before = std::mem::replace(&mut self.rules.owned, after.clone());
        if matches!(&one.cause, Input::Api(_, Origin { admin: true, .. }, _)) {
            return;
        }
        for (owner, after) in after {
            let Some(User { quota, .. }) = self.disk.user(&owner) else { continue };
            let before = before.get(&owner).copied().unwrap_or_default();
            let grown = rows(quota, after).into_iter().zip(rows(quota, before));
            let above =
                grown.into_iter().find(|((_, limit, after), (_, _, before))| limit.is_some_and(|limit| *after > limit && after > before));
            if let Some(((what, limit, after), (_, _, before))) = above {
                let limit = limit.unwrap_or_default();
                self.violate("quota", || format!("{owner} may have {limit} of {what}, had {before}, and has {after}"));
            }
        }
    }

    /// Nothing to count then.
    fn is_everybody_an_administrator(&self) -> bool {
        self.plan.ops.iter().all(|op| op.by.is_none())
    }

    /// The present roles of the apps that the frame changes.
    pub(super) fn roles_before(&self, frame: &Frame) -> BTreeMap<PathId, String> {
        let changed =
            frame.changes.iter().filter_map(|change| if let Change::Put(Record::Definition(app)) = change { Some(&app.id) } else { None });
        changed.filter_map(|id| Some((id.clone(), self.disk.current(id)?.role.clone()))).collect()
    }

    /// The group around an app that prescribes its role.
    fn prescribed<'a>(&self, app: &'a PathId) -> Option<&'a str> {
        let mut segments = app.segments();
        let (top, _) = (segments.next()?, segments.next()?);
        self.disk.group(&PathId::root().child(top)).is_some_and(|group| group.enforce_role).then_some(top)
    }

    /// What is written into a group that prescribes a role has it, or has kept the one that it had (Marathon 1.11); and its tasks are told so.
    pub(super) fn check_group_role(&mut self, one: &Stepped, before: &BTreeMap<PathId, String>) {
        for change in &one.frame.changes {
            let Change::Put(Record::Definition(app)) = change else { continue };
            let id = app.id.clone();
            let (Some(top), Some(app)) = (self.prescribed(&id), self.disk.current(&id)) else { continue };
            let role = app.role.clone();
            let kept = before.get(&id) == Some(&role);
            self.stats.enforced += 1;
            if role != top && !kept {
                self.violate("group-role", || format!("{id} has the role {role}, not {top}"));
            }
        }
        for launch in one.frame.calls.iter().flat_map(super::launches_of) {
            let prescribed = self.prescribed(&launch.app.id).is_some();
            if launch.enforce_role != prescribed {
                self.violate("group-role", || format!("a task of {} is told {}, not {prescribed}", launch.app.id, launch.enforce_role));
            }
        }
    }

    /// What is counted of the users' requests, to see that limits were met.
    pub(super) fn count_over_quota(&mut self, one: &Stepped) {
        let over = |reply: &Result<Reply, RequestError>| match reply {
            Err(RequestError::Invalid(found)) => found.iter().any(|one| one.text.starts_with("the quota of user")),
            _ => false,
        };
        self.stats.over_quota += one.frame.replies.iter().filter(|(_, reply)| over(reply)).count() as u64;
    }

    /// What a request about users, owners and roles says is in the records.
    pub(super) fn is_owned_as(&self, request: &Request) -> bool {
        use crate::model::request::Possession;
        match request {
            Request::PutUser { name, change } => self.disk.user(name).is_some_and(|user| Some(&user.quota) == change.quota.as_ref()),
            Request::HandOver { what: Possession::App(app), owner } => self.disk.app(app).is_some_and(|entry| entry.owner == *owner),
            Request::EnforceRole { group, enforce } => {
                let enforces = self.disk.group(group).is_some_and(|group| group.enforce_role);
                enforces == enforce.unwrap_or(self.plan.new_groups_enforce)
            }
            _ => true,
        }
    }
}

/// MiB of the bricks and volumes that an app is still to get.
fn promised(app: &App, bricks: &[&Brick]) -> u128 {
    let own = || bricks.iter().filter(|brick| brick.app == app.id);
    let volumes =
        app.persistent_volumes().map(|volume| u128::from(volume.size.max(MIN_BRICK_SIZE))).sum::<u128>() * u128::from(app.instances);
    let present = own().filter(|brick| brick.reservation.is_some() && !brick.condemned).map(|brick| u128::from(brick.size)).sum();
    let is_missing = |path: &str| !own().any(|brick| brick.reservation.is_none() && brick.container_path == path);
    let missing = app.bricks().filter(|volume| is_missing(&volume.container_path)).map(|volume| u128::from(volume.size)).sum::<u128>();
    volumes.saturating_sub(present) + missing
}
