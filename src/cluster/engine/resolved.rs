//! Paths that may not lead out of a directory: `openat2(2)`, asked until the kernel knows.

use std::{fs::File, os::fd::AsFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How often the kernel is asked at most. While another thread renames without a pause, twelve times are enough.
const MOST_TRIES: usize = 128;

/// What `path` leads to from `directory`, within the bounds that `resolve` sets.
///
/// With `..` on the way the kernel says `EAGAIN` when anything anywhere was renamed or mounted meanwhile: it cannot tell then whether the way led out.
/// What is opened is closed on `exec`.
///
/// # Errors
/// As `openat2`.
pub fn open(directory: impl AsFd, path: impl AsRef<Path>, flags: OFlags, resolve: ResolveFlags) -> Result<File, Errno> {
    let ask = || rustix::fs::openat2(&directory, path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    let mut tries = 1;
    loop {
        match ask() {
            Err(Errno::AGAIN) if tries < MOST_TRIES => tries += 1,
            other => return other.map(File::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_way_out_is_told_as_one_while_files_are_renamed() {
        let place = tempfile::tempdir().unwrap();
        let inside = place.path().join("inside");
        std::fs::create_dir_all(inside.join("deeper")).unwrap();
        std::fs::write(inside.join("file"), "").unwrap();
        let directory = File::open(&inside).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (one, other) = (place.path().join("one"), place.path().join("other"));
                std::fs::write(&one, "").unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::fs::rename(&one, &other).unwrap();
                    std::fs::rename(&other, &one).unwrap();
                }
            });
            let found = |path: &str| open(&directory, path, OFlags::RDONLY, ResolveFlags::BENEATH).map(|_| ());
            for _ in 0..20_000 {
                let out = (found("../one"), found("deeper/../../one"), found("deeper/../file"));
                if out != (Err(Errno::XDEV), Err(Errno::XDEV), Ok(())) {
                    over.store(true, Ordering::Relaxed);
                    panic!("{out:?}");
                }
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}
