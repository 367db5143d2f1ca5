//! `xtao`: the server and its administration.

fn main() {}
