//! What holds the network of a pod's instance: a container of its own, in which nothing happens.
//!
//! Docker can put a container into another one's network (`container:<id>`), but that network lives and dies with the other one. If it were one of the
//! pod's own containers, a container that finishes, as it may, would cut off the rest. So there is a container that never ends by itself, publishes the
//! pod's ports, and is removed with the last one that uses it.
//!
//! Its image is made here, so that no pod waits for a download: one program of a few instructions, which sleeps.

use crate::registry::tar;

/// The image's name in Docker. The number rises when [`program`] changes.
pub const IMAGE: &str = "xtao-pod-holder:1";

/// The program's place in the image.
pub const PROGRAM: &str = "/hold";

/// Where the kernel maps the program's only segment.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// `pause` for ever. x86-64: mov eax, 34; syscall; jmp to the beginning.
const X86_64: (u16, &[u8]) = (62, &[0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);

/// `ppoll` of nothing for ever. AArch64: mov x0 to x3, 0; mov x8, 73; svc 0; b to the beginning.
const AARCH64: (u16, &[u8]) = (
    183,
    &[
        0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0x00,
        0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
    ],
);

/// A program for this machine that sleeps for ever; `None`: it is of a kind that is not known here.
fn program() -> Option<Vec<u8>> {
    let (machine, code) = match std::env::consts::ARCH {
        "x86_64" => X86_64,
        "aarch64" => AARCH64,
        _ => return None,
    };
    let size = HEADERS + code.len() as u64;
    // ELF: 64 bits, little endian; an executable with one segment that is read and run.
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes());
    elf.extend(machine.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    [BASE + HEADERS, 64, 0].iter().for_each(|word: &u64| elf.extend(word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    [64_u16, 56, 1, 64, 0, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    [1_u32, 5].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word: &u64| elf.extend(word.to_le_bytes()));
    elf.extend(code);
    Some(elf)
}

/// The files of the image as `docker import` takes them.
///
/// # Errors
/// A machine of an unknown kind: a sentence for the user.
pub fn files() -> Result<Vec<u8>, String> {
    let kind = std::env::consts::ARCH;
    let program = program().ok_or_else(|| format!("pods with a network of their own are not known on machines of the kind {kind}"))?;
    let mut archive = tar::program_header(PROGRAM.trim_start_matches('/'), program.len() as u64).to_vec();
    archive.extend(&program);
    archive.resize(archive.len() + tar::padding(program.len() as u64), 0);
    archive.extend(tar::END);
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, process::ExitStatusExt};

    use super::*;

    #[test]
    fn the_program_sleeps_until_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hold");
        std::fs::write(&path, program().unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // Until it sleeps in its one system call: what ended, or crashed, never does.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().rsplit(") ").next().unwrap()[..1].to_owned();
        let sleeps = || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap_or_default();
            call.starts_with("34 ") || call.starts_with("73 ")
        };
        while !sleeps() {
            assert_ne!(state(), "Z", "it has ended");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn the_image_has_nothing_but_the_program() {
        let (archive, program) = (files().unwrap(), program().unwrap());
        assert_eq!(&archive[..5], b"hold\0");
        assert_eq!(&archive[512..512 + program.len()], program);
        assert_eq!(archive.len(), 512 + 512 + tar::END.len());
    }
}
