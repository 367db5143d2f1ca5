//! What surrounds every answer of ours: it is counted, limited in number, opened to pages of other origins where that was asked for, and compressed.
//!
//! Facts (Marathon 1.11): `--http_max_concurrent_requests` refuses with 503 and its own text; `--access_control_allow_origin` opens reading alone, and of
//! several origins the last one counts; answers are compressed unless `--disable_http_compression`, streams of events never.

use std::{io::Write as _, pin::Pin, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use hyper::body::Body;
use tokio::sync::Semaphore;
use warp::{
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_ENCODING, CONTENT_LENGTH, VARY,
        },
    },
    reply::Reply as _,
};

use super::{Api, Response, answer, call::Call, error::ApiError, v2};
use crate::metrics::{Counter, Metrics};

/// Shorter bodies are sent as they are.
const MIN_GZIP_BYTES: u64 = 1024;

/// Longer ones are compressed where other requests do not wait for it.
const LONG_GZIP_BYTES: u64 = 64 * 1024;

/// Requests at once, where that is limited.
#[derive(Clone, Debug)]
pub struct MostRequests {
    most: usize,
    places: Arc<Semaphore>,
}

impl MostRequests {
    /// `most` at once.
    pub fn new(most: usize) -> Self {
        Self { most, places: Arc::new(Semaphore::new(most)) }
    }
}

/// Answers any request.
pub async fn answer(api: Arc<Api>, call: Call) -> Response {
    let metrics = api.access.metrics().clone();
    let request = metrics.request();
    let (method, takes_gzip) = (call.method.clone(), accepts_gzip(&call.headers));
    let announced = call.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    metrics.add(Counter::RequestBytes, announced.unwrap_or(0));
    let (origin, compresses) = (api.info.allow_origin.clone(), api.info.compression);
    let asked = origin.is_some().then(|| call.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned()).flatten();
    let response = if origin.is_some() && method == Method::OPTIONS {
        // A page's question whether it may ask comes without credentials.
        answer::empty(StatusCode::OK)
    } else {
        within_limit(&api, call).await
    };
    let response = match origin {
        Some(origin) => opened(response, &origin, asked),
        None => response,
    };
    let response = if compresses && method != Method::HEAD && takes_gzip { compressed(response, &metrics).await } else { response };
    metrics.add(Counter::ResponseBytes, response.body().size_hint().exact().unwrap_or(0));
    request.end(method.as_str(), response.status().as_u16());
    response
}

async fn within_limit(api: &Api, call: Call) -> Response {
    let Some(MostRequests { most, places }) = &api.most_requests else { return v2::answer(api, call).await };
    match places.try_acquire() {
        Ok(_place) => v2::answer(api, call).await,
        Err(_) => ApiError::unavailable(format!("Too many concurrent requests! Allowed: {most}.")).response(),
    }
}

fn opened(mut response: Response, origin: &HeaderValue, asked: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    if let Some(wanted) = asked {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    }
    response
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let wanted = codings.filter_map(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let quality = parameters.trim().strip_prefix("q=").and_then(|quality| quality.trim().parse::<f32>().ok()).unwrap_or(1.0);
        Some((name.trim(), quality > 0.0)).filter(|(name, _)| name.eq_ignore_ascii_case("gzip") || *name == "*")
    });
    // What is said of gzip itself counts before what is said of all others.
    let mut all = false;
    for (name, wants) in wanted {
        if name != "*" {
            return wants;
        }
        all = wants;
    }
    all
}

/// A body that is whole already is compressed; one that is still being made is passed on as it comes.
async fn compressed(response: Response, metrics: &Metrics) -> Response {
    let length = response.body().size_hint().exact().unwrap_or(0);
    if length < MIN_GZIP_BYTES || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Some(plain) = whole(body).await else {
        return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer broke off".to_owned()).response();
    };
    let packed = if length > LONG_GZIP_BYTES {
        let plain = plain.clone();
        tokio::task::spawn_blocking(move || gzip(&plain)).await.ok().flatten()
    } else {
        gzip(&plain)
    };
    let bytes = match packed {
        Some(packed) => {
            metrics.add(Counter::GzippedBytes, packed.len() as u64);
            head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
            packed
        }
        None => plain,
    };
    head.headers.remove(CONTENT_LENGTH);
    let mut response = bytes.into_response();
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// `None`: it ended with an error.
async fn whole(body: impl Body<Data = bytes::Bytes>) -> Option<Vec<u8>> {
    let mut body = Box::pin(body);
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::as_mut(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Some(bytes)
}

fn gzip(plain: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::api::{
        routes,
        testing::{Server, World, app},
    };

    fn world() -> World {
        let mut world = World::default();
        (0..20).for_each(|number| _ = world.app(app(&format!("/web{number}"))));
        world
    }

    async fn ask(api: Api, method: Method, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = warp::http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = hyper_util::service::TowerToHyperService::new(warp::service(routes(api)));
        let response = hyper::service::Service::call(&service, request.body(String::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, whole(body).await.unwrap())
    }

    #[tokio::test]
    async fn long_answers_are_compressed_for_who_takes_it() {
        let api = Server::new(world()).api;
        let (_, plain_headers, plain) = ask(api.clone(), Method::GET, "/v2/apps", &[]).await;
        assert!(!plain_headers.contains_key(CONTENT_ENCODING) && plain.len() as u64 > MIN_GZIP_BYTES);
        let (status, headers, packed) = ask(api.clone(), Method::GET, "/v2/apps", &[("accept-encoding", "deflate, gzip;q=0.5")]).await;
        assert_eq!(
            (status.as_u16(), &headers[CONTENT_ENCODING], &headers[VARY]),
            (200, &"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain && packed.len() < plain.len());
        assert_eq!(headers["content-type"], plain_headers["content-type"]);
        for (path, accept) in [("/v2/apps", "identity"), ("/v2/apps", "gzip;q=0, *"), ("/ping", "gzip")] {
            let (_, headers, _) = ask(api.clone(), Method::GET, path, &[("accept-encoding", accept)]).await;
            assert!(!headers.contains_key(CONTENT_ENCODING), "{path} {accept}");
        }
        let mut info = (*api.info).clone();
        info.compression = false;
        let (_, headers, _) = ask(Api { info: Arc::new(info), ..api }, Method::GET, "/v2/apps", &[("accept-encoding", "gzip")]).await;
        assert!(!headers.contains_key(CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn pages_of_an_allowed_origin_may_read() {
        let api = Server::new(world()).api;
        let (_, headers, _) = ask(api.clone(), Method::GET, "/v2/apps", &[("origin", "https://ui")]).await;
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        let mut info = (*api.info).clone();
        info.allow_origin = Some(HeaderValue::from_static("https://ui"));
        let api = Api { info: Arc::new(info), ..api };
        for (method, wanted) in [(Method::GET, None), (Method::OPTIONS, Some("authorization"))] {
            let asked: Vec<_> = wanted.map(|wanted| ("access-control-request-headers", wanted)).into_iter().collect();
            let (status, headers, _) = ask(api.clone(), method.clone(), "/v2/apps", &asked).await;
            assert_eq!((status.as_u16(), &headers[ACCESS_CONTROL_ALLOW_ORIGIN]), (200, &"https://ui".parse().unwrap()), "{method}");
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD, OPTIONS");
            assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "86400");
            assert_eq!(headers.get(ACCESS_CONTROL_ALLOW_HEADERS).map(|value| value.to_str().unwrap()), wanted);
        }
    }

    #[tokio::test]
    async fn one_request_too_many_is_refused_in_marathons_words() {
        let api = Api { most_requests: Some(MostRequests::new(1)), ..Server::new(world()).api };
        assert_eq!(ask(api.clone(), Method::GET, "/ping", &[]).await.0, 200);
        let places = api.most_requests.clone().unwrap().places;
        let _taken = places.try_acquire().unwrap();
        let (status, _, body) = ask(api, Method::GET, "/ping", &[]).await;
        assert_eq!(
            (status.as_u16(), String::from_utf8(body).unwrap().as_str()),
            (503, r#"{"message":"Too many concurrent requests! Allowed: 1."}"#)
        );
    }
}
