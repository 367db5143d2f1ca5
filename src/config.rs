//! Settings: flags over environment over file, one struct per subsystem, validated once.
