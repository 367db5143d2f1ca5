//! Where a page leads, for the checks that Mesos makes: it runs `curl -L` in the task's network. Facts: `checks/checker_process.cpp` of Mesos, `curl(1)`.
//!
//! As curl does it: 50 steps at most, from HTTP to HTTPS and back, to the same host or another one; the last answer decides, and a page that leads on
//! without saying where is one. (curl would follow to FTP, too; that is a failure here.)
//!
//! Loopback is the task's own, wherever the connection is made ([`attempt`]). Unlike with Mesos the rule of what nobody is led to on behalf of others
//! ([`address`]) holds: link-local addresses and metadata of the machine. A name is looked up once, by the node, and what it means is looked at before
//! it is used.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;

use super::{
    attempt, doubt,
    target::{Http, Place},
};
use crate::model::address;

/// As curl, if it is not told otherwise.
pub(super) const MAX_REDIRECTS: usize = 50;

/// What to ask for after `from`, which has led to `location`; `task` is where the check began.
///
/// # Errors
/// What the check came to: it leads nowhere, or where it may not.
pub(super) async fn to(from: &Http, task: &Place, location: &str) -> Result<Http, doubt::Result> {
    let bad = |why: String| doubt::Result::Bad(format!("the page leads to {}, {why}", shorten(location)));
    let url = join(from, location).map_err(bad)?;
    let port = url.port_or_known_default().unwrap_or_default();
    let name = url.host_str().unwrap_or_default().to_owned();
    let found = match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => vec![address.to_canonical()],
        Err(_) if name == task.name || name == "localhost" => task.address.into_iter().collect(),
        Err(_) => look_up(&name, port).await?,
    };
    let address = choose(&found).map_err(bad)?;
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let is_elsewhere = Some(address) != task.address;
    let place = Place { address: Some(address), name, port, within: task.within.clone() };
    Ok(Http { place, tls: url.scheme() == "https", path, is_elsewhere, ..from.clone() })
}

fn join(from: &Http, location: &str) -> Result<Url, String> {
    let scheme = if from.tls { "https" } else { "http" };
    let base = format!("{scheme}://{}:{}{}", from.place.name, from.place.port, from.path);
    let url = Url::parse(&base).and_then(|base| base.join(location)).map_err(|error| format!("which makes no sense: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("and '{other}:' is not followed")),
    }
}

async fn look_up(name: &str, port: u16) -> Result<Vec<IpAddr>, doubt::Result> {
    let found = tokio::net::lookup_host((name, port)).await.map_err(|error| attempt::sort(&error))?;
    Ok(found.map(|found: SocketAddr| found.ip().to_canonical()).collect())
}

/// The first address that may be asked. One that only stands for loopback would be the node's, seen from outside.
fn choose(found: &[IpAddr]) -> Result<IpAddr, String> {
    let refusal = |address: &IpAddr| address::refusal(*address, address.is_loopback());
    match (found.iter().find(|address| refusal(address).is_none()), found.first()) {
        (Some(address), _) => Ok(*address),
        (None, Some(address)) => Err(format!("and {address} {}", refusal(address).unwrap_or_default())),
        (None, None) => Err("which has no address".to_owned()),
    }
}

/// For people.
fn shorten(location: &str) -> String {
    const MOST: usize = 200;
    match location.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &location[..end]),
        None => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::target::Within;

    fn http(place: &str) -> Http {
        let (name, port) = place.rsplit_once(':').unwrap();
        let task = crate::model::id::TaskId::app(crate::model::id::InstanceId::new("/a".parse().unwrap(), uuid::Uuid::nil()), 1);
        let within = Some(Within { task, agent: crate::model::id::AgentId::new("A"), own: "10.9.0.7".parse().unwrap() });
        let address = name.trim_matches(['[', ']']).parse().ok();
        let place = Place { address, name: name.to_owned(), port: port.parse().unwrap(), within };
        let (ready_codes, keep_body, follows) = (Vec::new(), false, true);
        Http { place, tls: false, path: "/a/b?c=d".into(), ignore_1xx: false, ready_codes, keep_body, follows, is_elsewhere: false }
    }

    #[tokio::test]
    async fn a_page_leads_where_its_words_say() {
        let check = async |from: &str, location: &str, expected: &str| {
            let from = http(from);
            let found = match to(&from, &from.place, location).await {
                Ok(http) => {
                    let elsewhere = if http.is_elsewhere { " elsewhere" } else { "" };
                    let (address, scheme) = (http.place.address.unwrap(), if http.tls { "https" } else { "http" });
                    assert_eq!(http.place.within, from.place.within);
                    format!("{scheme}://{}:{}{} at {address}{elsewhere}", http.place.name, http.place.port, http.path)
                }
                Err(doubt::Result::Bad(why)) => why,
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{location}");
        };
        let own = "127.0.0.1:80";
        check(own, "/login", "http://127.0.0.1:80/login at 127.0.0.1").await;
        check(own, "e?f#g", "http://127.0.0.1:80/a/e?f at 127.0.0.1").await;
        check(own, "//127.0.0.1:81", "http://127.0.0.1:81/ at 127.0.0.1").await;
        check(own, "https://127.0.0.1/\u{e4} b", "https://127.0.0.1:443/%C3%A4%20b at 127.0.0.1").await;
        check(own, "https://localhost:8443/x", "https://localhost:8443/x at 127.0.0.1").await;
        check(own, "http://192.0.2.9:8080/x", "http://192.0.2.9:8080/x at 192.0.2.9 elsewhere").await;
        check(own, "http://[::1]/", "http://[::1]:80/ at ::1 elsewhere").await;
        check(own, "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]:80/ at 127.0.0.1").await;
        check("[::1]:80", "/x", "http://[::1]:80/x at ::1").await;
        check("[::1]:80", "http://localhost/", "http://localhost:80/ at ::1").await;
        check("[::1]:80", "http://[2001:db8::1]/x", "http://[2001:db8::1]:80/x at 2001:db8::1 elsewhere").await;
        // Where nobody is led.
        let metadata = "is link-local or serves metadata of the machine, which is never fetched";
        let location = "http://169.254.169.254/latest";
        check(own, location, &format!("the page leads to {location}, and 169.254.169.254 {metadata}")).await;
        let stands = "http://[64:ff9b::7f00:1]/";
        check(own, stands, &format!("the page leads to {stands}, and 64:ff9b::7f00:1 stands for an address that is refused")).await;
        check(own, "http://0.0.0.0/", "the page leads to http://0.0.0.0/, and 0.0.0.0 is no address of a server").await;
        check(own, "ftp://10.9.0.7/", "the page leads to ftp://10.9.0.7/, and 'ftp:' is not followed").await;
        check(own, "file:///etc/passwd", "the page leads to file:///etc/passwd, and 'file:' is not followed").await;
        check(own, "http://", "the page leads to http://, which makes no sense: empty host").await;
        let long = format!("ftp:{}", "x".repeat(1000));
        check(own, &long, &format!("the page leads to {}..., and 'ftp:' is not followed", &long[..200])).await;
    }
}
