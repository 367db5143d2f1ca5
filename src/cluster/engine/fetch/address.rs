//! Where fetching may not lead: to what is reached from this node alone, and to what answers everybody with secrets (cloud metadata).
//!
//! A name is looked up once for each connection, and what it leads to is looked at before it is used, so that a second answer cannot be another one.

use std::net::{IpAddr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::model::address::refusal;

/// That a URL may be asked for: its scheme, and its host where that is an address. Names are looked at by the [`Resolver`].
///
/// # Errors
/// A sentence for the user.
pub(super) fn check_url(url: &Url, trusted: bool) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("it leads to '{}:', which is not followed", url.scheme()));
    }
    let host = url.host_str().unwrap_or_default();
    let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    match literal.and_then(|address| refusal(address, trusted)) {
        Some(why) => Err(format!("{host} {why}")),
        None => Ok(()),
    }
}

/// Looks names up, and hides addresses that are refused.
pub(super) struct Resolver {
    pub(super) trusted: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = self.trusted;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (refused, allowed): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(|found| refusal(found.ip(), trusted).is_some());
            if let (true, Some(first)) = (allowed.is_empty(), refused.first()) {
                let why = refusal(first.ip(), trusted).unwrap_or_default();
                return Err(format!("{} is {}, which {why}", name.as_str(), first.ip()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_looked_at_however_its_address_is_written() {
        let check = |url: &str, expected: &str| {
            let found = check_url(&url.parse().unwrap(), false).map_or_else(|error| error, |()| "fine".to_owned());
            assert!(found.starts_with(expected), "{url}: {found}");
        };
        check("http://example.com/a", "fine");
        check("https://10.0.0.1:8080/a", "fine");
        for written in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://017700000001/", "http://127.1:80/"] {
            check(written, "127.0.0.1 is this node itself");
        }
        check("http://[::1]/", "[::1] is this node itself");
        check("http://[::ffff:a9fe:a9fe]/", "[::ffff:a9fe:a9fe] is link-local");
        check("http://169.254.169.254/latest/meta-data", "169.254.169.254 is link-local or serves metadata");
        check("ftp://example.com/", "it leads to 'ftp:'");
        check("file:///etc/passwd", "it leads to 'file:'");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_node_is_refused() {
        let resolve = |trusted: bool| Resolver { trusted }.resolve("localhost".parse().unwrap());
        let error = resolve(false).await.err().unwrap().to_string();
        assert!(error.starts_with("localhost is ") && error.contains("only administrators"), "{error}");
        assert!(resolve(true).await.unwrap().count() > 0);
    }
}
