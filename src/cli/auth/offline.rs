//! Users of a stopped server: its directory is locked, its store opened, and one record committed, exactly as the server would.

use std::{path::Path, time::SystemTime};

use serde_json::{Value, json};

use crate::{
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
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let change = users::put(&opened.tables, &root(), name, change, rand::random(), wall)?;
    opened.commit(change).await
}

pub async fn remove(work_dir: &Path, name: &Owner) -> Result<(), Error> {
    let opened = Opened::open(work_dir).await?;
    let change = users::remove(&opened.tables, &root(), name)?;
    opened.commit(change).await
}

/// Who can open the directory is its owner, and none of the users: no rule about the own user applies.
fn root() -> Origin {
    Origin { user: Owner::new(""), admin: true, client_ip: String::new(), uri: String::new() }
}

struct Opened {
    store: EmbeddedStore,
    tables: Tables,
    /// Held until the end.
    _work_dir: WorkDir,
}

impl Opened {
    async fn open(work_dir: &Path) -> Result<Self, Error> {
        let work_dir = WorkDir::open_existing(work_dir)?;
        let mut store = EmbeddedStore::open(&work_dir)?;
        let mut tables = Tables::default();
        store.load().await?.into_iter().for_each(|record| tables.apply(&Change::Put(record)));
        Ok(Self { store, tables, _work_dir: work_dir })
    }

    async fn commit(mut self, change: Change) -> Result<(), Error> {
        let epoch = self.store.elect().await?;
        Ok(self.store.commit(epoch, vec![change]).await?)
    }
}
