//! What the API asks of the core, and the core's answers. Marathon's statuses and texts are made from these at the HTTP edge.

use std::sync::Arc;

use super::{
    app::input::AppInput,
    deployment::Step,
    group::input::GroupInput,
    id::{BrickName, DeploymentId, InstanceId, Owner, PathId, TaskId},
    instance::Instance,
    pod::input::PodInput,
    time::Timestamp,
    user::UserChange,
};

/// Who asks, for events, ownership and the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The account; the default owner while nobody is asked who they are.
    pub user: Owner,
    /// True: may touch what others own.
    pub admin: bool,
    /// The client's address, for `api_post_event`.
    pub client_ip: Arc<str>,
    /// The request's path, for `api_post_event`.
    pub uri: Arc<str>,
}

impl Origin {
    /// True when the caller may see and change what `owner` has; what nobody is known to own is the administrators'.
    pub fn may_touch(&self, owner: Option<&Owner>) -> bool {
        self.admin || owner == Some(&self.user)
    }
}

/// Who wants a command to be run inside a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The task's own definition: a check, of which only the exit code is of interest.
    Definition,
    /// An administrator.
    Administrator,
    /// Another user.
    User(Owner),
}

impl From<&Origin> for Asker {
    fn from(origin: &Origin) -> Self {
        if origin.admin { Self::Administrator } else { Self::User(origin.user.clone()) }
    }
}

/// What can be handed over.
#[derive(Clone, Debug, PartialEq)]
pub enum Possession {
    /// An app, and with it the ports and bricks that its present owner has claimed for it.
    App(PathId),
    /// A claimed port.
    Port(u16),
    /// A brick.
    Brick(BrickName),
}

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `POST /v2/apps`
    CreateApp {
        /// A complete definition; its `id` is required.
        input: Box<AppInput>,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `PUT` and `PATCH` of one or several apps: one deployment for all.
    UpdateApps {
        /// Each with its path and what was written.
        updates: Vec<(PathId, AppInput)>,
        /// False: the input is a complete definition, absent keys return to their defaults.
        partial: bool,
        /// False (`PATCH`): an app that is missing is an error.
        create: bool,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `DELETE /v2/apps/{id}`
    DeleteApp {
        /// The app.
        app: PathId,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `POST /v2/apps/{id}/restart`
    RestartApp {
        /// The app.
        app: PathId,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `POST /v2/pods`
    CreatePod {
        /// A complete definition.
        input: Box<PodInput>,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `PUT /v2/pods/{id}`
    UpdatePod {
        /// The pod; made when it does not exist.
        pod: PathId,
        /// A complete definition.
        input: Box<PodInput>,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `DELETE /v2/pods/{id}`
    DeletePod {
        /// The pod.
        pod: PathId,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `POST` and `PUT` of `/v2/groups`
    UpdateGroup {
        /// The path of the request; the body's id is relative to it.
        base: PathId,
        /// What was written.
        input: GroupInput,
        /// True (`POST`): a group that exists is an error.
        create: bool,
        /// Cancels what is in the way.
        force: bool,
        /// Only says which steps it would take.
        dry_run: bool,
    },
    /// `PATCH /v2/groups/{id}`
    EnforceRole {
        /// A top-level group.
        group: PathId,
        /// `None`: as for a new group.
        enforce: Option<bool>,
    },
    /// `DELETE /v2/groups/{id}`
    DeleteGroup {
        /// The group; the root: everything.
        group: PathId,
        /// Cancels what is in the way.
        force: bool,
    },
    /// `DELETE .../tasks` and `POST /v2/tasks/delete`
    KillTasks {
        /// Which tasks.
        selection: KillSelector,
        /// Scales the apps down by as many as are killed.
        scale: bool,
        /// Cancels what is in the way (with `scale`).
        force: bool,
        /// Gives up what is reserved for the instance.
        wipe: bool,
    },
    /// `DELETE /v2/deployments/{id}`
    CancelDeployment {
        /// Which one.
        id: DeploymentId,
        /// True: only stops; false: goes back to where it began.
        force: bool,
    },
    /// `DELETE /v2/queue/{app}/delay`
    ResetDelay {
        /// The app.
        app: PathId,
    },
    /// `DELETE /v2/ports/{port}`
    ReleasePort {
        /// The number.
        port: u16,
    },
    /// `DELETE /v2/bricks/{name}`
    ReleaseBrick {
        /// The brick.
        brick: BrickName,
        /// Also when its app still exists (never when it has a live holder).
        force: bool,
    },
    /// An administrator's word that the holder of a brick is certainly gone.
    FenceBrick {
        /// The brick.
        brick: BrickName,
        /// The lease that is declared dead; a later one is not touched.
        epoch: u64,
    },
    /// `PUT` with `{"owner": ...}`: an administrator gives something to another user.
    HandOver {
        /// What.
        what: Possession,
        /// To whom.
        owner: Owner,
    },
    /// `PUT /v2/auth/users/{name}`
    PutUser {
        /// Who; made when there is no such user.
        name: Owner,
        /// What changes.
        change: UserChange,
    },
    /// `DELETE /v2/auth/users/{name}`
    RemoveUser {
        /// Who. What the user owns stays.
        name: Owner,
    },
}

/// Which tasks are to be killed.
#[derive(Clone, Debug, PartialEq)]
pub enum KillSelector {
    /// All of one app, or those on one host.
    App {
        /// The app.
        app: PathId,
        /// `None`: every host.
        host: Option<String>,
    },
    /// One task of an app; unknown is an error.
    Task {
        /// The app.
        app: PathId,
        /// The task id, or the instance id, as written.
        task: String,
    },
    /// Any tasks; unknown ones are skipped.
    Tasks(Vec<TaskId>),
    /// Instances of a pod; unknown ones are skipped.
    Instances {
        /// The pod.
        pod: PathId,
        /// Each once.
        instances: Vec<InstanceId>,
    },
}

/// What came of a request that was carried out. Durable and visible by the time it is seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A deployment began (or had nothing to do).
    Deployment {
        /// Its id.
        id: DeploymentId,
        /// The version of what it wants.
        version: Timestamp,
        /// Apps that did not exist before.
        created: Vec<PathId>,
    },
    /// What a deployment would do.
    Planned(Vec<Step>),
    /// Tasks are being killed, without a deployment. Each as it was before.
    Killed(Vec<Instance>),
    /// Done, nothing to say.
    Done,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// 404: `App '/x' does not exist`
    #[error("App '{0}' does not exist")]
    NoApp(PathId),
    /// 404: `Pod '/x' does not exist`
    #[error("Pod '{0}' does not exist")]
    NoPod(PathId),
    /// 404: an app of which there are no instances.
    #[error("Path '{0}' does not exist")]
    NoPath(PathId),
    /// 404: a version of an app.
    #[error("App '{0}' does not exist in version {1}")]
    NoVersion(PathId, Timestamp),
    /// 404
    #[error("Group '{0}' does not exist")]
    NoGroup(PathId),
    /// 404
    #[error("Task '{0}' does not exist")]
    NoTask(String),
    /// 404
    #[error("DeploymentPlan {0} does not exist")]
    NoDeployment(DeploymentId),
    /// 404
    #[error("Application {0} not found in tasks queue.")]
    NotQueued(PathId),
    /// 404
    #[error("Port {0} is not claimed")]
    NoPort(u16),
    /// 404
    #[error("Brick '{0}' does not exist")]
    NoBrick(BrickName),
    /// 404
    #[error("User '{0}' does not exist")]
    NoUser(Owner),
    /// 409
    #[error("An app with id [{0}] already exists.")]
    AppExists(PathId),
    /// 409
    #[error("A pod with id [{0}] already exists.")]
    PodExists(PathId),
    /// 409, with the deployments in the way.
    #[error(
        "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
    )]
    Locked(Vec<DeploymentId>),
    /// 409: anything else that is in the way.
    #[error("{0}")]
    Conflict(String),
    /// 403. As Marathon prints it, a blank is missing.
    #[error(
        "Max number ({0}) of running deployments is achieved. Wait for existing deployments to complete or cancel oneusing force=true parameter. \
         You can increase max deployment number by using --max_running_deployments parameter but be advised that this can have negative effects \
         on the performance."
    )]
    TooManyDeployments(usize),
    /// 422, with the violations.
    #[error("Object is not valid")]
    Invalid(Vec<Violation>),
    /// 422: a text of its own.
    #[error("{0}")]
    Unprocessable(String),
    /// 400
    #[error("{0}")]
    Bad(String),
    /// 403
    #[error("Not Authorized to perform this action!")]
    Forbidden,
    /// 500: `All ports in the range [10000-20000) are already in use`
    #[error("All ports in the range [{0}-{1}) are already in use")]
    ServicePortsExhausted(u16, u16),
}

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Marathon's notation: `/` for the object, `/container/volumes(0)/containerPath`.
    pub path: String,
    /// For people, and some clients.
    pub text: String,
}

impl Violation {
    /// `path` and `text` as they are.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}
