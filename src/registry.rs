//! Images: archives of `docker save`, and the platform's registry, which is distribution's, run as the service `registry`.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`tar`], [`archive`] | what `docker save` writes, read in place |
//! | [`accounts`], [`access`] | who is a user here; who may do what with which repository; pure |
//! | [`certificate`], [`token`] | the token authority |
//! | [`client`], [`push`], [`pull`] | the registry's HTTP API; sending and fetching an image |
//! | [`platform`] | the registry as the server knows it: where it is, what is in it, which image a name means for whom |
//! | [`proxy`] | the way in for Docker, on 127.0.0.1 |

pub mod access;
pub mod accounts;
pub mod archive;
pub mod certificate;
pub mod client;
pub mod platform;
pub mod proxy;
pub mod pull;
pub mod push;
pub mod tar;
pub mod token;
