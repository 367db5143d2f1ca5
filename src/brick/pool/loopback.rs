//! Bricks as sparse image files in a directory of this machine's disk, `<pool>/<brick>.img`, bound to loop devices.
//!
//! Beside an image: `<brick>.epoch`, what was seen of its leases. A pool on a disk of its own is simply a mount on its directory.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{Attached, DeviceNumber, Draft, Pool, Space, Stored};
use crate::{
    brick::{
        BrickError, durable,
        lease::Lease,
        loop_device::{self, LOOP_MAJOR, LoopDevice},
        mounts::{self, Holder},
        name,
    },
    model::id::{BrickName, PoolName},
};

/// How long the kernel gets to let go of a loop device after its last use: freeing is not always immediate, and udev opens devices for a moment.
const DETACH_PATIENCE: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(10);

const IMAGE: &str = ".img";
const LEASE: &str = ".epoch";
/// Drafts begin with a dot, which no brick's name does.
const DRAFT: &str = ".img.new";

/// A pool of image files.
#[derive(Debug)]
pub struct Loopback {
    name: PoolName,
    directory: PathBuf,
}

impl Loopback {
    /// The pool in `directory`, which exists.
    pub fn new(name: PoolName, directory: PathBuf) -> Self {
        Self { name, directory }
    }

    /// Removes what a crash left half made, except where `is_in_use` says that somebody is at it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn remove_drafts(&self, is_in_use: impl Fn(&BrickName) -> bool) -> Result<(), BrickError> {
        for (file, brick) in self.files(DRAFT)? {
            let Some(brick) = brick.strip_prefix('.').map(BrickName::new) else { continue };
            if !is_in_use(&brick) {
                tracing::info!(pool = %self.name, %brick, "removing a half-made image");
                durable::remove(&file).map_err(|error| BrickError::io(format!("cannot remove {}", file.display()), error))?;
            }
        }
        Ok(())
    }

    fn image(&self, brick: &BrickName) -> PathBuf {
        self.directory.join(format!("{brick}{IMAGE}"))
    }

    fn lease_file(&self, brick: &BrickName) -> PathBuf {
        self.directory.join(format!("{brick}{LEASE}"))
    }

    /// Files whose name ends so, with the part before that.
    fn files(&self, suffix: &str) -> Result<Vec<(PathBuf, String)>, BrickError> {
        let failed = |error| BrickError::io(format!("cannot read the pool {}", self.directory.display()), error);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(stem) = entry.file_name().to_str().and_then(|name| name.strip_suffix(suffix)) {
                files.push((entry.path(), stem.to_owned()));
            }
        }
        Ok(files)
    }
}

impl Pool for Loopback {
    fn name(&self) -> &PoolName {
        &self.name
    }

    fn bricks(&self) -> Result<Vec<Stored>, BrickError> {
        let images = self.files(IMAGE)?.into_iter();
        let drafts = self.files(DRAFT)?.into_iter();
        Ok(images.chain(drafts).filter_map(|(path, brick)| stored(&path, &BrickName::new(brick)).ok()).collect())
    }

    fn space(&self) -> Result<Space, BrickError> {
        let found = rustix::fs::statvfs(&self.directory)
            .map_err(|error| BrickError::io(format!("cannot ask how full {} is", self.directory.display()), error.into()))?;
        Ok(Space { capacity: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
    }

    fn find(&self, brick: &BrickName) -> Result<Option<Stored>, BrickError> {
        let path = self.directory.join(format!("{}{IMAGE}", name::brick(brick)?));
        match stored(&path, brick) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BrickError::io(format!("cannot look at {}", path.display()), error)),
        }
    }

    fn draft(&self, brick: &BrickName, size: u64) -> Result<Box<dyn Draft>, BrickError> {
        let path = self.directory.join(format!(".{}{DRAFT}", name::brick(brick)?));
        let failed = |error| BrickError::io(format!("cannot make {}", path.display()), error);
        durable::remove(&path).map_err(failed)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let draft = ImageDraft { path: path.clone(), image: self.image(brick), is_kept: false };
        file.set_len(size).map_err(failed)?;
        Ok(Box::new(draft))
    }

    fn grow(&self, brick: &BrickName, size: u64) -> Result<(), BrickError> {
        let path = self.image(brick);
        let grow = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() < size {
                file.set_len(size)?;
            }
            file.sync_all()
        };
        grow().map_err(|error| BrickError::io(format!("cannot grow {}", path.display()), error))
    }

    fn attach(&self, brick: &BrickName) -> Result<Box<dyn Attached>, BrickError> {
        match bind(&self.image(brick))? {
            Some(device) => Ok(device),
            None => Err(BrickError::Busy { brick: brick.clone(), by: "its image is bound to a loop device or locked".to_owned() }),
        }
    }

    fn attached(&self, brick: &BrickName) -> Result<Vec<DeviceNumber>, BrickError> {
        let numbers = loop_device::bound_to(&self.image(brick))?;
        Ok(numbers.into_iter().map(|number| DeviceNumber(LOOP_MAJOR, number)).collect())
    }

    fn detach(&self, brick: &BrickName, target: &Path) -> Result<Result<(), Vec<Holder>>, BrickError> {
        let image = self.image(brick);
        let failed = |error| BrickError::io(format!("cannot tell whether {} is free", image.display()), error);
        let begun = Instant::now();
        loop {
            let bound = loop_device::bound_to(&image)?;
            if bound.is_empty() && loop_device::is_free(&image).map_err(failed)? {
                return Ok(Ok(()));
            }
            if begun.elapsed() > DETACH_PATIENCE {
                let holders = |number: &u32| mounts::holders((LOOP_MAJOR, *number), &loop_device::path(*number), target);
                return Ok(Err(bound.iter().flat_map(holders).collect()));
            }
            for number in bound {
                // It may have gone since.
                _ = loop_device::clear(number);
            }
            thread::sleep(POLL);
        }
    }

    fn destroy(&self, brick: &BrickName) -> Result<(), BrickError> {
        for path in [self.image(brick), self.lease_file(brick)] {
            durable::remove(&path).map_err(|error| BrickError::io(format!("cannot remove {}", path.display()), error))?;
        }
        Ok(())
    }

    fn lease(&self, brick: &BrickName) -> Result<Lease, BrickError> {
        Lease::read(&self.lease_file(brick))
    }

    fn set_lease(&self, brick: &BrickName, lease: Lease) -> Result<(), BrickError> {
        lease.write(&self.lease_file(brick))
    }

    fn data_path(&self, brick: &BrickName) -> PathBuf {
        self.image(brick)
    }
}

fn bind(image: &Path) -> Result<Option<Box<dyn Attached>>, BrickError> {
    let Some(device) = LoopDevice::bind(image)? else { return Ok(None) };
    let path = device.path();
    Ok(Some(Box::new(BoundImage { device, path })))
}

fn stored(path: &Path, brick: &BrickName) -> io::Result<Stored> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    Ok(Stored { name: brick.clone(), size: meta.len(), taken: meta.blocks() * 512 })
}

#[derive(Debug)]
struct BoundImage {
    device: LoopDevice,
    path: PathBuf,
}

impl Attached for BoundImage {
    fn path(&self) -> &Path {
        &self.path
    }

    fn number(&self) -> DeviceNumber {
        let (major, minor) = self.device.device();
        DeviceNumber(major, minor)
    }
}

#[derive(Debug)]
struct ImageDraft {
    path: PathBuf,
    image: PathBuf,
    is_kept: bool,
}

impl Draft for ImageDraft {
    fn path(&self) -> &Path {
        &self.path
    }

    fn attach(&self) -> Result<Box<dyn Attached>, BrickError> {
        let taken = || BrickError::Refused(format!("{} is bound or locked by somebody", self.path.display()));
        bind(&self.path)?.ok_or_else(taken)
    }

    fn keep(mut self: Box<Self>) -> Result<(), BrickError> {
        let keep = || {
            File::open(&self.path)?.sync_all()?;
            durable::rename(&self.path, &self.image)
        };
        keep().map_err(|error| BrickError::io(format!("cannot put {} in place", self.image.display()), error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for ImageDraft {
    fn drop(&mut self) {
        if !self.is_kept {
            _ = fs::remove_file(&self.path);
        }
    }
}
