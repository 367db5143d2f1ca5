//! What a task wants to have in its sandbox before it starts: by HTTP or from the node, unpacked, made executable.
//!
//! | what could go wrong | what is done |
//! | --- | --- |
//! | a URL leads to what only this node reaches | [`address`]: refused, also after a redirect or a change of the name's address |
//! | a path leads to what its owner may not read | the rule of host volumes, and the owner's account is asked |
//! | a name in an archive leads out of the sandbox, or to a link that does | [`tree`]: the kernel resolves names below the sandbox and follows no link |
//! | somebody changes the sandbox meanwhile | it is the server's alone until all is there |
//! | it never ends, or is a bomb | limits of size, of entries and of time |
//! | what reads it has a mistake that somebody uses | it is done in a [child] that can do nothing else ([`confine`]) |
//!
//! Facts: Mesos' fetcher (what is executable is not unpacked; an archive stays where it was put, and what was in it goes to the sandbox's root).

use std::{
    cell::OnceCell,
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{account::Whom, agent::Report, jobs::Context, launch::End, volumes};
use crate::model::{
    app::Fetch,
    artifact::{self, Origin, Packing},
    cluster::Launch,
    host_volume::HostVolumeRule,
};

mod address;
mod child;
mod confine;
mod tree;
mod unpack;

use child::Order;
pub(super) use child::main;
pub(super) use tree::Tree;

/// Bytes of everything that one task fetches, and of everything that is unpacked from it.
pub const MAX_BYTES: u64 = 16 << 30;
/// All of it has to be there after so long.
const LIMIT: Duration = Duration::from_secs(1200);
/// Until a connection stands, and between two pieces of an answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// One server that sends us to another, to another, ...
const MAX_REDIRECTS: usize = 5;
const PIECE_BYTES: usize = 64 << 10;

/// Puts everything that the definition asks for below `directory`, which nobody else may write meanwhile.
pub(super) async fn run(context: &Arc<Context>, launch: &Launch, directory: &Path, cancel: &watch::Receiver<bool>) -> Result<(), End> {
    if launch.app.fetch.is_empty() {
        return Ok(());
    }
    let mut rule = context.rule.clone();
    rule.own.extend(context.docker_root.get().cloned());
    let order = Order {
        fetch: launch.app.fetch.clone(),
        directory: directory.to_owned(),
        rule,
        account: launch.account.clone(),
        trusted: launch.app.administered,
    };
    let tell = |uri: String| {
        context.report_if_room(Report::Progress { task: launch.task.clone(), message: format!("fetching {uri}") });
    };
    let work = async {
        let _turn = child::turn().await;
        tokio::time::timeout(LIMIT, child::run(&context.settings.shim, &order, tell))
            .await
            .unwrap_or_else(|_| Err(format!("could not fetch everything within {} s", LIMIT.as_secs())))
            .map_err(End::failed)
    };
    let mut cancel = cancel.clone();
    tokio::select! {
        biased;
        Ok(_) = cancel.wait_for(|cancelled| *cancelled) => Err(End::Cancelled),
        done = work => done,
    }
}

/// Says once that the kernel lacks what a child is confined with. Blocks, for a moment.
pub(super) fn warn_unless_confined() {
    if !confine::is_complete() {
        tracing::warn!(
            "This kernel has no Landlock that is good enough (Linux 5.19, enabled): what fetches for tasks is confined by seccomp alone, and sees all files."
        );
    }
}

struct Fetcher {
    tree: Tree,
    rule: HostVolumeRule,
    account: Option<crate::model::id::Owner>,
    /// Administrators wrote the definition.
    trusted: bool,
    /// Made for the first one that comes by HTTP.
    client: OnceCell<reqwest::Client>,
}

/// Something that is fetched, with everything at hand that it takes.
struct Prepared {
    place: String,
    mode: u32,
    packing: Packing,
    source: Source,
}

enum Source {
    Web(reqwest::Url),
    Node(File),
}

impl Fetcher {
    /// What needs files of the node, or rights: before they are given up. Blocks.
    fn prepare(&self, fetch: &Fetch) -> Result<Prepared, String> {
        let (origin, place) = (artifact::origin(fetch)?, artifact::place(fetch)?);
        let packing = artifact::packing(fetch, &place);
        let source = match origin {
            Origin::Web(url) => {
                let url: reqwest::Url = url.parse().map_err(|error| format!("it is no URL: {error}"))?;
                address::check_url(&url, self.trusted)?;
                if self.client.get().is_none() {
                    // It has read by then whom it trusts.
                    _ = self.client.set(client(self.trusted)?);
                }
                Source::Web(url)
            }
            Origin::Node(path) => Source::Node(open(&path, &self.rule, &Whom::of(self.account.as_ref()))?),
        };
        Ok(Prepared { place, mode: if fetch.executable { 0o755 } else { 0o644 }, packing, source })
    }

    /// Fetches one thing. Returns how many bytes it wrote.
    async fn fetch(&self, prepared: Prepared, left: u64) -> Result<u64, String> {
        let Prepared { place, mode, packing, source } = prepared;
        let file = self.tree.create(&place, mode).map_err(|error| format!("{place} cannot be made in the sandbox: {error}"))?;
        let got = match source {
            Source::Web(url) => download(self.client.get().ok_or("there is no client")?, url, file, left).await?,
            Source::Node(from) => copy(from, file, left)?,
        };
        if packing == Packing::None {
            return Ok(got);
        }
        let unpacked = unpack::unpack(&self.tree, &place, packing, left.saturating_sub(got));
        Ok(got + unpacked.map_err(|why| format!("it cannot be unpacked: {why}"))?)
    }
}

async fn download(client: &reqwest::Client, url: reqwest::Url, mut file: File, left: u64) -> Result<u64, String> {
    let answer = tokio::time::timeout(STALL_LIMIT, client.get(url).send()).await.map_err(|_| "no answer in time")?;
    let mut answer = answer.map_err(|error| innermost(&error))?;
    if !answer.status().is_success() {
        return Err(format!("the server answers {}", answer.status()));
    }
    too_large(answer.content_length().unwrap_or(0), left)?;
    let mut written = 0;
    loop {
        let piece = tokio::time::timeout(STALL_LIMIT, answer.chunk()).await;
        let piece = piece.map_err(|_| "the answer stood still")?.map_err(|error| format!("it broke off: {}", innermost(&error)))?;
        let Some(piece) = piece else { return Ok(written) };
        written += piece.len() as u64;
        too_large(written, left)?;
        // Nobody else is waiting here.
        file.write_all(&piece).map_err(|error| in_sandbox(&error))?;
    }
}

fn copy(mut from: File, mut file: File, left: u64) -> Result<u64, String> {
    too_large(from.metadata().map_or(0, |meta| meta.len()), left)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut written = 0;
    loop {
        let length = io::Read::read(&mut from, &mut piece).map_err(|error| format!("it cannot be read: {error}"))?;
        if length == 0 {
            return Ok(written);
        }
        written += length as u64;
        too_large(written, left)?;
        file.write_all(&piece[..length]).map_err(|error| in_sandbox(&error))?;
    }
}

fn in_sandbox(error: &io::Error) -> String {
    format!("the sandbox cannot be written: {error}")
}

fn too_large(bytes: u64, left: u64) -> Result<(), String> {
    if bytes <= left { Ok(()) } else { Err(format!("it is too large: a task may fetch and unpack {} GiB in all", MAX_BYTES >> 30)) }
}

/// A plain file of the node, as the rule of host volumes and the account allow it.
fn open(path: &str, rule: &HostVolumeRule, whom: &Whom) -> Result<File, String> {
    let pinned = volumes::find(path, rule, whom)?;
    let meta = rustix::fs::fstat(&pinned).map_err(|error| error.to_string())?;
    if rustix::fs::FileType::from_raw_mode(meta.st_mode) != rustix::fs::FileType::RegularFile {
        return Err("it is no plain file".to_owned());
    }
    File::open(format!("/proc/self/fd/{}", pinned.as_raw_fd())).map_err(|error| format!("it cannot be opened: {error}"))
}

/// A client that goes nowhere where `trusted` may not go, whoever sends it there.
fn client(trusted: bool) -> Result<reqwest::Client, String> {
    // The first one wins; it does not matter whose.
    _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error(format!("it redirects more than {MAX_REDIRECTS} times"));
        }
        match address::check_url(attempt.url(), trusted) {
            Ok(()) => attempt.follow(),
            Err(why) => attempt.error(why),
        }
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(redirects)
        .dns_resolver(address::Resolver { trusted })
        .connect_timeout(CONNECT_LIMIT)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("xtao/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| innermost(&error))
}

/// What it comes down to; reqwest's own words name the whole URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpListener};

    use super::*;

    /// Answers everybody with `head` and then with so many zeros, until nobody reads them any more.
    fn serve(head: &'static str, zeros: u64) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                _ = stream.read(&mut [0; 4096]);
                _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n").as_bytes());
                _ = io::copy(&mut io::repeat(0).take(zeros), &mut stream);
            }
        });
        format!("http://{address}/file")
    }

    impl Fetcher {
        async fn all(&self, fetch: &Fetch, left: u64) -> Result<u64, String> {
            self.fetch(self.prepare(fetch)?, left).await
        }
    }

    #[tokio::test]
    async fn no_more_is_fetched_than_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let fetcher = Fetcher {
            tree: Tree::open(directory.path()).unwrap(),
            rule: HostVolumeRule { allow: vec!["/".into()], ..HostVolumeRule::default() },
            account: None,
            trusted: true,
            client: OnceCell::new(),
        };
        let node = tempfile::tempdir().unwrap();
        std::fs::write(node.path().join("file"), [0; 1001]).unwrap();
        let fetch = |uri: String| Fetch { uri, extract: true, executable: false, cache: false, dest_path: Some("in/deep/er".into()) };
        let sources = [
            serve("Content-Length: 1001\r\n", 1001),
            // However long it goes on.
            serve("", 1 << 40),
            node.path().join("file").to_string_lossy().into_owned(),
        ];
        for source in sources {
            let error = fetcher.all(&fetch(source.clone()), 1000).await.unwrap_err();
            assert_eq!(error, "it is too large: a task may fetch and unpack 16 GiB in all", "{source}");
            assert!(std::fs::metadata(directory.path().join("in/deep/er")).unwrap().len() <= 1000, "{source}");
        }
        let exactly = serve("", 1000);
        assert_eq!(fetcher.all(&fetch(exactly), 1000).await, Ok(1000));
        // What is unpacked counts together with the archive.
        let packed = node.path().join("text.gz");
        let mut packer = flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
        packer.write_all(&[0; 990]).unwrap();
        packer.finish().unwrap();
        let packed = Fetch { dest_path: None, ..fetch(packed.to_string_lossy().into_owned()) };
        assert_eq!(fetcher.all(&packed, 1000).await, Err("it cannot be unpacked: what is in it is too large".to_owned()));
        assert!(fetcher.all(&packed, 1100).await.is_ok_and(|bytes| bytes > 990));
        assert_eq!(std::fs::read(directory.path().join("text")).unwrap(), [0; 990]);
    }
}
