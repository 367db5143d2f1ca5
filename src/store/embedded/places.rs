//! Where versions are stored. A version of an app, or of the root, may lie in the place of an older one: when one comes and another goes in one
//! commit, as in most changes of an app that has as many as are kept, the new one takes the place of the old one, and the two are one write. Every
//! other record lies under its own key, and so does a version as long as none goes.
//!
//! A place is a key: its family (the kind and the app) says who may lie there, its version says nothing. What lies in it knows its own key, so the
//! store as it is read back tells where everything is.

use std::collections::HashMap;

use super::Hashed;
use crate::store::codec::{self, Version};

/// Which records do not lie under their own key. About 50 bytes for each of them, and for no other.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Places {
    /// By the name of a record's own key: the version in the key where it lies.
    elsewhere: HashMap<u64, Version, Hashed>,
    /// By the name of a place: the version in the own key of what lies in it.
    guests: HashMap<u64, Version, Hashed>,
}

/// The places that are left in a commit.
#[derive(Default)]
pub(super) struct Left {
    /// Of versions, by the name of their family.
    versions: HashMap<u64, Vec<Vec<u8>>, Hashed>,
    others: Vec<Vec<u8>>,
}

impl Left {
    /// What nobody has taken.
    pub(super) fn untaken(self) -> impl Iterator<Item = Vec<u8>> {
        self.versions.into_values().flatten().chain(self.others)
    }
}

impl Places {
    /// A record with the key `own` was found under `key`, a key of its family.
    pub(super) fn found(&mut self, own: &[u8], key: &[u8]) {
        if own != key
            && let (Some((_, own_version)), Some((_, version))) = (codec::family(own), codec::family(key))
        {
            self.elsewhere.insert(name(own), version);
            self.guests.insert(name(key), own_version);
        }
    }

    /// Where the stored record with the key `own` lies.
    pub(super) fn of(&self, own: Vec<u8>) -> Vec<u8> {
        match codec::family(&own).and_then(|_| self.elsewhere.get(&name(&own))) {
            Some(version) => codec::with_version(own, *version),
            None => own,
        }
    }

    /// The stored record with the key `own` goes.
    pub(super) fn leave(&mut self, own: Vec<u8>, left: &mut Left) {
        let Some((family, _)) = codec::family(&own) else { return left.others.push(own) };
        let family = name(family);
        let place = match self.elsewhere.remove(&name(&own)) {
            Some(version) => codec::with_version(own, version),
            None => own,
        };
        self.guests.remove(&name(&place));
        left.versions.entry(family).or_default().push(place);
    }

    /// A place for a record with the key `own` that is not stored yet. Those that go have left before.
    pub(super) fn take(&mut self, own: Vec<u8>, left: &mut Left) -> Vec<u8> {
        let Some((family, _)) = codec::family(&own) else { return own };
        let left = left.versions.get_mut(&name(family)).and_then(Vec::pop);
        let place = left.unwrap_or_else(|| self.free(own.clone()));
        self.found(&own, &place);
        place
    }

    /// Its own place; if another one lies there, the place of that one, and so on: nobody lies in two places, so there is an end.
    fn free(&self, own: Vec<u8>) -> Vec<u8> {
        let mut place = own;
        while let Some(next) = self.guests.get(&name(&place)) {
            place = codec::with_version(place, *next);
        }
        place
    }
}

fn name(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::model::{record::RecordKey, time::Timestamp};

    fn own(app: Option<u8>, version: i64) -> Vec<u8> {
        let version = Timestamp(version);
        codec::key_bytes(&match app {
            Some(app) => RecordKey::Definition(format!("/app{app}").parse().unwrap(), version),
            None => RecordKey::RootVersion(version),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Versions come again after they went, more come than go and fewer, some go that were never there.
        #[test]
        fn in_each_place_lies_one_record_and_each_record_is_found(
            commits in prop::collection::vec(
                prop::collection::vec((prop::option::of(0..2_u8), 0..5_i64, any::<bool>()), 0..8), 0..30)
        ) {
            let mut places = Places::default();
            // What lies where.
            let mut lying: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for commit in commits {
                let commit: BTreeMap<_, _> = commit.into_iter().map(|(app, version, comes)| (own(app, version), comes)).collect();
                let (mut left, mut empty) = (Left::default(), BTreeSet::new());
                for own in commit.iter().filter(|(_, comes)| !**comes).map(|(own, _)| own) {
                    if let Some(place) = lying.iter().find(|(_, guest)| *guest == own).map(|(place, _)| place.clone()) {
                        lying.remove(&place);
                        empty.insert(place);
                        places.leave(own.clone(), &mut left);
                    }
                }
                for own in commit.into_iter().filter(|(_, comes)| *comes).map(|(own, _)| own) {
                    match lying.iter().find(|(_, guest)| **guest == own) {
                        Some((place, _)) => prop_assert_eq!(&places.of(own), place),
                        None => {
                            let family = codec::family(&own).map(|(family, _)| family.to_vec());
                            let place = places.take(own.clone(), &mut left);
                            prop_assert_eq!(codec::family(&place).map(|(family, _)| family.to_vec()), family.clone());
                            let free = empty.iter().any(|free| codec::family(free).map(|(family, _)| family.to_vec()) == family);
                            prop_assert_eq!(free, empty.remove(&place), "a place that is left is taken");
                            prop_assert_eq!(lying.insert(place, own), None, "another one lies there");
                        }
                    }
                }
                prop_assert_eq!(left.untaken().collect::<BTreeSet<_>>(), empty);
                let mut read_back = Places::default();
                lying.iter().for_each(|(place, own)| read_back.found(own, place));
                prop_assert_eq!(&read_back, &places);
            }
        }
    }
}
