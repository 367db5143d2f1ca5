//! The driver loop and what hangs on it: the inbox, the snapshot for readers, the fan-out of what was committed, the handle for callers.

pub mod batch;
pub mod clock;
pub mod driver;
pub mod handle;
pub mod inbox;
mod metering;
pub mod node;
