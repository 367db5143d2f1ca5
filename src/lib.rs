//! xtao: a container service platform. Marathon's API on the outside, one pure core on the inside.
//!
//! # The house
//!
//! One process. Inputs (API requests, cluster events, ticks) go through one loop that owns the state:
//!
//! ```text
//!  api ──Request──▶ ┌─────────────────────── runtime::driver ───────────────────────┐
//!  cluster ─Event─▶ │ drain a batch ▶ core::step each ▶ one durable commit (store)   │
//!  clock ───Tick──▶ │ ▶ publish snapshot and events ▶ send calls ▶ answer callers    │──Call──▶ cluster (engine, Mesos, sim)
//!                   └───────────────────────────────────────────────────────────────┘
//!                                  │ snapshot, events
//!                                  ▼
//!                         api (reads), naming, probe (checks the tasks, and sends what it finds as events)
//! ```
//!
//! | room | what it is | may import |
//! | --- | --- | --- |
//! | [`model`] | plain data: ids, definitions, records, the seam's two enums, Marathon's app JSON | nothing |
//! | [`core`] | PURE: `step(state, input, ctx) -> frame`; instance table, launch queue, matcher, deployments, allotment | `model` |
//! | [`runtime`] | the driver loop, snapshot, fan-out to readers | `model`, `core`, `store` (its trait), `metrics` |
//! | [`store`] | durable records: fjall in the work directory, memory for tests, versioned codec | `model` |
//! | [`cluster`] | who runs the tasks: the embedded Docker engine | `model`, `brick`, `registry` |
//! | [`brick`] | storage on this machine: pools, mounts, fences | `model` |
//! | [`registry`] | images: archives, the platform's registry, who may do what there, the way in for Docker | `model` |
//! | [`metrics`] | what is counted about this process | `model` |
//! | [`audit`] | who changed what, and who logged in: an append-only log | `model` |
//! | [`auth`] | passwords, tokens, limits on guessing, accounts of the system | `model` |
//! | [`naming`] | the name server and its HTTP API, from snapshots | `model`, `core` (state, read only), `runtime` |
//! | [`probe`] | runs health, readiness and generic checks, tells the core what they found | `model`, `core` (state, read only), `runtime` |
//! | [`api`] | HTTP: routes, errors, views, event streams | `model`, `core` (validation and state, read only), `runtime`, `naming`, `auth`, `audit`, `registry`, `metrics`, `telemetry` |
//! | [`cli`] | the command lines, as clients of the API; backup and restore of bricks; users of a stopped server; push and pull of images | `model`, `brick`, `auth`, `audit`, `core` (users and state), `store`, `registry` |
//! | [`config`] | flags over environment over file, validated once | nothing |
//! | [`telemetry`] | logging | nothing |
//! | [`server`] | puts the rooms together for `xtao serve` | all of the above |
//! | [`sim`] | the deterministic world in which core and driver are tested | `model`, `core`, `runtime` (its synchronous half), `store`, `probe` (to measure it) |
//!
//! # What always holds
//!
//! * Nothing is visible to anyone before it is durable: one commit a batch, then snapshot, events, calls, answers.
//! * `State::apply` is the only mutator of durable state; recovery uses it too.
//! * A durable record exists before a launch is sent; a kill repeats until a terminal status; a status is acknowledged only after its commit.
//! * A brick has at most one holder: a lease ends by the node's word that mount and loop device are gone, or by fencing. Never by time.
//! * Who asks is found out in one place ([`api::identity`]), once for each request, before anything is looked at; secrets are never printed.
//! * Work per frame depends on what changed, not on what exists.
//! * `model` and `core` read no clock, no randomness, no environment, and do no I/O (the `tidy` test enforces this and the table above).

pub mod api;
pub mod audit;
pub mod auth;
pub mod brick;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod core;
pub mod metrics;
pub mod model;
pub mod naming;
pub mod probe;
pub mod registry;
pub mod runtime;
pub mod server;
pub mod sim;
pub mod store;
pub mod telemetry;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tidy;
