//! What a process that deals with things from outside gives up before the first of them comes: it cannot take it back, and neither can what takes it over.
//!
//! | means | what is left |
//! | --- | --- |
//! | Landlock (Linux 5.19) | of files: the task's sandbox, and to be read what looking up names needs; no ports to listen on; other processes get no signal |
//! | seccomp | sockets for TCP and UDP alone; no other program, namespace, mount, kernel module, key, or look into other processes |
//! | capabilities | none; and no program gives any (`no_new_privs`) |
//! | limits | memory, the size of a file; no core file |
//!
//! A kernel without Landlock, or with its first version, which allows no hard link between directories, does without: [`is_complete`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
    path_beneath_rules,
};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter};

use super::{MAX_BYTES, Tree};

/// Bytes of memory: many times what unpacking takes at most.
const MAX_MEMORY: u64 = 1 << 30;
/// What is used of Landlock, where the kernel has it.
const USED: ABI = ABI::V6;
/// Libraries by which names are looked up, and what says how: to be read. What does not exist is left out.
const READABLE: [&str; 11] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
];
/// Where services keep the file that `/etc/resolv.conf` leads to. They replace it, so it is the directory that stays.
const RUNNING: &str = "/run";

/// Refused whatever the arguments are.
const REFUSED: [i64; 57] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_ioprio_set,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setns,
    libc::SYS_setpriority,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];
/// Calls of x86-64 by which programs for x32 are told; and those that they alone have.
const X32: i64 = 0x4000_0000;
const ONLY_X32: std::ops::RangeInclusive<i64> = 512..=547;
/// Flags of `clone(2)` that make namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// By netlink the C library asks which addresses the node has, before it sorts those of a name.
const FAMILIES: [libc::c_int; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// True when the kernel has what is used of Landlock, or enough of it.
pub(super) fn is_complete() -> bool {
    let needed = AccessFs::from_all(ABI::V2);
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(needed).and_then(Ruleset::create).is_ok()
}

/// Limits of this process.
///
/// # Errors
/// A sentence.
pub(super) fn limit() -> Result<(), String> {
    for (resource, value) in [(Resource::Data, MAX_MEMORY), (Resource::Fsize, MAX_BYTES), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(|error| format!("cannot limit itself: {error}"))?;
    }
    Ok(())
}

/// Confines this thread, and those that it starts from now on, to `tree`.
///
/// # Errors
/// A sentence: then nothing from outside may be touched.
pub(super) fn enter(tree: &Tree) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot give up rights: {error}");
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_no_new_privs(true).map_err(|error| failed(&error))?;
    if is_complete() {
        hide_files(tree).map_err(|error| failed(&error))?;
    }
    rustix::thread::set_capabilities(None, none).map_err(|error| failed(&error))?;
    let filters = filters().map_err(|error| failed(&error))?;
    filters.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| failed(&error))
}

fn hide_files(tree: &Tree) -> Result<(), landlock::RulesetError> {
    let in_sandbox = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveFile
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::Refer;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    Ruleset::default()
        .handle_access(AccessFs::from_all(USED))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(USED))?
        .create()?
        .add_rule(PathBeneath::new(tree, in_sandbox))?
        .add_rules(path_beneath_rules(readable(), read))?
        .restrict_self()?;
    Ok(())
}

fn readable() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = READABLE.iter().map(PathBuf::from).collect();
    let target = std::fs::canonicalize("/etc/resolv.conf").ok();
    let parent = target.as_deref().and_then(Path::parent);
    found.extend(parent.filter(|parent| parent.starts_with(RUNNING) && *parent != Path::new(RUNNING)).map(Path::to_owned));
    found
}

fn filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let all = |conditions| SeccompRule::new(conditions);
    let is = |argument, operator, value: u64| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let number = |flag: libc::c_int| u64::from(flag.cast_unsigned());
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let others = FAMILIES.iter().map(|family| is(0, SeccompCmpOp::Ne, number(*family)));
    refused.insert(libc::SYS_socket, vec![all(others.collect::<Result<_, _>>()?)?]);
    // Of itself it may see the limits, and abort.
    refused.insert(libc::SYS_prlimit64, vec![all(vec![is(0, SeccompCmpOp::Ne, 0)?])?]);
    refused.insert(libc::SYS_tgkill, vec![all(vec![is(0, SeccompCmpOp::Ne, u64::from(std::process::id()))?])?]);
    let namespaces = NAMESPACES.iter().map(|flag| all(vec![is(0, SeccompCmpOp::MaskedEq(number(*flag)), number(*flag))?]));
    refused.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    #[cfg(target_arch = "x86_64")]
    {
        for call in [libc::SYS_fork, libc::SYS_vfork, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_mknod, libc::SYS_uselib] {
            refused.insert(call, Vec::new());
        }
        let of_x32: Vec<i64> = refused.keys().copied().chain(ONLY_X32).map(|call| call | X32).collect();
        refused.extend(of_x32.into_iter().map(|call| (call, Vec::new())));
    }
    // Its flags are out of the filter's sight; the C library takes `clone` where there is none.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let compile = |rules, error: libc::c_int| -> Result<BpfProgram, seccompiler::BackendError> {
        let architecture = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(error.cast_unsigned()), architecture)?.try_into()
    };
    Ok([compile(refused, libc::EPERM)?, compile(unknown, libc::ENOSYS)?])
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::ErrorKind::PermissionDenied,
        net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
        os::{linux::net::SocketAddrExt, unix::net},
        process::Command,
    };

    use super::*;

    /// Only the thread in which `work` is done is confined.
    fn confined<T: Send>(tree: &Tree, work: impl FnOnce() -> T + Send) -> T {
        let work = || {
            enter(tree).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    fn place() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("files")).unwrap();
        fs::write(directory.path().join("secret"), "s").unwrap();
        let tree = Tree::open(&directory.path().join("files")).unwrap();
        (directory, tree)
    }

    #[test]
    fn of_files_there_is_the_sandbox_and_nothing_else() {
        assert!(is_complete(), "these tests need Linux 5.19 with Landlock");
        let (directory, tree) = place();
        let at = |name: &str| directory.path().join(name);
        confined(&tree, || {
            let refused = |what: &str, outcome: std::io::Result<()>| {
                assert_eq!(outcome.map_err(|error| error.kind()), Err(PermissionDenied), "{what}");
            };
            for path in [at("secret"), "/etc/passwd".into(), "/etc/shadow".into(), "/proc/self/environ".into(), "/proc/1/environ".into()] {
                refused(&path.display().to_string(), fs::read(&path).map(drop));
            }
            refused("a list", fs::read_dir(directory.path()).map(drop));
            refused("to write a new one", fs::write(at("new"), "x"));
            refused("to write an old one", fs::OpenOptions::new().append(true).open(at("secret")).map(drop));
            refused(
                "to cut it off",
                rustix::fs::open(at("secret"), rustix::fs::OFlags::TRUNC | rustix::fs::OFlags::WRONLY, 0.into())
                    .map(drop)
                    .map_err(Into::into),
            );
            refused("to remove it", fs::remove_file(at("secret")));
            refused("to make a directory", fs::create_dir(at("directory")));
            refused("to make a link", std::os::unix::fs::symlink("/", at("link")));
            // In the sandbox everything that archives have, a link from one directory to another, too.
            tree.create("a/b", 0o755).unwrap();
            tree.create("a/b", 0o644).unwrap();
            tree.directory("c/d", 0o755).unwrap();
            tree.symlink("c/s", "/etc").unwrap();
            tree.link("c/d/hard", "a/b").unwrap();
            tree.read("c/d/hard").unwrap();
            refused("to leave", fs::rename(at("files/a/b"), at("b")));
        });
        assert_eq!(fs::read(at("secret")).unwrap(), b"s");
    }

    #[test]
    fn of_sockets_there_is_the_network_alone() {
        let (directory, tree) = place();
        let path = directory.path().join("files/socket");
        let _by_path = net::UnixListener::bind(&path).unwrap();
        let name = net::SocketAddr::from_abstract_name(format!("confined.{}", std::process::id())).unwrap();
        let _by_name = net::UnixListener::bind_addr(&name).unwrap();
        let web = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = web.local_addr().unwrap();
        confined(&tree, || {
            let kind = |outcome: std::io::Result<()>| outcome.map_err(|error| error.kind());
            assert_eq!(kind(net::UnixStream::connect(&path).map(drop)), Err(PermissionDenied));
            assert_eq!(kind(net::UnixStream::connect_addr(&name).map(drop)), Err(PermissionDenied));
            assert_eq!(kind(net::UnixDatagram::unbound().map(drop)), Err(PermissionDenied));
            assert_eq!(kind(TcpListener::bind("127.0.0.1:0").map(drop)), Err(PermissionDenied));
            for family in [rustix::net::AddressFamily::VSOCK, rustix::net::AddressFamily::PACKET] {
                let made = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).map(drop);
                assert_eq!(made, Err(rustix::io::Errno::PERM), "{family:?}");
            }
            TcpStream::connect(address).unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap();
            assert!(("localhost", 1).to_socket_addrs().unwrap().count() > 0);
        });
    }

    #[test]
    fn other_programs_and_processes_are_out_of_reach() {
        let (_directory, tree) = place();
        // It ends when nobody has its input any more.
        let mut other = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&other);
        let raw = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
        confined(&tree, || {
            use nix::{errno::Errno::EPERM, sched::CloneFlags};
            let run = Command::new("/bin/true").status().map(drop).map_err(|error| error.kind());
            assert_eq!(run, Err(PermissionDenied));
            assert_eq!(nix::sys::signal::kill(raw, nix::sys::signal::Signal::SIGKILL), Err(EPERM));
            assert_eq!(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map(drop), Err(rustix::io::Errno::PERM));
            let limit = Rlimit { current: Some(0), maximum: Some(0) };
            assert_eq!(rustix::process::prlimit(Some(pid), Resource::Cpu, limit).map(drop), Err(rustix::io::Errno::PERM));
            for flags in [CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_NEWNET] {
                assert_eq!(nix::sched::unshare(flags), Err(EPERM));
            }
            let mount = rustix::mount::mount("none", "/mnt", "tmpfs", rustix::mount::MountFlags::empty(), None);
            assert_eq!(mount, Err(rustix::io::Errno::PERM));
            let status = fs::read_to_string("/proc/thread-self/status").map_err(|error| error.kind());
            assert_eq!(status, Err(PermissionDenied));
            let held = rustix::thread::capabilities(None).unwrap();
            assert!(held.effective.is_empty() && held.permitted.is_empty() && held.inheritable.is_empty());
            assert!(rustix::thread::no_new_privs().unwrap());
            // Threads begin as ever.
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        });
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
