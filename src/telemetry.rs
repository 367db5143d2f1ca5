//! Logging to standard error.
