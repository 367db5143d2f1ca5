//! What each owner has: which apps, ports and bricks, and how much they take together. Derived from the tables, change by change, so that neither an
//! owner's list nor a quota ever walks what belongs to others.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::state::Tables;
use crate::model::{
    app::App,
    brick::Brick,
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
    /// MiB of bricks, the kept ones too.
    pub brick: u128,
    /// Claimed ports, the kept ones too.
    pub ports: u64,
    /// Wanted instances.
    pub instances: u64,
}

impl Usage {
    /// What a definition takes: as many instances as it wants, each with what it needs.
    pub fn of_app(app: &App) -> Self {
        let times = |amount: u64| u128::from(amount) * u128::from(app.instances);
        Self { cpus: times(app.cpus.0), mem: times(app.mem.0), instances: app.instances.into(), ..Self::default() }
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
}

/// The items that a change may concern, before it and after it.
pub(super) struct Concerned {
    key: RecordKey,
    before: Option<(Owner, Item)>,
}

impl Concerned {
    /// To be called before `change` is applied to `tables`. `None`: the change is about nothing that anyone has.
    pub(super) fn before(tables: &Tables, change: &Change) -> Option<Self> {
        let key = match change {
            // Most changes are of instances: not even their key is made.
            Change::Put(Record::App(_) | Record::Definition(_) | Record::Port(_) | Record::Brick(_)) => change.key(),
            Change::Delete(key @ (RecordKey::App(_) | RecordKey::Definition(..) | RecordKey::Port(_) | RecordKey::Brick(_))) => key.clone(),
            _ => return None,
        };
        let before = item(tables, &key);
        Some(Self { key, before })
    }

    /// To be called when the change is in `tables`.
    pub(super) fn after(self, tables: &mut Tables) {
        let after = item(tables, &self.key);
        if self.before == after {
            return;
        }
        if let Some((owner, item)) = self.before {
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
}

fn item(tables: &Tables, key: &RecordKey) -> Option<(Owner, Item)> {
    match key {
        RecordKey::App(id) | RecordKey::Definition(id, _) => {
            let owner = tables.owner_of(id)?.clone();
            let usage = tables.app(id).map_or_else(Usage::default, |app| Usage::of_app(app));
            Some((owner, Item::App(id.clone(), usage)))
        }
        RecordKey::Port(port) => tables.ports.get(port).map(|claim: &Arc<PortClaim>| (claim.owner.clone(), Item::Port(*port))),
        RecordKey::Brick(name) => {
            tables.bricks.get(name).map(|brick: &Arc<Brick>| (brick.owner.clone(), Item::Brick(name.clone(), brick.size.into())))
        }
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
    }
}
