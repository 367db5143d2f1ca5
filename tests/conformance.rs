//! Marathon's API, line by line: the tables in `tests/conformance/*.txt` against a server, and against the list of what the reference says
//! (`tests/conformance/list`). How they are written: [`table`].

mod cluster;
#[path = "../src/api/describe/hold.rs"]
mod hold;
mod run;
mod table;

use std::{collections::BTreeSet, path::Path};

use futures_util::{StreamExt, stream};

/// Servers at once.
const AT_ONCE: usize = 4;

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance"))
}

fn cases() -> Vec<table::Case> {
    let mut files: Vec<_> = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty());
    let read =
        |path: &std::path::PathBuf| table::read(&path.file_name().unwrap().to_string_lossy(), &std::fs::read_to_string(path).unwrap());
    files.iter().flat_map(read).collect()
}

/// What the reference says, and whether there is nothing like it here.
fn items() -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(directory().join("list")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let item = |line: &str| {
        let (absent, line) = line.strip_prefix("- ").map_or((false, line), |line| (true, line));
        let (name, said) = line.split_once("  ").unwrap_or_else(|| panic!("{line}: what does it say?"));
        assert!(!said.trim().is_empty(), "{line}");
        (name.to_owned(), absent)
    };
    lines.map(item).collect()
}

#[tokio::test]
async fn every_line_of_the_tables_holds() {
    let cases = cases();
    let outcomes = stream::iter(&cases).map(|case| async move { run::run(case).await.map_err(|error| format!("{}: {error}", case.name)) });
    let failed: Vec<String> = outcomes.buffer_unordered(AT_ONCE).filter_map(async |outcome| outcome.err()).collect().await;
    assert!(failed.is_empty(), "{} of {} do not hold:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn the_tables_cover_the_list_and_nothing_else() {
    let items = items();
    let names: BTreeSet<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), items.len(), "an item is listed twice");
    let cases = cases();
    let covered: BTreeSet<&str> = cases.iter().flat_map(|case| &case.covers).map(String::as_str).collect();
    let unknown: Vec<_> = covered.difference(&names).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
    let missing: Vec<_> = items.iter().filter(|(name, absent)| !absent && !covered.contains(name.as_str())).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "nothing covers {missing:?}");
    let found: Vec<_> = items.iter().filter(|(name, absent)| *absent && covered.contains(name.as_str())).map(|(name, _)| name).collect();
    assert!(found.is_empty(), "listed as absent, and covered: {found:?}");
    assert!(cases.iter().all(|case| !case.covers.is_empty()), "a case covers nothing");
    let complete: BTreeSet<String> =
        cases.iter().flat_map(table::Case::events).filter(|event| event.only).map(|event| format!("event/{}", event.kind)).collect();
    let is_type = |name: &str| name.starts_with("event/") && name.contains('_');
    let parts: Vec<_> = items.iter().filter(|(name, absent)| !absent && is_type(name) && !complete.contains(name)).collect();
    assert!(parts.is_empty(), "nowhere with all its fields: {parts:?}");
}
