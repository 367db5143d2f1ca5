//! The driver's synchronous half: several inputs become one commit. The simulator runs it too.

use std::collections::HashMap;

use crate::{
    core::{Ctx, Frame, Input, State, step::step},
    model::record::{Change, RecordKey},
};

/// Inputs that one commit covers at most.
pub const MAX_INPUTS: usize = 256;

/// Steps each input in turn. The frames come back as one, whose changes name each record once: the last value counts, the order of first mention
/// stays.
pub fn run(state: &mut State, inputs: impl IntoIterator<Item = Input>, ctx: &mut Ctx<'_>) -> Frame {
    let mut whole = Frame::default();
    for input in inputs {
        let frame = step(state, input, ctx);
        whole.changes.extend(frame.changes);
        whole.calls.extend(frame.calls);
        whole.events.extend(frame.events);
        whole.replies.extend(frame.replies);
    }
    whole.changes = last_of_each(whole.changes);
    whole
}

fn last_of_each(changes: Vec<Change>) -> Vec<Change> {
    let mut places: HashMap<RecordKey, usize> = HashMap::with_capacity(changes.len());
    let mut last: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        match places.entry(change.key()) {
            std::collections::hash_map::Entry::Occupied(place) => last[*place.get()] = change,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(last.len());
                last.push(change);
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{Meta, Record};

    #[test]
    fn the_last_value_of_a_record_counts() {
        let put = |id: &str| Change::Put(Record::Meta(Meta { framework_id: Some(id.into()), ..Meta::default() }.into()));
        let port = Change::Delete(RecordKey::Port(1));
        assert_eq!(last_of_each(vec![put("a"), port.clone(), put("b")]), [put("b"), port]);
    }
}
