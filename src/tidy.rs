//! Checks of the house itself: import direction, banned calls, module documentation.
