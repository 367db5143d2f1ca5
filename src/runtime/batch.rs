//! The driver's synchronous half: several inputs become one commit, and while one commit is under way the next batch is stepped. The simulator
//! runs it too.

use crate::core::{Ctx, Frame, Input, State, step::step};

/// Inputs that one commit covers at most.
pub const MAX_INPUTS: usize = 256;

/// Two batches: what has been stepped and waits (`S` for each input), and the one whose commit is under way (`C`). The state is ahead of what is
/// durable by both; nothing of either may leave before its own commit is done, and commits are done in order.
#[derive(Debug)]
pub struct Pipeline<S, C> {
    ahead: Vec<S>,
    under_way: Option<C>,
}

impl<S, C> Default for Pipeline<S, C> {
    fn default() -> Self {
        Self { ahead: Vec::new(), under_way: None }
    }
}

impl<S, C> Pipeline<S, C> {
    /// How many more inputs may be stepped now.
    pub fn room(&self) -> usize {
        MAX_INPUTS.saturating_sub(self.ahead.len())
    }

    /// An input was stepped.
    pub fn add(&mut self, stepped: S) {
        self.ahead.push(stepped);
    }

    /// Begins the next commit, if none is under way and something waits.
    pub fn begin(&mut self, commit: impl FnOnce(Vec<S>) -> C) {
        if self.under_way.is_none() && !self.ahead.is_empty() {
            self.under_way = Some(commit(std::mem::take(&mut self.ahead)));
        }
    }

    /// How many inputs have been stepped and wait.
    pub fn waiting(&self) -> usize {
        self.ahead.len()
    }

    /// True while a commit is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The commit that is under way.
    pub fn under_way(&mut self) -> Option<&mut C> {
        self.under_way.as_mut()
    }

    /// The commit that was under way is done.
    pub fn end(&mut self) -> Option<C> {
        self.under_way.take()
    }

    /// True when the state is what is durable.
    pub fn is_idle(&self) -> bool {
        self.ahead.is_empty() && self.under_way.is_none()
    }
}

/// Steps each input in turn. The frames come back as one ([`merge`]).
pub fn run(state: &mut State, inputs: impl IntoIterator<Item = Input>, ctx: &mut Ctx<'_>) -> Frame {
    merge(inputs.into_iter().map(|input| step(state, input, ctx)).collect())
}

/// Several frames as one. A record that was changed several times is named as often; its last value counts.
pub fn merge(frames: Vec<Frame>) -> Frame {
    let (changes, events) =
        frames.iter().fold((0, 0), |(changes, events), frame| (changes + frame.changes.len(), events + frame.events.len()));
    let replies = Vec::with_capacity(frames.len());
    let mut whole = Frame { changes: Vec::with_capacity(changes), events: Vec::with_capacity(events), replies, ..Frame::default() };
    for frame in frames {
        whole.changes.extend(frame.changes);
        whole.calls.extend(frame.calls);
        whole.events.extend(frame.events);
        whole.replies.extend(frame.replies);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn what_is_stepped_waits_for_the_commit_before_it() {
        let mut pipeline: Pipeline<u8, Vec<u8>> = Pipeline::default();
        pipeline.begin(|_| unreachable!("nothing waits"));
        pipeline.add(1);
        pipeline.begin(|batch| batch);
        pipeline.add(2);
        pipeline.add(3);
        pipeline.begin(|_| unreachable!("one is under way"));
        assert_eq!((pipeline.room(), pipeline.is_idle()), (MAX_INPUTS - 2, false));
        assert_eq!(pipeline.end(), Some(vec![1]));
        pipeline.begin(|batch| batch);
        assert_eq!((pipeline.room(), pipeline.is_idle()), (MAX_INPUTS, false));
        assert_eq!(pipeline.end(), Some(vec![2, 3]));
        assert!(pipeline.is_idle());
    }
}
