//! The few ioctls that no crate wraps: loop devices, freezing and trimming. All unsafe code of this room is here.
//!
//! Facts: `linux/loop.h`, `linux/fs.h`; `LOOP_CONFIGURE` exists since Linux 5.8.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, Updater, ioctl};

const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const FIFREEZE: Opcode = 0xC004_5877;
const FITHAW: Opcode = 0xC004_5878;
const FITRIM: Opcode = 0xC018_5879;

/// The kernel detaches the image when the last opener or mount goes away, so a process that dies between attaching and mounting leaves nothing.
pub const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The image is read and written past the page cache, so that nothing is cached twice.
pub const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct fstrim_range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TrimRange {
    start: u64,
    length: u64,
    minimum: u64,
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304 && size_of::<TrimRange>() == 24);

/// The file behind a loop device, as `stat` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// `st_dev`
    pub device: u64,
    /// `st_ino`
    pub inode: u64,
}

/// The number of a loop device that was free a moment ago.
///
/// # Errors
/// As the kernel says; not root is `PermissionDenied` when opening the control device already.
pub fn loop_get_free(control: &File) -> io::Result<u32> {
    // SAFETY: the opcode takes no argument and answers the number as the call's return value, which `GetFree` reads.
    Ok(unsafe { ioctl(control, GetFree) }?)
}

/// Binds `image` to the loop device `device`. The kernel keeps a reference to the open file, and with it the file's `flock`.
///
/// # Errors
/// `ResourceBusy` when the device was taken in the meantime.
pub fn loop_configure(device: &File, image: &File, name: &str, flags: u32) -> io::Result<()> {
    let mut file_name = [0; 64];
    let length = name.len().min(63);
    file_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name,
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(image.as_fd().as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the opcode reads one `struct loop_config`, which `LoopConfig` mirrors; its size is asserted above.
    Ok(unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }?)
}

/// What is behind a loop device; `None`: nothing.
///
/// # Errors
/// As the kernel says.
pub fn loop_backing(device: &File) -> io::Result<Option<Backing>> {
    // SAFETY: the opcode writes one `struct loop_info64`, which `LoopInfo` mirrors; its size is asserted above.
    match unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) } {
        Ok(info) => Ok(Some(Backing { device: info.device, inode: info.inode })),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Detaches a loop device, now or when its last user goes: success proves nothing.
///
/// # Errors
/// As the kernel says; a free device is none.
pub fn loop_clear(device: &File) -> io::Result<()> {
    // SAFETY: the opcode takes no argument.
    match unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) } {
        Ok(()) | Err(rustix::io::Errno::NXIO) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Flushes the file system that `directory` is on and stops writes to it until [`thaw`].
///
/// # Errors
/// `ResourceBusy` when it is frozen already.
pub fn freeze(directory: &File) -> io::Result<()> {
    // SAFETY: the opcode is defined with an `int` argument that the kernel ignores.
    Ok(unsafe { ioctl(directory, Setter::<FIFREEZE, i32>::new(0)) }?)
}

/// Lets a frozen file system go on.
///
/// # Errors
/// `InvalidInput` when it is not frozen.
pub fn thaw(directory: &File) -> io::Result<()> {
    // SAFETY: the opcode is defined with an `int` argument that the kernel ignores.
    Ok(unsafe { ioctl(directory, Setter::<FITHAW, i32>::new(0)) }?)
}

/// Tells the device below `directory` which of the bytes from `start` on are unused; answers how many.
///
/// # Errors
/// As the file system says, such as `InvalidInput` past its end.
pub fn trim(directory: &File, start: u64, length: u64) -> io::Result<u64> {
    let mut range = TrimRange { start, length, minimum: 0 };
    // SAFETY: the opcode reads and writes one `struct fstrim_range`, which `TrimRange` mirrors; its size is asserted above.
    unsafe { ioctl(directory, Updater::<FITRIM, TrimRange>::new(&mut range)) }?;
    Ok(range.length)
}

struct GetFree;

// SAFETY: `LOOP_CTL_GET_FREE` ignores its argument and returns a number or an error.
unsafe impl Ioctl for GetFree {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut rustix::ffi::c_void) -> rustix::io::Result<u32> {
        u32::try_from(output).map_err(|_| rustix::io::Errno::INVAL)
    }
}
