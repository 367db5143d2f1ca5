//! Reads Marathon's group JSON (`GroupUpdate`): types, and what may not stand beside what. What it means for the tree that is there, `core` decides.
//!
//! Facts (Marathon 1.11): ids are relative to the enclosing group; each app is a whole definition; an absent key keeps what is there, a present one
//! replaces it; `version` and `scaleBy` stand alone; `pods` is no key of it, because pods are read-only here.

use serde_json::Value;

use crate::model::{
    app::input::{
        AppInput,
        reader::{Reader, Violations},
    },
    id::PathId,
    request::Violation,
    time::Timestamp,
};

/// What is listed at most of what is wrong; a longer list helps nobody.
const MAX_VIOLATIONS: usize = 100;

/// Groups that one group waits for, and apps that one app waits for.
pub const MAX_DEPENDENCIES: usize = 1000;

/// Group JSON whose types are right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupInput {
    /// As written, relative to the enclosing group; `None`: the group that the path names.
    pub id: Option<String>,
    /// The group's own apps; `None`: they stay as they are.
    pub apps: Option<Vec<AppInput>>,
    /// The groups directly in it; `None`: they stay as they are.
    pub groups: Option<Vec<GroupInput>>,
    /// As written; `None`: they stay as they are.
    pub dependencies: Option<Vec<String>>,
    /// Every app below gets this many times its instances, rounded up.
    pub scale_by: Option<f64>,
    /// The group goes back to what it was in this version of the root.
    pub version: Option<Timestamp>,
    /// The apps below a top-level group have its name as their role.
    pub enforce_role: Option<bool>,
}

impl GroupInput {
    /// Checks the types of `value`. Unknown keys are ignored; null is as good as absent.
    ///
    /// # Errors
    /// Wrong types: Marathon's "Invalid JSON".
    pub fn read(value: &Value) -> Result<Self, Vec<Violation>> {
        let violations = Violations::default();
        let mut apps = Vec::new();
        let input = read(&Reader::root(value, &violations), &mut apps);
        let mut violations = violations.into_list();
        violations.extend(apps);
        violations.truncate(MAX_VIOLATIONS);
        match input {
            Some(input) if violations.is_empty() => Ok(input),
            _ => Err(violations),
        }
    }

    /// Which group this is about, written in `base`.
    ///
    /// # Errors
    /// The id is none.
    pub fn resolve(&self, base: &PathId) -> Result<PathId, Vec<Violation>> {
        let Some(id) = &self.id else { return Ok(base.clone()) };
        PathId::resolve(id, base).map_err(|error| vec![Violation::new("/id", error.to_string())])
    }

    /// That it does not contradict itself; `id` is the group that it is about.
    ///
    /// # Errors
    /// Marathon's "Object is not valid".
    pub fn check(&self, id: &PathId) -> Result<(), Vec<Violation>> {
        let mut found = Vec::new();
        self.check_into(id, "", &mut found);
        found.truncate(MAX_VIOLATIONS);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn check_into(&self, id: &PathId, at: &str, found: &mut Vec<Violation>) {
        let mut add = |path: &str, text: String| found.push(Violation::new(format!("{at}{path}"), text));
        for (alone, name) in [(self.version.is_some(), "/version"), (self.scale_by.is_some(), "/scaleBy")] {
            if alone && self.keys() > 1 {
                add(name, "not allowed in conjunction with other properties.".into());
            }
        }
        if self.enforce_role == Some(true) && !is_top_level(id) {
            add("/enforceRole", format!("enforceRole can only be set for top-level groups, and {id} is not top-level"));
        }
        let dependencies = self.dependencies.iter().flatten();
        for (index, text) in dependencies.enumerate().filter_map(|(index, one)| Some((index, PathId::resolve(one, id).err()?))) {
            add(&format!("/dependencies({index})"), text.to_string());
        }
        if self.dependencies.as_ref().is_some_and(|all| all.len() > MAX_DEPENDENCIES) {
            add("/dependencies", format!("must have at most {MAX_DEPENDENCIES} entries"));
        }
        for (index, group) in self.groups.iter().flatten().enumerate() {
            let at = format!("{at}/groups({index})");
            match group.resolve(id) {
                Ok(_) if group.id.is_none() => found.push(Violation::new(format!("{at}/id"), "error.path.missing")),
                Ok(child) if child.is_root() || child.parent() != *id => {
                    found.push(Violation::new(format!("{at}/id"), format!("Identifier is not child of '{id}'")));
                }
                Ok(child) => group.check_into(&child, &at, found),
                Err(errors) => {
                    found.extend(errors.into_iter().map(|one| Violation { path: format!("{at}{}", one.path), ..one }));
                }
            }
        }
    }

    /// How many of Marathon's keys were written.
    fn keys(&self) -> usize {
        let written = [
            self.id.is_some(),
            self.apps.is_some(),
            self.groups.is_some(),
            self.dependencies.is_some(),
            self.scale_by.is_some(),
            self.version.is_some(),
            self.enforce_role.is_some(),
        ];
        written.into_iter().filter(|written| *written).count()
    }

    /// True when carrying it out changes apps or which there are (Marathon's test, which looks only at what is written).
    pub fn changes_apps(&self) -> bool {
        self.version.is_some() || self.scale_by.is_some() || self.apps.is_some() || self.groups.iter().flatten().any(Self::changes_apps)
    }
}

/// True for a group directly below the root.
pub fn is_top_level(id: &PathId) -> bool {
    id.segments().count() == 1
}

fn read<'a>(group: &Reader<'a>, of_apps: &mut Vec<Violation>) -> Option<GroupInput> {
    if !group.is_object() {
        return None;
    }
    let mut input = GroupInput {
        id: group.get("id").and_then(|id| id.path_id()),
        dependencies: group.get("dependencies").and_then(|dependencies| dependencies.list(Reader::text)),
        scale_by: group.get("scaleBy").and_then(|scale| scale.number(0.0)),
        version: group.get("version").and_then(|version| {
            let read = version.text()?.parse().ok();
            if read.is_none() {
                version.reject("error.expected.date.isoformat");
            }
            read
        }),
        enforce_role: group.get("enforceRole").and_then(|enforce| enforce.boolean()),
        ..GroupInput::default()
    };
    if let Some(apps) = group.get("apps") {
        let mut read = Vec::new();
        for app in apps.items()? {
            match AppInput::read(app.value()) {
                Ok(input) if input.id().is_none() => {
                    of_apps.push(Violation::new(format!("{}/id", app.path()), "error.path.missing"));
                }
                Ok(input) => read.push(input),
                Err(violations) if of_apps.len() < MAX_VIOLATIONS => {
                    let beneath = |one: Violation| Violation { path: beneath(app.path(), &one.path), text: one.text };
                    of_apps.extend(violations.into_iter().map(beneath));
                }
                Err(_) => {}
            }
        }
        input.apps = Some(read);
    }
    if let Some(groups) = group.get("groups") {
        // As deep as the reader of JSON lets it be.
        input.groups = Some(groups.items()?.iter().filter_map(|group| read_nested(group, of_apps)).collect());
    }
    Some(input)
}

fn read_nested<'a>(group: &Reader<'a>, of_apps: &mut Vec<Violation>) -> Option<GroupInput> {
    read(group, of_apps)
}

/// `path` of an element that stands at `at`.
pub fn beneath(at: &str, path: &str) -> String {
    let at = if at == "/" { "" } else { at };
    if path == "/" && !at.is_empty() { at.to_owned() } else { format!("{at}{path}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is wrong with `body`, written to `/v2/groups{path}`; one line each.
    fn check(path: &str, body: Value, expected: &[&str]) {
        let base: PathId = path.parse().unwrap();
        let checked = GroupInput::read(&body).and_then(|input| input.check(&input.resolve(&base)?));
        let found: Vec<String> = checked.err().unwrap_or_default().iter().map(|one| format!("{}: {}", one.path, one.text)).collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn what_is_wrong_is_told_where_it_stands() {
        check("/", json!({"id": "/shop", "apps": [{"id": "web", "cmd": "x"}], "groups": [{"id": "db", "apps": []}]}), &[]);
        check("/", json!([]), &["/: error.expected.jsobject"]);
        check("/", json!({"apps": {}, "scaleBy": -1}), &["/scaleBy: error.min", "/apps: error.expected.jsarray"]);
        check("/", json!({"id": 1, "enforceRole": 1}), &["/id: error.expected.jsstring", "/enforceRole: error.expected.jsboolean"]);
        check("/", json!({"version": "yesterday"}), &["/version: error.expected.date.isoformat"]);
        check(
            "/",
            json!({"id": "/a", "apps": [{"cmd": "x"}, {"id": "b", "cpus": "x"}]}),
            &["/apps(0)/id: error.path.missing", "/apps(1)/cpus: error.expected.jsnumber"],
        );
        check("/", json!({"id": "/a", "groups": [{"groups": [1]}]}), &["/groups(0)/groups(0): error.expected.jsobject"]);
        check("/", json!({"id": "/a", "groups": [{"apps": []}]}), &["/groups(0)/id: error.path.missing"]);
        check(
            "/a",
            json!({"groups": [{"id": "/b"}, {"id": "b/c"}]}),
            &["/groups(0)/id: Identifier is not child of '/a'", "/groups(1)/id: Identifier is not child of '/a'"],
        );
        check("/a", json!({"groups": [{"id": "b", "groups": [{"id": "B"}]}]}), &["/groups(0)/groups(0)/id: error.pattern"]);
        check("/a", json!({"version": "2020-01-31T12:00:00.000Z"}), &[]);
        let alone = "not allowed in conjunction with other properties.";
        check(
            "/a",
            json!({"version": "2020-01-31T12:00:00.000Z", "scaleBy": 2}),
            &[&format!("/version: {alone}"), &format!("/scaleBy: {alone}")],
        );
        check("/a", json!({"scaleBy": 2, "id": "/a"}), &[&format!("/scaleBy: {alone}")]);
        check("/a", json!({"enforceRole": true}), &[]);
        check(
            "/a/b",
            json!({"enforceRole": true}),
            &["/enforceRole: enforceRole can only be set for top-level groups, and /a/b is not top-level"],
        );
        // They are changed by routes of their own, and stay.
        check("/a", json!({"pods": [{"id": "x"}]}), &[]);
        check("/a", json!({"pods": [], "dependencies": ["../b", "c"]}), &[]);
    }

    #[test]
    fn an_id_is_read_in_the_group_of_the_path() {
        let check = |path: &str, id: Value, expected: &str| {
            let input = GroupInput::read(&json!({ "id": id })).unwrap();
            assert_eq!(input.resolve(&path.parse().unwrap()).unwrap().as_str(), expected);
        };
        check("/", json!("shop"), "/shop");
        check("/shop", json!("db"), "/shop/db");
        check("/shop", json!("/shop"), "/shop");
        check("/shop", json!(null), "/shop");
    }
}
