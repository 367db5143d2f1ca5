//! Proving who one is: passwords, tokens, limits on guessing. It knows no HTTP and decides nothing about what anyone may do.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`password`] | argon2id, on threads of its own, at most two at once |
//! | [`token`] | signed, expiring stand-ins for a password |
//! | [`attempts`] | how often one may guess |
//! | [`accounts`] | names of the operating system's accounts |
//! | [`gate`] | all of it together: is this the password, is this token good |

pub mod accounts;
pub mod attempts;
pub mod gate;
pub mod password;
pub mod token;
