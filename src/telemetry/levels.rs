//! How much each logger says, while the server runs: Marathon's `/logging`. A logger is a module (`xtao::api`); dots are as good as colons, `root` is the
//! level of all that have none of their own, and `mesosphere.marathon` is all of ours.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing::info;
use tracing_subscriber::EnvFilter;

/// Loggers with a level that was given to them while the server runs.
const MAX_CHANGED: usize = 100;

const ROOT: &str = "ROOT";

/// What Marathon calls the whole of itself.
const MARATHON: &str = "mesosphere.marathon";

/// Our modules, of which each has a logger.
const MODULES: [&str; 17] = [
    "api",
    "audit",
    "auth",
    "brick",
    "cli",
    "cluster",
    "config",
    "core",
    "metrics",
    "model",
    "naming",
    "probe",
    "registry",
    "runtime",
    "server",
    "store",
    "telemetry",
];

/// Marathon's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 5] =
        [("trace", Self::Trace), ("debug", Self::Debug), ("info", Self::Info), ("warn", Self::Warn), ("error", Self::Error)];

    /// As it is written in a change.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }
}

/// More loggers than can have a level of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_CHANGED} loggers have a level that was given to them; set one of those, or restart the server")]
pub struct TooMany;

/// The levels of this process. Clones are the same.
#[derive(Clone)]
pub struct Levels(Arc<Inner>);

struct Inner {
    /// As the process began: target (empty: all) and level.
    base: Vec<(String, String)>,
    directives: String,
    changed: Mutex<Changed>,
    apply: Box<dyn Fn(EnvFilter) + Send + Sync>,
}

#[derive(Default)]
struct Changed {
    /// By target; the empty one is the root.
    levels: BTreeMap<String, Set>,
    tickets: u64,
}

#[derive(Clone, Copy)]
struct Set {
    level: Level,
    /// What it goes back to by itself: a level, or none of its own.
    returns_to: Option<Option<Level>>,
    ticket: u64,
}

impl Default for Levels {
    /// Of a process that logs nothing.
    fn default() -> Self {
        Self::new("info", |_| {})
    }
}

impl Levels {
    /// Beginning with `directives`; `apply` makes a filter count.
    pub(super) fn new(directives: &str, apply: impl Fn(EnvFilter) + Send + Sync + 'static) -> Self {
        // What is said about spans is no logger's.
        let plain =
            directives.split(',').map(str::trim).filter(|directive| !directive.is_empty() && !directive.contains(['[', ']', '{', '}']));
        let base = plain.map(|directive| match directive.split_once('=') {
            Some((target, level)) => (target.to_owned(), level.to_owned()),
            None => (String::new(), directive.to_owned()),
        });
        let (base, directives) = (base.collect(), directives.to_owned());
        Self(Arc::new(Inner { base, directives, changed: Mutex::default(), apply: Box::new(apply) }))
    }

    /// Every logger with its level, in capitals; one that has none of its own says so.
    pub fn shown(&self) -> BTreeMap<String, String> {
        let changed = self.0.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let base = self.0.base.iter().map(|(target, level)| (target.clone(), level.clone()));
        let set = changed.levels.iter().map(|(target, set)| (target.clone(), set.level.name().to_owned()));
        let own: BTreeMap<String, String> = base.chain(set).collect();
        let mut shown: BTreeMap<String, String> =
            own.iter().filter(|(target, _)| !target.is_empty()).map(|(target, level)| (target.clone(), level.to_uppercase())).collect();
        let root = own.get("").map_or("ERROR".to_owned(), |level| level.to_uppercase());
        for target in std::iter::once("xtao".to_owned()).chain(MODULES.iter().map(|module| format!("xtao::{module}"))) {
            let above = own.iter().filter(|(other, _)| is_below(&target, other)).max_by_key(|(other, _)| other.len());
            let level = above.map_or_else(|| root.clone(), |(_, level)| level.to_uppercase());
            shown.entry(target).or_insert_with(|| format!("{level} (inherited)"));
        }
        shown.insert(MARATHON.to_owned(), shown.get("xtao").cloned().unwrap_or_default());
        shown.insert(ROOT.to_owned(), root);
        shown
    }

    /// Gives `logger` a level; for a while, or for good.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn change(&self, logger: &str, level: Level, duration: Option<Duration>) -> Result<(), TooMany> {
        let target = target(logger);
        let ticket = {
            let mut changed = self.0.changed.lock().unwrap_or_else(PoisonError::into_inner);
            let before = changed.levels.get(&target).copied();
            if before.is_none() && changed.levels.len() >= MAX_CHANGED {
                return Err(TooMany);
            }
            changed.tickets += 1;
            let ticket = changed.tickets;
            // Changed for a while once more: it goes back to what it was at first.
            let original = || before.and_then(|set| set.returns_to.unwrap_or(Some(set.level)));
            let returns_to = duration.map(|_| original());
            changed.levels.insert(target.clone(), Set { level, returns_to, ticket });
            self.apply(&changed);
            ticket
        };
        info!(%logger, level = level.name(), seconds = duration.map(|duration| duration.as_secs()), "The level of a logger is set.");
        if let Some(duration) = duration {
            let levels = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(duration).await;
                levels.expire(&target, ticket);
            });
        }
        Ok(())
    }

    /// The time of the change with this number is over. Another change may have come since.
    fn expire(&self, target: &str, ticket: u64) {
        let mut changed = self.0.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = changed.levels.get_mut(target).filter(|set| set.ticket == ticket) else { return };
        match set.returns_to.take().flatten() {
            Some(level) => set.level = level,
            None => _ = changed.levels.remove(target),
        }
        self.apply(&changed);
    }

    fn apply(&self, changed: &Changed) {
        let set = changed.levels.iter().map(|(target, set)| match target.as_str() {
            "" => set.level.name().to_owned(),
            target => format!("{target}={}", set.level.name()),
        });
        let directives: Vec<String> = std::iter::once(self.0.directives.clone()).chain(set).collect();
        // What was read at the start can be read again, and targets have no characters that mean something.
        if let Ok(filter) = EnvFilter::try_new(directives.join(",")) {
            (self.0.apply)(filter);
        }
    }
}

/// True when `target` is what `other` names or stands below it; everything is below the root.
fn is_below(target: &str, other: &str) -> bool {
    other.is_empty() || target.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module that a logger's name stands for. Characters that no module's name has are dropped: such a logger says nothing anyway.
fn target(logger: &str) -> String {
    if logger.eq_ignore_ascii_case(ROOT) {
        return String::new();
    }
    if logger == MARATHON || logger.strip_prefix(MARATHON).is_some_and(|rest| rest.starts_with('.')) {
        return "xtao".to_owned();
    }
    let name: String =
        logger.replace('.', "::").chars().filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, ':' | '_' | '-')).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn levels(directives: &str) -> (Levels, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Levels::new(directives, move |filter| sender.send(filter.to_string()).unwrap()), receiver)
    }

    #[test]
    fn every_module_has_a_logger() {
        let map = include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let modules: Vec<&str> = map.filter(|module| *module != "sim").collect();
        assert_eq!(modules, MODULES);
    }

    #[test]
    fn loggers_are_shown_with_their_level_or_the_one_above() {
        let (levels, _filters) = levels("info,hyper=warn,xtao::store=trace,[span]=debug");
        let check = |logger: &str, expected: &str| assert_eq!(levels.shown().get(logger).map(String::as_str), Some(expected), "{logger}");
        check("ROOT", "INFO");
        check("hyper", "WARN");
        check("xtao::store", "TRACE");
        check("xtao::api", "INFO (inherited)");
        check("mesosphere.marathon", "INFO (inherited)");
        levels.change("xtao", Level::Debug, None).unwrap();
        check("xtao", "DEBUG");
        check("mesosphere.marathon", "DEBUG");
        check("xtao::api", "DEBUG (inherited)");
        check("xtao::store", "TRACE");
        levels.change("root", Level::Error, None).unwrap();
        check("ROOT", "ERROR");
        check("hyper", "WARN");
    }

    #[test]
    fn names_are_those_of_modules() {
        for (logger, expected) in [
            ("root", ""),
            ("Root", ""),
            ("xtao::api", "xtao::api"),
            ("xtao.api.v2", "xtao::api::v2"),
            ("mesosphere.marathon", "xtao"),
            ("mesosphere.marathon.core.launchqueue", "xtao"),
            ("mesosphere.marathons", "mesosphere::marathons"),
            ("x=trace,y[z]{\"w\"}", "xtraceyzw"),
            ("=,", "_"),
        ] {
            assert_eq!(target(logger), expected, "{logger}");
        }
    }

    #[tokio::test]
    async fn a_level_goes_back_when_its_time_is_over() {
        let (levels, mut filters) = levels("info,hyper=warn");
        let soon = Some(Duration::from_millis(1));
        let has = |filter: &str, directive: &str| filter.split(',').any(|part| part == directive);
        levels.change("root", Level::Trace, soon).unwrap();
        assert!(has(&filters.recv().await.unwrap(), "trace"));
        assert!(has(&filters.recv().await.unwrap(), "info"));
        assert_eq!(levels.shown()["ROOT"], "INFO");
        // For good, then for a while twice: back to what was for good.
        levels.change("hyper", Level::Debug, None).unwrap();
        levels.change("hyper", Level::Trace, Some(Duration::from_secs(3600))).unwrap();
        levels.change("hyper", Level::Error, soon).unwrap();
        for expected in ["hyper=debug", "hyper=trace", "hyper=error", "hyper=debug"] {
            let filter = filters.recv().await.unwrap();
            assert!(has(&filter, expected), "{filter}: {expected}");
        }
        // What was set for good meanwhile stays.
        levels.change("hyper", Level::Error, Some(Duration::from_secs(3600))).unwrap();
        levels.change("hyper", Level::Info, None).unwrap();
        levels.expire("hyper", 5);
        assert_eq!(levels.shown()["hyper"], "INFO");
    }

    #[test]
    fn so_many_loggers_have_levels_of_their_own() {
        let (levels, _filters) = levels("info");
        for number in 0..MAX_CHANGED {
            levels.change(&format!("m{number}"), Level::Info, None).unwrap();
        }
        assert_eq!(levels.change("another", Level::Info, None), Err(TooMany));
        levels.change("m7", Level::Warn, None).unwrap();
    }
}
