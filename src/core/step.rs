//! The order of the passes, written once.

use super::{Ctx, Frame, Input, state::State};

/// Takes one input. The state already has the frame's changes when it returns; nothing of the frame may leave before they are durable.
pub fn step(state: &mut State, input: Input, ctx: &mut Ctx<'_>) -> Frame {
    let _ = (state, input, ctx);
    Frame::default()
}
