//! Sockets in the networks of containers, for checks that Mesos makes there: what listens on loopback alone is reached, and no route is needed.
//!
//! A socket belongs to the network in which it was made, so a thread of its own goes into the task's, makes it, and comes back. A thread that cannot
//! come back ends, and the next socket is made by another one. Needs root.
//!
//! Where a container's process is, Docker is asked once; afterwards it is known whether the number still means that process. Where nobody gets in, it is
//! not tried again for a while.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::sync::{mpsc, oneshot};

use super::process::tree::Identity;
use crate::model::id::TaskId;

/// Sockets that are waited for at once.
const MAX_WAITING: usize = 256;
/// Tasks that are remembered; with one more all are forgotten.
const MAX_KNOWN: usize = 8_192;
/// A network that cannot be entered is tried again after this long.
const BARRED_FOR: Duration = Duration::from_secs(60);

/// What is remembered of a task.
#[derive(Clone, Debug)]
enum Known {
    /// Its process.
    Process(Identity),
    /// Nobody gets in, for this reason.
    Barred(Instant, io::ErrorKind),
}

struct Wanted {
    process: Identity,
    ipv6: bool,
    answer: oneshot::Sender<io::Result<OwnedFd>>,
}

/// See the file.
#[derive(Debug, Default)]
pub(super) struct Networks {
    known: Mutex<HashMap<TaskId, Known>>,
    thread: Mutex<Option<mpsc::Sender<Wanted>>>,
}

impl Networks {
    /// A socket of TCP that is not connected and does not block, in the network of a process of `task`. `find` says which process that is, if it is not
    /// known; `None`: it has none.
    ///
    /// # Errors
    /// What `find` says; `NotFound`: it has no process. `PermissionDenied` or `Unsupported` (also from `find`): nobody gets in, whoever asks.
    pub(super) async fn socket(
        &self,
        task: &TaskId,
        ipv6: bool,
        find: impl Future<Output = io::Result<Option<i32>>> + Send,
    ) -> io::Result<OwnedFd> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned();
        match known {
            Some(Known::Process(process)) => match self.make(process, ipv6).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            },
            Some(Known::Barred(since, why)) if since.elapsed() < BARRED_FOR => return Err(why.into()),
            Some(Known::Barred(..)) | None => {}
        }
        match self.first(ipv6, find).await {
            Ok((process, socket)) => {
                self.remember(task, Known::Process(process));
                Ok(socket)
            }
            Err(error) => {
                if let why @ (io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) = error.kind() {
                    self.remember(task, Known::Barred(Instant::now(), why));
                }
                Err(error)
            }
        }
    }

    async fn first(&self, ipv6: bool, find: impl Future<Output = io::Result<Option<i32>>>) -> io::Result<(Identity, OwnedFd)> {
        let process = Identity::of(find.await?.ok_or(io::ErrorKind::NotFound)?)?;
        let socket = self.make(process.clone(), ipv6).await?;
        Ok((process, socket))
    }

    fn remember(&self, task: &TaskId, what: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(task.clone(), what);
    }

    async fn make(&self, process: Identity, ipv6: bool) -> io::Result<OwnedFd> {
        let (answer, made) = oneshot::channel();
        let gone = || io::Error::other("the thread that makes sockets has ended");
        self.sender()?.send(Wanted { process, ipv6, answer }).await.map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }

    fn sender(&self) -> io::Result<mpsc::Sender<Wanted>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = thread.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let (sender, wanted) = mpsc::channel(MAX_WAITING);
        std::thread::Builder::new().name("networks".into()).spawn(move || serve(wanted))?;
        *thread = Some(sender.clone());
        Ok(sender)
    }
}

/// Makes sockets until nobody wants any, or it cannot come back.
fn serve(mut wanted: mpsc::Receiver<Wanted>) {
    let Ok(home) = File::open("/proc/thread-self/ns/net") else { return };
    while let Some(Wanted { process, ipv6, answer }) = wanted.blocking_recv() {
        let made = make(&process, ipv6);
        let is_back = enter(&home).is_ok();
        _ = answer.send(made);
        if !is_back {
            return;
        }
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn make(process: &Identity, ipv6: bool) -> io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{}/ns/net", process.pid))?;
    // What is open was its own if it is there still.
    if process.open().is_none() {
        return Err(io::ErrorKind::NotFound.into());
    }
    enter(&namespace)?;
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::cluster::engine::samples;

    /// A process with a network of its own, in which loopback is up.
    fn alone() -> Child {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        child
    }

    fn namespace(path: &str) -> String {
        std::fs::read_link(path).unwrap().to_string_lossy().into_owned()
    }

    #[tokio::test]
    async fn a_socket_is_made_where_the_task_is_and_nobody_stays_there() {
        let (networks, task, asked) = (Networks::default(), samples::task("/a", 1), AtomicUsize::new(0));
        let mut first = alone();
        let socket = async |pid: Option<u32>| {
            let find = async {
                asked.fetch_add(1, Ordering::Relaxed);
                Ok(pid.map(|pid| i32::try_from(pid).unwrap()))
            };
            networks.socket(&task, false, find).await
        };
        let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = async |socket: OwnedFd| {
            let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
            socket.connect(outside.local_addr().unwrap()).await.map(drop).map_err(|error| error.kind())
        };
        // Nobody listens there, although somebody does here.
        for _ in 0..3 {
            assert_eq!(connect(socket(Some(first.id())).await.unwrap()).await, Err(io::ErrorKind::ConnectionRefused));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1, "it is known afterwards");
        // The thread is back: what it makes for a process with the node's network is of the node's.
        let mut plain = Command::new("sleep").arg("1000").spawn().unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(connect(socket(Some(plain.id())).await.unwrap()).await, Ok(()));
        assert_eq!(asked.load(Ordering::Relaxed), 2, "the number has another meaning, or none");
        plain.kill().unwrap();
        plain.wait().unwrap();
        assert_eq!(socket(None).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let own = namespace("/proc/self/ns/net");
        let threads = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        let named = threads.filter(|thread| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "networks\n"));
        let networks: Vec<String> = named.map(|thread| namespace(&thread.path().join("ns/net").to_string_lossy())).collect();
        assert_eq!(networks, [own]);
    }
    #[tokio::test]
    async fn where_nobody_gets_in_nobody_is_asked_again_at_once() {
        let (networks, asked) = (Networks::default(), AtomicUsize::new(0));
        let socket = async |task: &TaskId, kind: io::ErrorKind| {
            let find = async {
                asked.fetch_add(1, Ordering::Relaxed);
                Err(kind.into())
            };
            networks.socket(task, false, find).await.unwrap_err().kind()
        };
        let (barred, silent) = (samples::task("/a", 1), samples::task("/b", 1));
        for _ in 0..2 {
            assert_eq!(socket(&barred, io::ErrorKind::Unsupported).await, io::ErrorKind::Unsupported);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // A Docker that does not answer may do so the next time.
        for _ in 0..2 {
            assert_eq!(socket(&silent, io::ErrorKind::Other).await, io::ErrorKind::Other);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
}
