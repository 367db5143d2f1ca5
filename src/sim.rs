//! The deterministic world: a seeded event heap around the real core and the driver's synchronous half.
