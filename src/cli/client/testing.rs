//! A server that answers by a script, on a port or on a socket, and remembers what it was asked.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde_json::Value;
use warp::{
    Filter,
    http::{HeaderMap, Response},
    path::FullPath,
};

/// What came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /v2/apps?x=y`
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    /// The line, and the body if there is one.
    pub fn show(&self) -> String {
        format!("{} {}", self.line, String::from_utf8_lossy(&self.body)).trim_end().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What goes out.
pub type Answer = Response<String>;

/// A status and a body.
pub fn answer(status: u16, body: impl ToString) -> Answer {
    Response::builder().status(status).body(body.to_string()).unwrap()
}

/// The server. It ends with the test's runtime.
pub struct Fake {
    /// `http://127.0.0.1:PORT`; empty on a socket.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// On a port, with the answers that `script` gives.
    pub fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (route, asked) = route(script);
        tokio::spawn(warp::serve(route).incoming(tokio::net::TcpListener::from_std(listener).unwrap()).run());
        Self { url, asked }
    }

    /// On a socket.
    pub fn on_socket(socket: &Path, script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let (route, asked) = route(script);
        tokio::spawn(warp::serve(route).incoming(listener).run());
        Self { url: String::new(), asked }
    }

    /// On a port, always with the same answer; `null` is an empty body.
    pub fn always(status: u16, body: Value) -> Self {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        Self::start(move |_| answer(status, &text))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Everything that was asked, a line each.
    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::show).collect()
    }
}

type Log = Arc<Mutex<Vec<Asked>>>;

fn route(
    script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (impl Filter<Extract = (Answer,), Error = warp::Rejection> + Clone + Send + Sync + 'static, Log) {
    let log = Log::default();
    let asked = log.clone();
    let script = Arc::new(script);
    let query = warp::query::raw().map(|query: String| format!("?{query}")).or(warp::any().map(String::new)).unify();
    let route = warp::method().and(warp::path::full()).and(query).and(warp::header::headers_cloned()).and(warp::body::bytes()).map(
        move |method: warp::http::Method, path: FullPath, query: String, headers: HeaderMap, body: Bytes| {
            let asked = Asked { line: format!("{method} {}{query}", path.as_str()), headers, body };
            log.lock().unwrap().push(asked.clone());
            script(&asked)
        },
    );
    (route, asked)
}
