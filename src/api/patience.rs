//! Which connections may be silent. The accept loop closes one on which nothing moves; whoever follows a quiet output, talks to a quiet command, or
//! waits for a backup holds its [`Patience`] meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A connection's: held by any number of exchanges at once.
#[derive(Clone, Debug, Default)]
pub struct Patience(Arc<AtomicUsize>);

/// The connection may be silent until this is dropped.
#[derive(Debug)]
pub struct Hold(Patience);

impl Patience {
    /// From now on, and until the hold is dropped.
    pub fn hold(&self) -> Hold {
        self.0.fetch_add(1, Ordering::Relaxed);
        Hold(self.clone())
    }

    /// True while somebody holds it.
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
