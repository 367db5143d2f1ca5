//! Storage on this machine: pools, mounts and their rebuilding after a crash. Decides nothing about who may hold a brick.
