//! What passes the driver, counted.

use crate::{
    metrics::{Counter, Metrics},
    model::{
        cluster::{ClusterCall, ClusterEvent, Reason},
        request::{Reply, RequestError},
    },
};

/// What the cluster says.
pub(super) fn event(metrics: &Metrics, event: &ClusterEvent) {
    match event {
        ClusterEvent::Offers(offers) => metrics.add(Counter::OffersIncoming, offers.len() as u64),
        ClusterEvent::Status(status) => {
            metrics.task_update(status.state);
            metrics.add(Counter::OutOfMemory, u64::from(status.reason == Reason::MemoryLimit));
        }
        _ => {}
    }
}

/// What it is asked for.
pub(super) fn call(metrics: &Metrics, call: &ClusterCall) {
    match call {
        ClusterCall::Accept { launches, .. } => {
            metrics.add(Counter::OffersUsed, 1);
            metrics.add(Counter::Launches, launches.len() as u64);
            metrics.add(Counter::TasksLaunched, launches.len() as u64);
        }
        ClusterCall::Decline { offers, .. } => metrics.add(Counter::OffersDeclined, offers.len() as u64),
        ClusterCall::Revive => metrics.add(Counter::Revives, 1),
        ClusterCall::Suppress => metrics.add(Counter::Suppresses, 1),
        _ => {}
    }
}

/// What a caller is answered.
pub(super) fn reply(metrics: &Metrics, reply: &Result<Reply, RequestError>) {
    match reply {
        Ok(Reply::Deployment { .. }) => metrics.add(Counter::Deployments, 1),
        Err(RequestError::TooManyDeployments(_)) => metrics.add(Counter::DeploymentsDismissed, 1),
        _ => {}
    }
}
