//! The definitions of all apps, in all their versions.

use std::sync::Arc;

use imbl::OrdMap;

use crate::model::{app::App, id::PathId, time::Timestamp};

/// Definitions by app and version. A map for each app, because a change of a persistent map copies what lies around it, and counts everything there as
/// shared once more: of one app that is a few of its versions, with few apps touched between two snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    by_app: OrdMap<PathId, OrdMap<Timestamp, Arc<App>>>,
}

impl Definitions {
    /// One version of an app.
    pub fn get(&self, app: &PathId, version: Timestamp) -> Option<&Arc<App>> {
        self.by_app.get(app)?.get(&version)
    }

    /// The versions of one app, oldest first.
    pub fn of<'a>(&'a self, app: &PathId) -> impl DoubleEndedIterator<Item = &'a Arc<App>> + use<'a> {
        self.by_app.get(app).into_iter().flat_map(|versions| versions.values())
    }

    /// How many versions of an app there are.
    pub fn count(&self, app: &PathId) -> usize {
        self.by_app.get(app).map_or(0, OrdMap::len)
    }

    /// All of them, by app and version.
    pub fn values(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_app.values().flat_map(|versions| versions.values())
    }

    pub(super) fn insert(&mut self, app: Arc<App>) {
        match self.by_app.get_mut(&app.id) {
            Some(versions) => _ = versions.insert(app.version, app),
            None => _ = self.by_app.insert(app.id.clone(), OrdMap::unit(app.version, app)),
        }
    }

    pub(super) fn remove(&mut self, app: &PathId, version: Timestamp) {
        if let Some(versions) = self.by_app.get_mut(app) {
            versions.remove(&version);
            if versions.is_empty() {
                self.by_app.remove(app);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::app::input::{AppInput, Defaults};

    fn definition(id: &PathId, version: Timestamp) -> Arc<App> {
        let input = AppInput::read(&serde_json::json!({ "cmd": "x" })).unwrap();
        App { version, ..input.create(id, &Defaults::default()).unwrap() }.into()
    }

    proptest! {
        #[test]
        fn they_are_what_one_map_would_hold(changes in prop::collection::vec((0..4_u8, 0..9_i64, any::<bool>()), 0..60)) {
            let (mut definitions, mut plain) = (Definitions::default(), BTreeMap::new());
            for (app, version, comes) in changes {
                let (id, version) = (format!("/{app}").parse::<PathId>().unwrap(), Timestamp(version));
                if comes {
                    definitions.insert(definition(&id, version));
                    plain.insert((id.clone(), version), definition(&id, version));
                } else {
                    definitions.remove(&id, version);
                    plain.remove(&(id.clone(), version));
                }
                prop_assert_eq!(definitions.get(&id, version), plain.get(&(id.clone(), version)));
                let own: Vec<_> = plain.iter().filter(|((other, _), _)| *other == id).map(|(_, app)| app).collect();
                prop_assert_eq!(definitions.count(&id), own.len());
                prop_assert_eq!(definitions.of(&id).rev().collect::<Vec<_>>(), own.into_iter().rev().collect::<Vec<_>>());
                prop_assert!(definitions.values().eq(plain.values()));
            }
            plain.keys().for_each(|(id, version)| definitions.remove(id, *version));
            prop_assert_eq!(definitions, Definitions::default());
        }
    }
}
