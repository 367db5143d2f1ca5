//! Who runs the tasks: the embedded Docker engine (and, later, Mesos), behind the two enums of [`crate::model::cluster`].

pub mod engine;
