use serde_json::json;

use super::*;
use crate::cli::program::Failure as _;

#[test]
fn the_command_line_is_sound_and_its_help_teaches() {
    command().debug_assert();
    let help = command().render_help().to_string();
    for word in ["push", "list", "show", "rm", "pull", "completion", "docker save", "Exit codes"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[test]
fn lists_and_images_are_tables() {
    let list = json!({ "images": [
        { "name": "anna", "owner": "library", "tags": ["latest"] },
        { "name": "zmfsea/cmp-postgresql", "owner": "zmfsea", "tags": ["1", "latest\u{1b}[2J"] },
    ] });
    assert_eq!(
        show::list(&list),
        "NAME                   OWNER    TAGS\nanna                   library  latest\nzmfsea/cmp-postgresql  zmfsea   1 latest?[2J"
    );
    assert_eq!(show::list(&json!({ "images": [] })), "no images; imgcli push FILE sends one");
    let one = json!({ "name": "anna", "owner": "library", "tags": [
        { "tag": "latest", "digest": format!("sha256:{}", "0a".repeat(32)), "size": 123_456_789, "layers": 1, "created": "2026-01-31T12:00:00.5Z", "architecture": "amd64" },
        { "tag": "old", "digest": "x", "size": null, "layers": 0, "created": null, "architecture": null },
    ] });
    assert_eq!(
        show::one(&one),
        "NAME         DIGEST        SIZE       LAYERS  MACHINE  CREATED\n\
         anna:latest  0a0a0a0a0a0a  117.7 MiB  1       amd64    2026-01-31T12:00:00\n\
         anna:old                   -          0       -        -"
    );
}

#[test]
fn words_that_mean_nothing_are_refused() {
    let check = |line: &str, expected: u8| {
        let words = line.split(' ').map(str::to_owned);
        assert_eq!(
            program::parse::<Cli, Error>(words).map(|_| ()).map_err(|error| error.exit_code()),
            if expected == 0 { Ok(()) } else { Err(expected) },
            "{line}"
        );
    };
    check("imgcli push x.tar", 0);
    check("imgcli -d compute1 --user zmfsea push --name zmfsea/a,zmfsea/b x.tar", 0);
    check("imgcli push", 2);
    check("imgcli pull anna", 2);
    check("imgcli fly", 2);
}
