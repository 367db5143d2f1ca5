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
        app::App,
        cluster::Offer,
        id::PathId,
        instance::Condition,
        pod,
        resources::{PortRange, Resources},
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
        fields["lastUnusedOffers"] = entry.last_unused_offers.iter().map(|unused| unused_offer(unused, seen.is_all())).collect();
    }
    if let Some(reason) = &entry.held_by {
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
    for offer in &entry.last_unused_offers {
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
    let attributes = offer.attributes.iter().map(|attribute| json!({ "name": attribute.name, "text": attribute.text }));
    json!({
        "id": offer.id,
        "hostname": &*offer.host,
        "agentId": offer.agent,
        "resources": if with_resources { resources(&offer.resources) } else { json!([]) },
        "attributes": attributes.collect::<Value>(),
    })
}

fn resources(resources: &Resources) -> Value {
    let scalar = |name: &str, value: Value| json!({ "name": name, "role": "*", "scalar": value });
    let mut list = vec![
        scalar("cpus", json!(resources.cpus)),
        scalar("mem", json!(resources.mem)),
        scalar("disk", json!(resources.disk)),
        scalar("gpus", json!(resources.gpus)),
    ];
    let range = |range: &PortRange| json!({ "begin": range.begin, "end": range.end });
    list.push(json!({ "name": "ports", "role": "*", "ranges": resources.ports.iter().map(range).collect::<Value>() }));
    Value::Array(list)
}
