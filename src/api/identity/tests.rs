//! Who is let in, as whom, in tables.
