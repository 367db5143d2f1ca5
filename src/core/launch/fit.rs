//! Whether what is left of an offer fits an app, and if not, every reason why.
//!
//! Facts (Marathon 1.11, `ResourceMatcher`): resources, role, constraints and GPUs are all tested, so that an offer may be refused for several
//! reasons; ports only when everything else fits. What is reserved for the app's role goes before what everybody may use. Nodes of other regions
//! than the master's are only for apps that say something about a region or a zone. Marathon gives no reason for these; here it is the constraint
//! that is missing.

use std::{borrow::Cow, collections::BTreeMap};

use super::constraints::{NodeFacts, is_satisfied};
use crate::{
    core::{AcceptedResourceRoles, state::Reject, turn::Turn},
    model::{
        app::{App, Constraint, Operator},
        brick::{brick_name, normal_container_path},
        cluster::Offer,
        id::PathId,
        resources::{Reserved, Resources},
        time::Timestamp,
    },
};

/// The role of what everybody may use.
const UNRESERVED: &str = "*";

/// Overrides `--gpu_scheduling_behavior` for one app.
const GPU_LABEL: &str = "GPU_SCHEDULING_BEHAVIOR";

/// What is left of an offer while it is being used.
pub(super) struct Left {
    unreserved: Resources,
    reserved: Vec<Reserved>,
}

impl Left {
    pub(super) fn of(offer: &Offer) -> Self {
        Self { unreserved: offer.resources.clone(), reserved: offer.reserved.clone() }
    }

    /// The offer with nothing but what is left.
    pub(super) fn rest_of(&self, offer: &Offer) -> Offer {
        Offer { resources: self.unreserved.clone(), reserved: self.reserved.clone(), ..offer.clone() }
    }

    /// All that the app may use.
    pub(super) fn usable(&self, app: &App, default: AcceptedResourceRoles) -> Cow<'_, Resources> {
        let mut reserved = self.reserved.iter().filter(|one| accepts(app, &one.role, default)).peekable();
        let unreserved = accepts(app, UNRESERVED, default);
        if unreserved && reserved.peek().is_none() {
            return Cow::Borrowed(&self.unreserved);
        }
        let mut usable = if unreserved { self.unreserved.clone() } else { Resources::default() };
        reserved.for_each(|one| usable.add(&one.resources));
        Cow::Owned(usable)
    }

    /// Takes what the app was found to have room for; says what of it was reserved.
    pub(super) fn take(&mut self, app: &App, default: AcceptedResourceRoles, wanted: &Resources) -> Option<Reserved> {
        let own = self.reserved.iter_mut().find(|one| accepts(app, &one.role, default));
        let drawn = own.map(|one| Reserved { role: one.role.clone(), resources: one.resources.draw(wanted) });
        let drawn = drawn.filter(|drawn| !drawn.resources.is_empty());
        let mut rest = wanted.clone();
        if let Some(drawn) = &drawn {
            rest.take_scalars(&drawn.resources);
            rest.ports.retain(|port| !drawn.resources.ports.contains(port));
        }
        self.unreserved.draw(&rest);
        drawn
    }

    fn gpus(&self) -> u32 {
        self.reserved.iter().fold(self.unreserved.gpus, |sum, one| sum.saturating_add(one.resources.gpus))
    }
}

fn accepts(app: &App, role: &str, default: AcceptedResourceRoles) -> bool {
    match &app.accepted_resource_roles {
        Some(roles) if !roles.is_empty() => roles.iter().any(|accepted| accepted == role),
        _ => match default {
            AcceptedResourceRoles::Any => role == UNRESERVED || role == app.role,
            AcceptedResourceRoles::Unreserved => role == UNRESERVED,
            AcceptedResourceRoles::Reserved => role == app.role,
        },
    }
}

/// Every reason, ports aside, why the app cannot be launched on what is left of the offer; none: it can.
/// `volumes_here`: persistent volumes wait for it there.
pub(super) fn misfits(
    turn: &mut Turn<'_, '_>,
    app: &App,
    offer: &Offer,
    left: &Left,
    spread: &mut Spread,
    volumes_here: bool,
) -> Vec<Reject> {
    let usable = left.usable(app, turn.state.settings.accepted_resource_roles);
    let near = is_near(turn, app, offer);
    let meets = meets_constraints(turn, app, offer, spread);
    let bricks = Bricks::of(turn, app, offer);
    let mut reasons = Vec::new();
    let mut check = |fits: bool, reason| reasons.extend((!fits).then_some(reason));
    check(app.cpus <= usable.cpus, Reject::InsufficientCpus);
    check(app.mem <= usable.mem, Reject::InsufficientMemory);
    check(app.gpus <= usable.gpus, Reject::InsufficientGpus);
    check(app.disk <= usable.disk, Reject::InsufficientDisk);
    check(!usable.is_empty(), Reject::UnfulfilledRole);
    check(near && meets && !bricks.elsewhere, Reject::UnfulfilledConstraint);
    check(!bricks.held, Reject::NoCorrespondingReservationFound);
    let at_home = bricks.here || volumes_here;
    check(app.gpus > 0 || left.gpus() == 0 || !keeps_gpus(turn, app) || at_home, Reject::DeclinedScarceResources);
    reasons
}

fn is_near(turn: &Turn<'_, '_>, app: &App, offer: &Offer) -> bool {
    let asks = |constraint: &Constraint| matches!(constraint.field.as_str(), "@region" | "@zone");
    offer.region.is_none() || offer.region == turn.state.local_region || app.constraints.iter().any(asks)
}

/// True when GPUs are too scarce for what does not ask for any.
fn keeps_gpus(turn: &Turn<'_, '_>, app: &App) -> bool {
    match app.labels.get(GPU_LABEL).map(String::as_str) {
        Some("restricted") => true,
        Some("unrestricted") => false,
        _ => turn.state.settings.gpus_restricted,
    }
}

/// Where an app's bricks are.
struct Bricks {
    held: bool,
    here: bool,
    elsewhere: bool,
}

impl Bricks {
    fn of(turn: &Turn<'_, '_>, app: &App, offer: &Offer) -> Self {
        let mut found = Self { held: false, here: false, elsewhere: false };
        for volume in app.bricks() {
            let Ok(path) = normal_container_path(&volume.container_path) else { continue };
            let Some(brick) = turn.state.tables.bricks.get(&brick_name(&app.id, &path)) else { continue };
            found.held |= brick.lease.is_some() || brick.condemned;
            match &brick.home {
                Some(home) if *home == offer.agent => found.here = true,
                Some(_) => found.elsewhere = true,
                None => {}
            }
        }
        found
    }
}

fn meets_constraints(turn: &mut Turn<'_, '_>, app: &App, offer: &Offer, spread: &mut Spread) -> bool {
    let facts = NodeFacts::of_offer(offer);
    // What was scaled since it began to wait waits for the present size.
    let instances = turn.state.tables.app(&app.id).map_or(app.instances, |present| present.instances);
    let lost_here = if app.constraints.is_empty() { 0 } else { lost_on(turn, app, offer) };
    app.constraints.iter().all(|constraint| {
        let value = facts.value(&constraint.field);
        let mut counts = Cow::Borrowed(spread.counts(turn, app, constraint));
        // What is out of reach may be running yet when its node is back; it is in nobody's way elsewhere.
        if lost_here > 0
            && let Some(value) = value
        {
            *counts.to_mut().entry(value.to_owned()).or_default() += lost_here;
        }
        is_satisfied(constraint, value, &counts, instances, &mut turn.state.patterns)
    })
}

fn lost_on(turn: &Turn<'_, '_>, app: &App, offer: &Offer) -> u32 {
    let versions = turn.state.index.get(&app.id).and_then(|index| index.on_agents.get(&offer.agent));
    versions.map_or(0, |versions| versions.range(app.last_config_change_at()..).map(|(_, living)| living.lost).sum())
}

/// Instances of apps' present configurations by the values of the fields that their constraints count. Made when it is first asked for, at a cost
/// that depends on how many nodes the app is on, and good for one round of matching, in which nothing but launches changes it.
#[derive(Default)]
pub(super) struct Spread(BTreeMap<(PathId, Timestamp), BTreeMap<String, BTreeMap<String, u32>>>);

static NOTHING: BTreeMap<String, u32> = BTreeMap::new();

impl Spread {
    fn counts(&mut self, turn: &Turn<'_, '_>, app: &App, constraint: &Constraint) -> &BTreeMap<String, u32> {
        let counts = match constraint.operator {
            Operator::Unique | Operator::GroupBy | Operator::MaxPer => true,
            Operator::Cluster => constraint.value.as_deref().is_none_or(str::is_empty),
            Operator::Like | Operator::Unlike | Operator::Is => false,
        };
        if !counts {
            return &NOTHING;
        }
        let fields = self.0.entry((app.id.clone(), app.last_config_change_at())).or_default();
        fields.entry(constraint.field.clone()).or_insert_with(|| in_reach(turn, app, &constraint.field))
    }

    /// One more has been launched.
    pub(super) fn add(&mut self, app: &App, offer: &Offer) {
        let facts = NodeFacts::of_offer(offer);
        let configs = (app.id.clone(), Timestamp(i64::MIN))..=(app.id.clone(), app.version);
        for (field, counts) in self.0.range_mut(configs).flat_map(|(_, fields)| fields) {
            if let Some(value) = facts.value(field) {
                *counts.entry(value.to_owned()).or_default() += 1;
            }
        }
    }
}

fn in_reach(turn: &Turn<'_, '_>, app: &App, field: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    let Some(index) = turn.state.index.get(&app.id) else { return counts };
    for (agent, versions) in &index.on_agents {
        let current: u32 = versions.range(app.last_config_change_at()..).map(|(_, living)| living.in_reach).sum();
        let Some(agent) = turn.state.tables.agents.get(agent).filter(|_| current > 0) else { continue };
        if let Some(value) = NodeFacts::of_agent(agent).value(field) {
            *counts.entry(value.to_owned()).or_default() += current;
        }
    }
    counts
}
