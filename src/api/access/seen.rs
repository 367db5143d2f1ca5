//! One caller's part of a snapshot. An administrator's is all of it; an ordinary user's is what that user owns, found by the owner's own lists, so that
//! it costs nothing for what belongs to others.
//!
//! What is not the caller's is not there: `None`, or left out. Facts about nodes are everybody's, because every task shows its node.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, OnceLock},
};

use crate::{
    core::{
        group::{self, below},
        holdings::{Holdings, Usage},
        state::{BrickUsage, QueueEntry, Readings, Tally, View},
    },
    model::{
        agent::Agent,
        app::App,
        brick::Brick,
        deployment::{ActionKind, Deployment},
        group::Group,
        id::{AgentId, BrickName, InstanceId, Owner, PathId},
        instance::{Condition, Instance, TaskFailure},
        port::PortClaim,
        request::Origin,
        time::Timestamp,
        user::User,
    },
};

/// See the file.
pub struct Seen {
    view: Arc<View>,
    reach: Reach,
    shows_killing: bool,
    /// Made when it is first asked for.
    endings: OnceLock<HashMap<PathId, Timestamp>>,
}

enum Reach {
    All,
    Own(Owner),
}

type Items<'a, T> = Box<dyn Iterator<Item = &'a T> + Send + 'a>;

impl Seen {
    pub(super) fn new(view: Arc<View>, origin: &Origin, shows_killing: bool) -> Self {
        let reach = if origin.admin { Reach::All } else { Reach::Own(origin.user.clone()) };
        Self { view, reach, shows_killing, endings: OnceLock::new() }
    }

    /// All of a snapshot.
    #[cfg(test)]
    pub fn all_of(view: &View) -> Self {
        Self { view: Arc::new(view.clone()), reach: Reach::All, shows_killing: false, endings: OnceLock::new() }
    }

    /// True for an administrator.
    pub fn is_all(&self) -> bool {
        matches!(self.reach, Reach::All)
    }

    fn is_own(&self, owner: Option<&Owner>) -> bool {
        match &self.reach {
            Reach::All => true,
            Reach::Own(user) => owner == Some(user),
        }
    }

    /// True when the app, or what is left of it, is the caller's.
    pub fn sees_app(&self, id: &PathId) -> bool {
        self.is_all() || self.is_own(self.view.tables.owner_of(id))
    }

    /// True when the app, or what is left of it, is somebody else's: not when there is nothing of it.
    pub fn is_anothers(&self, id: &PathId) -> bool {
        self.view.tables.owner_of(id).is_some_and(|owner| !self.is_own(Some(owner)))
    }

    fn holdings(&self, owner: &Owner) -> Option<&Holdings> {
        self.view.tables.holdings.get(owner).map(|holdings| &**holdings)
    }
}

// === Apps ===

impl Seen {
    /// The present definitions of the apps that exist, in the order of their ids.
    pub fn apps(&self) -> Items<'_, Arc<App>> {
        Box::new(self.specs().filter(|app| app.pod.is_none()))
    }

    /// As [`Seen::apps`], of the pods.
    pub fn pods(&self) -> Items<'_, Arc<App>> {
        Box::new(self.specs().filter(|app| app.pod.is_some()))
    }

    fn specs(&self) -> Items<'_, Arc<App>> {
        let tables = &self.view.tables;
        match &self.reach {
            Reach::All => Box::new(tables.apps.keys().filter_map(|id| tables.app(id))),
            Reach::Own(user) => Box::new(self.holdings(user).into_iter().flat_map(|own| own.apps.iter()).filter_map(|id| tables.app(id))),
        }
    }

    /// As [`Seen::apps`], of those below a group, by whole segments.
    pub fn apps_below<'a>(&'a self, group: &PathId) -> Items<'a, Arc<App>> {
        Box::new(self.specs_below(group).filter(|app| app.pod.is_none()))
    }

    /// Apps and pods below a group, by whole segments.
    pub fn specs_below<'a>(&'a self, group: &PathId) -> Items<'a, Arc<App>> {
        let tables = &self.view.tables;
        let (first, last) = below(group);
        let range = (Bound::Excluded(first.as_str()), Bound::Excluded(last.as_str()));
        match &self.reach {
            Reach::All => Box::new(tables.apps.range::<_, str>(range).filter_map(|(id, _)| tables.app(id))),
            Reach::Own(user) => {
                let own = self.holdings(user).map(|own| own.apps.range::<_, str>(range));
                Box::new(own.into_iter().flatten().filter_map(|id| tables.app(id)))
            }
        }
    }

    /// True when a group is there for the caller: an own one, or one with anything own in it.
    pub fn sees_group(&self, id: &PathId) -> bool {
        match &self.reach {
            Reach::All => self.view.tables.group_exists(id),
            Reach::Own(_) => id.is_root() || self.group_record(id.as_str()).is_some() || self.has_own_below(id),
        }
    }

    fn has_own_below(&self, id: &PathId) -> bool {
        self.specs_below(id).next().is_some() || self.groups_below(id).next().is_some()
    }

    /// The record of a group that the caller sees.
    pub fn group_record(&self, id: &str) -> Option<&Group> {
        let group = self.view.tables.groups.get(id)?;
        (self.is_own(Some(&group.owner)) || self.has_own_below(&group.id)).then_some(&**group)
    }

    /// The groups below a group that have a record: all, or the caller's own.
    pub fn groups_below<'a>(&'a self, group: &PathId) -> Items<'a, Arc<Group>> {
        let tables = &self.view.tables;
        let (first, last) = below(group);
        let range = (Bound::Excluded(first.as_str()), Bound::Excluded(last.as_str()));
        match &self.reach {
            Reach::All => Box::new(tables.groups.range::<_, str>(range).map(|(_, group)| group)),
            Reach::Own(user) => {
                let own = self.holdings(user).map(|own| own.groups.range::<_, str>(range));
                Box::new(own.into_iter().flatten().filter_map(|id| tables.groups.get(id)))
            }
        }
    }

    /// The version of the root, and thereby of every group.
    pub fn root_version(&self) -> Timestamp {
        self.view.tables.root_version()
    }

    /// The versions of the root in which a group existed, as far as they concern the caller; `None`: there is no such group.
    pub fn group_versions(&self, id: &PathId) -> Option<Vec<Timestamp>> {
        let own = if let Reach::Own(user) = &self.reach { Some(user) } else { None };
        self.sees_group(id).then(|| group::versions(&self.view.tables, id, own))
    }

    /// A group in a version of the root: its apps, and its groups with a record. `None`: it was not there, or not for the caller.
    pub fn past_group(&self, id: &PathId, version: Timestamp) -> Option<(Vec<Arc<App>>, BTreeMap<PathId, Arc<Group>>)> {
        let tables = &self.view.tables;
        let past = group::past(tables, id, version)?;
        let definitions = past.apps.iter().filter_map(|(id, version)| tables.definition(id, *version));
        // Whose it was then: the id may be another's by now.
        let apps: Vec<Arc<App>> = definitions.filter(|app| self.is_own(app.owner.as_ref())).cloned().collect();
        let seen = |at: &PathId, group: &Group| self.is_own(Some(&group.owner)) || apps.iter().any(|app| app.id.is_below(at));
        let groups: BTreeMap<_, _> = match self.is_all() {
            true => past.groups,
            false => past.groups.into_iter().filter(|(at, group)| seen(at, group)).collect(),
        };
        (id.is_root() || self.is_all() || !apps.is_empty() || !groups.is_empty()).then_some((apps, groups))
    }

    /// The present definition of an app.
    pub fn app(&self, id: &PathId) -> Option<&Arc<App>> {
        self.spec(id).filter(|app| app.pod.is_none())
    }

    /// The present definition of a pod.
    pub fn pod(&self, id: &PathId) -> Option<&Arc<App>> {
        self.spec(id).filter(|app| app.pod.is_some())
    }

    /// The present definition of an app or a pod.
    pub fn spec(&self, id: &PathId) -> Option<&Arc<App>> {
        self.view.tables.app(id).filter(|_| self.sees_app(id))
    }

    /// The versions of an app or a pod that exists, oldest first.
    pub fn versions_of<'a>(&'a self, id: &PathId) -> Items<'a, Arc<App>> {
        if self.spec(id).is_some() { Box::new(self.view.tables.versions_of(id)) } else { Box::new(std::iter::empty()) }
    }

    /// One version of an app.
    pub fn definition(&self, id: &PathId, version: Timestamp) -> Option<&Arc<App>> {
        self.view.tables.definitions.get(id, version).filter(|_| self.sees_app(id))
    }

    /// How many instances of an app are in which condition.
    pub fn tally(&self, id: &PathId) -> Option<&Tally> {
        self.view.tables.tallies.get(id).filter(|_| self.sees_app(id)).map(|tally| &**tally)
    }

    /// The last failure of an app.
    pub fn failure(&self, id: &PathId) -> Option<&TaskFailure> {
        self.view.tables.failures.get(id).filter(|_| self.sees_app(id)).map(|failure| &**failure)
    }

    /// The deployments that run; of one that also changes apps of others, the part that is the caller's.
    pub fn deployments(&self) -> impl Iterator<Item = Cow<'_, Deployment>> {
        self.view.tables.deployments.values().filter_map(|deployment| match &self.reach {
            Reach::Own(user) if !deployment.is_all_of(user) => deployment.part_of(user).map(Cow::Owned),
            _ => Some(Cow::Borrowed(&**deployment)),
        })
    }

    /// When the deployment began that ends an app or pod; `None`: none does. The deployments are gone through once, however many are asked about.
    pub fn ending_since(&self, id: &PathId) -> Option<Timestamp> {
        let endings = self.endings.get_or_init(|| {
            let mut found = HashMap::new();
            for deployment in self.deployments() {
                for action in deployment.steps.iter().flat_map(|step| &step.actions).filter(|action| action.kind == ActionKind::Stop) {
                    found.entry(action.app.clone()).or_insert(deployment.started_at);
                }
            }
            found
        });
        endings.get(id).copied()
    }

    /// What waits to be launched, each with its present definition.
    pub fn queue(&self) -> impl Iterator<Item = (&QueueEntry, &Arc<App>)> {
        let queue = &self.view.queue;
        let entries: Items<'_, Arc<QueueEntry>> = match &self.reach {
            Reach::All => Box::new(queue.values()),
            Reach::Own(user) => Box::new(self.holdings(user).into_iter().flat_map(|own| own.apps.iter()).filter_map(|id| queue.get(id))),
        };
        entries.filter_map(|entry| Some((&**entry, self.view.tables.app(&entry.app)?)))
    }
}

// === Instances ===

impl Seen {
    /// Every instance, also of apps that were destroyed and have not ended.
    pub fn instances(&self) -> Items<'_, Arc<Instance>> {
        let tables = &self.view.tables;
        match &self.reach {
            Reach::All => Box::new(tables.instances.values()),
            Reach::Own(user) => {
                Box::new(self.holdings(user).into_iter().flat_map(|own| own.apps.iter()).flat_map(|id| tables.instances_of(id)))
            }
        }
    }

    /// The instances of one app.
    pub fn instances_of<'a>(&'a self, id: &PathId) -> Items<'a, Arc<Instance>> {
        if self.sees_app(id) { Box::new(self.view.tables.instances_of(id)) } else { Box::new(std::iter::empty()) }
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.view.tables.instances.get(id).filter(|_| self.sees_app(id.app()))
    }

    /// What checks of an instance's task have found.
    pub fn readings(&self, id: &InstanceId) -> Option<&Readings> {
        self.view.readings.get(id).filter(|_| self.sees_app(id.app())).map(|readings| &**readings)
    }

    /// The definition that an instance runs.
    pub fn definition_of(&self, instance: &Instance) -> Option<&Arc<App>> {
        self.view.tables.definition_of(instance).filter(|_| self.sees_app(instance.app()))
    }
}

// === Ports and bricks ===

impl Seen {
    /// The claims on ports, by number.
    pub fn ports(&self) -> Items<'_, Arc<PortClaim>> {
        let ports = &self.view.tables.ports;
        match &self.reach {
            Reach::All => Box::new(ports.values()),
            Reach::Own(user) => {
                Box::new(self.holdings(user).into_iter().flat_map(|own| own.ports.iter()).filter_map(|port| ports.get(port)))
            }
        }
    }

    /// One claim.
    pub fn port(&self, port: u16) -> Option<&Arc<PortClaim>> {
        self.view.tables.ports.get(&port).filter(|claim| self.is_own(Some(&claim.owner)))
    }

    /// The bricks, by name.
    pub fn bricks(&self) -> Items<'_, Arc<Brick>> {
        let bricks = &self.view.tables.bricks;
        match &self.reach {
            Reach::All => Box::new(bricks.values()),
            Reach::Own(user) => {
                Box::new(self.holdings(user).into_iter().flat_map(|own| own.bricks.iter()).filter_map(|name| bricks.get(name)))
            }
        }
    }

    /// One brick.
    pub fn brick(&self, name: &BrickName) -> Option<&Arc<Brick>> {
        self.view.tables.bricks.get(name).filter(|brick| self.is_own(Some(&brick.owner)))
    }

    /// The persistent volumes of an instance that the caller sees.
    pub fn volumes_of<'a>(&'a self, instance: &InstanceId) -> Items<'a, Arc<Brick>> {
        if self.sees_app(instance.app()) { Box::new(self.view.tables.volumes_of(instance)) } else { Box::new(std::iter::empty()) }
    }

    /// How full a brick is.
    pub fn brick_usage(&self, name: &BrickName) -> Option<&BrickUsage> {
        self.brick(name)?;
        self.view.brick_usage.get(name).map(|usage| &**usage)
    }

    /// True when the app of a port or brick that the caller sees exists, whoever has it now.
    pub fn app_exists(&self, id: &PathId) -> bool {
        self.view.tables.apps.contains_key(id)
    }

    /// How many instances the app of a brick that the caller sees should have, whoever has it now; 0 when it does not exist.
    pub fn instances_wanted_of(&self, id: &PathId) -> u32 {
        self.view.tables.app(id).map_or(0, |app| app.instances)
    }
}

// === The rest ===

impl Seen {
    /// What an owner's things take together; `None` when the caller may not know.
    pub fn usage_of(&self, owner: &Owner) -> Option<Usage> {
        self.is_own(Some(owner)).then(|| self.holdings(owner).map(|holdings| holdings.usage).unwrap_or_default())
    }

    /// The users who have a record; an ordinary user is the only one there is.
    pub fn users(&self) -> Items<'_, Arc<User>> {
        let users = &self.view.tables.users;
        match &self.reach {
            Reach::All => Box::new(users.values()),
            Reach::Own(user) => Box::new(users.get(user).into_iter()),
        }
    }

    /// One of them.
    pub fn user(&self, name: &Owner) -> Option<&User> {
        self.view.tables.users.get(name).filter(|_| self.is_own(Some(name))).map(|user| &**user)
    }

    /// A node.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.view.tables.agents.get(id).map(|agent| &**agent)
    }

    /// Every node ever seen.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.view.tables.agents.values().map(|agent| &**agent)
    }

    /// True while the cluster is within reach.
    pub fn is_connected(&self) -> bool {
        self.view.connected_to.is_some()
    }

    /// Since when it is.
    pub fn connected_since(&self) -> Option<Timestamp> {
        self.view.connected_since
    }

    /// When a node last said something to this process.
    pub fn heard_of(&self, agent: &AgentId) -> Option<Timestamp> {
        self.view.heard_of.get(agent).copied()
    }

    /// The condition in which an instance is shown: one that is being killed is shown in the one before, unless that is to be seen
    /// (Marathon: `--enable_features task_killing`).
    pub fn condition(&self, instance: &Instance) -> Condition {
        match instance.condition {
            Condition::Killing if self.shows_killing || instance.is_seen_to_end() => Condition::Killing,
            Condition::Killing if instance.started_at.is_some() => Condition::Running,
            Condition::Killing => Condition::Staging,
            other => other,
        }
    }

    /// `tasksStaged` and `tasksRunning` of an app.
    pub fn staged_and_running(&self, id: &PathId) -> (u32, u32) {
        let Some(tally) = self.tally(id) else { return (0, 0) };
        let (mut staged, mut running) = (tally.staged(), tally.running());
        if !self.shows_killing {
            let (killed_staged, killed_running) = tally.killed();
            staged += killed_staged;
            running += killed_running;
        }
        (staged, running)
    }

    /// Instances to which a kill was sent and whose end is not known.
    pub fn kills_in_flight(&self) -> usize {
        self.view.kills_in_flight
    }

    /// How often kills were sent of all instances that are to end and have not.
    pub fn kill_attempts(&self) -> u64 {
        self.view.kill_attempts
    }

    /// Instances that did not come up in time and are killed for it.
    pub fn overdue(&self) -> usize {
        self.view.overdue
    }

    /// The id under which the cluster knows us.
    pub fn framework_id(&self) -> Option<&str> {
        self.view.tables.meta.framework_id.as_deref()
    }
}
