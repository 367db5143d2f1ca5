//! Checks of the house itself: import direction, banned calls, module documentation, marks of unfinished work, line length; and of what it is built
//! from ([`dependencies`]).
//!
//! Who may import whom is read from the table in `lib.rs`, so that the map and the check cannot differ. Tests are free: what stands under
//! `#[cfg(test)]` may import and call anything.

mod dependencies;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use source::{Source, is_word};

/// Longest line in characters, somewhat above what rustfmt aims at. What cannot be broken (texts, tables, links) is excused.
const MAX_LINE: usize = 160;

/// A string literal of this many characters excuses its line.
const LONG_TEXT: usize = 40;

/// Rooms that read no clock, no randomness, no environment, and do no I/O.
const PURE: [&str; 2] = ["model", "core"];

/// Crates and modules that a pure room may not name.
const IMPURE_PATHS: [&str; 21] = [
    "std::env",
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "bollard",
    "fjall",
    "hyper",
    "rand",
    "reqwest",
    "rustix",
    "tokio",
    "tracing",
    "warp",
];

/// Words that a pure room may not use, however they came in. (The order of a std `HashMap` is random.)
const IMPURE_WORDS: [&str; 16] = [
    "async",
    "await",
    "dbg",
    "eprint",
    "eprintln",
    "now_local",
    "now_utc",
    "now_v1",
    "now_v6",
    "now_v7",
    "new_v4",
    "print",
    "println",
    "stdout",
    "thread_rng",
    "SystemTime",
];

/// What the brackets in the table of `lib.rs` say: rooms that may be imported, but not in all their parts.
const CLOSED_PARTS: [(&str, &str); 8] = [
    ("api", "core::step"),
    ("naming", "core::step"),
    ("probe", "core::step"),
    ("runtime", "store::embedded"),
    ("runtime", "store::memory"),
    ("runtime", "store::identity"),
    ("runtime", "store::codec"),
    ("sim", "runtime::driver"),
];

/// Where a caller's answer is made: what is there comes through `api::access` alone, which knows who asks.
const BEHIND_ACCESS: [&str; 2] = ["api/v2", "api/view"];

/// What those places may not name: the driver's handle, the whole snapshot, and the way in's own look at the users.
const PAST_ACCESS: [&str; 5] = ["Handle", "Tables", "View", "view_full", "has_passwords"];

/// Each room, and the rooms that it may import.
type Rooms = BTreeMap<String, BTreeSet<String>>;

/// The table in the documentation of `lib.rs`.
fn rooms(map: &str) -> Rooms {
    let rows: Vec<(String, &str)> = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .filter_map(|row| {
            let (room, rest) = row.split_once("`]")?;
            let imports = rest.trim_end().strip_suffix('|')?.rsplit_once('|')?.1;
            Some((room.to_owned(), imports.trim()))
        })
        .collect();
    let names: BTreeSet<String> = rows.iter().map(|(room, _)| room.clone()).collect();
    let allowed = |imports: &str| match imports {
        "nothing" => BTreeSet::new(),
        "all of the above" => names.clone(),
        listed => listed.split('`').filter(|word| names.contains(*word)).map(str::to_owned).collect(),
    };
    rows.iter().map(|(room, imports)| (room.clone(), allowed(imports))).collect()
}

/// Everything that is wrong with one file, as `path:line: what`.
fn complaints(source: &Source, rooms: &Rooms) -> Vec<String> {
    let mut found: Vec<String> = documentation(source).into_iter().collect();
    found.extend(unfinished(source));
    found.extend(long_lines(source));
    if let Some(room) = source.room().filter(|_| !source.is_test) {
        found.extend(imports(source, room, rooms));
        found.extend(past_access(source));
        if PURE.contains(&room) {
            found.extend(impurities(source));
        }
    }
    found
}

fn documentation(source: &Source) -> Option<String> {
    // A file of tests speaks by its tests' names.
    let documented =
        source.is_test || source.text.strip_prefix("//! ").is_some_and(|rest| rest.lines().next().is_some_and(|line| line.len() > 10));
    (!documented).then(|| source.complaint(0, "the file does not say what it is for (//!)"))
}

fn unfinished(source: &Source) -> Vec<String> {
    // Taken apart, so that this file passes.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let words = marks.iter().flat_map(|mark| source.words(&source.text, mark)).map(|at| source.complaint(at, "a mark of unfinished work"));
    let ignored = source.code.match_indices("#[ignore").map(|(at, _)| source.complaint(at, "an ignored test"));
    let macros = ["todo", "unimplemented", "dbg"].into_iter().flat_map(|name| source.words(&source.code, name));
    let macros = macros.filter(|at| source.code[*at..].trim_start_matches(is_word).starts_with('!'));
    words.chain(ignored).chain(macros.map(|at| source.complaint(at, "a placeholder"))).collect()
}

fn long_lines(source: &Source) -> Vec<String> {
    let mut at = 0;
    let mut found = Vec::new();
    for line in source.text.split_inclusive('\n') {
        let blanked = source.code.get(at..at + line.len()).unwrap_or_default();
        let text = line.chars().filter(|letter| !letter.is_whitespace()).count()
            - blanked.chars().filter(|letter| !letter.is_whitespace()).count();
        let comment = line.trim_start().starts_with("//");
        if line.trim_end().chars().count() > MAX_LINE
            && (comment && !line.contains("://") && !line.contains("//! |") || !comment && text < LONG_TEXT)
        {
            found.push(source.complaint(at, &format!("more than {MAX_LINE} characters")));
        }
        at += line.len();
    }
    found
}

fn imports(source: &Source, room: &str, rooms: &Rooms) -> Vec<String> {
    let Some(allowed) = rooms.get(room) else { return vec![source.complaint(0, &format!("'{room}' is not in the table of lib.rs"))] };
    let mut found = Vec::new();
    for (at, path) in source.crate_paths() {
        let Some(other) = path.first().filter(|other| *other != room && rooms.contains_key(*other)) else { continue };
        let path = path.join("::");
        if !allowed.contains(other) {
            found.push(source.complaint(at, &format!("'{room}' may not import '{path}'")));
        }
        let is_closed = |part: &str| path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"));
        if CLOSED_PARTS.iter().any(|(importer, part)| *importer == room && is_closed(part)) {
            found.push(source.complaint(at, &format!("'{room}' may not import '{path}', though other parts of it")));
        }
    }
    found
}

/// Reads and writes that nobody would check.
fn past_access(source: &Source) -> Vec<String> {
    if !BEHIND_ACCESS.iter().any(|place| source.path.starts_with(place) || source.path == Path::new(&format!("{place}.rs"))) {
        return Vec::new();
    }
    let words = PAST_ACCESS.iter().flat_map(|word| {
        let complain = move |at| source.complaint(at, &format!("'{word}' here goes past api::access: ask for what the caller may see"));
        source.words(&source.code, word).map(complain).collect::<Vec<_>>()
    });
    let users = source.code.match_indices("access.user(").map(|(at, _)| source.complaint(at, "'access.user' is for finding out who asks"));
    words.chain(users).collect()
}

fn impurities(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let roots: BTreeSet<&str> = IMPURE_PATHS.iter().filter_map(|path| path.split("::").next()).collect();
    for (at, path) in roots.iter().flat_map(|root| source.paths_from(root)) {
        let path = path.join("::");
        if IMPURE_PATHS.iter().any(|banned| path == *banned || path.strip_prefix(banned).is_some_and(|rest| rest.starts_with("::"))) {
            found.push(source.complaint(at, &format!("'{path}' in a pure room")));
        }
    }
    for word in IMPURE_WORDS {
        found.extend(source.words(&source.code, word).map(|at| source.complaint(at, &format!("'{word}' in a pure room"))));
    }
    found
}

fn house() -> (Rooms, Vec<Source>) {
    (map(), Source::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")))
}

#[test]
fn the_house_is_tidy() {
    let (rooms, sources) = house();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    let found: Vec<String> = sources.iter().flat_map(|source| complaints(source, &rooms)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_room_is_on_the_map() {
    let (rooms, sources) = house();
    let map = sources.iter().find(|source| source.path == Path::new("lib.rs")).unwrap();
    let declared: BTreeSet<&str> = map.text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(rooms.keys().map(String::as_str).collect::<BTreeSet<_>>(), declared);
    assert_eq!(rooms["model"], BTreeSet::new());
    assert!(rooms["store"].contains("model") && !rooms["store"].contains("core"));
    assert_eq!(rooms["server"].len(), rooms.len());
}

fn map() -> Rooms {
    rooms(&std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap())
}

/// What is said of a file `path` below `src` with this content.
fn check(path: &str, text: &str, expected: &[&str]) {
    let rooms = map();
    let text = format!("//! A file for a test of the checks.\n{text}\n");
    let found = complaints(&Source::new(path.into(), text.clone(), false), &rooms);
    assert!(found.len() == expected.len() && expected.iter().zip(&found).all(|(part, found)| found.contains(part)), "{text}\n{found:#?}");
}

#[test]
fn planted_imports_are_caught() {
    check("core/x.rs", "use crate::model::id::PathId;", &[]);
    check("core/x.rs", "use crate::store::Store;", &["core/x.rs:2: 'core' may not import 'store::Store'"]);
    check(
        "model/x.rs",
        "use crate::{\n    core::{step, state::State},\n    model::id,\n};",
        &["x.rs:2: 'model' may not import 'core::step'", "'core::state::State'"],
    );
    check("store/x.rs", "fn f() { crate::runtime::handle::f(); }", &["may not import 'runtime::handle::f'"]);
    check("store/x/y.rs", "use super::super::super::core::State;", &["may not import 'core::State'"]);
    check("store/x/y.rs", "use super::super::core::State;", &[]);
    check("store/x.rs", "mod inner { use super::super::core::A; use super::super::super::core::B; }", &["'core::B'"]);
    check("config.rs", "use super::model::id;", &["'config' may not import 'model::id'"]);
    check("api/v2/x.rs", "use crate::core::{state::QueueEntry, step::step};", &["'api' may not import 'core::step::step', though"]);
    check("runtime/x.rs", "use crate::store::{Store, memory::Disk};", &["'runtime' may not import 'store::memory::Disk', though"]);
    check("server/x.rs", "use crate::{api, core, sim};", &[]);
    check("attic/x.rs", "", &["'attic' is not in the table"]);
}

#[test]
fn planted_calls_are_caught_in_pure_rooms_only() {
    for text in [
        "use std::{fmt, fs};",
        "fn f() { std::env::var(\"X\"); }",
        "use std::time::{Duration, Instant};",
        "fn f() { let x: rand::Rng; }",
        "async fn f() {}",
        "fn f() { println!(); }",
        "fn f() { Uuid::new_v4(); }",
        "fn f() { OffsetDateTime::now_utc(); }",
        "use std::collections::HashMap;",
        "use tokio::sync::mpsc;",
    ] {
        check("core/x.rs", text, &["in a pure room"]);
        check("model.rs", text, &["in a pure room"]);
        check("store/x.rs", text, &[]);
    }
    check("core/x.rs", "use std::time::Duration;\n// std::fs and println! are words here.\nconst A: &str = \"async fn\";", &[]);
    check(
        "core/x.rs",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { println!(\"{}\"); }\n}\nuse std::env;",
        &["x.rs:7: 'std::env'"],
    );
    check("core/x.rs", "fn operand(now: Instant) { brand::new(); }", &[]);
}

#[test]
fn planted_reads_past_access_are_caught() {
    check("api/v2/x.rs", "fn f(api: &Api) { api.handle.view_full(); }", &["'view_full' here goes past api::access"]);
    check("api/v2/x.rs", "use crate::core::state::{QueueEntry, Tables};", &["'Tables' here"]);
    check("api/v2.rs", "use crate::runtime::handle::Handle;", &["'Handle' here"]);
    check("api/view/x.rs", "fn f(view: &View) {}", &["'View' here"]);
    check("api/v2/x.rs", "fn f(api: &Api, name: &Owner) { api.access.user(name); }", &["'access.user' is for"]);
    check("api/v2/x.rs", "fn f(api: &Api, call: &Call) { seen(api, call).apps(); }", &[]);
    check("api/access.rs", "use crate::runtime::handle::Handle;", &[]);
}

#[test]
fn planted_marks_and_long_lines_are_caught() {
    let (mark, placeholder, ignored) = (concat!("TO", "DO"), concat!("to", "do!()"), concat!("#[ig", "nore]"));
    check("store/x.rs", &format!("// {mark}: later"), &["unfinished"]);
    check("store/x.rs", &format!("fn f() {{ {placeholder} }}"), &["placeholder"]);
    check("store/x.rs", &format!("{ignored}\nfn f() {{}}"), &["ignored"]);
    check("store/x.rs", &format!("const A: u8 = {};", "1 + ".repeat(40)), &["more than 160 characters"]);
    check("store/x.rs", &format!("const A: &str = \"{}\";", "text ".repeat(40)), &[]);
    check("store/x.rs", &format!("// {}", "word ".repeat(40)), &["more than 160 characters"]);
    let rooms = map();
    let bare = Source::new("store/x.rs".into(), "use std::fs;\n".into(), false);
    assert!(complaints(&bare, &rooms)[0].contains("does not say what it is for"));
}
