//! The registry's HTTP API, as far as it is needed: manifests, blobs, uploads, lists. Every call carries the token that it is given.
//!
//! Facts: distribution 2.8, "Docker Registry HTTP API V2". Only the host that was named is ever spoken to: of the addresses that the registry hands out
//! for uploads the path alone is used, redirects are not followed, and no proxy is asked. What it answers has limits.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LINK, LOCATION},
};
use serde_json::Value;

use super::archive::{DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_MANIFEST, sha256};

/// Kinds of manifests that are taken.
const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json";
/// Until a connection stands.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Until an answer without a large body has come.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Until the end of an upload is answered: the registry may read the whole blob once more.
const FINISH_LIMIT: Duration = Duration::from_secs(600);
/// A body that stands still for so long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a list, or of an error.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Names asked for at once in a list, and pages of one list.
const PAGE: usize = 500;
const MAX_PAGES: usize = 200;

const SILENCE: &str = "no answer in time";

/// Why the registry did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer, or it broke off.
    #[error("the registry at {address} cannot be reached: {cause}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// In short.
        cause: String,
    },
    /// The token does not allow it.
    #[error("the registry does not allow it: {0}")]
    Denied(String),
    /// It says no, in these words.
    #[error("the registry answers {status}: {words}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// What it sends is not what it says.
    #[error("the registry's answer makes no sense: {0}")]
    Nonsense(String),
}

impl RegistryError {
    /// True when the same may work a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429 || *status == 404 || *status == 416,
            Self::Denied(_) | Self::Nonsense(_) => false,
        }
    }
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub kind: String,
    /// `sha256:...` of its bytes.
    pub digest: String,
    /// Byte for byte.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Its JSON.
    ///
    /// # Errors
    /// It is none, or a list of manifests, which `imgcli` never pushes.
    pub fn parse(&self) -> Result<Value, RegistryError> {
        if ![DOCKER_MANIFEST, OCI_MANIFEST].contains(&self.kind.as_str()) {
            return Err(RegistryError::Nonsense(format!("it has a manifest of the type {}", self.kind.escape_debug())));
        }
        serde_json::from_slice(&self.bytes).map_err(|error| RegistryError::Nonsense(error.to_string()))
    }
}

/// An upload that was begun: the path to go on with.
#[derive(Clone, Debug)]
pub struct Upload(String);

/// A registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    http: reqwest::Client,
    address: String,
}

impl Registry {
    /// The registry at `host:port`, spoken to in plain HTTP. Nothing is sent yet.
    ///
    /// # Errors
    /// The operating system refuses what a client needs.
    pub fn new(address: &str) -> Result<Self, RegistryError> {
        // The first one wins; it does not matter whose.
        _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT_LIMIT);
        let http = builder.build().map_err(|error| RegistryError::Unreachable { address: address.to_owned(), cause: innermost(&error) })?;
        Ok(Self { http, address: address.to_owned() })
    }

    /// Where it is, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The manifest of a tag or digest; `None`: the registry says that there is none.
    ///
    /// # Errors
    /// See [`RegistryError`]; so for all that follow.
    pub async fn manifest(&self, token: &str, repository: &str, version: &str) -> Result<Option<Manifest>, RegistryError> {
        let request = self.request(Method::GET, token, &format!("/v2/{repository}/manifests/{version}")).header(ACCEPT, MANIFESTS);
        let Some(response) = self.unless_missing(request).await? else { return Ok(None) };
        let kind = header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let bytes = self.body(response, usize::try_from(MAX_MANIFEST_BYTES).unwrap_or(usize::MAX)).await?;
        Ok(Some(Manifest { kind, digest: sha256(&bytes), bytes }))
    }

    /// The digest of a tag's manifest; `None`: the registry says that there is none.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn manifest_digest(&self, token: &str, repository: &str, version: &str) -> Result<Option<String>, RegistryError> {
        let request = self.request(Method::HEAD, token, &format!("/v2/{repository}/manifests/{version}")).header(ACCEPT, MANIFESTS);
        let Some(response) = self.unless_missing(request).await? else { return Ok(None) };
        Ok(Some(header(response.headers(), "docker-content-digest").unwrap_or_default()))
    }

    /// Stores a manifest under a tag or its own digest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put_manifest(
        &self,
        token: &str,
        repository: &str,
        version: &str,
        kind: &str,
        bytes: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let request = self.request(Method::PUT, token, &format!("/v2/{repository}/manifests/{version}"));
        self.send(request.header(CONTENT_TYPE, kind).body(bytes).timeout(ANSWER_LIMIT)).await.map(drop)
    }

    /// Removes a manifest with all its tags; false when there was none.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn delete_manifest(&self, token: &str, repository: &str, digest: &str) -> Result<bool, RegistryError> {
        let request = self.request(Method::DELETE, token, &format!("/v2/{repository}/manifests/{digest}"));
        Ok(self.unless_missing(request).await?.is_some())
    }

    /// The bytes of a blob that is there; `None`: it is not.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob_size(&self, token: &str, repository: &str, digest: &str) -> Result<Option<u64>, RegistryError> {
        let request = self.request(Method::HEAD, token, &format!("/v2/{repository}/blobs/{digest}"));
        let Some(response) = self.unless_missing(request).await? else { return Ok(None) };
        let length = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        length.map(Some).ok_or_else(|| RegistryError::Nonsense("a blob has no length".into()))
    }

    /// A blob, as it comes.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob(&self, token: &str, repository: &str, digest: &str) -> Result<Response, RegistryError> {
        let request = self.request(Method::GET, token, &format!("/v2/{repository}/blobs/{digest}"));
        tokio::time::timeout(ANSWER_LIMIT, self.send(request)).await.unwrap_or_else(|_| Err(self.silent()))
    }

    /// A small blob, checked against its digest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn small_blob(&self, token: &str, repository: &str, digest: &str, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let response = self.blob(token, repository, digest).await?;
        let bytes = self.body(response, limit).await?;
        if sha256(&bytes) == digest { Ok(bytes) } else { Err(RegistryError::Nonsense(format!("{digest} has other contents"))) }
    }

    /// Makes a blob of the repository `from` one of this repository too; false when the registry wants it sent.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn mount(&self, token: &str, repository: &str, digest: &str, from: &str) -> Result<bool, RegistryError> {
        let path = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        let response = self.send(self.request(Method::POST, token, &path).timeout(ANSWER_LIMIT)).await?;
        Ok(response.status() == StatusCode::CREATED)
    }

    /// Begins to send a blob.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn begin(&self, token: &str, repository: &str) -> Result<Upload, RegistryError> {
        let request = self.request(Method::POST, token, &format!("/v2/{repository}/blobs/uploads/"));
        let response = self.send(request.timeout(ANSWER_LIMIT)).await?;
        self.location(&response)
    }

    /// Sends the contents of a blob, however long. It is given up when the registry takes nothing for a while.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn send_contents<S>(&self, token: &str, upload: Upload, contents: S) -> Result<Upload, RegistryError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let body = Body::wrap_stream(contents.inspect(move |_| _ = count.fetch_add(1, Ordering::Relaxed)));
        let request = self.request(Method::PATCH, token, &upload.0).header(CONTENT_TYPE, "application/octet-stream").body(body);
        let mut sent = std::pin::pin!(self.send(request));
        let mut before = taken.load(Ordering::Relaxed);
        loop {
            if let Ok(response) = tokio::time::timeout(STALL_LIMIT, &mut sent).await {
                return self.location(&response?);
            }
            let now = taken.load(Ordering::Relaxed);
            if now == before {
                return Err(self.silent());
            }
            before = now;
        }
    }

    /// Ends an upload: from now on the blob is there. What is sent along is its end, or all of it.
    ///
    /// # Errors
    /// See [`RegistryError`]; the registry compares the contents with `digest`.
    pub async fn finish(&self, token: &str, upload: Upload, digest: &str, rest: Vec<u8>) -> Result<(), RegistryError> {
        let separator = if upload.0.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}digest={digest}", upload.0);
        let request = self.request(Method::PUT, token, &path).header(CONTENT_TYPE, "application/octet-stream").body(rest);
        self.send(request.timeout(FINISH_LIMIT)).await.map(drop)
    }

    /// The tags of a repository; none when there is no such repository.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn tags(&self, token: &str, repository: &str) -> Result<Vec<String>, RegistryError> {
        self.list(token, format!("/v2/{repository}/tags/list?n={PAGE}"), "tags").await
    }

    /// All repositories.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn repositories(&self, token: &str) -> Result<Vec<String>, RegistryError> {
        self.list(token, format!("/v2/_catalog?n={PAGE}"), "repositories").await
    }

    async fn list(&self, token: &str, mut path: String, key: &str) -> Result<Vec<String>, RegistryError> {
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(response) = self.unless_missing(self.request(Method::GET, token, &path)).await? else { break };
            let next = header(response.headers(), LINK.as_str());
            let bytes = self.body(response, MAX_ANSWER_BYTES).await?;
            let answer: Value = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Nonsense(error.to_string()))?;
            found.extend(answer[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            // `</v2/_catalog?last=x&n=500>; rel="next"`
            match next.and_then(|link| Some(link.split_once('<')?.1.split_once('>')?.0.to_owned())) {
                Some(link) => path = self.path_of(&link)?,
                None => break,
            }
        }
        Ok(found)
    }

    fn request(&self, method: Method, token: &str, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    async fn unless_missing(&self, request: RequestBuilder) -> Result<Option<Response>, RegistryError> {
        match self.send(request.timeout(ANSWER_LIMIT)).await {
            Err(RegistryError::Refused { status: 404, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = self.body(response, MAX_ANSWER_BYTES).await.unwrap_or_default();
        let words = words(&text, status);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Denied(words)),
            _ => Err(RegistryError::Refused { status: status.as_u16(), words }),
        }
    }

    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + part.len() > limit {
                return Err(RegistryError::Nonsense(format!("it has more than {limit} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    /// The next piece of a body; `None` at its end.
    ///
    /// # Errors
    /// It breaks off, or stands still.
    pub async fn next_part(&self, response: &mut Response) -> Result<Option<Bytes>, RegistryError> {
        match tokio::time::timeout(STALL_LIMIT, response.chunk()).await {
            Ok(part) => part.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn location(&self, response: &Response) -> Result<Upload, RegistryError> {
        let location = header(response.headers(), LOCATION.as_str());
        let location = location.ok_or_else(|| RegistryError::Nonsense("an upload has no address".into()))?;
        self.path_of(&location).map(Upload)
    }

    fn path_of(&self, location: &str) -> Result<String, RegistryError> {
        let wrong = || RegistryError::Nonsense(format!("'{}' is no address", location.escape_debug()));
        let base = Url::parse(&format!("http://{}", self.address)).map_err(|_| wrong())?;
        let url = base.join(location).map_err(|_| wrong())?;
        Ok(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
    }

    fn silent(&self) -> RegistryError {
        RegistryError::Unreachable { address: self.address.clone(), cause: SILENCE.to_owned() }
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable { address: self.address.clone(), cause: innermost(error) }
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The registry's messages, or the status' own words.
fn words(text: &[u8], status: StatusCode) -> String {
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    let messages: Vec<&str> =
        answer["errors"].as_array().into_iter().flatten().filter_map(|error| error["message"].as_str()).take(4).collect();
    let plain = String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
    let words = match (messages.is_empty(), plain.trim()) {
        // What it says of a full disk, and of much else.
        (false, _) if messages == ["unknown error"] => "unknown error (is its brick full? its output says more)".to_owned(),
        (false, _) => messages.join("; "),
        (true, "") => status.canonical_reason().unwrap_or("no reason").to_owned(),
        (true, plain) => plain.to_owned(),
    };
    words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What really went wrong: `connection refused`, not `error sending request`.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return SILENCE.to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
