//! What people read: tables out of the API's JSON.

use serde_json::Value;

use crate::cli::table::{cell, table};

const MIB: f64 = 1024.0 * 1024.0;

/// `GET /v2/images`
pub(super) fn list(answer: &Value) -> String {
    let images = answer["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    if images.is_empty() {
        return "no images; imgcli push FILE sends one".to_owned();
    }
    let tags = |image: &Value| image["tags"].as_array().into_iter().flatten().map(cell).collect::<Vec<_>>().join(" ");
    table(&["NAME", "OWNER", "TAGS"], images.iter().map(|image| vec![cell(&image["name"]), cell(&image["owner"]), tags(image)]))
}

/// `GET /v2/images/{name}`
pub(super) fn one(answer: &Value) -> String {
    let rows = answer["tags"].as_array().into_iter().flatten().map(|tag| {
        let digest: String = cell(&tag["digest"]).chars().skip("sha256:".len()).take(12).collect();
        let created: String = cell(&tag["created"]).chars().take("2026-01-31T12:00:00".len()).collect();
        let name = format!("{}:{}", cell(&answer["name"]), cell(&tag["tag"]));
        vec![name, digest, size(&tag["size"]), cell(&tag["layers"]), cell(&tag["architecture"]), created]
    });
    table(&["NAME", "DIGEST", "SIZE", "LAYERS", "MACHINE", "CREATED"], rows)
}

fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), mib)
}

/// `12.3 MiB`
pub(super) fn mib(bytes: u64) -> String {
    // A figure for people: what a float cannot hold does not matter.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let number = bytes as f64 / MIB;
    format!("{number:.1} MiB")
}
