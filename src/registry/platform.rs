//! The platform's registry as the server knows it: where it runs, what is in it for whom, and which image a name means for which user.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::{
    access::{Access, Who, repository_actions},
    accounts,
    archive::MAX_CONFIG_BYTES,
    client::{Manifest, Registry, RegistryError},
    token::Authority,
};
use crate::model::{
    id::{Owner, PathId},
    image::{ImageName, ImageNameError, LIBRARY, REGISTRY_APP as APP, Version, owner_of, short},
};

/// Its port.
pub const PORT: u16 = 5000;
/// The user name under which the server itself comes through the way in for Docker.
pub const OWN_NAME: &str = "xtao";
/// Repositories that are looked into for one list, and at once.
const MAX_LISTED: usize = 5_000;
const AT_ONCE: usize = 8;
/// Tags of one repository that are shown.
const MAX_TAGS: usize = 500;

/// Where the registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// There is no such app.
    Absent,
    /// Its app is there, and no task of it runs.
    Down,
    /// It runs.
    At(SocketAddr),
}

/// What must be known about the rest of the platform; answers are as of now.
pub trait Directory: Send + Sync {
    /// Where the registry is.
    fn registry(&self) -> Whereabouts;
    /// True for a user with a record.
    fn is_user(&self, name: &str) -> bool;
    /// True for an administrator.
    fn is_administrator(&self, name: &str) -> bool;
}

/// Why there is no answer from the registry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlatformError {
    /// There is no registry.
    #[error("the platform has no registry yet; an administrator makes one with: xtao registry install")]
    Absent,
    /// It does not run now.
    #[error("the platform's registry does not run at the moment: see the app {APP}")]
    Down,
    /// It answers otherwise than it should.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no such image, or none that the caller may see.
    #[error("Image '{0}' does not exist")]
    Missing(String),
    /// It may be seen, and not changed.
    #[error("Not Authorized to perform this action!")]
    Forbidden,
}

/// Why a user's app cannot have an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

/// A repository, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// As people write it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// Ascending.
    pub tags: Vec<String>,
}

/// One image of a repository.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tagged {
    /// Its tag.
    pub tag: String,
    /// Of its manifest.
    pub digest: String,
    /// Bytes, compressed, its configuration included.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
    /// When it was built, as its configuration says.
    pub created: Option<String>,
    /// For which kind of machine.
    pub architecture: Option<String>,
}

/// A repository with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// As people write it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// Its images.
    pub tags: Vec<Tagged>,
}

/// What the registry is called, and where it is asked for.
pub struct Settings {
    /// Its name on the platform: `registry.marathon.mesos:5000`.
    pub name: String,
    /// The URL at which others ask for tokens.
    pub realm: String,
    /// Where Docker reaches it, on 127.0.0.1.
    pub proxy: SocketAddr,
    /// What lets the server itself in there.
    pub password: String,
}

/// The platform's registry.
pub struct Platform {
    authority: Authority,
    directory: Box<dyn Directory>,
    names: Vec<String>,
    realm: String,
    proxy: SocketAddr,
    password: String,
    client: Mutex<Option<Registry>>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Platform").field("names", &self.names).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Platform {
    /// The registry of this installation.
    pub fn new(authority: Authority, directory: Box<dyn Directory>, settings: Settings) -> Self {
        let Settings { name, realm, proxy, password } = settings;
        let names = vec![name, proxy.to_string(), format!("localhost:{}", proxy.port())];
        Self { authority, directory, names, realm, proxy, password, client: Mutex::default() }
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The registry's name on the platform.
    pub fn name(&self) -> &str {
        &self.names[0]
    }

    /// Where the registry sends those who come without a token.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Where Docker reaches it.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// What lets the server itself in there. Not to be shown.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Where it is.
    pub fn whereabouts(&self) -> Whereabouts {
        self.directory.registry()
    }

    /// Reads the name of an image.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(&self, text: &str) -> Result<ImageName, ImageNameError> {
        ImageName::parse(text, &self.names)
    }

    /// The registry, if it runs.
    ///
    /// # Errors
    /// [`PlatformError::Absent`], [`PlatformError::Down`]
    pub fn registry(&self) -> Result<Registry, PlatformError> {
        let address = match self.directory.registry() {
            Whereabouts::Absent => return Err(PlatformError::Absent),
            Whereabouts::Down => return Err(PlatformError::Down),
            Whereabouts::At(address) => address.to_string(),
        };
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = kept.as_ref().filter(|registry| registry.address() == address) {
            return Ok(registry.clone());
        }
        Ok(kept.insert(Registry::new(&address)?).clone())
    }

    /// A token of the server's own.
    fn own_token(&self, access: Access) -> String {
        self.authority.token(&Who::Administrator(OWN_NAME.into()), &[access]).text
    }
}

// === What is in it ===

impl Platform {
    /// The repositories that `who` may pull from, by name.
    ///
    /// # Errors
    /// See [`PlatformError`].
    pub async fn list(&self, who: &Who) -> Result<Vec<Listed>, PlatformError> {
        let registry = self.registry()?;
        let all = registry.repositories(&self.own_token(Access::catalog())).await?;
        // Those of one word are copies of the administrators'.
        let visible = all.into_iter().filter(|name| name.contains('/') && may(who, name, "pull")).take(MAX_LISTED);
        let listed = stream::iter(visible).map(|repository| {
            let registry = registry.clone();
            async move {
                let tags = self.tags(&registry, &repository).await?;
                Ok::<_, PlatformError>(Listed { name: short(&repository).to_owned(), owner: owner_of(&repository).to_owned(), tags })
            }
        });
        let listed: Vec<Listed> = listed.buffered(AT_ONCE).try_collect().await?;
        // The registry goes on listing what was deleted.
        Ok(listed.into_iter().filter(|listed| !listed.tags.is_empty()).collect())
    }

    /// One repository.
    ///
    /// # Errors
    /// See [`PlatformError`]; what `who` may not see is missing.
    pub async fn show(&self, who: &Who, name: &ImageName) -> Result<Shown, PlatformError> {
        let repository = self.visible(who, name)?;
        let registry = self.registry()?;
        let tags = self.tags(&registry, repository).await?;
        let shown = stream::iter(tags.into_iter().take(MAX_TAGS)).map(|tag| self.tagged(&registry, repository, tag));
        let tags: Vec<Option<Tagged>> = shown.buffered(AT_ONCE).try_collect().await?;
        let tags: Vec<Tagged> = tags.into_iter().flatten().collect();
        if tags.is_empty() {
            return Err(PlatformError::Missing(short(repository).to_owned()));
        }
        Ok(Shown { name: short(repository).to_owned(), owner: owner_of(repository).to_owned(), tags })
    }

    /// Deletes one tag, or a whole repository. The space is free after the registry's garbage collection.
    ///
    /// # Errors
    /// See [`PlatformError`].
    pub async fn delete(&self, who: &Who, name: &ImageName, whole: bool) -> Result<(), PlatformError> {
        let repository = self.visible(who, name)?;
        if !may(who, repository, "delete") {
            return Err(PlatformError::Forbidden);
        }
        let registry = self.registry()?;
        let mut found = false;
        for repository in [Some(repository), copy_of(repository)].into_iter().flatten() {
            found |= self.delete_in(&registry, repository, (!whole).then(|| name.version())).await?;
        }
        let shown = if whole { short(repository).to_owned() } else { name.to_string() };
        if found { Ok(()) } else { Err(PlatformError::Missing(shown)) }
    }

    async fn delete_in(&self, registry: &Registry, repository: &str, only: Option<&Version>) -> Result<bool, PlatformError> {
        let token = self.own_token(Access::repository(repository, &["pull", "push", "delete"]));
        let mut by_digest: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for tag in self.tags(registry, repository).await? {
            if let Some(digest) = registry.manifest_digest(&token, repository, &tag).await? {
                by_digest.entry(digest).or_default().push(tag);
            }
        }
        let mut found = false;
        for (digest, tags) in by_digest {
            match only {
                Some(Version::Tag(tag)) if tags.contains(tag) && tags.len() > 1 => {
                    found |= self.delete_tag(registry, &token, repository, tag).await?;
                }
                Some(Version::Tag(tag)) if !tags.contains(tag) => {}
                Some(Version::Digest(wanted)) if *wanted != digest => {}
                _ => found |= registry.delete_manifest(&token, repository, &digest).await?,
            }
        }
        Ok(found)
    }

    /// The registry deletes a manifest with all its tags. For one tag of several it is given a manifest of its own first, which differs by a blank.
    async fn delete_tag(&self, registry: &Registry, token: &str, repository: &str, tag: &str) -> Result<bool, PlatformError> {
        let Some(Manifest { kind, mut bytes, .. }) = registry.manifest(token, repository, tag).await? else { return Ok(false) };
        bytes.push(b'\n');
        let digest = super::archive::sha256(&bytes);
        registry.put_manifest(token, repository, tag, &kind, bytes).await?;
        Ok(registry.delete_manifest(token, repository, &digest).await?)
    }

    fn visible<'a>(&self, who: &Who, name: &'a ImageName) -> Result<&'a str, PlatformError> {
        let repository = name.repository();
        if name.owner().is_some() && may(who, repository, "pull") {
            return Ok(repository);
        }
        Err(PlatformError::Missing(short(repository).to_owned()))
    }

    async fn tags(&self, registry: &Registry, repository: &str) -> Result<Vec<String>, PlatformError> {
        let token = self.own_token(Access::repository(repository, &["pull"]));
        let mut tags = registry.tags(&token, repository).await?;
        tags.sort();
        Ok(tags)
    }

    async fn tagged(&self, registry: &Registry, repository: &str, tag: String) -> Result<Option<Tagged>, PlatformError> {
        let token = self.own_token(Access::repository(repository, &["pull"]));
        let Some(manifest) = registry.manifest(&token, repository, &tag).await? else { return Ok(None) };
        let parsed = manifest.parse().unwrap_or_default();
        let layers = parsed["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let size = layers.iter().chain([&parsed["config"]]).filter_map(|blob| blob["size"].as_u64()).fold(0, u64::saturating_add);
        let config = match parsed["config"]["digest"].as_str() {
            Some(digest) => {
                let bytes =
                    registry.small_blob(&token, repository, digest, usize::try_from(MAX_CONFIG_BYTES).unwrap_or(usize::MAX)).await?;
                serde_json::from_slice(&bytes).unwrap_or_default()
            }
            None => Value::Null,
        };
        let text = |key: &str| config[key].as_str().map(|text| text.chars().filter(|letter| !letter.is_control()).take(64).collect());
        let (created, architecture) = (text("created"), text("architecture"));
        Ok(Some(Tagged { tag, digest: manifest.digest, size, layers: layers.len(), created, architecture }))
    }
}

fn may(who: &Who, repository: &str, action: &str) -> bool {
    repository_actions(who, repository).contains(&action)
}

/// The second name of an administrators' repository, under which Docker asks for it at a registry that it is told by name:
/// `registry.marathon.mesos:5000/anna` is the repository `anna` to it, and not `library/anna`.
pub fn copy_of(repository: &str) -> Option<&str> {
    repository.strip_prefix("library/").filter(|rest| !rest.contains('/'))
}

// === Which image a name means ===

/// Where an image that is not in Docker yet comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the platform's registry.
    Platform,
    /// From the registry that its name says, or Docker's.
    Elsewhere,
}

impl Platform {
    /// Whether an app of `owner` may have this image at all, wherever it is: the own ones, the administrators', and those of other registries.
    ///
    /// # Errors
    /// It may not; or nobody can say.
    pub async fn check_owner(&self, name: &ImageName, owner: &Owner) -> Result<(), NotAllowed> {
        let Some(user) = name.owner() else { return Ok(()) };
        if self.may_always(user, owner) || !self.is_anybody(user).await? {
            return Ok(());
        }
        Err(self.foreign(name, user, owner))
    }

    /// Where to fetch an image from that `owner` may have. The platform's registry is asked first; another one only when it says that it does not have
    /// it, and never for the name of one of our users.
    ///
    /// # Errors
    /// In words for the app's owner.
    pub async fn find(&self, name: &ImageName, owner: &Owner, app: &PathId) -> Result<Source, NotAllowed> {
        if app.as_str() == APP {
            return Err(NotAllowed(format!(
                "the registry's own image {name} is not in Docker on this node, and cannot come from itself: load it (docker load), or make it \
                 (scripts/make-images registry)"
            )));
        }
        let Some(user) = name.owner() else { return Ok(Source::Elsewhere) };
        let registry = match self.registry() {
            Ok(registry) => Some(registry),
            Err(PlatformError::Absent) => None,
            Err(error) => return Err(NotAllowed(format!("{error}; so nobody can say whether it has the image {name}"))),
        };
        if let Some(registry) = registry {
            let token = self.own_token(Access::repository(name.repository(), &["pull"]));
            match registry.manifest_digest(&token, name.repository(), name.version().as_str()).await {
                Ok(Some(_)) if self.may_always(user, owner) => return Ok(Source::Platform),
                Ok(Some(_)) => return Err(self.foreign(name, user, owner)),
                Ok(None) => {}
                Err(error) => return Err(NotAllowed(format!("{error}; so nobody can say whether it has the image {name}"))),
            }
        }
        if user != LIBRARY && self.is_anybody(user).await? {
            return Err(NotAllowed(format!(
                "image {name} is not in the platform's registry (push it with imgcli push); {user} is a user here, so no other registry is asked"
            )));
        }
        Ok(Source::Elsewhere)
    }

    /// True when `owner` is an administrator, for what only they may do.
    pub fn is_administrator(&self, owner: &Owner) -> bool {
        self.directory.is_administrator(owner.as_str())
    }

    fn may_always(&self, user: &str, owner: &Owner) -> bool {
        user == LIBRARY || user == owner.as_str() || self.is_administrator(owner)
    }

    async fn is_anybody(&self, name: &str) -> Result<bool, NotAllowed> {
        if self.directory.is_user(name) {
            return Ok(true);
        }
        accounts::is_person(name).await.map_err(NotAllowed)
    }

    fn foreign(&self, name: &ImageName, user: &str, owner: &Owner) -> NotAllowed {
        NotAllowed(format!(
            "image {name} belongs to the user {user}, and this app to {owner}: an app may use its owner's images, the platform's, and those of other registries"
        ))
    }
}
