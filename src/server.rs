//! `xtao serve`: puts the rooms together.
