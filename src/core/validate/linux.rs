//! The rules of `linuxInfo`: Marathon's, with its texts, and what the embedded engine cannot do of it.

use std::fmt::Display;

use super::{Ctx, Found};
use crate::model::{
    app::{App, IpcMode, LinuxInfo},
    pod::{self, PodContainer},
};

/// Of an app.
pub(super) fn of_app(at: impl Display, info: &LinuxInfo, ctx: Ctx<'_>, found: &mut Found) {
    seccomp(&at, info, ctx, found);
    ipc(&at, info, Some("apps have no parent to share memory with but the node, and that is not done here"), found);
}

/// Of a container of a pod.
pub(super) fn of_container(at: impl Display, container: &PodContainer, app: &App, ctx: Ctx<'_>, found: &mut Found) {
    let Some(info) = &container.linux_info else { return };
    seccomp(&at, info, ctx, found);
    let alone = match (pod::has_own_network(app), &container.image) {
        (true, Some(_)) => None,
        (true, None) => Some("a container without an image has the node's memory, not the pod's"),
        (false, _) => Some("the containers of a pod share memory only when they have a network of their own, too"),
    };
    ipc(&at, info, alone, found);
}

/// Of a pod itself.
pub(super) fn of_pod(info: &LinuxInfo, found: &mut Found) {
    found.unless(info.seccomp.is_none(), "/linuxInfo/seccomp", "Seccomp configuration on executor level is not supported");
    ipc("/linuxInfo", info, Some("pods have no parent to share memory with but the node, and that is not done here"), found);
}

fn seccomp(at: impl Display, info: &LinuxInfo, ctx: Ctx<'_>, found: &mut Found) {
    let Some(seccomp) = &info.seccomp else { return };
    let path = format_args!("{at}/seccomp");
    match (&seccomp.profile_name, seccomp.unconfined) {
        (Some(_), true) => found.add(path, "Seccomp unconfined can NOT be true when Profile is defined"),
        (None, false) => found.add(path, "Seccomp unconfined must be true when Profile is NOT defined"),
        (Some(_), false) => {
            found.add(format_args!("{path}/profileName"), "the nodes of the embedded engine have no seccomp profiles to name")
        }
        (None, true) => {
            let text = "may be used by administrators only, unless one of them grants it";
            found.unless(ctx.privileged, format_args!("{path}/unconfined"), text);
        }
    }
}

/// `alone`: why there is nothing to share.
fn ipc(at: impl Display, info: &LinuxInfo, alone: Option<&str>, found: &mut Found) {
    let Some(ipc) = &info.ipc_info else { return };
    let path = format_args!("{at}/ipcInfo");
    if ipc.mode == IpcMode::ShareParent {
        found.unless(ipc.shm_size.is_none(), path, "ipcInfo shmSize can NOT be set when mode is SHARE_PARENT");
        alone.into_iter().for_each(|why| found.add(format_args!("{path}/mode"), why));
    }
    found.unless(ipc.shm_size != Some(0), format_args!("{path}/shmSize"), "got 0, expected 1 or more");
}
