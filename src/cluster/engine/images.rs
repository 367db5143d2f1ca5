//! Images: which one a name means here, and fetching the ones that are missing.
//!
//! An image that is here is used by its id, so that no registry is asked. Two launches that miss the same image fetch it once: the second waits for the
//! first and looks again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bollard::{models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::docker::{Client, DockerError};

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

impl Images {
    /// The id of `image`, fetched when it is missing or `force` is set. `tell` hears of the progress at a modest rate.
    ///
    /// # Errors
    /// Docker's words, and what to do.
    pub async fn resolve(&self, docker: &Client, image: &str, force: bool, tell: &(dyn Fn(String) + Sync)) -> Result<String, DockerError> {
        check_reference(image).map_err(DockerError::Refused)?;
        if !force && let Some(id) = docker.image_id(image).await? {
            return Ok(id);
        }
        let turn = self.turn(image);
        tell(format!("waiting to pull image {image}"));
        let _turn = turn.lock().await;
        if !force && let Some(id) = docker.image_id(image).await? {
            return Ok(id);
        }
        let outcome = {
            let _permit = self.pulls.acquire().await;
            pull(docker, image, tell).await
        };
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
        outcome.map_err(|error| explain(image, error))?;
        docker.image_id(image).await?.ok_or_else(|| DockerError::Refused(format!("image {image} was pulled, but is not there")))
    }

    fn turn(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        under_way.entry(image.to_owned()).or_default().clone()
    }
}

async fn pull(docker: &Client, image: &str, tell: &(dyn Fn(String) + Sync)) -> Result<(), DockerError> {
    let (name, tag) = split_reference(image);
    let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
    let mut stream = std::pin::pin!(docker.raw().create_image(Some(options), None, None));
    let mut progress = Progress::default();
    let mut told: Option<Instant> = None;
    loop {
        let step = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await;
        let step = step.map_err(|_| DockerError::Refused(format!("nothing came for {} s", SILENCE_LIMIT.as_secs())))?;
        let Some(step) = step else { return Ok(()) };
        progress.take(step.map_err(DockerError::sort)?);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tell(format!("pulling image {image}: {progress}"));
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

/// The name ends up in the path of a request: nothing in it may lead elsewhere.
fn check_reference(image: &str) -> Result<(), String> {
    let letters = image.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte));
    let segments = image.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != "..");
    if letters && segments && image.len() <= 512 { Ok(()) } else { Err(format!("'{image}' is not the name of an image")) }
}

fn explain(image: &str, error: DockerError) -> DockerError {
    let words = match error {
        DockerError::Unreachable(_) => return error,
        other => other.to_string(),
    };
    let lower = words.to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let hint = if has(&["not found", "manifest unknown", "denied", "does not exist", "unauthorized"]) {
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
    fn a_reference_cannot_lead_elsewhere() {
        for good in ["postgres", "r:5000/a/b-c_d.e:1.0", "sha256:00ff", "a@sha256:00ff"] {
            assert_eq!(check_reference(good), Ok(()), "{good}");
        }
        for bad in ["", "a//b", "../containers/x", "a/../b", "a b", "a?b", "a%2e", "/a", "a/", "ä"] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
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
