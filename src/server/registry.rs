//! The platform's registry, put together: the token authority of the work directory, what the snapshot says of users and of the app `registry`, and the
//! way in for Docker.

use std::{net::SocketAddr, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::TcpListener;
use warp::{filters::BoxedFilter, reply::Response};

use super::ServerError;
use crate::{
    config::Config,
    core::state::Tables,
    model::{
        id::{Owner, PathId},
        image::REGISTRY_APP,
        instance::Condition,
    },
    registry::{
        platform::{Directory, PORT, Platform, Whereabouts},
        proxy,
        token::Authority,
    },
    runtime::handle::Handle,
};

/// The account that is an administrator on every machine.
const ROOT: &str = "root";
/// Bytes of the password with which the server comes through its own way in.
const PASSWORD_BYTES: usize = 32;

/// Reads the present snapshot.
struct Snapshot(Handle);

impl Directory for Snapshot {
    fn registry(&self) -> Whereabouts {
        whereabouts(&self.0.view_full().tables)
    }

    fn is_user(&self, name: &str) -> bool {
        self.0.view_full().tables.users.contains_key(&Owner::new(name))
    }

    fn is_administrator(&self, name: &str) -> bool {
        is_administrator(&self.0.view_full().tables, name)
    }
}

fn is_administrator(tables: &Tables, name: &str) -> bool {
    let owner = Owner::new(name);
    match tables.users.get(&owner) {
        Some(user) => user.admin && !user.locked,
        None => name == ROOT || owner == Owner::default_owner(),
    }
}

/// The app of that name is an administrator's: the core lets nobody else write it.
fn whereabouts(tables: &Tables) -> Whereabouts {
    let Ok(id) = REGISTRY_APP.parse::<PathId>() else { return Whereabouts::Absent };
    if !tables.apps.contains_key(&id) {
        return Whereabouts::Absent;
    }
    let running = tables.instances_of(&id).find(|instance| instance.condition == Condition::Running);
    let agent = running.and_then(|instance| instance.placement.as_ref()).and_then(|placement| tables.agents.get(&placement.agent));
    match agent.and_then(|agent| agent.addresses.first()) {
        Some(address) => Whereabouts::At(SocketAddr::new(*address, PORT)),
        None => Whereabouts::Down,
    }
}

/// The registry's side of the server; `proxy` is where its way in for Docker listens.
pub(super) fn platform(config: &Config, handle: Handle, proxy: &TcpListener) -> Result<Arc<Platform>, ServerError> {
    let authority = Authority::open(&config.work_dir)?;
    let mut password = [0; PASSWORD_BYTES];
    let system = |source| ServerError::System { what: "what the registry needs", source };
    SystemRandom::new().fill(&mut password).map_err(|_| system(std::io::Error::other("there are no random numbers")))?;
    let address = proxy.local_addr().map_err(system)?;
    let name = format!("registry.{}.mesos:{PORT}", config.identity.framework_name);
    Ok(Arc::new(Platform::new(authority, Box::new(Snapshot(handle)), name, address, BASE64URL_NOPAD.encode(&password))))
}

/// What is served there.
pub(super) fn routes(platform: Arc<Platform>) -> Result<BoxedFilter<(Response,)>, ServerError> {
    proxy::routes(platform).map_err(|error| ServerError::System { what: "what the registry needs", source: std::io::Error::other(error) })
}
