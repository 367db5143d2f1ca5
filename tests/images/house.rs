//! A registry of a test's own (Debian's `docker-registry`), with the platform's side of it: token authority, way in for Docker, and the part of the API
//! that `imgcli` asks. Users are named in the `User` header of a request instead of being asked who they are.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use warp::{Filter, Reply};
use xtao::{
    api::{Limits, server::serve_filter},
    registry::{
        access::{Access, Who, scopes},
        archive::sha256,
        platform::{Directory, Platform, Settings, Whereabouts},
        proxy, tar,
        token::{Authority, ISSUER, SERVICE},
    },
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Users with a record, and where the registry is said to be.
struct World {
    users: BTreeSet<&'static str>,
    whereabouts: Mutex<Whereabouts>,
}

struct Told(Arc<World>);

impl Directory for Told {
    fn registry(&self) -> Whereabouts {
        *self.0.whereabouts.lock().unwrap()
    }

    fn is_user(&self, name: &str) -> bool {
        self.0.users.contains(name)
    }

    fn is_administrator(&self, name: &str) -> bool {
        name == "admin"
    }
}

pub struct House {
    directory: tempfile::TempDir,
    child: Option<Child>,
    address: SocketAddr,
    world: Arc<World>,
    pub platform: Arc<Platform>,
}

impl House {
    /// A registry that runs, and the way in for Docker.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("token.crt"), authority.certificate()).unwrap();
        // A free port, as far as that can be known beforehand.
        let address = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let world = Arc::new(World { users: ["zmfsea", "other"].into(), whereabouts: Mutex::new(Whereabouts::At(address)) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let name = "registry.marathon.mesos:5000".to_owned();
        let settings = Settings { name, realm: "http://localhost/token".into(), proxy, password: "a secret".into() };
        let platform = Arc::new(Platform::new(authority, Box::new(Told(world.clone())), settings));
        tokio::spawn(serve_filter(listener, proxy::routes(platform.clone()).unwrap(), Limits::default(), std::future::pending()));
        let mut house = Self { directory, child: None, address, world, platform };
        house.launch();
        house
    }

    fn launch(&mut self) {
        let config = self.path("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {data}}}\n  delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n\
             auth:\n  token: {{realm: 'http://localhost/token', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {certificate}}}\n",
            data = self.path("data").display(),
            address = self.address,
            certificate = self.path("token.crt").display(),
        );
        std::fs::write(&config, text).unwrap();
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("docker-registry");
        let command = command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().expect("docker-registry is installed"));
        let began = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < START_LIMIT, "the registry did not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What the platform believes of the registry.
    pub fn say(&self, whereabouts: Whereabouts) {
        *self.world.whereabouts.lock().unwrap() = whereabouts;
    }

    /// Ends the registry.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            rustix::process::kill_process(pid, Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// A token for `user`, as the API gives it.
    pub fn token(&self, user: &str, repository: &str, actions: &[&str]) -> String {
        self.platform.authority().token(&who(user), &[Access::repository(repository, actions)]).text
    }

    /// The part of the API that `imgcli` asks, for one user, with the registry at `registry`; its address.
    pub async fn api(&self, user: &'static str, registry: SocketAddr) -> SocketAddr {
        let platform = self.platform.clone();
        let about = {
            let admin = user == "admin";
            let name = platform.name().to_owned();
            warp::path!("v2" / "registry").map(move || {
                warp::reply::json(
                    &json!({ "name": name, "state": "running", "address": registry.to_string(), "user": user, "admin": admin }),
                )
                .into_response()
            })
        };
        let token = warp::path!("v2" / "registry" / "token").and(warp::query::<Vec<(String, String)>>()).map(
            move |query: Vec<(String, String)>| {
                let wanted: Vec<String> = query.into_iter().filter(|(key, _)| key == "scope").map(|(_, value)| value).collect();
                let token = platform.authority().token(&who(user), &scopes(&wanted));
                warp::reply::json(&json!({ "token": token.text, "expires_in": 300, "access": token.access })).into_response()
            },
        );
        let missing = warp::any().map(|| {
            warp::reply::with_status(warp::reply::json(&json!({ "message": "URI not found" })), warp::http::StatusCode::NOT_FOUND)
                .into_response()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = about.or(token).unify().or(missing).unify().boxed();
        tokio::spawn(serve_filter(listener, routes, Limits::default(), std::future::pending()));
        address
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn who(user: &str) -> Who {
    match user {
        "" => Who::Nobody,
        "admin" => Who::Administrator(user.to_owned()),
        _ => Who::User(user.to_owned()),
    }
}

/// A line to `to` which breaks after so many bytes have gone there, again and again, as often as it is told. Its address, and how often it broke.
pub async fn bad_line(to: SocketAddr, bytes: u64, times: u64) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broken = Arc::new(AtomicU64::new(0));
    let count = broken.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let (mut near_read, mut near_write) = near.split();
                let (mut far_read, mut far_write) = far.split();
                let there = async {
                    let (mut sent, mut buffer) = (0, vec![0; 16 * 1024]);
                    loop {
                        let count_read = near_read.read(&mut buffer).await.unwrap_or(0);
                        if count_read == 0 || far_write.write_all(&buffer[..count_read]).await.is_err() {
                            return;
                        }
                        sent += count_read as u64;
                        if sent > bytes && count.load(Ordering::SeqCst) < times {
                            count.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = there => {}
                    _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
                }
            });
        }
    });
    (address, broken)
}

/// Bytes that nothing compresses, the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// An image's configuration, for layers with these sums.
fn config(ids: &[String]) -> Vec<u8> {
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-31T12:00:00Z", "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
        "history": ids.iter().map(|_| json!({ "created": "2026-01-31T12:00:00Z" })).collect::<Vec<_>>(),
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    config.to_string().into_bytes()
}

/// Writes an archive of these files.
fn write_tar(path: &Path, files: &[(String, Vec<u8>)]) {
    let mut bytes = Vec::new();
    for (name, contents) in files {
        bytes.extend_from_slice(&tar::file_header(name, contents.len() as u64));
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len() + tar::padding(contents.len() as u64), 0);
    }
    bytes.extend_from_slice(&tar::END);
    std::fs::write(path, bytes).unwrap();
}

/// An archive as `docker save` writes it: layers as they are.
pub fn archive(path: &Path, names: &[&str], layers: &[Vec<u8>]) {
    let ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let names_of_layers: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let table = json!([{ "Config": "config.json", "RepoTags": names, "Layers": names_of_layers }]);
    let mut files: Vec<_> = names_of_layers.into_iter().zip(layers.iter().cloned()).collect();
    files.push(("config.json".to_owned(), config(&ids)));
    files.push(("manifest.json".to_owned(), table.to_string().into_bytes()));
    write_tar(path, &files);
}

/// An OCI layout, as newer Docker saves, without the older table; the digest of its one manifest.
pub fn oci_archive(path: &Path, repository: &str, tags: &[&str], layers: &[Vec<u8>]) -> String {
    const KIND: &str = "application/vnd.oci.image";
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", &sha256(bytes)["sha256:".len()..]);
    let about = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("{KIND}.{kind}"), "digest": sha256(bytes), "size": bytes.len() });
    let config = config(&layers.iter().map(|layer| sha256(layer)).collect::<Vec<_>>());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{KIND}.manifest.v1+json"), "config": about("config.v1+json", &config),
        "layers": layers.iter().map(|layer| about("layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let tagged = tags.iter().map(|tag| {
        let mut entry = about("manifest.v1+json", &manifest);
        entry["annotations"] =
            json!({ "io.containerd.image.name": format!("docker.io/{repository}:{tag}"), "org.opencontainers.image.ref.name": tag });
        entry
    });
    let index = json!({ "schemaVersion": 2, "mediaType": format!("{KIND}.index.v1+json"), "manifests": tagged.collect::<Vec<_>>() });
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
        (blob(&config), config),
        (blob(&manifest), manifest.clone()),
    ];
    files.extend(layers.iter().map(|layer| (blob(layer), layer.clone())));
    write_tar(path, &files);
    sha256(&manifest)
}
