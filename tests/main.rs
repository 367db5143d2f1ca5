//! What needs the real parts: servers over real connections, the programs, Docker daemons, the registry. One program, so that it is linked once.

mod api;
mod auth;
mod compute;
mod conformance;
mod engine;
mod images;
mod pods;
mod tasks;

/// What several of them use.
mod support {
    pub mod docker;
    pub mod rig;
}
