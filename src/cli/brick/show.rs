//! Bricks for people's eyes, from the API's JSON. A field that the server does not send is shown as `-`.

use serde_json::Value;

use crate::{
    brick::backup::Summary,
    cli::table::{self, cell},
};

const HEADINGS: [&str; 8] = ["NAME", "APP", "SIZE/MiB", "USED/MiB", "FS", "POOL", "OWNER", "HOLDER"];

/// All bricks, one a line.
pub fn table(answer: &Value) -> String {
    let bricks = answer["bricks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if bricks.is_empty() {
        return "There are no bricks.".to_owned();
    }
    let rows = bricks.iter().map(|brick| {
        let app = if brick["appExists"] == false { format!("({})", cell(&brick["app"])) } else { cell(&brick["app"]) };
        let fields = ["name", "", "size", "used", "fileSystem", "pool", "owner"];
        let mut row: Vec<String> = fields.iter().map(|field| cell(&brick[*field])).collect();
        row[1] = app;
        row.push(holder(brick));
        row
    });
    table::table(&HEADINGS, rows)
}

/// One brick, a line a field.
pub fn one(brick: &Value) -> String {
    let mib = |field: &str| brick[field].as_u64().map_or_else(|| "-".to_owned(), |size| format!("{size} MiB"));
    let app = cell(&brick["app"]);
    let app = if brick["appExists"] == false { format!("{app} (deleted; the brick waits for it)") } else { app };
    let mut rows = vec![
        ("name", cell(&brick["name"])),
        ("app", app),
        ("container path", cell(&brick["containerPath"])),
        ("owner", cell(&brick["owner"])),
        ("size", mib("size")),
        ("used", mib("used")),
        ("file system", format!("{}, {}", cell(&brick["fileSystem"]), mib("fileSystemSize"))),
        ("pool", cell(&brick["pool"])),
        ("node with the data", node(&brick["home"])),
        ("created", cell(&brick["createdAt"])),
        ("last mounted", cell(&brick["lastMounted"])),
        ("epoch", cell(&brick["epoch"])),
        ("holder", holder(brick)),
    ];
    if brick["stuck"].is_string() {
        rows.push(("waits", cell(&brick["stuck"])));
    }
    table::fields(rows)
}

/// What a backup says of itself.
pub fn backup(file: &str, found: &Summary) -> String {
    let header = &found.header;
    format!(
        "{file} is whole: brick '{}' of {} MiB ({}) at {}, {} MiB of data",
        header.brick,
        header.size / super::MIB,
        header.file_system.as_str(),
        header.created_at,
        found.data.div_ceil(super::MIB)
    )
}

fn holder(brick: &Value) -> String {
    let holder = &brick["holder"];
    if holder.is_null() { "-".to_owned() } else { format!("{} on {}", cell(&holder["task"]), node(holder)) }
}

fn node(node: &Value) -> String {
    if node["host"].is_string() { cell(&node["host"]) } else { cell(&node["agent"]) }
}
