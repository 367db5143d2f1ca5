//! Plans as tables; most lines are Marathon's own tests (`DeploymentPlanTest`, `RootGroupTest`).

use std::sync::Arc;

use super::*;
use crate::{
    core::state::Tables,
    model::{
        app::input::{AppInput, Defaults},
        id::Owner,
        record::{AppEntry, Change, Record},
    },
};

fn path(text: &str) -> PathId {
    text.parse().unwrap()
}

fn ids(text: &str) -> Vec<PathId> {
    text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(path).collect()
}

/// What a line says of an app or a group: `/a <- /b, /c` waits for two; a name that ends in `/` is a group.
fn read(line: &str) -> (&str, Vec<PathId>) {
    let (name, dependencies) = line.split_once("<-").unwrap_or((line, ""));
    (name.trim(), ids(dependencies))
}

fn app(id: &str, dependencies: Vec<PathId>) -> App {
    let input = AppInput::read(&serde_json::json!({"cmd": "sleep", "portDefinitions": []})).unwrap();
    App { dependencies, ..input.create(&path(id), &Defaults::default()).unwrap() }
}

/// The tree that is there: apps, and groups with what they wait for.
fn tables(lines: &[&str]) -> Tables {
    let mut tables = Tables::default();
    for line in lines {
        let (name, dependencies) = read(line);
        match name.strip_suffix('/').filter(|_| name.len() > 1) {
            Some(group) => {
                let group = Group { dependencies, ..Group::plain(path(group), Owner::default_owner()) };
                tables.apply(&Change::Put(Record::Group(Arc::new(group))));
            }
            None => {
                let app = app(name, dependencies);
                let entry = AppEntry { id: app.id.clone(), owner: Owner::default_owner() };
                tables.apply(&Change::Put(Record::App(entry.into())));
                tables.apply(&Change::Put(Record::Definition(app.into())));
            }
        }
    }
    tables
}

/// The steps that lead from `now` to what is written: `+` new, `-` removed, `~` another configuration, `=` another size; a group's line replaces it.
fn plan(now: &[&str], written: &[&str]) -> Result<Vec<String>, String> {
    let tables = tables(now);
    let mut apps: Vec<(PathId, Option<App>)> = Vec::new();
    let mut groups: Vec<(PathId, Option<Group>)> = Vec::new();
    let mut planned = Vec::new();
    for line in written {
        let (sign, rest) = line.split_at(1);
        let (name, dependencies) = read(rest);
        if let Some(group) = name.strip_suffix('/') {
            groups.push((path(group), Some(Group { dependencies, ..Group::plain(path(group), Owner::default_owner()) })));
            continue;
        }
        let kind = match sign {
            "+" => ActionKind::Start,
            "-" => ActionKind::Stop,
            "~" => ActionKind::Restart,
            "=" => ActionKind::Scale,
            other => panic!("no such sign: {other}"),
        };
        apps.push((path(name), (sign != "-").then(|| app(name, dependencies))));
        let change = AppChange { app: path(name), owner: None, from: None, to: None };
        planned.push(Planned { change, kind: Some(kind), pod: false });
    }
    let apps = apps.iter().map(|(id, app)| (id, app.as_ref()));
    let origin = Origin { user: Owner::default_owner(), admin: true, client_ip: "".into(), uri: "".into() };
    let mut graph = Graph::new(&tables, &origin, apps, groups.iter().map(|(id, group)| (id, group.as_ref())));
    let told = |error: RequestError| match error {
        RequestError::Invalid(violations) => violations.into_iter().map(|one| one.text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    graph.check().map_err(told)?;
    let steps = graph.steps(&planned).map_err(told)?;
    let show = |step: &Step| {
        let actions = step.actions.iter().map(|action| format!("{} {}", action.kind.as_str().replace("Application", ""), action.app));
        actions.collect::<Vec<_>>().join(", ")
    };
    Ok(steps.iter().map(show).collect())
}

fn check(now: &[&str], written: &[&str], expected: &[&str]) {
    assert_eq!(plan(now, written).unwrap(), expected, "{now:?} {written:?}");
}

#[test]
fn a_simple_groups_apps_come_in_levels() {
    check(
        &[],
        &["+/test/database/a", "+/test/service/b <- /test/database/a", "+/test/c <- /test/database/a", "+/test/d <- /test/service/b"],
        &[
            "Start /test/database/a, Start /test/service/b, Start /test/c, Start /test/d",
            "Scale /test/database/a",
            "Scale /test/service/b, Scale /test/c",
            "Scale /test/d",
        ],
    );
}

#[test]
fn the_longest_way_decides() {
    check(
        &[],
        &["+/a <- /b, /c", "+/b <- /c", "+/c <- /d", "+/d", "+/e"],
        &["Start /a, Start /b, Start /c, Start /d, Start /e", "Scale /d, Scale /e", "Scale /c", "Scale /b", "Scale /a"],
    );
}

#[test]
fn what_is_removed_stops_first_and_what_is_new_is_marked() {
    check(
        &["/group/app", "/group/app2", "/group/app3"],
        &["-/group/app3", "~/group/app", "=/group/app2", "+/group/app4"],
        &["Stop /group/app3", "Start /group/app4", "Restart /group/app, Scale /group/app2, Scale /group/app4"],
    );
    check(&["/test/independent/app"], &["-/test/independent/app"], &["Stop /test/independent/app"]);
    check(&["/test"], &[], &[]);
}

#[test]
fn updates_follow_the_dependencies() {
    let now = ["/test/database/mongo", "/test/service/srv1", "/test/independent/app", "/test/service/to-stop <- /test/database/mongo"];
    check(
        &now[..2],
        &["~/test/database/mongo", "~/test/service/srv1 <- /test/database/mongo"],
        &["Restart /test/database/mongo", "Restart /test/service/srv1"],
    );
    check(&now[..2], &["~/test/database/mongo", "~/test/service/srv1"], &["Restart /test/database/mongo, Restart /test/service/srv1"]);
    check(
        &now,
        &[
            "-/test/service/to-stop",
            "+/test/service/to-start <- /test/service/srv1",
            "~/test/database/mongo",
            "~/test/independent/app",
            "~/test/service/srv1 <- /test/database/mongo",
        ],
        &[
            "Stop /test/service/to-stop",
            "Start /test/service/to-start",
            "Restart /test/database/mongo, Restart /test/independent/app",
            "Restart /test/service/srv1",
            "Scale /test/service/to-start",
        ],
    );
}

#[test]
fn groups_wait_for_groups_and_apps_for_either() {
    let new = ["+/db/a", "+/db/deep/b", "+/web/c", "+/web/deep/d"];
    let start = "Start /db/a, Start /db/deep/b, Start /web/c, Start /web/deep/d";
    check(&["/db/", "/web/ <- /db"], &new, &[start, "Scale /db/a, Scale /db/deep/b", "Scale /web/c, Scale /web/deep/d"]);
    check(&["/db/", "/web/deep/ <- /db"], &new, &[start, "Scale /db/a, Scale /db/deep/b, Scale /web/c", "Scale /web/deep/d"]);
    check(&["/db/", "/web/ <- /db/deep"], &new, &[start, "Scale /db/a, Scale /db/deep/b", "Scale /web/c, Scale /web/deep/d"]);
    // A group of one's own is waited for as a whole; what is not there is not waited for.
    check(
        &[],
        &["+/x <- /db, /nothing", "+/db/a", "+/db/b"],
        &["Start /x, Start /db/a, Start /db/b", "Scale /db/a, Scale /db/b", "Scale /x"],
    );
    // A group waits for no app (Marathon looks the name up among the groups).
    check(&["/web/ <- /db/a"], &["+/db/a", "+/web/c"], &["Start /db/a, Start /web/c", "Scale /db/a, Scale /web/c"]);
    // Apps that stay as they are count, but have no action.
    check(&["/a", "/b <- /a"], &["~/c <- /b", "~/a"], &["Restart /a", "Restart /c"]);
}

#[test]
fn circles_are_refused() {
    let refused = |now: &[&str], written: &[&str], names: &str| {
        let text = format!("Dependency graph has cyclic dependencies. these wait for each other: {names}");
        assert_eq!(plan(now, written).unwrap_err(), text, "{now:?} {written:?}");
    };
    refused(&[], &["+/a <- /a"], "/a");
    refused(&[], &["+/a <- /b", "+/b <- /c", "+/c <- /a"], "/a, /b, /c");
    refused(&["/a <- /b"], &["+/b <- /a"], "/b, /a");
    // An app that comes into a group which another waits for.
    refused(&["/g/", "/w <- /g"], &["+/g/z <- /w"], "/g/z, /w");
    // Groups.
    refused(&["/g/", "/h/ <- /g", "/g/a", "/h/b"], &["~/g/ <- /h"], "/g/a, /h/b");
    // Inside a group that one waits for.
    refused(&[], &["+/g/a <- /g"], "/g/a");
    check(&["/g/ <- /h", "/h/ <- /g"], &["+/g/a"], &["Start /g/a", "Scale /g/a"]);
}

#[test]
fn a_chain_has_an_end() {
    let chain = |length: usize| -> Vec<String> {
        (0..length).map(|n| format!("+/app{n:05} <- {}", if n > 0 { format!("/app{:05}", n - 1) } else { String::new() })).collect()
    };
    let of = |length: usize| plan(&[], &chain(length).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(of(MAX_LEVELS).unwrap().len(), MAX_LEVELS + 1);
    assert_eq!(of(20_000).unwrap_err(), "a chain of dependencies has at most 500 apps");
}

/// Groups of thousands of apps that wait for each other: as nodes of their own, not as an edge for each pair.
#[test]
fn large_groups_cost_what_is_in_them() {
    let apps: Vec<String> = (0..4000).flat_map(|n| [format!("+/db/a{n}"), format!("+/web/a{n}")]).collect();
    let steps = plan(&["/db/", "/web/ <- /db"], &apps.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(steps.len(), 3);
    assert!(steps[1].starts_with("Scale /db/a0, ") && !steps[1].contains("/web/"));
}
