//! HTTP: Marathon's v2 API, errors, views and event streams.
