//! The definitions of all apps, in all their versions.

use std::{iter, sync::Arc};

use imbl::OrdMap;

use crate::model::{app::App, id::PathId, time::Timestamp};

/// Definitions by app and version. Each app has a queue of its own: the new version comes at its end and the oldest goes at its beginning, and what lies
/// between is not touched. (In a persistent map a change copies what lies around it, and counts everything there as shared once more.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    by_app: OrdMap<PathId, Versions>,
}

impl Definitions {
    /// One version of an app. The latest and the oldest ones are found at once, what lies between after a look at some of them.
    pub fn get(&self, app: &PathId, version: Timestamp) -> Option<&Arc<App>> {
        self.by_app.get(app)?.get(version)
    }

    /// The versions of one app, oldest first.
    pub fn of<'a>(&'a self, app: &PathId) -> impl Iterator<Item = &'a Arc<App>> + use<'a> {
        self.by_app.get(app).into_iter().flat_map(Versions::iter)
    }

    /// The latest version of an app.
    pub fn latest(&self, app: &PathId) -> Option<&Arc<App>> {
        self.by_app.get(app)?.newer.first()
    }

    /// How many versions of an app there are.
    pub fn count(&self, app: &PathId) -> usize {
        self.by_app.get(app).map_or(0, |versions| versions.count)
    }

    /// All of them, by app and version.
    pub fn values(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_app.values().flat_map(Versions::iter)
    }

    pub(super) fn insert(&mut self, app: Arc<App>) {
        match self.by_app.get_mut(&app.id) {
            Some(versions) => versions.insert(app),
            None => _ = self.by_app.insert(app.id.clone(), Versions::sorted(vec![app])),
        }
    }

    pub(super) fn remove(&mut self, app: &PathId, version: Timestamp) {
        if let Some(versions) = self.by_app.get_mut(app) {
            versions.remove(version);
            if versions.count == 0 {
                self.by_app.remove(app);
            }
        }
    }
}

/// The versions of one app, as a persistent queue: those that came lately, newest first, and the others, oldest first. All in `newer` are newer than
/// all in `older`; the latest is always in `newer`.
#[derive(Clone, Debug, Default)]
struct Versions {
    newer: List,
    older: List,
    count: usize,
}

impl Versions {
    fn sorted(mut all: Vec<Arc<App>>) -> Self {
        let (mut found, latest) = (Self { count: all.len(), ..Self::default() }, all.pop());
        latest.into_iter().for_each(|app| found.newer.push(app));
        all.into_iter().rev().for_each(|app| found.older.push(app));
        found
    }

    fn get(&self, version: Timestamp) -> Option<&Arc<App>> {
        let newer = self.newer.iter().find(|app| app.version <= version);
        newer.or_else(|| self.older.iter().find(|app| app.version >= version)).filter(|app| app.version == version)
    }

    /// Oldest first. The newer ones are turned around when it comes to them.
    fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        let newer = iter::once_with(|| self.newer.iter().collect::<Vec<_>>()).flat_map(|newer| newer.into_iter().rev());
        self.older.iter().chain(newer)
    }

    fn insert(&mut self, app: Arc<App>) {
        if self.newer.first().is_none_or(|latest| latest.version < app.version) {
            self.newer.push(app);
            self.count += 1;
        } else {
            let mut all: Vec<Arc<App>> = self.iter().filter(|other| other.version != app.version).cloned().collect();
            all.insert(all.partition_point(|other| other.version < app.version), app);
            *self = Self::sorted(all);
        }
    }

    /// The oldest ones may be kept for long, by instances that run them: one that goes behind them costs a look at each of these and no more.
    fn remove(&mut self, version: Timestamp) {
        let (mut rest, mut before) = (self.older.clone(), Vec::new());
        while let Some(older) = rest.first().filter(|older| older.version < version).cloned() {
            before.push(older);
            rest.pop();
        }
        if rest.first().is_some_and(|oldest| oldest.version == version) {
            rest.pop();
            before.into_iter().rev().for_each(|older| rest.push(older));
            self.older = rest;
            self.count -= 1;
        } else {
            *self = Self::sorted(self.iter().filter(|app| app.version != version).cloned().collect());
        }
    }
}

impl PartialEq for Versions {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// A list whose copies share what they have in common.
#[derive(Clone, Debug, Default)]
struct List(Option<Arc<Node>>);

#[derive(Debug)]
struct Node {
    app: Arc<App>,
    rest: List,
}

impl List {
    fn first(&self) -> Option<&Arc<App>> {
        self.iter().next()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        iter::successors(self.0.as_deref(), |node| node.rest.0.as_deref()).map(|node| &node.app)
    }

    fn push(&mut self, app: Arc<App>) {
        let rest = std::mem::take(self);
        self.0 = Some(Arc::new(Node { app, rest }));
    }

    fn pop(&mut self) {
        if let Some(first) = self.0.take() {
            *self = first.rest.clone();
        }
    }
}

impl Drop for List {
    /// One after the other: what ends in its own `drop` takes stack for each node.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.rest.0.take();
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
            let (mut definitions, mut plain, mut copies) = (Definitions::default(), BTreeMap::new(), Vec::new());
            for (app, version, comes) in changes {
                copies.push((definitions.clone(), plain.clone()));
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
                prop_assert_eq!(definitions.latest(&id), own.last().copied());
                prop_assert_eq!(definitions.of(&id).collect::<Vec<_>>(), own);
                prop_assert!(definitions.values().eq(plain.values()));
            }
            plain.keys().for_each(|(id, version)| definitions.remove(id, *version));
            prop_assert_eq!(definitions, Definitions::default());
            for (copy, plain) in copies {
                prop_assert!(copy.values().eq(plain.values()));
            }
        }
    }

    /// As the versions of a busy app come and go, and many more than are kept: what holds them must not end by calling itself.
    #[test]
    fn a_long_queue_is_used_and_freed_without_a_deep_stack() {
        let (id, mut definitions) = ("/app".parse().unwrap(), Definitions::default());
        let app = definition(&id, Timestamp(0));
        for version in 0..200_000 {
            definitions.insert(App { version: Timestamp(version), ..(*app).clone() }.into());
        }
        let copy = definitions.clone();
        (0..199_990).for_each(|version| definitions.remove(&id, Timestamp(version)));
        assert_eq!(definitions.of(&id).map(|app| app.version.0).collect::<Vec<_>>(), (199_990..200_000).collect::<Vec<_>>());
        assert_eq!((definitions.latest(&id).map(|app| app.version.0), copy.count(&id)), (Some(199_999), 200_000));
    }
}
