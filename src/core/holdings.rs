//! What each owner has: which apps, ports and bricks, and how much they take together. Derived from the tables, change by change, so that neither an
//! owner's list nor a quota ever walks what belongs to others.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{launch::residency, state::Tables};
use crate::model::{
    app::App,
    brick::{Brick, brick_name, normal_container_path},
    id::{BrickName, Owner, PathId},
    port::PortClaim,
    record::{Change, Record, RecordKey},
};

/// How much the things of one owner take. Wide enough for any sum of what the checks of a definition let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Thousandths of a CPU, of all wanted instances.
    pub cpus: u128,
    /// Thousandths of a MiB, of all wanted instances.
    pub mem: u128,
    /// MiB of bricks, the kept ones too, and of those that apps are still to get.
    pub brick: u128,
    /// Claimed ports, the kept ones too.
    pub ports: u64,
    /// Wanted instances.
    pub instances: u64,
}

impl Usage {
    /// What a definition takes besides what there is of it already: as many instances as it wants, each with what it needs. A volume is made when its
    /// instance is launched, and a brick that was given up when the app is launched the next time: both are promised with the definition.
    pub fn of_app(tables: &Tables, app: &App) -> Self {
        let times = |amount: u64| u128::from(amount) * u128::from(app.instances);
        let is_missing =
            |path: &str| normal_container_path(path).is_ok_and(|path| !tables.bricks.contains_key(&brick_name(&app.id, &path)));
        let missing = app.bricks().filter(|volume| is_missing(&volume.container_path)).map(|volume| u128::from(volume.size)).sum::<u128>();
        let brick = missing + residency::missing_size(tables, app);
        Self { cpus: times(app.cpus.0), mem: times(app.mem.0), instances: app.instances.into(), brick, ..Self::default() }
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpus: self.cpus + other.cpus,
            mem: self.mem + other.mem,
            brick: self.brick + other.brick,
            ports: self.ports + other.ports,
            instances: self.instances + other.instances,
        }
    }

    /// What is left without `other`, which must be part of it.
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.saturating_sub(other.cpus),
            mem: self.mem.saturating_sub(other.mem),
            brick: self.brick.saturating_sub(other.brick),
            ports: self.ports.saturating_sub(other.ports),
            instances: self.instances.saturating_sub(other.instances),
        }
    }
}

/// Everything of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Apps that exist, and those that are gone but for what is left of them.
    pub apps: OrdSet<PathId>,
    /// Claimed ports.
    pub ports: OrdSet<u16>,
    /// Bricks.
    pub bricks: OrdSet<BrickName>,
    /// Groups that the owner has made.
    pub groups: OrdSet<PathId>,
    /// The sum.
    pub usage: Usage,
}

/// The holdings of every owner who has anything.
pub type AllHoldings = OrdMap<Owner, Arc<Holdings>>;

/// What one record counts for: whose it is, and how much.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    App(PathId, Usage),
    Port(u16),
    Brick(BrickName, u128),
    Group(PathId),
}

/// The items that a change may concern, before it and after it: what it is about, and the app whose missing bricks it may change.
pub(super) struct Concerned([Option<Before>; 2]);

type Before = (RecordKey, Option<(Owner, Item)>);

impl Concerned {
    /// To be called before `change` is applied to `tables`. `None`: the change is about nothing that anyone has.
    pub(super) fn before(tables: &Tables, change: &Change) -> Option<Self> {
        let key = match change {
            // Most changes are of instances: not even their key is made.
            Change::Put(Record::App(_) | Record::Definition(_) | Record::Port(_) | Record::Brick(_) | Record::Group(_)) => change.key(),
            Change::Delete(
                key @ (RecordKey::App(_) | RecordKey::Definition(..) | RecordKey::Port(_) | RecordKey::Brick(_) | RecordKey::Group(_)),
            ) => key.clone(),
            _ => return None,
        };
        // What is not the present definition of an app that exists counts for nothing.
        if let RecordKey::Definition(id, version) = &key
            && tables.app(id).is_some_and(|current| *version < current.version)
        {
            return None;
        }
        // What an app is still to get depends on what there is.
        let app = match change {
            Change::Put(Record::Brick(brick)) => Some(brick.app.clone()),
            Change::Delete(RecordKey::Brick(name)) => tables.bricks.get(name).map(|brick| brick.app.clone()),
            _ => None,
        };
        let before = |key: RecordKey| {
            let item = item(tables, &key);
            (key, item)
        };
        Some(Self([Some(before(key)), app.map(RecordKey::App).map(before)]))
    }

    /// To be called when the change is in `tables`.
    pub(super) fn after(self, tables: &mut Tables) {
        for (key, before) in self.0.into_iter().flatten() {
            let after = item(tables, &key);
            if before != after {
                replace(tables, before, after);
            }
        }
    }
}

fn replace(tables: &mut Tables, before: Option<(Owner, Item)>, after: Option<(Owner, Item)>) {
    if let Some((owner, item)) = before {
        let mut slot = tables.holdings.remove(&owner).unwrap_or_default();
        remove(Arc::make_mut(&mut slot), &item);
        if *slot != Holdings::default() {
            tables.holdings.insert(owner, slot);
        }
    }
    if let Some((owner, item)) = after {
        let mut slot = tables.holdings.remove(&owner).unwrap_or_default();
        add(Arc::make_mut(&mut slot), item);
        tables.holdings.insert(owner, slot);
    }
}

fn item(tables: &Tables, key: &RecordKey) -> Option<(Owner, Item)> {
    match key {
        RecordKey::App(id) | RecordKey::Definition(id, _) => {
            let owner = tables.owner_of(id)?.clone();
            let usage = tables.app(id).map_or_else(Usage::default, |app| Usage::of_app(tables, app));
            Some((owner, Item::App(id.clone(), usage)))
        }
        RecordKey::Port(port) => tables.ports.get(port).map(|claim: &Arc<PortClaim>| (claim.owner.clone(), Item::Port(*port))),
        RecordKey::Brick(name) => {
            tables.bricks.get(name).map(|brick: &Arc<Brick>| (brick.owner.clone(), Item::Brick(name.clone(), brick.size.into())))
        }
        RecordKey::Group(id) => tables.groups.get(id).map(|group| (group.owner.clone(), Item::Group(id.clone()))),
        _ => None,
    }
}

fn add(holdings: &mut Holdings, item: Item) {
    match item {
        Item::App(id, usage) => {
            holdings.apps.insert(id);
            holdings.usage = holdings.usage.plus(usage);
        }
        Item::Port(port) => {
            holdings.ports.insert(port);
            holdings.usage.ports += 1;
        }
        Item::Brick(name, size) => {
            holdings.bricks.insert(name);
            holdings.usage.brick += size;
        }
        Item::Group(id) => _ = holdings.groups.insert(id),
    }
}

fn remove(holdings: &mut Holdings, item: &Item) {
    match item {
        Item::App(id, usage) => {
            holdings.apps.remove(id);
            holdings.usage = holdings.usage.minus(*usage);
        }
        Item::Port(port) => {
            holdings.ports.remove(port);
            holdings.usage.ports = holdings.usage.ports.saturating_sub(1);
        }
        Item::Brick(name, size) => {
            holdings.bricks.remove(name);
            holdings.usage.brick = holdings.usage.brick.saturating_sub(*size);
        }
        Item::Group(id) => _ = holdings.groups.remove(id),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        core::validate::MIN_BRICK_SIZE,
        model::{
            app::input::{AppInput, Defaults},
            brick::{Brick, Reservation, brick_name, volume_name},
            id::InstanceId,
            port::Position,
            record::AppEntry,
            time::Timestamp,
        },
    };

    const OWNERS: [&str; 3] = ["ann", "bob", "carl"];

    fn definition(id: &PathId, owner: &str, version: i64, instances: u32) -> App {
        let volumes = serde_json::json!([
            {"containerPath": "/d", "mode": "RW", "brick": {"size": 20}},
            {"containerPath": "v", "mode": "RW", "persistent": {"size": 5}},
        ]);
        let mut input = serde_json::json!({ "cmd": "x", "cpus": 0.25, "mem": 10, "instances": instances });
        if version > 0 {
            input["container"] = serde_json::json!({ "type": "MESOS", "volumes": volumes });
        }
        let input = AppInput::read(&input).unwrap();
        let app = input.create(id, &Defaults::default()).unwrap();
        App { owner: Some(Owner::new(owner)), version: Timestamp(version), ..app }
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let path = prop::sample::select(&["/a", "/a/b", "/c"][..]).prop_map(|id| id.parse::<PathId>().unwrap());
        let parts = (path, prop::sample::select(&OWNERS[..]), 0..3_i64, 0..4_u32, 0..8_u8);
        parts.prop_map(|(id, owner, version, size, kind)| {
            let (at, whose) = (Timestamp(version), Owner::new(owner));
            // Some are volumes of instances.
            let uuid = Uuid::from_u128(size.into());
            let reservation = (size > 1).then(|| Reservation { instance: InstanceId::new(id.clone(), uuid), uuid, released_at: None });
            let name = if reservation.is_some() { volume_name(&id, "v", uuid) } else { brick_name(&id, "/d") };
            match kind {
                0 => Change::Put(Record::Definition(definition(&id, owner, version, size).into())),
                1 => Change::Put(Record::App(AppEntry { id, owner: whose }.into())),
                2 => Change::Put(Record::Port(
                    PortClaim { port: size as u16, app: id, position: Position::Env(0), owner: whose, created_at: at }.into(),
                )),
                3 => Change::Put(Record::Brick(Arc::new(Brick {
                    name,
                    app: id,
                    container_path: "/d".into(),
                    size: size.into(),
                    pool: "p".parse().unwrap(),
                    file_system: Default::default(),
                    owner: whose,
                    created_at: at,
                    home: None,
                    epoch: 0,
                    lease: None,
                    last_mounted: None,
                    condemned: version == 2,
                    reservation,
                }))),
                4 => Change::Delete(RecordKey::Definition(id, at)),
                5 => Change::Delete(RecordKey::App(id)),
                6 => Change::Delete(RecordKey::Port(size as u16)),
                _ => Change::Delete(RecordKey::Brick(name)),
            }
        })
    }

    /// What an app is still to get.
    fn promised(tables: &Tables, app: &App) -> u128 {
        let own = || tables.bricks.values().filter(|brick| brick.app == app.id);
        let present = own().filter(|brick| brick.reservation.is_some() && !brick.condemned).map(|brick| u128::from(brick.size)).sum();
        let volumes = app.persistent_volumes().map(|_| u128::from(MIN_BRICK_SIZE)).sum::<u128>() * u128::from(app.instances);
        let bricks: u128 = app.bricks().filter(|_| own().all(|brick| brick.reservation.is_some())).map(|_| 20).sum();
        volumes.saturating_sub(present) + bricks
    }

    /// From nothing but the tables.
    fn counted(tables: &Tables) -> AllHoldings {
        let mut found = AllHoldings::new();
        for owner in OWNERS.map(Owner::new) {
            let mut own = Holdings::default();
            let ids = tables.apps.keys().chain(tables.definitions.values().map(|app| &app.id));
            own.apps = ids.filter(|id| tables.owner_of(id) == Some(&owner)).cloned().collect();
            own.ports = tables.ports.values().filter(|claim| claim.owner == owner).map(|claim| claim.port).collect();
            own.bricks = tables.bricks.values().filter(|brick| brick.owner == owner).map(|brick| brick.name.clone()).collect();
            let (nothing, apps) = (Tables::default(), || own.apps.iter().filter_map(|id| tables.app(id)));
            own.usage = apps().fold(Usage::default(), |sum, app| sum.plus(Usage::of_app(&nothing, app)));
            own.usage.ports = own.ports.len() as u64;
            own.usage.brick = apps().map(|app| promised(tables, app)).sum();
            own.usage.brick += own.bricks.iter().map(|name| u128::from(tables.bricks[name].size)).sum::<u128>();
            if own != Holdings::default() {
                found.insert(owner, own.into());
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_kept_in_step_is_what_one_would_count(changes in prop::collection::vec(any_change(), 0..60)) {
            let mut tables = Tables::default();
            for change in changes {
                tables.apply(&change);
                prop_assert_eq!(&tables.holdings, &counted(&tables), "after {:?}", change);
            }
        }
    }
}
