//! The routes about users.
