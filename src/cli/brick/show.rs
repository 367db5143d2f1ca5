//! Bricks for people's eyes, from the API's JSON. A field that the server does not send is shown as `-`.

use serde_json::Value;

use crate::brick::backup::Summary;

const HEADINGS: [&str; 8] = ["NAME", "APP", "SIZE/MiB", "USED/MiB", "FS", "POOL", "OWNER", "HOLDER"];

/// All bricks, one a line.
pub fn table(answer: &Value) -> String {
    let bricks = answer["bricks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if bricks.is_empty() {
        return "There are no bricks.".to_owned();
    }
    let rows = bricks.iter().map(|brick| {
        let app = if brick["appExists"] == false { format!("({})", text(&brick["app"])) } else { text(&brick["app"]) };
        let fields = ["name", "", "size", "used", "fileSystem", "pool", "owner"];
        let mut row: Vec<String> = fields.iter().map(|field| text(&brick[*field])).collect();
        row[1] = app;
        row.push(holder(brick));
        row
    });
    align(&std::iter::once(HEADINGS.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

/// One brick, a line a field.
pub fn one(brick: &Value) -> String {
    let mib = |field: &str| brick[field].as_u64().map_or_else(|| "-".to_owned(), |size| format!("{size} MiB"));
    let app = text(&brick["app"]);
    let app = if brick["appExists"] == false { format!("{app} (deleted; the brick waits for it)") } else { app };
    let mut rows = vec![
        ("name", text(&brick["name"])),
        ("app", app),
        ("container path", text(&brick["containerPath"])),
        ("owner", text(&brick["owner"])),
        ("size", mib("size")),
        ("used", mib("used")),
        ("file system", format!("{}, {}", text(&brick["fileSystem"]), mib("fileSystemSize"))),
        ("pool", text(&brick["pool"])),
        ("node with the data", node(&brick["home"])),
        ("created", text(&brick["createdAt"])),
        ("last mounted", text(&brick["lastMounted"])),
        ("epoch", text(&brick["epoch"])),
        ("holder", holder(brick)),
    ];
    if brick["stuck"].is_string() {
        rows.push(("waits", text(&brick["stuck"])));
    }
    align(&rows.into_iter().map(|(field, value)| vec![format!("{field}:"), value]).collect::<Vec<_>>())
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
    if holder.is_null() { "-".to_owned() } else { format!("{} on {}", text(&holder["task"]), node(holder)) }
}

fn node(node: &Value) -> String {
    if node["host"].is_string() { text(&node["host"]) } else { text(&node["agent"]) }
}

/// Control characters never reach the terminal.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect(),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
