//! Docker's API with a time limit on every call and errors sorted by what can be done about them.
//!
//! An answer that did not come says nothing about what Docker did: callers of a call that failed with [`DockerError::Unreachable`] look before they
//! repeat. Paths carry no API version, so the daemon answers in its own.

use std::{collections::HashMap, path::Path, time::Duration};

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, EventMessage, SystemInfo, Volume, VolumeCreateRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder, KillContainerOptionsBuilder,
        ListContainersOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};
use futures_util::{Stream, TryStreamExt, stream};

use super::{
    console,
    vetting::{self, Part},
};

/// Looking at one thing.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Making, starting and removing a container: minutes on a busy disk.
const CHANGE_LIMIT: Duration = Duration::from_secs(180);
/// The answer to a ping. A daemon that starts containers with both hands full may take seconds.
const PING_LIMIT: Duration = Duration::from_secs(15);

/// Parts of an engine that are looked at.
const MAX_PARTS: usize = 16;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DockerError {
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// It is there already, or in the wrong state.
    #[error("{0}")]
    Conflict(String),
    /// Docker said no, in these words.
    #[error("{0}")]
    Refused(String),
    /// No answer: what Docker did, or will do, is unknown.
    #[error("Docker does not answer: {0}")]
    Unreachable(String),
}

impl DockerError {
    /// Sorts bollard's errors.
    pub fn sort(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code: 404, message } => Self::Missing(message),
            Error::DockerResponseServerError { status_code: 409, message } => Self::Conflict(message),
            Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => Self::Refused(message),
            Error::JsonDataError { message, .. } => Self::Refused(format!("its answer makes no sense: {message}")),
            other => Self::Unreachable(chain(&other)),
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            text = format!("{text}: {source_text}");
        }
        cause = source.source();
    }
    text
}

/// Docker reads credentials in the alphabet of RFC 4648, section 5 alone, and takes others for none; the library writes them in that of section 4.
fn mend_credentials<B>(mut request: hyper::Request<B>) -> hyper::Request<B> {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
        let other = |byte: &u8| match byte {
            b'+' => b'-',
            b'/' => b'_',
            byte => *byte,
        };
        let text: Vec<u8> = value.as_bytes().iter().map(other).collect();
        if let Ok(mut mended) = hyper::header::HeaderValue::from_bytes(&text) {
            // Not for any log.
            mended.set_sensitive(true);
            *value = mended;
        }
    }
    request
}

/// A client of one daemon. It holds no connection: each call makes its own.
#[derive(Clone, Debug)]
pub struct Client {
    docker: Docker,
    /// For the one stream that the library reads without a limit.
    plain: reqwest::Client,
    /// Before a path.
    base: String,
    local: bool,
}

impl Client {
    /// A client for `unix:///path` or `tcp://host:port`.
    ///
    /// # Errors
    /// The address is of no known kind, or its socket does not exist yet.
    pub fn new(docker_host: &str) -> Result<Self, DockerError> {
        let local = docker_host.starts_with("unix://");
        if let Some(path) = docker_host.strip_prefix("unix://")
            && !Path::new(path).exists()
        {
            return Err(DockerError::Unreachable(format!("the socket {path} does not exist; is the Docker daemon running?")));
        }
        let docker = Docker::connect_with_host(docker_host).map_err(DockerError::sort)?.with_timeout(CHANGE_LIMIT);
        let docker = docker.with_request_modifier(mend_credentials);
        let (plain, base) = plain(docker_host)?;
        Ok(Self { docker, plain, base, local })
    }

    /// True when its containers are processes of this machine.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The library's client, for streams.
    pub fn raw(&self) -> &Docker {
        &self.docker
    }

    /// True while it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), DockerError> {
        within(PING_LIMIT, self.docker.ping()).await.map(drop)
    }

    /// What it is.
    ///
    /// # Errors
    /// See [`DockerError`]; so for all that follow.
    pub async fn info(&self) -> Result<SystemInfo, DockerError> {
        within(LOOK_LIMIT, self.docker.info()).await
    }

    /// Its parts and their versions.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn parts(&self) -> Result<Vec<Part>, DockerError> {
        let answer = within(LOOK_LIMIT, self.docker.version()).await?;
        let parts = answer.components.into_iter().flatten().map(|part| Part { name: part.name, version: part.version });
        let mut parts: Vec<Part> = parts.take(MAX_PARTS).collect();
        // Docker before 18.06 names no parts.
        if let Some(version) = answer.version.filter(|_| parts.is_empty()) {
            parts.push(Part { name: "Engine".to_owned(), version });
        }
        Ok(vetting::in_order(parts))
    }

    /// Every container with this label (`name` or `name=value`), running or not.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, DockerError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        within(LOOK_LIMIT, self.docker.list_containers(Some(options))).await
    }

    /// One container.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, DockerError> {
        within(LOOK_LIMIT, self.docker.inspect_container(name, None)).await
    }

    /// The id of an image that is here; `None`: it is not.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn image_id(&self, image: &str) -> Result<Option<String>, DockerError> {
        match within(LOOK_LIMIT, self.docker.inspect_image(image)).await {
            Ok(image) => Ok(image.id),
            Err(DockerError::Missing(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The directory in which the image wants its commands to begin; `None`: it does not say.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn working_dir(&self, image: &str) -> Result<Option<String>, DockerError> {
        let image = within(LOOK_LIMIT, self.docker.inspect_image(image)).await?;
        Ok(image.config.and_then(|config| config.working_dir).filter(|directory| !directory.is_empty()))
    }

    /// Makes an image of an archive with its files.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn import_image(&self, name: &str, files: Vec<u8>) -> Result<(), DockerError> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
        let said = self.docker.create_image(Some(options), Some(bollard::body_full(files.into())), None);
        within(CHANGE_LIMIT, said.try_for_each(|_| std::future::ready(Ok(())))).await
    }

    /// Makes a container.
    ///
    /// # Errors
    /// [`DockerError::Conflict`] when the name is taken.
    pub async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), DockerError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        within(CHANGE_LIMIT, self.docker.create_container(Some(options), body)).await.map(drop)
    }

    /// Starts a container; one that runs already is left alone.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn start(&self, name: &str) -> Result<(), DockerError> {
        within(CHANGE_LIMIT, self.docker.start_container(name, None)).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`DockerError::Conflict`] when it does not run.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<(), DockerError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        within(LOOK_LIMIT, self.docker.kill_container(name, Some(options))).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn unpause(&self, name: &str) -> Result<(), DockerError> {
        within(LOOK_LIMIT, self.docker.unpause_container(name)).await
    }

    /// Removes a container and its unnamed volumes, running or not. None there is success.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn remove(&self, name: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match within(CHANGE_LIMIT, self.docker.remove_container(name, Some(options))).await {
            Err(DockerError::Missing(_)) => Ok(()),
            other => other,
        }
    }

    /// The volume of this name; `None`: no driver knows one. Of the list, because what is told of one volume alone has parts of a driver's own making.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>, DockerError> {
        let filters = HashMap::from([("name", vec![name])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = within(LOOK_LIMIT, self.docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
        // The filter takes what has the name in it.
        Ok(found.into_iter().find(|volume| volume.name == name))
    }

    /// Makes a volume; one of that name and driver that is there already is left as it is.
    ///
    /// # Errors
    /// [`DockerError::Conflict`] when another driver has one of that name, [`DockerError::Missing`] when there is no such driver.
    pub async fn create_volume(&self, wanted: VolumeCreateRequest) -> Result<Volume, DockerError> {
        within(CHANGE_LIMIT, self.docker.create_volume(wanted)).await
    }

    /// What happens to containers with this label, beginning at `since` (Unix seconds).
    pub fn events(&self, label: &str, since: i64) -> impl Stream<Item = Result<EventMessage, Error>> + use<> {
        let filters = HashMap::from([("type", vec!["container"]), ("event", vec!["die", "oom"]), ("label", vec![label])]);
        self.docker.events(Some(EventsOptionsBuilder::new().since(&since.to_string()).filters(&filters).build()))
    }

    /// The output of a container, each line with its time, beginning at `since` (Unix seconds): until it ends (`follow`), or what there is.
    pub fn logs(&self, name: &str, since: i32, follow: bool) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options = LogsOptionsBuilder::new().follow(follow).stdout(true).stderr(true).timestamps(true).since(since).build();
        self.docker.logs(name, Some(options))
    }

    /// As [`Client::logs`], of a container with a terminal, where both outputs are one.
    pub fn console(&self, name: &str, since: i32, follow: bool) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let what = format!("follow={follow}&stdout=true&stderr=true&timestamps=true&since={since}");
        let request = self.plain.get(format!("{}/containers/{name}/logs?{what}", self.base)).send();
        let body = async { Ok(console::entries(request.await?.error_for_status()?.bytes_stream())) };
        let output = stream::once(body).try_flatten().map_ok(|message| LogOutput::Console { message });
        output.map_err(|error: reqwest::Error| Error::IOError { err: std::io::Error::other(error) })
    }
}

fn plain(docker_host: &str) -> Result<(reqwest::Client, String), DockerError> {
    // Whoever comes second finds the same provider.
    _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(PING_LIMIT);
    let (builder, base) = match docker_host.strip_prefix("unix://") {
        Some(path) => (builder.unix_socket(path), "http://docker".to_owned()),
        None => (builder, docker_host.replacen("tcp://", "http://", 1)),
    };
    let client = builder.build().map_err(|error| DockerError::Unreachable(chain(&error)))?;
    Ok((client, base.trim_end_matches('/').to_owned()))
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, DockerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(DockerError::sort),
        Err(_) => Err(DockerError::Unreachable(format!("no answer within {} s", limit.as_secs()))),
    }
}
