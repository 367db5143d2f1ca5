//! `xtao audit`: who changed what, and who logged in, as a table. Through the administrators' socket of the server in `--work_dir`; of a stopped server,
//! out of that directory.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, Role, encode},
    program, table, terminal,
};
use crate::{
    audit::{self, Query},
    model::time::Timestamp,
};

/// Who changed what, and who logged in.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "For administrators: root, and the members of the group 'xtao'; when the server is stopped, whoever may read its directory. The log itself \
    is there in the directory 'audit', as JSON lines, 10 files of 16 MiB.\n\nExamples:\n  xtao audit --user zmfsea --since 2h\n  xtao audit --since 2026-05-28T20:26:40Z --limit 1000 -j"
)]
pub struct Arguments {
    /// Of this user only
    #[arg(long)]
    user: Option<String>,
    /// Not before this: a time such as 2026-05-28T20:26:40Z, or how long ago, such as 90s, 30m, 2h or 7d
    #[arg(long, value_parser = since)]
    since: Option<Since>,
    /// The newest so many, at most 10000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print JSON, as the API answers it
    #[arg(short, long)]
    json: bool,
    #[command(flatten)]
    place: program::Place,
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    /// Seconds.
    Ago(u32),
}

/// Why there is nothing to be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the server says, or that there is none.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No server answers, and the files cannot be read either.
    #[error("no server answers, and its audit log in {directory} cannot be read without one: {reason}")]
    Offline {
        /// Where it is.
        directory: String,
        /// Why not.
        reason: io::Error,
    },
}

/// Runs the command.
///
/// # Errors
/// The server says no; or none answers, and the log cannot be read where it is.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let answer = look_up(&arguments, Timestamp(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))).await?;
    terminal::say(&if arguments.json { format!("{answer:#}") } else { screen(&answer) });
    Ok(())
}

async fn look_up(arguments: &Arguments, now: Timestamp) -> Result<Value, Error> {
    let work_dir = &arguments.place.work_dir;
    match Client::on_node(work_dir, Role::Admin) {
        Ok(server) => {
            let answer = server.call(Method::GET, &path(arguments, now), None).await;
            Ok(answer.map_err(ClientError::to_administrators)?)
        }
        Err(error @ ClientError::NoServer { .. }) => {
            let directory = work_dir.join(audit::DIRECTORY);
            // Where nobody has served there is nothing to be read: an empty log would be an untrue answer.
            if std::fs::metadata(&directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                return Err(error.into());
            }
            let entries = std::fs::read_dir(&directory).and_then(|_| audit::read(&directory, &query(arguments, now)));
            let offline = |reason| Error::Offline { directory: directory.display().to_string(), reason };
            Ok(json!({ "entries": entries.map_err(offline)? }))
        }
        Err(error) => Err(error.into()),
    }
}

fn query(arguments: &Arguments, now: Timestamp) -> Query {
    let since = arguments.since.map(|since| match since {
        Since::At(at) => at,
        Since::Ago(seconds) => Timestamp(now.0 - i64::from(seconds) * 1000),
    });
    Query { user: arguments.user.clone(), since, limit: arguments.limit as usize }
}

fn path(arguments: &Arguments, now: Timestamp) -> String {
    let Query { user, since, limit } = query(arguments, now);
    let mut path = format!("/v2/audit?limit={limit}");
    if let Some(user) = user {
        path += &format!("&user={}", encode(&user));
    }
    if let Some(since) = since {
        path += &format!("&since={}", encode(&since.to_string()));
    }
    path
}

fn since(text: &str) -> Result<Since, String> {
    let ago = text.char_indices().next_back().and_then(|(at, unit)| {
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        text[..at].parse::<u32>().ok()?.checked_mul(seconds)
    });
    match ago {
        Some(seconds) => Ok(Since::Ago(seconds)),
        None => text.parse().map(Since::At).map_err(|_| format!("'{text}' is neither a time nor a duration such as 90s, 30m, 2h or 7d")),
    }
}

const HEADINGS: [&str; 6] = ["TIME", "USER", "FROM", "WHAT", "OF", "RESULT"];

/// One line an entry, oldest first.
fn screen(answer: &Value) -> String {
    match answer["entries"].as_array().map(Vec::as_slice) {
        None | Some([]) => "There is nothing of that in the audit log.".to_owned(),
        Some(entries) => table::table(&HEADINGS, entries.iter().map(row)),
    }
}

fn row(entry: &Value) -> Vec<String> {
    let text = |name: &str| table::cell(&entry[name]);
    let user = format!("{}{}", text("user"), if entry["admin"] == true { " (admin)" } else { "" });
    let (what, of, result) = if entry["kind"] == "login" {
        ("login".to_owned(), String::new(), entry["refused"].as_str().map_or_else(|| "let in".to_owned(), table::printable))
    } else {
        let of = entry["of"].as_array().into_iter().flatten().map(table::cell).collect::<Vec<_>>().join(" ");
        let status = entry["status"].as_u64().map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let deployment = entry["deployment"].as_str().map_or_else(String::new, |id| format!(" deployment {}", table::printable(id)));
        (format!("{} {}", text("method"), text("path")), of, format!("{status}{deployment}"))
    };
    vec![text("time"), user, text("from"), what, of, result]
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn asked(line: &str) -> String {
        match Cli::try_parse_from(std::iter::once("audit").chain(line.split_whitespace())) {
            Ok(cli) => path(&cli.arguments, Timestamp(1_600_000_000_000)),
            Err(error) => error.to_string().lines().next().unwrap().to_owned(),
        }
    }

    #[test]
    fn options_become_a_query() {
        let check = |line: &str, expected: &str| assert_eq!(asked(line), expected, "{line}");
        check("", "/v2/audit?limit=100");
        check("--user a&b --limit 5", "/v2/audit?limit=5&user=a%26b");
        check("--since 2h", "/v2/audit?limit=100&since=2020-09-13T10%3A26%3A40.000Z");
        check("--since 2026-05-28T20:26:40Z", "/v2/audit?limit=100&since=2026-05-28T20%3A26%3A40.000Z");
        for bad in ["yesterday", "2y", "h", "-1h", "99999999999d"] {
            let said = asked(&format!("--since={bad}"));
            assert!(said.contains(&format!("'{bad}' is neither a time nor a duration")), "{said}");
        }
        assert!(asked("--limit 0").contains("0 is not in 1..=10000"), "{}", asked("--limit 0"));
    }

    #[tokio::test]
    async fn a_stopped_servers_log_is_read_where_it_is() {
        let work_dir = tempfile::tempdir().unwrap();
        let look = async |line: &str| {
            let line = format!("audit {line} --work_dir {}", work_dir.path().display());
            let arguments = Cli::try_parse_from(line.split_whitespace()).unwrap().arguments;
            look_up(&arguments, Timestamp(1_600_000_000_000)).await.map_err(|error| error.to_string())
        };
        let error = look("").await.unwrap_err();
        assert!(error.contains("no server answers on") && error.contains("xtao.sock"), "{error}");
        let audit = work_dir.path().join(audit::DIRECTORY);
        std::fs::create_dir(&audit).unwrap();
        assert_eq!(look("").await.unwrap(), json!({ "entries": [] }));
        let login = |time: &str, user: &str| json!({ "time": time, "user": user, "kind": "login" });
        let lines =
            [login("2020-09-13T10:00:00.000Z", "ann"), login("2020-09-13T12:00:00.000Z", "bob"), login("2020-09-13T12:01:00.000Z", "ann")];
        std::fs::write(audit.join("audit.jsonl"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        assert_eq!(look("").await.unwrap(), json!({ "entries": lines }));
        assert_eq!(look("--user ann --since 2h").await.unwrap(), json!({ "entries": [lines[2]] }));
        assert_eq!(look("--limit 1").await.unwrap(), json!({ "entries": [lines[2]] }));
        // What is there and is no log is said, and not taken for an empty one.
        std::fs::remove_dir_all(&audit).unwrap();
        std::fs::write(&audit, "").unwrap();
        let error = look("").await.unwrap_err();
        assert!(error.contains("its audit log in") && error.contains("cannot be read without one"), "{error}");
    }

    #[test]
    fn the_log_is_a_table() {
        let entries = json!({ "entries": [
            { "time": "2026-05-28T20:26:40.123Z", "user": "root", "admin": true, "from": "uid 0", "kind": "change", "method": "PUT",
              "path": "/v2/auth/users/zmfsea", "of": ["user zmfsea"], "status": 200 },
            { "time": "2026-05-28T20:26:41.000Z", "user": "zmfsea", "admin": false, "from": "192.0.2.7", "kind": "login" },
            { "time": "2026-05-28T20:26:42.000Z", "user": "zmfsea", "admin": false, "from": "192.0.2.7", "kind": "change", "method": "POST",
              "path": "/v2/apps", "of": ["/testdb"], "status": 201, "deployment": "867ed450-f6a8-4d33-9b0e-e11c5513990b" },
            { "time": "2026-05-28T20:26:43.000Z", "user": "\u{1b}[2Jx", "admin": false, "from": "192.0.2.8", "kind": "login",
              "refused": "wrong user or password" },
            { "time": "2026-05-28T20:26:44.000Z", "user": "ann", "admin": false, "from": "uid 1001", "kind": "change", "method": "DELETE",
              "path": "/v2/apps/testdb", "of": ["/testdb"] },
        ] });
        insta::assert_snapshot!(screen(&entries));
        assert_eq!(screen(&json!({ "entries": [] })), "There is nothing of that in the audit log.");
    }
}
