//! Tables for people's eyes, out of JSON. Pure. What is missing is a `-`; control characters, which another user may have written, never reach the
//! terminal.

use serde_json::Value;

/// A text, number or flag as a cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        _ => "-".to_owned(),
    }
}

/// The text without what moves a cursor or changes a colour.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// Headings and rows, in columns.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    align(&std::iter::once(headings).chain(rows).collect::<Vec<_>>())
}

/// One thing, a line a field.
pub fn fields(fields: impl IntoIterator<Item = (&'static str, String)>) -> String {
    align(&fields.into_iter().map(|(field, value)| vec![format!("{field}:"), value]).collect::<Vec<_>>())
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (cell, width) in row.iter().zip(&mut widths) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
