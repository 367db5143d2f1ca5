//! `@PORT` in the environment. The parser lives with the plain data, because reading an app's JSON needs it for a default.

pub use crate::model::port::token::{substitute, tokens};
