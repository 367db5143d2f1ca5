//! The launch queue: what waits, and why.
//!
//! Facts (Marathon 1.11): `count` is what is scheduled or launched without a word yet; the reject summaries are lists in the order of the tests, and
//! a stage's `processed` is what the earlier stages let through. `reason` is ours: what else holds the app up, as a sentence.

use serde_json::{Value, json};

use super::app::Context;
use crate::{
    api::access::Seen,
    core::state::{QueueEntry, Reject, UnusedOffer},
    model::{
        agent::{Attribute, AttributeValue},
        app::App,
        cluster::Offer,
        id::PathId,
        instance::Condition,
        pod,
        resources::{PortRange, Resources, Scalar},
        time::Timestamp,
    },
};

/// One entry. `context` shows the definition.
pub fn entry(seen: &Seen, context: &Context<'_>, entry: &QueueEntry, app: &App, with_offers: bool, now: Timestamp) -> Value {
    let left_ms = entry.not_before.map_or(0, |moment| moment.ms_since(now));
    let (kind, definition) = match app.pod {
        Some(_) => ("pod", pod::output::definition(app)),
        None => ("app", context.definition(app, false)),
    };
    let mut fields = json!({
        "count": waiting(seen, &entry.app),
        "role": app.role,
        "since": entry.since,
        "delay": { "timeLeftSeconds": left_ms.div_ceil(1000), "overdue": left_ms == 0 },
        (kind): definition,
        "processedOffersSummary": summary(entry),
    });
    if with_offers {
        fields["lastUnusedOffers"] = entry.last_unused_offers.values().map(|unused| unused_offer(unused, seen.is_all())).collect();
    }
    if let Some(reason) = entry.held_by.as_ref().or(entry.undecided.as_ref()) {
        fields["reason"] = reason.as_str().into();
    }
    fields
}

fn waiting(seen: &Seen, app: &PathId) -> u32 {
    let by_version = seen.tally(app).map_or([].as_slice(), |tally| &tally.by_version);
    let count = |condition: Condition| by_version.iter().map(|(_, counts)| counts.wanted[condition as usize]).sum::<u32>();
    count(Condition::Scheduled) + count(Condition::Provisioned)
}

fn summary(entry: &QueueEntry) -> Value {
    let mut last = [0_u64; Reject::ALL.len()];
    for offer in entry.last_unused_offers.values() {
        // Each offer counts once: at the first test that it failed.
        if let Some(first) = offer.reasons.iter().min() {
            last[*first as usize] += 1;
        }
    }
    let mut fields = json!({
        "processedOffersCount": entry.processed,
        "unusedOffersCount": entry.unused,
        "rejectSummaryLastOffers": funnel(&last, entry.last_unused_offers.len() as u64),
        "rejectSummaryLaunchAttempt": funnel(&entry.rejected, entry.processed),
    });
    if let Some(at) = entry.last_unused_at {
        fields["lastUnusedOfferAt"] = json!(at);
    }
    if let Some(at) = entry.last_used_at {
        fields["lastUsedOfferAt"] = json!(at);
    }
    fields
}

fn funnel(declined: &[u64; 10], mut left: u64) -> Value {
    let stages = Reject::ALL.iter().zip(declined).map(|(reason, declined)| {
        let stage = json!({ "reason": reason.as_str(), "declined": declined, "processed": left });
        left = left.saturating_sub(*declined);
        stage
    });
    stages.collect()
}

/// What is free on a node tells what others use there, so only administrators are shown the resources.
fn unused_offer(unused: &UnusedOffer, with_resources: bool) -> Value {
    json!({
        "offer": offer(&unused.offer, with_resources),
        "reason": unused.reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(),
        "timestamp": unused.at,
    })
}

fn offer(offer: &Offer, with_resources: bool) -> Value {
    json!({
        "id": offer.id,
        "hostname": &*offer.host,
        "agentId": offer.agent,
        "resources": if with_resources { resources(offer) } else { json!([]) },
        "attributes": offer.attributes.iter().map(attribute).collect::<Value>(),
    })
}

fn attribute(attribute: &Attribute) -> Value {
    match attribute.value() {
        AttributeValue::Text(text) => json!({ "name": attribute.name, "text": text }),
        AttributeValue::Scalar(scalar) => json!({ "name": attribute.name, "scalar": scalar }),
        AttributeValue::Ranges(ranges) => {
            let range = |(begin, end): (u64, u64)| json!({ "begin": begin, "end": end });
            json!({ "name": attribute.name, "ranges": ranges.into_iter().map(range).collect::<Value>() })
        }
        AttributeValue::Set(items) => json!({ "name": attribute.name, "set": items }),
    }
}

fn resources(offer: &Offer) -> Value {
    let reserved = offer.reserved.iter().map(|one| (one.role.as_str(), &one.resources));
    std::iter::once(("*", &offer.resources)).chain(reserved).flat_map(|(role, resources)| of_role(role, resources)).collect()
}

/// What there is nothing of is not offered.
fn of_role(role: &str, resources: &Resources) -> Vec<Value> {
    let scalars =
        [("cpus", resources.cpus), ("mem", resources.mem), ("disk", resources.disk), ("gpus", Scalar::whole(resources.gpus.into()))];
    let scalars = scalars.into_iter().filter(|(_, amount)| *amount > Scalar::ZERO);
    let mut list: Vec<Value> = scalars.map(|(name, amount)| json!({ "name": name, "role": role, "scalar": amount })).collect();
    let range = |range: &PortRange| json!({ "begin": range.begin, "end": range.end });
    if !resources.ports.is_empty() {
        list.push(json!({ "name": "ports", "role": role, "ranges": resources.ports.iter().map(range).collect::<Value>() }));
    }
    list
}
