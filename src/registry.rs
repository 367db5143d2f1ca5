//! Images: archives of `docker save`, and the platform's registry.

pub mod archive;
pub mod tar;
