//! The command lines: clients of the API, one file a command.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`compute`] | `xtcli-compute`: services, bricks, ports and nodes for their users, typed one by one or in a shell |
//! | [`image`] | `imgcli`: images in the platform's registry |
//! | [`registry`] | `xtao registry`: the service behind them |
//! | [`brick`], [`auth`], [`audit`] | `xtao brick`, `xtao auth`, `xtao audit` |
//! | [`client`] | a connection to a server, by socket or URL |
//! | [`connect`] | which server, and as whom; [`tokens`] keeps what a log-in gave |
//! | [`terminal`] | questions and answers |
//! | [`program`] | what the programs have in common: exit codes, completions, manual pages |
//! | [`words`], [`table`] | what is typed, and what is shown |

pub mod audit;
pub mod auth;
pub mod brick;
pub mod client;
pub mod compute;
pub mod connect;
pub mod image;
pub mod program;
pub mod registry;
pub mod table;
pub mod terminal;
pub mod tokens;
pub mod words;
