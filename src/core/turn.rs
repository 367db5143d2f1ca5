//! One step in the making: the state, the time, and the frame so far. Every decision writes through here, so that each durable change also reaches
//! the frame and the event stream.

use super::{Ctx, Frame, owned::State, project};
use crate::model::{
    cluster::ClusterCall,
    event::{Audience, Event, Fact},
    id::{InstanceId, Owner, PathId},
    record::{Change, Record, RecordKey},
    time::{Instant, Timestamp},
};

pub(super) struct Turn<'a, 'b> {
    pub(super) state: &'a mut State,
    pub(super) ctx: &'a mut Ctx<'b>,
    pub(super) frame: Frame,
}

impl<'a, 'b> Turn<'a, 'b> {
    pub(super) fn new(state: &'a mut State, ctx: &'a mut Ctx<'b>) -> Self {
        state.now = state.now.max(ctx.now);
        // Room for what a small change of one app brings.
        let frame = Frame { changes: Vec::with_capacity(8), events: Vec::with_capacity(8), ..Frame::default() };
        Self { state, ctx, frame }
    }

    pub(super) fn now(&self) -> Instant {
        self.state.now
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.ctx.wall
    }

    pub(super) fn put(&mut self, record: Record) {
        self.apply(Change::Put(record));
    }

    pub(super) fn delete(&mut self, key: RecordKey) {
        self.apply(Change::Delete(key));
    }

    /// A change that was made elsewhere.
    pub(super) fn apply(&mut self, change: Change) {
        project::events(&self.state.tables, &change, self.ctx.wall, &mut self.frame.events);
        self.state.apply(&change);
        self.frame.changes.push(change);
    }

    pub(super) fn call(&mut self, call: ClusterCall) {
        self.frame.calls.push(call);
    }

    pub(super) fn event(&mut self, app: Option<&PathId>, fact: Fact) {
        self.frame.events.push(project::event(&self.state.tables, self.ctx.wall, app, fact));
    }

    /// An event for one user, and the administrators.
    pub(super) fn event_for(&mut self, user: &Owner, fact: Fact) {
        self.frame.events.push(Event { timestamp: self.ctx.wall, app: None, audience: Audience::Owners(vec![user.clone()]), fact });
    }

    /// A time-based UUID (version 1): the present moment and 62 random bits.
    pub(super) fn uuid(&mut self) -> uuid::Uuid {
        /// 100 ns steps between 1582-10-15 and 1970-01-01.
        const GREGORIAN_OFFSET: u64 = 0x01B2_1DD2_1381_4000;
        let (low, high) = ((self.ctx.random)(), (self.ctx.random)());
        let ticks = (self.ctx.wall.0 as u64).wrapping_mul(10_000).wrapping_add(GREGORIAN_OFFSET).wrapping_add(low % 10_000);
        let mut node = high.to_be_bytes();
        node[2] |= 1; // the multicast bit marks a node id that is no hardware address
        uuid::Builder::from_fields(
            ticks as u32,
            (ticks >> 32) as u16,
            (ticks >> 48) as u16 & 0x0fff | 0x1000,
            &[(low >> 32) as u8 & 0x3f | 0x80, (low >> 40) as u8, node[2], node[3], node[4], node[5], node[6], node[7]],
        )
        .into_uuid()
    }

    pub(super) fn new_instance_id(&mut self, app: &PathId) -> InstanceId {
        let uuid = self.uuid();
        InstanceId::new(app.clone(), uuid)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn random_below(&mut self, bound: usize) -> usize {
        ((self.ctx.random)() % bound as u64) as usize
    }
}
