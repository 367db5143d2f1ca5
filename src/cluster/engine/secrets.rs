//! Secrets of tasks: read at a launch from files of this node, given to the task, and kept nowhere else.
//!
//! A secret of the name in a definition has a `source`: here a path below `--secrets_dir`. Whose it may be was decided when the definition was accepted.
//! A variable is in the container's environment, where `docker inspect` shows it to whoever may use Docker; what is mounted is a file in
//!
//! ```text
//! <work_dir>/secrets/<task>/0  1 ...
//! ```
//!
//! which goes when the task has ended, and is for root's eyes but for the bind mount. What a secret says is in no error and in no log.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{resolved, spec::file_name};
use crate::model::{
    app::{App, EnvValue, Volume},
    id::TaskId,
};

/// Files that are younger are left alone: the task that they are for may just begin.
const MIN_AGE: Duration = Duration::from_secs(600);
/// Bytes of one secret.
pub const MAX_BYTES: u64 = 64 << 10;

/// What the secrets of a launch say.
#[derive(Default)]
pub struct Secrets {
    /// Variables and their values.
    pub variables: Vec<(String, String)>,
    /// Paths as the definition has them, and what is to be there.
    pub files: Vec<(String, Vec<u8>)>,
    /// Docker's `config.json` for the pull of the image.
    pub pull_config: Option<String>,
}

/// True when a launch of `app` reads any.
pub fn are_wanted(app: &App) -> bool {
    let in_container = app.container.as_ref().is_some_and(|container| {
        let pulls = container.docker.as_ref().is_some_and(|docker| docker.pull_config.is_some());
        pulls || container.volumes.iter().any(|volume| matches!(volume, Volume::Secret { .. }))
    });
    in_container || app.env.values().any(|value| matches!(value, EnvValue::Secret { .. }))
}

/// Reads all that `app` names.
///
/// # Errors
/// Which secret cannot be read, and why, in a sentence for the user.
pub fn read(directory: Option<&Path>, app: &App) -> Result<Secrets, String> {
    let of_name = |name: &String| -> Result<Vec<u8>, String> {
        let secret = app.secrets.get(name).ok_or_else(|| format!("secret '{name}' is not in the definition"))?;
        let directory = directory.ok_or_else(|| format!("secret '{name}' cannot be read: the server was started without --secrets_dir"))?;
        let source = &secret.source;
        read_file(directory, source)
            .map_err(|why| format!("secret '{name}' cannot be read from '{source}' in the directory of the secrets: {why}"))
    };
    let text = |name: &String| -> Result<String, String> {
        let mut text = String::from_utf8(of_name(name)?).map_err(|_| format!("secret '{name}' is no text"))?;
        // Editors and `echo` end a file so.
        if text.ends_with('\n') {
            text.pop();
        }
        if text.contains('\0') { Err(format!("secret '{name}' has a NUL character in it")) } else { Ok(text) }
    };
    let mut secrets = Secrets::default();
    for (variable, value) in &app.env {
        if let EnvValue::Secret { secret } = value {
            secrets.variables.push((variable.clone(), text(secret)?));
        }
    }
    for volume in app.container.iter().flat_map(|container| &container.volumes) {
        if let Volume::Secret { container_path, secret } = volume {
            secrets.files.push((container_path.clone(), of_name(secret)?));
        }
    }
    let docker = app.container.as_ref().and_then(|container| container.docker.as_ref());
    secrets.pull_config = docker.and_then(|docker| docker.pull_config.as_ref()).map(text).transpose()?;
    Ok(secrets)
}

/// Nothing outside of `directory`, and nothing that others could have written or can read.
fn read_file(directory: &Path, source: &str) -> Result<Vec<u8>, String> {
    let root = rustix::fs::openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|error| format!("{} cannot be opened: {error}", directory.display()))?;
    let source = source.trim_start_matches('/');
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    check_way(&root, source, resolve)?;
    // Without NONBLOCK a pipe in its place would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = resolved::open(&root, source, flags, resolve).map_err(not_opened)?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is no plain file".to_owned());
    }
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o026 != 0 {
        return Err("it must be root's own, not written by its group, and closed to others".to_owned());
    }
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    Ok(content)
}

fn not_opened(error: Errno) -> String {
    match error {
        Errno::NOENT => "there is no such file".to_owned(),
        Errno::LOOP => "symbolic links are not followed".to_owned(),
        Errno::XDEV => "it leads out of the directory".to_owned(),
        other => other.to_string(),
    }
}

/// Whoever may write to a directory on the way could put another closed file of root's there, by a second name of it.
fn check_way(root: &OwnedFd, source: &str, resolve: ResolveFlags) -> Result<(), String> {
    let ends = std::iter::once(0).chain(source.match_indices('/').map(|(end, _)| end));
    for above in ends.map(|end| &source[..end]) {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let shown = if above.is_empty() { "." } else { above };
        let directory = resolved::open(root, shown, flags, resolve).map_err(not_opened)?;
        let stat = rustix::fs::fstat(&directory).map_err(|error| error.to_string())?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(format!("the directory '{shown}' must be root's own, and written by nobody else"));
        }
    }
    Ok(())
}

/// The directory with the files of all tasks.
fn root(work_dir: &Path) -> PathBuf {
    work_dir.join("secrets")
}

/// Writes files for a task, in order; where they are. A process of the node (`of_user`: the account that it has) goes the way there itself, and a
/// container's process is whoever the image says.
///
/// # Errors
/// They cannot be written.
pub fn keep(work_dir: &Path, task: &TaskId, files: &[(String, Vec<u8>)], of_user: Option<Option<(u32, u32)>>) -> io::Result<Vec<PathBuf>> {
    remove(work_dir, task)?;
    let directory = root(work_dir).join(file_name(task));
    std::fs::create_dir_all(&directory)?;
    let (way, mode) = if of_user.is_some() { (0o711, 0o400) } else { (0o700, 0o444) };
    for each in [root(work_dir), directory.clone()] {
        // The way to those of a process leads through the directory of all.
        let rights = if each == directory { way } else { 0o711 };
        std::fs::set_permissions(each, std::fs::Permissions::from_mode(rights))?;
    }
    let write = |(number, (_, content)): (usize, &(String, Vec<u8>))| {
        let path = directory.join(number.to_string());
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content)?;
        if let Some(Some((user, group))) = of_user {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        Ok(path)
    };
    files.iter().enumerate().map(write).collect()
}

/// Removes a task's files, if it has any.
///
/// # Errors
/// They cannot be removed.
pub fn remove(work_dir: &Path, task: &TaskId) -> io::Result<()> {
    match std::fs::remove_dir_all(root(work_dir).join(file_name(task))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// As [`remove`], where nobody waits for it.
pub fn forget(work_dir: &Path, task: &TaskId) {
    if let Err(error) = remove(work_dir, task) {
        tracing::warn!(%task, %error, "The files with secrets of a task could not be removed; it is tried again later.");
    }
}

/// Removes the files of tasks that there are no more.
pub fn collect(work_dir: &Path, in_use: &HashSet<String>) {
    collect_older(work_dir, in_use, MIN_AGE);
}

fn collect_older(work_dir: &Path, in_use: &HashSet<String>, age: Duration) {
    let Ok(entries) = std::fs::read_dir(root(work_dir)) else { return };
    let is_old = |entry: &std::fs::DirEntry| {
        let made = entry.metadata().and_then(|meta| meta.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|elapsed| elapsed >= age))
    };
    let idle = |entry: &std::fs::DirEntry| !in_use.contains(&*entry.file_name().to_string_lossy()) && is_old(entry);
    for entry in entries.filter_map(Result::ok).filter(idle) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "Files with secrets could not be removed.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::engine::samples, model::app::Secret};

    fn file(directory: &Path, path: &str, content: &[u8], mode: u32) {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_closed_file_below_the_directory_is_read() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("secrets");
        file(&directory, "ann/pw", b"hush\n", 0o600);
        file(&directory, "ann/open", b"hush", 0o604);
        file(&directory, "ann/shared", b"hush", 0o620);
        file(&directory, "ann/large", &vec![b'x'; MAX_BYTES as usize + 1], 0o600);
        file(&directory, "ann/full", &vec![b'x'; MAX_BYTES as usize], 0o640);
        file(place.path(), "outside", b"hush", 0o600);
        std::os::unix::fs::symlink("pw", directory.join("ann/link")).unwrap();
        std::os::unix::fs::symlink(place.path(), directory.join("away")).unwrap();
        rustix::fs::mknodat(CWD, directory.join("ann/pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let check = |source: &str, expected: Result<usize, &str>| {
            let found = read_file(&directory, source).map(|content| content.len());
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|why| *why), "{source}");
        };
        let closed = "it must be root's own, not written by its group, and closed to others";
        check("ann/pw", Ok(5));
        check("/ann/pw", Ok(5));
        check("ann/full", Ok(MAX_BYTES as usize));
        check("ann/none", Err("there is no such file"));
        check("ann", Err("it is no plain file"));
        check("ann/pipe", Err("it is no plain file"));
        check("ann/open", Err(closed));
        check("ann/shared", Err(closed));
        check("ann/large", Err("it has more than 65536 bytes"));
        check("ann/link", Err("symbolic links are not followed"));
        check("away/outside", Err("symbolic links are not followed"));
        check("../outside", Err("it leads out of the directory"));
        check("ann/../../outside", Err("it leads out of the directory"));

        // A second name of a file that is root's own, and that the server may read.
        std::fs::create_dir(directory.join("bob")).unwrap();
        std::fs::hard_link(place.path().join("outside"), directory.join("bob/pw")).unwrap();
        check("bob/pw", Ok(4));
        let rights = |path: &str, owner: u32, mode: u32| {
            std::os::unix::fs::chown(directory.join(path), Some(owner), None).unwrap();
            std::fs::set_permissions(directory.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let of_others = "the directory 'bob' must be root's own, and written by nobody else";
        for (owner, mode) in [(65_534, 0o700), (0, 0o777), (0, 0o720)] {
            rights("bob", owner, mode);
            check("bob/pw", Err(of_others));
        }
        rights("bob", 0, 0o755);
        check("bob/pw", Ok(4));
        rights("", 0, 0o1777);
        check("bob/pw", Err("the directory '.' must be root's own, and written by nobody else"));
    }

    #[test]
    fn what_a_definition_names_is_read_and_nothing_of_it_is_told() {
        let place = tempfile::tempdir().unwrap();
        file(place.path(), "ann/pw", b"hush\n", 0o600);
        file(place.path(), "ann/bytes", b"\xff", 0o600);
        let launch = samples::launch("/web", 1);
        let mut app = (*launch.app).clone();
        assert!(!are_wanted(&app));
        for (name, source) in [("pw", "/ann/pw"), ("gone", "ann/gone"), ("bytes", "ann/bytes")] {
            app.secrets.insert(name.into(), Secret { source: source.into() });
        }
        app.env.insert("PW".into(), EnvValue::Secret { secret: "pw".into() });
        app.container.as_mut().unwrap().volumes.push(Volume::Secret { container_path: "/run/b".into(), secret: "bytes".into() });
        assert!(are_wanted(&app));
        let secrets = read(Some(place.path()), &app).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(secrets.variables, [("PW".to_owned(), "hush".to_owned())]);
        assert_eq!(secrets.files, [("/run/b".to_owned(), b"\xff".to_vec())]);
        let check = |secret: &str, directory: Option<&Path>, expected: &str| {
            let mut app = app.clone();
            app.env.insert("PW".into(), EnvValue::Secret { secret: secret.into() });
            assert_eq!(read(directory, &app).err().unwrap(), expected);
        };
        let directory = Some(place.path());
        check("gone", directory, "secret 'gone' cannot be read from 'ann/gone' in the directory of the secrets: there is no such file");
        check("bytes", directory, "secret 'bytes' is no text");
        check("none", directory, "secret 'none' is not in the definition");
        check("pw", None, "secret 'pw' cannot be read: the server was started without --secrets_dir");
    }

    #[test]
    fn files_are_for_the_task_and_go_with_it() {
        let place = tempfile::tempdir().unwrap();
        let work_dir = place.path();
        let (web, db) = (samples::task("/web", 1), samples::task("/db", 1));
        let files = [("/run/pw".to_owned(), b"hush".to_vec()), ("other".to_owned(), b"more".to_vec())];
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let kept = keep(work_dir, &web, &files, None).unwrap();
        assert_eq!(kept.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), [b"hush".to_vec(), b"more".to_vec()]);
        assert_eq!((mode(kept[0].parent().unwrap()), mode(&kept[0])), (0o700, 0o444));
        let of_process = keep(work_dir, &db, &files[..1], Some(None)).unwrap();
        assert_eq!((mode(of_process[0].parent().unwrap()), mode(&of_process[0])), (0o711, 0o400));
        // A second try of the same launch finds nothing in its way.
        keep(work_dir, &web, &files, None).unwrap();
        collect(work_dir, &HashSet::new());
        assert!(of_process[0].exists(), "it is too young");
        collect_older(work_dir, &HashSet::from([file_name(&web)]), Duration::ZERO);
        assert!(kept[0].exists() && !of_process[0].exists());
        forget(work_dir, &web);
        forget(work_dir, &web);
        assert_eq!(std::fs::read_dir(root(work_dir)).unwrap().count(), 0);
    }
}
