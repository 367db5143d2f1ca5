//! Users of a stopped server: its directory is locked, its store opened, and one record committed, exactly as the server would. What was changed is in its
//! audit log, too.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};

use crate::{
    audit::{Audit, Entry, Place, What},
    auth::accounts,
    core::{state::Tables, users},
    model::{
        id::Owner,
        record::Change,
        request::{Origin, RequestError},
        time::Timestamp,
        user::UserChange,
    },
    store::{Store, StoreError, embedded::EmbeddedStore, identity::WorkDir},
};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("its audit log cannot be written: {0}")]
    Audit(String),
}

/// As `GET /v2/auth/users`, as far as it is shown here.
pub async fn list(work_dir: &Path) -> Result<Value, Error> {
    let opened = Opened::open(work_dir).await?;
    let users = opened.tables.users.values().map(|user| {
        json!({
            "name": user.name, "admin": user.admin, "locked": user.locked, "monitor": user.monitor, "password": user.password.is_some(), "createdAt": user.created_at,
        })
    });
    Ok(json!({ "users": users.collect::<Vec<_>>() }))
}

pub async fn put(work_dir: &Path, name: &Owner, change: UserChange) -> Result<(), Error> {
    let opened = Opened::open(work_dir).await?;
    let change = users::put(&opened.tables, &root(), name, change, rand::random(), wall())?;
    let place = opened.place().await?;
    opened.commit(change).await?;
    tell(place, "PUT", name, 200).await;
    Ok(())
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub async fn remove(work_dir: &Path, name: &Owner) -> Result<(), Error> {
    let opened = Opened::open(work_dir).await?;
    let change = users::remove(&opened.tables, &root(), name)?;
    let place = opened.place().await?;
    opened.commit(change).await?;
    tell(place, "DELETE", name, 204).await;
    Ok(())
}

/// As the server would have told of the request. That nobody was asked can be seen by where it came from.
async fn tell(place: Place, method: &str, name: &Owner, status: u16) {
    let uid = rustix::process::getuid().as_raw();
    let user = accounts::name_of(uid).map(|name| name.to_string()).unwrap_or_default();
    let what =
        What::Change { method, path: &super::path(name.as_str()), of: &[format!("user {name}")], status: Some(status), deployment: None };
    let from = format!("uid {uid}, while the server was stopped");
    place.fill(&Entry { time: wall(), user: &user, admin: true, from: &from, what }).done().await;
}

/// Who can open the directory is its owner, and none of the users: no rule about the own user applies.
fn root() -> Origin {
    Origin { user: Owner::new(""), admin: true, client_ip: "".into(), uri: "".into() }
}

struct Opened {
    store: EmbeddedStore,
    tables: Tables,
    audit: PathBuf,
    /// Held until the end.
    _work_dir: WorkDir,
}

impl Opened {
    async fn open(work_dir: &Path) -> Result<Self, Error> {
        let audit = work_dir.join(crate::audit::DIRECTORY);
        let work_dir = WorkDir::open_existing(work_dir)?;
        let mut store = EmbeddedStore::open(&work_dir)?;
        let mut tables = Tables::default();
        store.load().await?.into_iter().for_each(|record| tables.apply(&Change::Put(record)));
        Ok(Self { store, tables, audit, _work_dir: work_dir })
    }

    /// A place in the audit log, before anything is changed.
    async fn place(&self) -> Result<Place, Error> {
        let audit = Audit::open(&self.audit).map_err(|error| Error::Audit(error.to_string()))?;
        audit.reserve().await.map_err(|error| Error::Audit(error.to_string()))
    }

    async fn commit(mut self, change: Change) -> Result<(), Error> {
        let epoch = self.store.elect().await?;
        Ok(self.store.commit(epoch, vec![change]).await?)
    }
}
