//! What the program says of itself, and what it makes of words.

use super::*;

fn words(line: &str) -> impl Iterator<Item = String> {
    std::iter::once(NAME.to_owned()).chain(crate::cli::words::split(line).unwrap())
}

/// What clap says, or `fine`.
fn check(line: &str) -> String {
    match parse(words(line)) {
        Ok(_) => "fine".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_grammar_is_consistent() {
    command().debug_assert();
    shell::grammar().debug_assert();
}

#[test]
fn help_teaches() {
    for (name, line) in [
        ("help", "--help"),
        ("help_service", "mgmt service -h"),
        ("help_service_again", "help mgmt service"),
        ("help_logs", "mgmt service logs --help"),
        ("help_brick", "mgmt brick --help"),
        ("help_backup", "mgmt brick backup --help"),
        ("help_quota", "mgmt user quota -h"),
    ] {
        insta::assert_snapshot!(name, check(line));
    }
}

#[test]
fn options_stand_where_people_write_them() {
    for line in [
        "",
        "-c",
        "-c mgmt service list",
        "mgmt service list -j",
        "-j mgmt service list",
        "mgmt -j service list",
        "mgmt service -j list",
        "mgmt service -y destroy web",
        "mgmt service destroy web -y",
        "-d compute1 mgmt node list",
        "mgmt node list -d compute1",
        "mgmt node list -d",
        "mgmt service --id x -d",
        "mgmt service --id x -j -y -d node1:8080",
        "mgmt service exec web -- sh -c 'exit 3'",
        "mgmt service exec --task t web -- ls -l",
        "mgmt service events",
    ] {
        assert_eq!(check(line), "fine", "{line}");
    }
}

#[test]
fn wrong_words_are_named() {
    let lines = [
        "mgmt",
        "mgmt servic list",
        "mgmt service lst",
        "mgmt service --imag x",
        "mgmt service show",
        "mgmt service scale web",
        "mgmt service exec web ls",
        "mgmt service logs web --tail x",
        "mgmt port release http",
        "mgmt brick backup db",
        "--nod",
    ];
    let found: Vec<String> = lines.iter().map(|line| format!("$ {line}\n{}", check(line))).collect();
    insta::assert_snapshot!("wrong_words", found.join("\n"));
}

#[test]
fn json_has_four_blanks() {
    assert_eq!(json(&serde_json::json!({"a": [1]})), "{\n    \"a\": [\n        1\n    ]\n}");
}
