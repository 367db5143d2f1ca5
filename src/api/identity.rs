//! Who asks. The one place where that is found out.

use super::call::Call;
use crate::model::{id::Owner, request::Origin};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user.
    pub user: Owner,
    /// May do everything.
    pub admin: bool,
}

/// Nobody is asked who they are yet: everyone who reaches the port (loopback only, and see [`super::guard`]) is the default owner.
pub fn origin(call: &Call) -> Origin {
    let who = call.who.clone().unwrap_or_else(|| Who { user: Owner::default_owner(), admin: true });
    Origin { user: who.user, admin: who.admin, client_ip: call.client_ip(), uri: call.path().to_owned() }
}
