//! One request to the server, and its answer or error in words.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::Error;

/// How long the server may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Sends the request; the answer is `null` where the server says nothing.
///
/// # Errors
/// The server cannot be reached, says no, or answers something that is no JSON.
pub async fn call(url: &str, method: Method, path: &str, body: Option<Value>) -> Result<Value, Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable { url: url.to_owned(), cause: innermost(&error) };
    // The first one wins; it does not matter whose.
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(LIMIT).build().map_err(unreachable)?;
    let mut request = client.request(method, format!("{}{path}", url.trim_end_matches('/')));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_ANSWER_BYTES {
            return Err(Error::Server(format!("the answer of {url} is longer than {MAX_ANSWER_BYTES} bytes")));
        }
    }
    let answer: Option<Value> = if text.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&text).ok() };
    match answer {
        Some(answer) if status.is_success() => Ok(answer),
        answer => Err(Error::Server(complaint(url, status, answer.as_ref()))),
    }
}

fn complaint(url: &str, status: StatusCode, answer: Option<&Value>) -> String {
    let Some(message) = answer.and_then(|answer| answer["message"].as_str()) else {
        return format!("{url} answers {status}, and not as a server of ours does: is the address right?");
    };
    let details = answer.and_then(|answer| answer["details"].as_array()).into_iter().flatten();
    let details: Vec<&str> = details.filter_map(|detail| detail["errors"].as_array()).flatten().filter_map(Value::as_str).collect();
    if details.is_empty() { message.to_owned() } else { format!("{message}: {}", details.join("; ")) }
}

/// What really went wrong: `connection refused`, not `error sending request`.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", LIMIT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
