//! Loop devices: the image file as a block device. An image is bound to at most one.
//!
//! The open file that is given to the kernel carries a `flock`. The kernel keeps that file, and so the lock, for as long as the device is bound,
//! whatever happens to our process. So whoever can take the lock has proof that no device of ours is bound to the image, and a second binding is
//! refused, also from another mount namespace and under another name of the file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    BrickError,
    ioctl::{self, Backing},
};

/// Another process may take the free device between finding and binding it: tried again this often.
const MAX_TRIES: usize = 64;

/// The major number of loop devices.
pub const LOOP_MAJOR: u32 = 7;

/// A bound loop device, held open. Dropping it lets the kernel unbind the image, unless it is mounted or otherwise open.
#[derive(Debug)]
pub struct LoopDevice {
    number: u32,
    _file: File,
}

impl LoopDevice {
    /// Binds the image. The caller has made sure that nobody else is about to.
    ///
    /// # Errors
    /// `Ok(None)`: it is bound already, or locked by somebody. Otherwise it cannot be opened, or the kernel has no loop devices for us.
    pub fn bind(image: &Path) -> Result<Option<Self>, BrickError> {
        let failed = |error| BrickError::io(format!("cannot open {}", image.display()), error);
        let file = open_image(image, true).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if !bound_to(image)?.is_empty() {
            return Ok(None);
        }
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        bind_any(&file, &name).map(Some).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => " (is the kernel module 'loop' loaded? modprobe loop)",
                io::ErrorKind::PermissionDenied => " (run the server as root)",
                _ => "",
            };
            BrickError::io(format!("cannot bind {} to a loop device{hint}", image.display()), error)
        })
    }

    /// Its block device.
    pub fn path(&self) -> PathBuf {
        path(self.number)
    }

    /// Major and minor number.
    pub fn device(&self) -> (u32, u32) {
        (LOOP_MAJOR, self.number)
    }
}

/// The block device of a loop device's number.
pub fn path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// The loop devices that are bound to this very file, whatever it was called then.
///
/// # Errors
/// `/sys` or the image cannot be read.
pub fn bound_to(image: &Path) -> Result<Vec<u32>, BrickError> {
    let failed = |error| BrickError::io(format!("cannot look for the loop devices of {}", image.display()), error);
    let meta = match fs::metadata(image) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let wanted = Backing { device: meta.dev(), inode: meta.ino() };
    let numbers = all_bound().map_err(failed)?;
    Ok(numbers.into_iter().filter(|number| backing(*number).is_ok_and(|found| found == Some(wanted))).collect())
}

/// What is bound to the loop device; `None`: nothing, or there is no such device.
///
/// # Errors
/// The device cannot be asked.
pub fn backing(number: u32) -> io::Result<Option<Backing>> {
    match open_device(number, false) {
        Ok(file) => ioctl::loop_backing(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(6) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks the kernel to unbind the device, at once or when its last user goes. What came of it must be looked up.
///
/// # Errors
/// The device cannot be opened.
pub fn clear(number: u32) -> io::Result<()> {
    ioctl::loop_clear(&open_device(number, false)?)
}

/// True when no loop device that we bound has the image, by the kernel's own lock.
///
/// # Errors
/// The image cannot be opened.
pub fn is_free(image: &Path) -> io::Result<bool> {
    match open_image(image, false) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn bind_any(image: &File, name: &str) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut flags = ioctl::LO_FLAGS_AUTOCLEAR | ioctl::LO_FLAGS_DIRECT_IO;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..MAX_TRIES {
        let number = ioctl::loop_get_free(&control)?;
        let device = open_device(number, true)?;
        match ioctl::loop_configure(&device, image, name, flags) {
            Ok(()) => return Ok(LoopDevice { number, _file: device }),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => last = error,
            // A file system without direct input and output, such as an old tmpfs.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && flags & ioctl::LO_FLAGS_DIRECT_IO != 0 => {
                flags &= !ioctl::LO_FLAGS_DIRECT_IO;
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn all_bound() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/sys/block")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.strip_prefix("loop")?.parse().ok());
    Ok(numbers.filter(|number| Path::new(&format!("/sys/block/loop{number}/loop/backing_file")).exists()).collect())
}

fn open_device(number: u32, write: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(write).open(path(number))
}

fn open_image(image: &Path, write: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(write).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(image)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a plain file")) }
}
