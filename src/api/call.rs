//! A request taken apart: the path without its decorations, the query, and a body that is read only when a route wants it, up to a limit.

use std::{
    future::poll_fn,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio::sync::watch;
use warp::{
    Filter, Rejection,
    http::{
        HeaderMap, Method, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, REFERER, TRANSFER_ENCODING},
    },
};

use super::{
    error::ApiError,
    guard::SEC_FETCH_SITE,
    identity::{Asked, Source, Who},
    patience::{Hold, Patience},
    query::{Query, decode},
    quiet::muted,
    trail::Trail,
};

/// The connection that a request came on; put into the request's extensions by the accept loop.
#[derive(Clone)]
pub struct Peer {
    /// The client.
    pub source: Source,
    /// Who that is: found out once for each request.
    pub asked: Asked,
    /// Its address as a text, without the port; `unix` for a unix socket.
    pub ip: Arc<str>,
    /// Becomes true when the server is to stop: streams end then.
    pub closing: watch::Receiver<bool>,
    /// May the connection be silent?
    pub patience: Patience,
}

impl Peer {
    /// [`Peer::ip`] of a connection from `source`.
    pub fn ip_of(source: &Source) -> Arc<str> {
        source.address().map_or_else(|| "unix".into(), |address| address.to_string().into())
    }

    /// The client's address, without its port; `unix` for a unix socket.
    pub fn client_ip(peer: Option<&Self>) -> Arc<str> {
        peer.map_or_else(|| "unknown".into(), |peer| peer.ip.clone())
    }
}

/// One request. It passes through many hands, so it is only a pointer.
pub struct Call(Box<Parts>);

impl Deref for Call {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Call {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

/// What a request consists of.
pub struct Parts {
    /// Its method.
    pub method: Method,
    /// The path's segments, decoded; empty ones are dropped, and so are the prefixes under which DC/OS mounts Marathon.
    pub segments: Arc<[String]>,
    /// Its query.
    pub query: Query,
    /// Its headers.
    pub headers: HeaderMap,
    /// Where it came from; `None` without a connection.
    pub peer: Option<Peer>,
    /// Who sent it, as soon as that was found out.
    pub who: Option<Who>,
    /// The connection itself, for a request that wants to go on in another protocol.
    pub upgrade: Option<OnUpgrade>,
    /// What the audit log will be told of it.
    pub trail: Arc<Trail>,
    path: Arc<str>,
    body: Body,
    body_bytes_max: usize,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// Of a body that nobody wants so many bytes are taken all the same, for so long. A client that is still sending would otherwise see a broken connection in
/// place of the answer that says why.
const MAX_UNWANTED_BYTES: usize = 64 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(10);

/// A body on its way.
struct Body {
    /// `None`: it is over.
    pieces: Option<Pieces>,
    /// The headers say that there is one.
    announced: bool,
    /// Bytes that are still to come, if that was said.
    left: Option<u64>,
}

impl Body {
    fn new(pieces: Pieces, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let announced = length.is_some_and(|length| length > 0) || headers.contains_key(TRANSFER_ENCODING);
        Self { pieces: Some(pieces), announced, left: length }
    }

    async fn next(&mut self) -> Option<Result<Bytes, warp::Error>> {
        let (pieces, left) = (self.pieces.as_mut()?, &mut self.left);
        let piece = poll_fn(|context| {
            let (piece, rung) = muted(|| pieces.as_mut().poll_next(context));
            if let (Poll::Ready(Some(Ok(piece))), Some(left)) = (&piece, &mut *left) {
                *left = left.saturating_sub(piece.len() as u64);
            }
            // Behind the last piece there is nothing that the connection could go on with.
            if rung && *left != Some(0) {
                context.waker().wake_by_ref();
            }
            piece
        })
        .await;
        if !matches!(piece, Some(Ok(_))) {
            self.pieces = None;
        }
        piece
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(pieces) = self.pieces.take().filter(|_| self.announced)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(UNWANTED_TIME, drain(pieces)));
        }
    }
}

async fn drain(mut pieces: Pieces) {
    let mut taken = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        taken += piece.len();
        if taken > MAX_UNWANTED_BYTES {
            return;
        }
    }
}

/// Takes every request apart; bodies of more than `body_bytes_max` are refused when they are read.
pub fn filter(body_bytes_max: usize) -> impl Filter<Extract = (Call,), Error = Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::body::stream().map(boxed))
        .map(move |method, path: warp::path::FullPath, query: String, headers: HeaderMap, peer, upgrade, pieces| {
            Call(Box::new(Parts {
                method,
                segments: segments(path.as_str()).into(),
                query: Query::read(&query),
                body: Body::new(pieces, &headers),
                headers,
                peer,
                who: None,
                upgrade,
                trail: Arc::default(),
                path: path.as_str().into(),
                body_bytes_max,
            }))
        })
}

fn boxed(body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + Sync + 'static) -> Pieces {
    Box::pin(body.map(|part| part.map(|mut part| part.copy_to_bytes(part.remaining()))))
}

/// An id may come with its slashes encoded, so decoding goes first.
pub(super) fn segments(path: &str) -> Vec<String> {
    let mut segments = Vec::with_capacity(8);
    segments.extend(decode(path, false).split('/').filter(|segment| !segment.is_empty()).map(str::to_owned));
    for prefix in [["service", "marathon"].as_slice(), &["marathon"]] {
        if segments.len() >= prefix.len() && prefix.iter().zip(&segments).all(|(ours, theirs)| ours == theirs) {
            segments.drain(..prefix.len());
            break;
        }
    }
    segments
}

impl Call {
    /// The path as it came.
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// The client's address, without its port.
    pub fn client_ip(&self) -> Arc<str> {
        Peer::client_ip(self.peer.as_ref())
    }

    /// True when it came by TLS.
    pub fn is_tls(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| matches!(peer.source, Source::Tls(_)))
    }

    /// True for GET and for HEAD, which is answered the same; hyper leaves the body away.
    pub fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// A flag of the query.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.query.flag(name, default)
    }

    /// `http://host:port` as the client knows us.
    pub fn base(&self, otherwise: &str) -> String {
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        let scheme = if self.is_tls() { "https" } else { "http" };
        host.map_or_else(|| otherwise.to_owned(), |host| format!("{scheme}://{host}"))
    }

    /// From now on the connection may be silent.
    pub fn hold(&self) -> Option<Hold> {
        self.peer.as_ref().map(|peer| peer.patience.hold())
    }

    /// Becomes true when the server is to stop. A request without a connection has nobody to tell it; it ends with its reader.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.peer.as_ref().map_or_else(|| watch::channel(false).1, |peer| peer.closing.clone())
    }

    /// The next piece of the body; `None`: that was all.
    ///
    /// # Errors
    /// 400: it broke off.
    pub async fn piece(&mut self) -> Option<Result<Bytes, ApiError>> {
        let piece = self.body.next().await?;
        Some(piece.map_err(|error| ApiError::bad(format!("the body could not be read: {error}"))))
    }

    /// The body as JSON. Nesting is limited to 128 levels by the reader.
    ///
    /// # Errors
    /// 415 for another content type (none is taken for JSON), 413 for too much, 400 for nothing or for what is not JSON.
    pub async fn json(&mut self) -> Result<Value, ApiError> {
        if let Some(kind) = self.headers.get(CONTENT_TYPE)
            && !kind.to_str().is_ok_and(is_json)
        {
            return Err(ApiError::reason(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        self.json_of_any_kind().await
    }

    /// As [`json`](Self::json), whatever the content type says: Marathon's groups are sent like this by scripts (`curl -d` calls everything a form). Not from a
    /// page in a browser, which could be anybody's: browsers say where a page is from.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn json_of_a_script(&mut self) -> Result<Value, ApiError> {
        let from_a_page = [ORIGIN, REFERER, SEC_FETCH_SITE].iter().any(|header| self.headers.contains_key(header));
        if from_a_page { self.json().await } else { self.json_of_any_kind().await }
    }

    async fn json_of_any_kind(&mut self) -> Result<Value, ApiError> {
        let body = self.bytes().await?;
        if body.trim_ascii().is_empty() {
            return Err(ApiError::empty_body());
        }
        serde_json::from_slice(&body).map_err(|error| ApiError::malformed(error.to_string()))
    }

    async fn bytes(&mut self) -> Result<Vec<u8>, ApiError> {
        let max = self.body_bytes_max;
        let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {max} bytes"));
        let announced = self.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(part) = self.piece().await {
            let part = part?;
            if body.len() + part.len() > max {
                return Err(too_large());
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("application/"))
            && essence.len().checked_sub(5).and_then(|at| essence.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderName;

    use super::*;
    use crate::api::quiet::wakes_of;

    #[test]
    fn behind_the_last_piece_of_a_body_alone_the_connection_is_not_woken() {
        let check = |headers: &[(HeaderName, &'static str)], expected: usize| {
            let mut pieces = ["12", "345"].into_iter();
            // As hyper's body does with whoever sends into it.
            let stream = futures_util::stream::poll_fn(move |context| {
                let piece = pieces.next();
                piece.iter().for_each(|_| context.waker().wake_by_ref());
                Poll::Ready(piece.map(|piece| Ok(Bytes::from(piece))))
            });
            let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            let mut body = Body::new(Box::pin(stream), &headers);
            let mut taken = 0;
            let wakes = wakes_of(async {
                while let Some(piece) = body.next().await {
                    taken += piece.unwrap().len()
                }
            });
            assert_eq!((taken, wakes), (5, expected), "{headers:?}");
        };
        check(&[(CONTENT_LENGTH, "5")], 1);
        check(&[(CONTENT_LENGTH, "6")], 2);
        check(&[(TRANSFER_ENCODING, "chunked")], 2);
    }

    #[test]
    fn decorations_of_a_path_are_dropped() {
        let check = |path: &str, expected: &str| assert_eq!(segments(path).join(" "), expected, "{path}");
        check("/v2/apps/", "v2 apps");
        check("/v2/apps//shop/web", "v2 apps shop web");
        check("/v2/apps/%2Fshop%2Fweb", "v2 apps shop web");
        check("/service/marathon/v2/apps", "v2 apps");
        check("/marathon/v2/apps", "v2 apps");
        check("/marathon", "");
        check("/", "");
        check("*", "*");
    }

    #[test]
    fn json_goes_by_several_names() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.dcos+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind), expected, "{kind}");
        }
    }
}
