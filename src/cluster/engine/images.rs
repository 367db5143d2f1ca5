//! Images: which one a name means here, and fetching the ones that are missing.
//!
//! An image that is here is used by its id, so that no registry is asked; whose it is counts all the same. One of the platform's registry is pulled
//! through our own way in ([`crate::registry::proxy`]) and then kept under the name that the user wrote, so that nobody sees where it came from. Two
//! launches that miss the same image fetch it once: the second waits for the first and looks again.
//!
//! Docker is always given full names, registry included: what looks like the beginning of an image's id is then a name and nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bollard::{
    auth::DockerCredentials,
    models::CreateImageInfo,
    query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder},
};
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::{
    docker::{Client, DockerError},
    logins::Logins,
};
use crate::{
    model::{
        id::{Owner, PathId},
        image::{ImageName, Version, is_image_id},
    },
    registry::platform::{OWN_NAME, Platform, Source},
};

/// Fetched at once.
pub const MAX_PULLS: usize = 3;
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// A pull that says nothing for this long is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);
/// Layers whose progress is kept.
const MAX_LAYERS: usize = 256;

/// The images of this machine's Docker.
#[derive(Debug)]
pub struct Images {
    pulls: Semaphore,
    under_way: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Default for Images {
    fn default() -> Self {
        Self { pulls: Semaphore::new(MAX_PULLS), under_way: Mutex::new(HashMap::new()) }
    }
}

/// The image of a launch, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// As the user wrote it.
    pub image: &'a str,
    /// Also when it is here.
    pub force: bool,
    /// Whose app it is.
    pub owner: &'a Owner,
    /// The app.
    pub app: &'a PathId,
    /// How to log in to registries that are not the platform's.
    pub logins: &'a Logins,
}

impl Images {
    /// The id of the image that is wanted, fetched when it is missing or `force` is set. `tell` hears of the progress at a modest rate. Without a
    /// `platform` images are Docker's business alone.
    ///
    /// # Errors
    /// Docker's or the registry's words, and what to do.
    pub async fn resolve(
        &self,
        docker: &Client,
        platform: Option<&Platform>,
        wanted: Wanted<'_>,
        tell: &(dyn Fn(String) + Sync),
    ) -> Result<String, DockerError> {
        let image = wanted.image;
        if is_image_id(image) {
            return by_id(docker, platform, wanted).await;
        }
        let name = platform.map_or_else(|| ImageName::parse(image, &[]), |platform| platform.parse(image));
        let name = name.map_err(|error| DockerError::Refused(error.to_string()))?;
        if let Some(platform) = platform {
            platform.check_owner(&name, wanted.owner).await.map_err(|error| DockerError::Refused(error.to_string()))?;
        }
        if !wanted.force
            && let Some(id) = here(docker, platform, &name).await?
        {
            return Ok(id);
        }
        let turn = self.turn(&name.local());
        tell(format!("waiting to pull image {image}"));
        let _turn = turn.lock().await;
        if !wanted.force
            && let Some(id) = here(docker, platform, &name).await?
        {
            return Ok(id);
        }
        let outcome = {
            let _permit = self.pulls.acquire().await;
            fetch(docker, platform, &name, wanted, tell).await
        };
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&name.local());
        outcome?;
        here(docker, platform, &name).await?.ok_or_else(|| DockerError::Refused(format!("image {image} was pulled, but is not there")))
    }

    fn turn(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        under_way.entry(image.to_owned()).or_default().clone()
    }
}

/// An image named by its id is nobody's: only who may run everything may have it.
async fn by_id(docker: &Client, platform: Option<&Platform>, wanted: Wanted<'_>) -> Result<String, DockerError> {
    let image = wanted.image;
    if platform.is_some_and(|platform| !platform.is_administrator(wanted.owner)) {
        return Err(DockerError::Refused(format!("'{image}' is the id of an image; name it by its name, which says whose it is")));
    }
    docker.image_id(image).await?.ok_or_else(|| DockerError::Refused(format!("there is no image with the id {image} on this node")))
}

/// The id under the image's own name, or, for one that was asked for by its digest, under the name by which it came.
async fn here(docker: &Client, platform: Option<&Platform>, name: &ImageName) -> Result<Option<String>, DockerError> {
    if let Some(id) = docker.image_id(&name.local()).await? {
        return Ok(Some(id));
    }
    match (platform, name.version()) {
        (Some(platform), Version::Digest(_)) if name.owner().is_some() => {
            docker.image_id(&name.in_registry(&platform.proxy().to_string())).await
        }
        _ => Ok(None),
    }
}

async fn fetch(
    docker: &Client,
    platform: Option<&Platform>,
    name: &ImageName,
    wanted: Wanted<'_>,
    tell: &(dyn Fn(String) + Sync),
) -> Result<(), DockerError> {
    let image = wanted.image;
    let source = match platform {
        Some(platform) => platform.find(name, wanted.owner, wanted.app).await.map_err(|error| DockerError::Refused(error.to_string()))?,
        None => Source::Elsewhere,
    };
    let pulled = match (platform, source) {
        (Some(platform), Source::Platform) => fetch_own(docker, platform, name, image, tell).await,
        _ => pull(docker, &name.local(), image, wanted.logins.of(name.registry()), tell).await,
    };
    pulled.map_err(|error| explain(image, error))
}

/// Pulls from the platform's registry, and gives the image the name that people write.
async fn fetch_own(
    docker: &Client,
    platform: &Platform,
    name: &ImageName,
    shown: &str,
    tell: &(dyn Fn(String) + Sync),
) -> Result<(), DockerError> {
    let host = platform.proxy().to_string();
    let credentials = DockerCredentials {
        username: Some(OWN_NAME.to_owned()),
        password: Some(platform.password().to_owned()),
        serveraddress: Some(host.clone()),
        ..DockerCredentials::default()
    };
    let from = name.in_registry(&host);
    pull(docker, &from, shown, Some(credentials), tell).await?;
    let Version::Tag(tag) = name.version() else { return Ok(()) };
    let local = name.local();
    let (repository, _) = split_reference(&local);
    let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
    docker.raw().tag_image(&from, Some(options)).await.map_err(DockerError::sort)?;
    // Only the name goes: the image has another one now. If it stays, it is in nobody's way.
    let options = RemoveImageOptionsBuilder::new().noprune(true).build();
    if let Err(error) = docker.raw().remove_image(&from, Some(options), None).await {
        tracing::debug!(%error, image = %from, "A second name of an image stays.");
    }
    Ok(())
}

/// Pulls `full`, which people call `shown`.
async fn pull(
    docker: &Client,
    full: &str,
    shown: &str,
    credentials: Option<DockerCredentials>,
    tell: &(dyn Fn(String) + Sync),
) -> Result<(), DockerError> {
    let (name, tag) = split_reference(full);
    let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
    let mut stream = std::pin::pin!(docker.raw().create_image(Some(options), None, credentials));
    let mut progress = Progress::default();
    let mut told: Option<Instant> = None;
    loop {
        let step = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await;
        let step = step.map_err(|_| DockerError::Refused(format!("nothing came for {} s", SILENCE_LIMIT.as_secs())))?;
        let Some(step) = step else { return Ok(()) };
        progress.take(step.map_err(DockerError::sort)?);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tell(format!("pulling image {shown}: {progress}"));
        }
    }
}

/// How far a pull is, summed over its layers.
#[derive(Default)]
struct Progress {
    layers: BTreeMap<String, (i64, i64)>,
    status: String,
}

impl Progress {
    fn take(&mut self, step: CreateImageInfo) {
        let status = step.status.unwrap_or_default();
        let Some(layer) = step.id else {
            self.status = status;
            return;
        };
        if self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(&layer) {
            return;
        }
        let known = self.layers.entry(layer).or_default();
        match (status.as_str(), step.progress_detail) {
            ("Downloading", Some(detail)) => *known = (detail.current.unwrap_or(known.0), detail.total.unwrap_or(known.1)),
            ("Download complete" | "Pull complete" | "Already exists", _) => known.0 = known.1,
            _ => {}
        }
        self.status = status;
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (done, total) = self.layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        match total {
            0 => write!(out, "{}", self.status),
            _ => write!(out, "{} of {} MiB, {} layers", done >> 20, total >> 20, self.layers.len()),
        }
    }
}

/// Name and tag (or digest) as Docker's API wants them; without a tag it would fetch every one.
fn split_reference(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn explain(image: &str, error: DockerError) -> DockerError {
    let words = match error {
        DockerError::Unreachable(_) => return error,
        other => other.to_string(),
    };
    let lower = words.to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let hint = if has(&["no basic auth credentials", "authentication required", "unauthorized", "incorrect username"]) {
        "its registry wants a login, or another one: give it as pullConfig of the image, by a secret, or fetch a docker.tar.gz with it"
    } else if has(&["may require 'docker login'"]) {
        "check its name and tag; if it is not for everybody, give a login as pullConfig of the image, or fetch a docker.tar.gz with it"
    } else if has(&["not found", "manifest unknown", "denied", "does not exist"]) {
        "check its name and tag, and that this node may read it"
    } else if has(&["no such host", "refused", "timeout", "deadline", "unreachable", "connection", "server misbehaving", "eof"]) {
        "the registry cannot be reached from this node; load the image here, or try again later"
    } else if has(&["no space"]) {
        "the disk with Docker's data is full"
    } else {
        "see the log of the Docker daemon"
    };
    DockerError::Refused(format!("could not pull image {image}: {words} ({hint})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_splits_into_name_and_tag() {
        let check = |image: &str, name: &str, tag: &str| assert_eq!(split_reference(image), (name, tag));
        check("postgres", "postgres", "latest");
        check("zmfsea/pg:15", "zmfsea/pg", "15");
        check("registry.marathon.mesos:5000/anna", "registry.marathon.mesos:5000/anna", "latest");
        check("a@sha256:00ff", "a", "sha256:00ff");
    }

    #[test]
    fn a_failed_pull_says_what_to_do() {
        let check = |words: &str, hint: &str| {
            let text = explain("r.example.com/web", DockerError::Refused(words.into())).to_string();
            assert!(text.starts_with("could not pull image r.example.com/web: ") && text.contains(words) && text.contains(hint), "{text}");
        };
        check("Head \"https://r.example.com/v2/web/manifests/latest\": no basic auth credentials", "pullConfig");
        check("unauthorized: authentication required", "docker.tar.gz");
        check("pull access denied for web, repository does not exist or may require 'docker login'", "if it is not for everybody");
        check("manifest for web:2 not found: manifest unknown", "check its name and tag, and that this node may read it");
        check("dial tcp: lookup r.example.com: no such host", "cannot be reached");
        check("no space left on device", "disk");
        check("something else", "log of the Docker daemon");
    }

    #[test]
    fn progress_sums_the_layers() {
        let mut progress = Progress::default();
        let step = |id: Option<&str>, status: &str, done: i64, total: i64| CreateImageInfo {
            id: id.map(str::to_owned),
            status: Some(status.to_owned()),
            progress_detail: Some(bollard::models::ProgressDetail { current: Some(done), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        progress.take(step(None, "Pulling from library/postgres", 0, 0));
        assert_eq!(progress.to_string(), "Pulling from library/postgres");
        progress.take(step(Some("a"), "Downloading", 1 << 20, 4 << 20));
        progress.take(step(Some("b"), "Downloading", 1 << 20, 2 << 20));
        progress.take(step(Some("b"), "Download complete", 0, 0));
        assert_eq!(progress.to_string(), "3 of 6 MiB, 2 layers");
    }
}
