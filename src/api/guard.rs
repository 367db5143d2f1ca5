//! Who may speak to us at all, before anyone is asked for a name: protection of a loopback API against pages in the user's browser.
//!
//! Two attacks: a page makes its own name resolve to our address (DNS rebinding) and then is "same origin"; and a page sends a request across
//! origins whose answer it cannot read but whose effect it wants (CSRF). The first cannot choose the `Host` header, which carries its own name; an
//! address in `Host` is therefore harmless. The second cannot hide its `Origin`, nor send `application/json` without asking first, and we never
//! answer that question.

use std::{net::IpAddr, sync::Arc};

use warp::{
    Filter,
    filters::BoxedFilter,
    http::{
        HeaderMap, HeaderName, Method, StatusCode,
        header::{HOST, ORIGIN},
    },
};

use super::{Info, call::Peer, error::ApiError, identity::Source};

/// How browsers say where the page is from that sends a request.
pub(super) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Rejects what [`check`] refuses. Our own routes ask [`check`] again and answer; filters mounted beside them are not even asked.
pub fn filter(info: Arc<Info>) -> BoxedFilter<()> {
    warp::method()
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and_then(move |method: Method, headers: HeaderMap, peer: Option<Peer>| {
            let is_tls = peer.is_some_and(|peer| matches!(peer.source, Source::Tls(_)));
            let allowed = check(&info, is_tls, &method, &headers).map_err(|_| warp::reject());
            std::future::ready(allowed)
        })
        .untuple_one()
        .boxed()
}

/// By TLS the certificate has told the client whom it speaks to, and credentials are asked for: any name will do there.
///
/// # Errors
/// 403 with what is wrong.
pub fn check(info: &Info, is_tls: bool, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let forbidden = |text: String| Err(ApiError::new(StatusCode::FORBIDDEN, text));
    // Only HTTP/1.0 comes without, and no browser speaks it.
    let host = match headers.get(HOST) {
        None => None,
        Some(host) => match host.to_str() {
            Ok(host) if is_tls || is_ours(info, host) => Some(host),
            _ => return forbidden(format!("'{}' is not a name of this server", String::from_utf8_lossy(host.as_bytes()))),
        },
    };
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let same = origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
        if !same && !info.origins.iter().any(|allowed| *allowed == origin) {
            return forbidden(format!("pages of '{origin}' may not change anything here"));
        }
    } else if headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return forbidden("other sites' pages may not change anything here".into());
    }
    Ok(())
}

/// An address, `localhost`, our own host name, or a name that was configured; the port does not matter.
fn is_ours(info: &Info, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.');
    name.parse::<IpAddr>().is_ok()
        || ["localhost", info.hostname.as_str()].iter().any(|ours| name.eq_ignore_ascii_case(ours))
        || info.hosts.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(method: Method, headers: &[(&'static str, &str)]) -> bool {
        let mut info = Info::new("node1", 8080, &crate::core::Settings::default());
        info.hosts.push("compute.example".into());
        info.origins.push("https://console.example".into());
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check(&info, false, &method, &headers).is_ok()
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let check = |host: &str, expected: bool| assert_eq!(allowed(Method::GET, &[("host", host)]), expected, "{host}");
        for ours in ["127.0.0.1:8080", "[::1]:8080", "10.0.0.7", "localhost:1", "LocalHost", "node1:8080", "compute.example", "node1."] {
            check(ours, true);
        }
        for foreign in ["evil.example:8080", "node1.evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil"] {
            check(foreign, false);
        }
        assert!(allowed(Method::GET, &[]));
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let check = |method: Method, headers: &[(&'static str, &str)], expected: bool| {
            let headers = [&[("host", "localhost:8080")], headers].concat();
            assert_eq!(allowed(method.clone(), &headers), expected, "{method} {headers:?}");
        };
        check(Method::POST, &[], true);
        check(Method::POST, &[("origin", "http://localhost:8080")], true);
        check(Method::POST, &[("origin", "https://console.example")], true);
        check(Method::POST, &[("origin", "http://localhost:3000")], false);
        check(Method::DELETE, &[("origin", "https://evil.example")], false);
        check(Method::POST, &[("origin", "null")], false);
        check(Method::POST, &[("sec-fetch-site", "cross-site")], false);
        check(Method::GET, &[("origin", "https://evil.example")], true);
    }
}
