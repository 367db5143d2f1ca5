//! Several users: whose requests they are, how much each may have, and a group that prescribes the role of its apps.

use super::{
    rng::Rng,
    workload::{Ask, Kind, Op, Scale, Unreachable, specs_of},
};
use crate::model::{resources::Scalar, user::Quota};

/// The ordinary users.
pub const USERS: [&str; 2] = ["ann", "bob"];

/// In every other schedule some requests are of ordinary users, most of them about what is their own, and limits come and change.
pub fn draw(rng: &mut Rng, ops: &mut Vec<Op>, scale: Scale) {
    if rng.chance(500) {
        return;
    }
    let usual: Vec<Option<&'static str>> = (0..scale.apps).map(|_| draw_user(rng, 700)).collect();
    for op in ops.iter_mut() {
        let (odd, other) = (rng.chance(100), draw_user(rng, 500));
        let own = about(&mut op.ask).and_then(|app| usual.get(usize::from(app)).copied());
        op.by = own.filter(|_| !odd).unwrap_or(other);
    }
    if rng.chance(300) {
        hoard(rng, ops, scale);
    }
    let at = |rng: &mut Rng| rng.within(0, scale.span_ms);
    let mut more = Vec::new();
    for user in USERS {
        // Some are limited from the beginning, and limits change while their apps run.
        let begin = rng.chance(700).then(|| rng.within(0, 10_000));
        let moments: Vec<u64> = begin.into_iter().chain((0..rng.below(4)).map(|_| at(rng))).collect();
        more.extend(moments.into_iter().map(|at| (at, Ask::Limit { user, quota: draw_quota(rng, scale) })));
    }
    for _ in 0..rng.below(3) {
        let app = rng.below(u64::from(scale.apps)) as u16;
        let (at, to) = (at(rng), *rng.pick(&USERS));
        more.push((at, Ask::HandOver { app, to }));
    }
    for _ in 0..rng.below(4) {
        more.push((at(rng), Ask::EnforceRole { enforce: *rng.pick(&[Some(true), Some(true), Some(false), None]) }));
    }
    ops.extend(more.into_iter().map(|(at, ask)| Op { at, ask, force: false, mark: 0, by: None }));
    ops.sort_by_key(|op| op.at);
}

/// Most apps keep data: what was promised to one of them is not yet there when the next is asked for.
fn hoard(rng: &mut Rng, ops: &mut [Op], scale: Scale) {
    let kinds: Vec<Option<Kind>> = (0..scale.apps)
        .map(|_| {
            // The smallest is less than a file system needs.
            let kind = if rng.chance(700) { Kind::Volume(*rng.pick(&[5, 64, 128])) } else { Kind::Brick(*rng.pick(&[64, 128])) };
            rng.chance(700).then_some(kind)
        })
        .collect();
    for spec in ops.iter_mut().flat_map(|op| specs_of(&mut op.ask)) {
        let Some(kind) = kinds.get(usize::from(spec.app)).copied().flatten().filter(|_| !spec.is_pod()) else { continue };
        spec.kind = kind;
        if let Kind::Brick(_) = kind {
            (spec.instances, spec.strategy) = (spec.instances.min(1), None);
        } else {
            // What such an app takes cannot change.
            (spec.cpus, spec.mem, spec.unreachable) = (100, 32, Unreachable::Default);
            spec.strategy = spec.strategy.map(|(health, _)| (health, 0));
        }
    }
}

/// The app that a request is about, if it is one.
fn about(ask: &mut Ask) -> Option<u16> {
    match ask {
        Ask::Patch { app, .. }
        | Ask::Scale { app, .. }
        | Ask::Restart { app }
        | Ask::Destroy { app }
        | Ask::KillApp { app, .. }
        | Ask::KillOne { app, .. }
        | Ask::ResetDelay { app } => Some(*app),
        Ask::Both(spec, _) => Some(spec.app),
        ask => match specs_of(ask)[..] {
            [ref spec] => Some(spec.app),
            _ => None,
        },
    }
}

fn draw_user(rng: &mut Rng, ordinary: u32) -> Option<&'static str> {
    let user = *rng.pick(&USERS);
    rng.chance(ordinary).then_some(user)
}

/// Some of the limits, near what a user of such a world has.
fn draw_quota(rng: &mut Rng, scale: Scale) -> Quota {
    let instances = rng.within(1, 3 * u64::from(scale.instances.max(1)));
    let mut some = |amount: u64| rng.chance(500).then_some(amount);
    Quota {
        cpus: some(instances).map(|instances| Scalar(instances * 250)),
        mem: some(instances).map(|instances| Scalar::whole(instances * 64)),
        brick: some(instances).map(|instances| instances * 64),
        ports: some(instances).map(|instances| instances as u32 / 2),
        instances: some(instances).map(|instances| instances as u32),
    }
}
