//! The unix sockets in the work directory: `admin.sock` for administrators, `xtao.sock` for everybody on the machine.
//!
//! A socket that a dead server left behind is replaced: the work directory's lock says that no other server is alive. Nobody can connect before
//! owner and mode are right, because the kernel refuses connections until `listen`, and that comes last.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::{api::identity::Door, auth::accounts};

/// For administrators.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// For everybody.
pub const USERS_SOCKET: &str = "xtao.sock";

/// Whoever is in this group is an administrator, if there is such a group.
pub const GROUP: &str = "xtao";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that is listened on. Dropping it removes its file.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    /// Device and inode: what was put in its place meanwhile is not ours to remove.
    file: (u64, u64),
}

impl Drop for Bound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            // If it stays, the next server replaces it.
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket of `door` in a work directory whose lock is held.
///
/// # Errors
/// Something else is in its place, the path is too long for a socket, or the operating system refuses.
pub fn bind(work_dir: &Path, door: Door) -> io::Result<(UnixListener, Bound)> {
    match door {
        Door::Administrators => {
            let group = accounts::group(GROUP);
            // Without the group nobody but the owner: the server's own group was never asked.
            listen(&work_dir.join(ADMIN_SOCKET), if group.is_some() { 0o660 } else { 0o600 }, group)
        }
        Door::Users => listen(&work_dir.join(USERS_SOCKET), 0o666, None),
    }
}

fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<(UnixListener, Bound)> {
    let address = SockAddr::unix(path).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a unix socket (107 bytes); choose a shorter --work_dir")
    })?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    let found = fs::symlink_metadata(path)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    Ok((listener, Bound { path: path.to_owned(), file: (found.dev(), found.ino()) }))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is in its place: move it away")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn sockets_have_their_modes_and_go_with_their_server() {
        let directory = tempfile::tempdir().unwrap();
        let (admin, users) = (directory.path().join(ADMIN_SOCKET), directory.path().join(USERS_SOCKET));
        let first = bind(directory.path(), Door::Administrators).unwrap();
        let second = bind(directory.path(), Door::Users).unwrap();
        let for_group = if accounts::group(GROUP).is_some() { 0o660 } else { 0o600 };
        assert_eq!((mode(&admin), mode(&users)), (for_group, 0o666));
        UnixStream::connect(&users).unwrap();
        drop((first, second));
        assert!(!admin.exists() && !users.exists());
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(USERS_SOCKET);
        let (listener, bound) = bind(directory.path(), Door::Users).unwrap();
        // As after a kill: the listener is gone, the file is not.
        drop(listener);
        std::mem::forget(bound);
        assert!(path.exists() && UnixStream::connect(&path).is_err());
        let (_listener, bound) = bind(directory.path(), Door::Users).unwrap();
        UnixStream::connect(&path).unwrap();
        // What is put in its place is left there.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(bound);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let error = bind(directory.path(), Door::Users).unwrap_err().to_string();
        assert_eq!(error, "something that is no socket is in its place: move it away");
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_named_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(100));
        fs::create_dir(&deep).unwrap();
        assert!(bind(&deep, Door::Users).unwrap_err().to_string().contains("choose a shorter --work_dir"));
    }
}
