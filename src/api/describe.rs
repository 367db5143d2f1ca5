//! What the API is, described in one place: OpenAPI 3.1 for programs (`/v2/openapi.json`) and a page for people (`/help`).
//!
//! The description is text ([`text`]), one file an area, because most bodies are made field by field and have no type of their own that could be asked. That
//! it says what the routes do is checked where these answer: in the tests every answer of ours is held against it ([`check`]), in the shape of its body to
//! the last field, so that neither a route nor a status nor a field can be missing here; and whatever is described is asked for.

use std::sync::LazyLock;

use serde_json::Value;

#[cfg(test)]
pub mod check;
mod document;
#[cfg(test)]
mod hold;
mod page;
mod text;

/// The files, in the order in which they are shown.
const FILES: [&str; 4] = [
    include_str!("describe/apps.txt"),
    include_str!("describe/pods.txt"),
    include_str!("describe/platform.txt"),
    include_str!("describe/system.txt"),
];

/// Both forms as they are sent: made once, when they are first asked for.
pub static PUBLISHED: LazyLock<Published> = LazyLock::new(|| {
    // That the files can be read is tested.
    let description = text::read(FILES).unwrap_or_default();
    let document = document::document(&description);
    Published { page: page::page(&description, &document), document }
});

/// The description, ready to be sent.
pub struct Published {
    /// OpenAPI 3.1.
    pub document: Value,
    /// HTML without anything from elsewhere.
    pub page: String,
}
