//! What a container of a pod needs besides: the network of the pod, which whichever container comes first has made, and the volumes that it shares.

use std::{io, net::IpAddr, path::Path};

use super::{Attempt, DockerError, End, MAX_TRIES, PAUSE, TaskState, explain};
use crate::{
    cluster::engine::{
        agent::Seen,
        holder, sandbox,
        spec::{self, Bind},
    },
    model::{
        app::{Mode, Volume},
        cluster::Launch,
        id::{Owner, TaskId},
        pod,
    },
};

impl Attempt<'_> {
    /// Sees to it that the network of the pod is there; its addresses. Nothing for what has a network of its own, or the node's.
    pub(super) async fn network(&mut self) -> Result<Vec<IpAddr>, End> {
        let launch = self.launch;
        let Some(shared) = launch.pod.as_ref().filter(|shared| pod::has_own_network(&shared.app)) else { return Ok(Vec::new()) };
        let files = holder::files().map_err(|words| End::Refused(TaskState::Error, words))?;
        let name = spec::container_name(&pod::holder(self.task));
        let mut last = "Docker does not answer".to_owned();
        for _ in 0..MAX_TRIES {
            let image_id = match self.holder_image(&files).await {
                Ok(image_id) => image_id,
                Err(DockerError::Unreachable(_)) => continue,
                Err(error) => return Err(End::failed(explain(&error.to_string()))),
            };
            let body =
                spec::holder(launch, shared, &self.context.settings, &image_id).map_err(|words| End::Refused(TaskState::Error, words))?;
            self.create(&name, &body).await?;
            match self.start_holder(&name).await {
                Ok(Seen::Running { addresses }) => return Ok(addresses),
                Ok(_) => last = "what holds the network of the pod does not stay".to_owned(),
                // Another container's launch may be about to finish what this one found begun.
                Err(error) => last = error.to_string(),
            }
            if self.is_cancelled() {
                return Err(End::Cancelled);
            }
            if last.contains("allocated") || last.contains("in use") || last.contains("cannot assign") {
                // Who that is, Docker does not say.
                super::ports_are_free(self.context, launch).await?;
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(End::failed(explain(&last)))
    }

    async fn holder_image(&self, files: &[u8]) -> Result<String, DockerError> {
        let client = self.context.await_client().await;
        if let Some(id) = client.image_id(holder::IMAGE).await? {
            return Ok(id);
        }
        client.import_image(holder::IMAGE, files.to_vec()).await?;
        let made = client.image_id(holder::IMAGE).await?;
        made.ok_or_else(|| DockerError::Unreachable("an image that was just made is gone".to_owned()))
    }

    async fn start_holder(&self, name: &str) -> Result<Seen, DockerError> {
        let client = self.context.await_client().await;
        client.start(name).await?;
        Ok(spec::seen(&client.inspect(name).await?, false))
    }

    /// True for a container of a pod whose image does not say where it begins: Mesos has it begin in its sandbox.
    pub(super) async fn begins_in_sandbox(&self, image_id: &str) -> Result<bool, End> {
        if self.launch.pod.is_none() {
            return Ok(false);
        }
        for _ in 0..MAX_TRIES {
            match self.context.await_client().await.working_dir(image_id).await {
                Ok(directory) => return Ok(directory.is_none_or(|directory| directory == "/")),
                Err(DockerError::Unreachable(_)) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(End::failed(explain(&error.to_string()))),
            }
        }
        Err(End::failed("Docker did not say in time where the image's commands begin"))
    }

    /// The directories that the containers of an instance share.
    pub(super) async fn shared_volumes(&self) -> Result<Vec<Bind>, End> {
        let wanted = shared(self.launch);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        if !self.context.settings.docker_host.starts_with("unix://") {
            return Err(End::failed("Docker is on another machine, which does not see the volumes of a pod"));
        }
        let (work_dir, task, owner) = (self.context.settings.work_dir.clone(), self.task.clone(), self.launch.owner.clone());
        let make = move || wanted.iter().map(|one| make_shared(&work_dir, &task, &owner, one)).collect::<io::Result<Vec<_>>>();
        let made = tokio::task::spawn_blocking(make).await.map_err(io::Error::other).flatten();
        made.map_err(|error| End::failed(format!("the volumes of the pod cannot be made: {error}")))
    }
}

/// A volume of a pod that a container mounts.
pub(in crate::cluster::engine) struct Shared {
    name: String,
    pub(in crate::cluster::engine) target: String,
    read_only: bool,
}

/// The volumes of its pod that a container mounts.
pub(in crate::cluster::engine) fn shared(launch: &Launch) -> Vec<Shared> {
    let volumes = launch.app.container.iter().flat_map(|container| &container.volumes);
    let shared = volumes.filter_map(|volume| match volume {
        Volume::Shared { container_path, name, mode } => {
            Some(Shared { name: name.clone(), target: container_path.clone(), read_only: *mode == Mode::Ro })
        }
        Volume::Host { .. } | Volume::Brick(_) | Volume::Persistent(_) | Volume::External(_) | Volume::Secret { .. } => None,
    });
    shared.collect()
}

/// Makes the directory of such a volume, unless another container's launch has made it: in the sandbox of the holder, open to whoever a container's
/// process is. The way to it is closed, for the directory is open to every account of the node.
///
/// # Errors
/// It cannot be made.
pub(in crate::cluster::engine) fn make_shared(work_dir: &Path, task: &TaskId, owner: &Owner, wanted: &Shared) -> io::Result<Bind> {
    let holder = pod::holder(task);
    let files = sandbox::make_files(work_dir, &holder, false)?;
    sandbox::note_owner(work_dir, &holder, owner)?;
    let source = files.join(&wanted.name); // A name is no path: see `pod::is_name`.
    std::fs::create_dir_all(&source)?;
    sandbox::open_to_all(&source)?;
    Ok(Bind { source, target: wanted.target.clone(), read_only: wanted.read_only })
}
