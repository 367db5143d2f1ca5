//! Who asks. The one place where that is found out.

use super::call::Call;
use crate::model::{id::Owner, request::Origin};

/// Nobody is asked who they are yet: everyone who reaches the port (loopback only, and see [`super::guard`]) is the default owner.
pub fn origin(call: &Call) -> Origin {
    Origin { user: Owner::default_owner(), admin: true, client_ip: call.client_ip(), uri: call.path().to_owned() }
}
