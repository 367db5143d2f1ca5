//! The pure core: [`step`](step::step) turns one input into a [`Frame`] of durable changes and effects.
//!
//! No clock, no randomness, no I/O, no async in here: time and ids come in through [`Ctx`]. A frame's changes are already applied to the state
//! when it is returned; the driver makes them durable before anything else of the frame leaves.

pub mod state;

use crate::model::{
    cluster::{ClusterCall, ClusterEvent},
    event::Event,
    record::Change,
    request::{Origin, Reply, Request, RequestError},
    time::{Instant, Timestamp},
};

/// Names a caller who waits for an answer; chosen by the driver.
pub type RequestId = u64;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Someone asks for a change.
    Api(RequestId, Origin, Box<Request>),
    /// The cluster says something.
    Cluster(ClusterEvent),
    /// A deadline may have passed.
    Tick,
}

/// The time of a step and its source of ids.
pub struct Ctx<'a> {
    /// For every timer.
    pub now: Instant,
    /// For what is shown and for versions.
    pub wall: Timestamp,
    /// Uniformly distributed bits, for ids and the choice of ports.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// What a step decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Durable, in order.
    pub changes: Vec<Change>,
    /// Sent after the commit.
    pub calls: Vec<ClusterCall>,
    /// Published after the commit.
    pub events: Vec<Event>,
    /// Answered after the commit.
    pub replies: Vec<(RequestId, Result<Reply, RequestError>)>,
}
