//! Which command is run next, and which waits: nobody's checks can keep everybody else's from being run.
//!
//! Commands may take as long as their definitions let them. So an app has a few under way at once, all together have some more, and beyond these each app
//! that has none under way may have one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use super::schedule::{Due, Schedule};
use crate::model::id::PathId;

/// Commands under way at once, first ones of their apps aside.
pub const MAX_COMMANDS: usize = 16;

/// Commands of one app under way at once.
pub const MAX_COMMANDS_OF_AN_APP: usize = 4;

/// All commands under way at once, first ones included; the node has more room than this, for people.
pub const MAX_ALL_COMMANDS: usize = 48;

/// What is due, what waits for room, and what is under way.
#[derive(Debug, Default)]
pub struct Commands {
    schedule: Schedule,
    /// Due, but without room, by app; each in the order of its time. Never empty lists.
    waiting: BTreeMap<PathId, VecDeque<Due>>,
    /// The first of each of these lists.
    fronts: BTreeSet<(Due, PathId)>,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    of_app: BTreeMap<PathId, usize>,
    all: usize,
    /// One has ended since who waits was last looked at.
    freed: bool,
}

impl Running {
    fn has_room(&self, app: &PathId) -> bool {
        let own = self.of_app.get(app).copied().unwrap_or_default();
        let most = if own == 0 { MAX_ALL_COMMANDS } else { MAX_COMMANDS };
        own < MAX_COMMANDS_OF_AN_APP && self.all < most
    }
}

/// The room of one command; given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    app: PathId,
    running: Arc<Mutex<Running>>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.all = running.all.saturating_sub(1);
        running.freed = true;
        if let Some(own) = running.of_app.get_mut(&self.app) {
            *own -= 1;
            if *own == 0 {
                running.of_app.remove(&self.app);
            }
        }
    }
}

impl Commands {
    /// One more.
    pub fn add(&mut self, due: Due) {
        self.schedule.add(due);
    }

    /// When something is due next; what waits for room is not, it follows when a command has ended.
    pub fn next(&self) -> Option<u64> {
        self.schedule.next()
    }

    /// The next command to run at `now`. `app_of` says whose a slot is; `None`: it is gone, and so is what was due.
    pub fn take(&mut self, now: u64, app_of: impl Fn(u64) -> Option<PathId>) -> Option<(Due, Room)> {
        if let Some(found) = self.take_waiting() {
            return Some(found);
        }
        while let Some(due) = self.schedule.pop(now) {
            let Some(app) = app_of(due.slot) else { continue };
            match self.room(&app).filter(|_| !self.waiting.contains_key(&app)) {
                Some(room) => return Some((due, room)),
                None => self.wait(app, due),
            }
        }
        None
    }

    /// Of those that wait and have room, the one that has waited longest.
    fn take_waiting(&mut self) -> Option<(Due, Room)> {
        let app = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if !running.freed {
                return None;
            }
            let found = first_with_room(self.fronts.iter(), &running).map(|(_, app)| app.clone());
            // Nobody else has room until another one ends.
            running.freed = found.is_some();
            found?
        };
        let waiting = self.waiting.get_mut(&app)?;
        let due = waiting.pop_front()?;
        self.fronts.remove(&(due, app.clone()));
        match waiting.front() {
            Some(next) => _ = self.fronts.insert((*next, app.clone())),
            None => _ = self.waiting.remove(&app),
        }
        Some((due, self.room(&app)?))
    }

    fn wait(&mut self, app: PathId, due: Due) {
        let waiting = self.waiting.entry(app.clone()).or_default();
        if waiting.is_empty() {
            self.fronts.insert((due, app));
        }
        waiting.push_back(due);
    }

    fn room(&self, app: &PathId) -> Option<Room> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.has_room(app) {
            return None;
        }
        running.all += 1;
        *running.of_app.entry(app.clone()).or_default() += 1;
        Some(Room { app: app.clone(), running: self.running.clone() })
    }
}

/// The first that has room, of those that wait in the order of their time. Without room are only apps that have commands under way, or all: so no
/// more are looked at than there can be of these, and one.
fn first_with_room<'a>(mut fronts: impl Iterator<Item = &'a (Due, PathId)>, running: &Running) -> Option<&'a (Due, PathId)> {
    if running.all >= MAX_ALL_COMMANDS {
        return None;
    }
    fronts.find(|(_, app)| running.has_room(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots 100 to 199 are of `/app1`, and so on; those above 9999 are gone.
    fn app_of(slot: u64) -> Option<PathId> {
        (slot < 10_000).then(|| format!("/app{}", slot / 100).parse().unwrap())
    }

    fn taken(commands: &mut Commands, now: u64) -> Vec<(u64, Room)> {
        std::iter::from_fn(|| commands.take(now, app_of)).map(|(due, room)| (due.slot, room)).collect()
    }

    fn slots(taken: &[(u64, Room)]) -> Vec<u64> {
        taken.iter().map(|(slot, _)| *slot).collect()
    }

    #[test]
    fn an_app_without_end_holds_up_itself_alone() {
        let mut commands = Commands::default();
        (100..120).for_each(|slot| commands.add(Due { at_ms: slot, slot }));
        let hog = taken(&mut commands, 1000);
        assert_eq!(slots(&hog), [100, 101, 102, 103]);
        assert_eq!(commands.next(), None, "what waits is not due again and again");
        commands.add(Due { at_ms: 2000, slot: 200 });
        assert_eq!(slots(&taken(&mut commands, 1999)), [] as [u64; 0]);
        assert_eq!(slots(&taken(&mut commands, 2000)), [200]);
    }

    #[test]
    fn when_the_room_of_all_is_taken_each_app_still_has_its_first() {
        let mut commands = Commands::default();
        // Four apps take all of the common room.
        (1..=4).flat_map(|app| app * 100..app * 100 + 4).for_each(|slot| commands.add(Due { at_ms: slot, slot }));
        let many = taken(&mut commands, 1000);
        assert_eq!(many.len(), MAX_COMMANDS);
        (5..=60).flat_map(|app| [app * 100, app * 100 + 1]).for_each(|slot| commands.add(Due { at_ms: slot, slot }));
        let mut firsts = taken(&mut commands, 10_000);
        assert_eq!(slots(&firsts), (5..=36).map(|app| app * 100).collect::<Vec<_>>());
        assert_eq!(many.len() + firsts.len(), MAX_ALL_COMMANDS);
        // Who has waited longest is next, and no app twice while the common room is taken.
        firsts.drain(..2);
        assert_eq!(slots(&taken(&mut commands, 10_000)), [501, 601]);
    }

    #[test]
    fn who_is_next_is_found_among_few_however_many_wait() {
        let check = |apps_under_way: u64, given_back: usize, expected: (Option<u64>, usize)| {
            let mut commands = Commands::default();
            // Each has one under way and more that wait; behind them others wait.
            (0..apps_under_way).for_each(|app| commands.add(Due { at_ms: 0, slot: app * 100 }));
            let mut under_way = taken(&mut commands, 0);
            (0..apps_under_way).for_each(|app| commands.add(Due { at_ms: 1, slot: app * 100 + 1 }));
            (60..99).for_each(|app| commands.add(Due { at_ms: 2, slot: app * 100 }));
            under_way.extend(taken(&mut commands, 10));
            under_way.drain(..given_back);
            let firsts: Vec<(Due, PathId)> = commands.waiting.iter().map(|(app, waiting)| (waiting[0], app.clone())).collect();
            assert_eq!(commands.fronts, firsts.into_iter().collect());
            let mut looked_at = 0;
            let running = commands.running.lock().unwrap();
            let found = first_with_room(commands.fronts.iter().inspect(|_| looked_at += 1), &running).map(|(due, _)| due.slot);
            assert_eq!((found, looked_at), expected, "{apps_under_way} apps, {given_back} given back");
        };
        check(48, 0, (None, 0));
        check(48, 1, (Some(1), 1));
        // The first 47 have one under way each, and nobody but the last ones and those of /app60 and so on has none.
        check(47, 1, (Some(1), 1));
        check(20, 28, (Some(1), 1));
        check(20, 0, (None, 0));
    }

    #[test]
    fn who_waits_runs_in_the_order_of_time_and_what_is_gone_does_not() {
        let mut commands = Commands::default();
        (100..108).chain([10_000]).for_each(|slot| commands.add(Due { at_ms: slot, slot }));
        let mut first = taken(&mut commands, 20_000);
        assert_eq!(slots(&first), [100, 101, 102, 103]);
        // Not before those of its own app that wait already.
        commands.add(Due { at_ms: 1, slot: 150 });
        first.remove(0);
        assert_eq!(slots(&taken(&mut commands, 20_000)), [104]);
        drop(first);
        let next = taken(&mut commands, 20_000);
        assert_eq!(slots(&next), [105, 106, 107, 150]);
        drop(next);
        assert_eq!(slots(&taken(&mut commands, 20_000)), [] as [u64; 0]);
    }
}
