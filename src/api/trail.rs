//! What the audit log is told of a request: who it was, from where, what it named and what came of it. Written also when the client goes away before its
//! answer, because the change may have been made.
//!
//! Only requests of somebody who was recognised are told of as changes. Who is nobody changes nothing, and must not be able to push the log of the others
//! out of its files; a wrong password is told of as a login.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hyper::Method;

use super::{
    Response,
    answer::DEPLOYMENT_ID,
    call::{Call, Peer},
    identity::{AuditSink, Decision, Source},
    wall,
};
use crate::{
    audit::{Audit, Entry, Place, What, Written},
    model::request::{KillSelector, Origin, Possession, Request},
};

/// Filled while a request is worked on.
#[derive(Debug, Default)]
pub struct Trail {
    origin: OnceLock<Origin>,
    of: Mutex<Vec<String>>,
}

impl Trail {
    /// Who asks, once that is known.
    pub fn of_origin(&self, origin: Origin) {
        // Found out once for each request.
        _ = self.origin.set(origin);
    }

    /// What is asked of the core.
    pub fn note(&self, request: &Request) {
        self.named().extend(named(request));
    }

    /// What is asked of others than the core, by its kind and name.
    pub fn note_name(&self, name: String) {
        self.named().push(name);
    }

    fn named(&self) -> MutexGuard<'_, Vec<String>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request names: never what is in it.
fn named(request: &Request) -> Vec<String> {
    let one = |name: String| vec![name];
    match request {
        Request::CreateApp { input, .. } => input.id().map(str::to_owned).into_iter().collect(),
        Request::UpdateApps { updates, .. } => updates.iter().map(|(id, _)| id.to_string()).collect(),
        Request::CreatePod { input, .. } => input.id().map(str::to_owned).into_iter().collect(),
        Request::UpdatePod { pod, .. } | Request::DeletePod { pod, .. } => one(pod.to_string()),
        Request::DeleteApp { app, .. } | Request::RestartApp { app, .. } | Request::ResetDelay { app } => one(app.to_string()),
        Request::KillTasks { selection, .. } => match selection {
            KillSelector::App { app, .. } => one(app.to_string()),
            KillSelector::Task { task, .. } => one(task.clone()),
            KillSelector::Instances { instances, .. } => instances.iter().map(ToString::to_string).collect(),
            KillSelector::Tasks(tasks) => tasks.iter().map(ToString::to_string).collect(),
        },
        Request::UpdateGroup { base, input, .. } => one(input.resolve(base).unwrap_or_else(|_| base.clone()).to_string()),
        Request::EnforceRole { group, .. } | Request::DeleteGroup { group, .. } => one(group.to_string()),
        Request::CancelDeployment { id, .. } => one(id.to_string()),
        Request::ReleasePort { port } => one(format!("port {port}")),
        Request::ReleaseBrick { brick, .. } | Request::FenceBrick { brick, .. } => one(format!("brick {brick}")),
        Request::HandOver { what, owner } => {
            let what = match what {
                Possession::App(app) => app.to_string(),
                Possession::Port(port) => format!("port {port}"),
                Possession::Brick(brick) => format!("brick {brick}"),
            };
            vec![what, format!("user {owner}")]
        }
        Request::PutUser { name, .. } | Request::RemoveUser { name } => one(format!("user {name}")),
    }
}

/// A line that is owed for a request.
pub struct Owed {
    place: Option<Place>,
    trail: Arc<Trail>,
    from: Arc<str>,
    method: Method,
    path: Arc<str>,
}

impl Owed {
    /// For `call`, in a place that was reserved before.
    pub fn new(place: Place, call: &Call) -> Self {
        let (from, method, path) = (from(call.peer.as_ref()), call.method.clone(), call.path().clone());
        Self { place: Some(place), trail: call.trail.clone(), from, method, path }
    }

    /// Writes it, with what is answered.
    pub async fn pay(mut self, response: &Response) {
        let deployment = response.headers().get(DEPLOYMENT_ID).and_then(|id| id.to_str().ok());
        if let Some(written) = self.write(Some(response.status().as_u16()), deployment) {
            written.done().await;
        }
    }

    fn write(&mut self, status: Option<u16>, deployment: Option<&str>) -> Option<Written> {
        let (place, origin) = (self.place.take()?, self.trail.origin.get()?);
        let what = What::Change { method: self.method.as_str(), path: &self.path, of: &self.trail.named(), status, deployment };
        Some(place.fill(&Entry { time: wall(), user: origin.user.as_str(), admin: origin.admin, from: &self.from, what }))
    }
}

impl Drop for Owed {
    /// The client went away.
    fn drop(&mut self) {
        self.write(None, None);
    }
}

fn from(peer: Option<&Peer>) -> Arc<str> {
    match peer.map(|peer| &peer.source) {
        Some(Source::Unix { uid, .. }) => format!("uid {uid}").into(),
        _ => Peer::client_ip(peer),
    }
}

impl AuditSink for Audit {
    fn decided(&self, decision: &Decision<'_>) {
        let Decision { user, from, refused } = decision;
        let from = if from.is_empty() { "unknown" } else { from };
        self.tell(&Entry { time: wall(), user, admin: false, from, what: What::Login { refused: refused.as_deref() } });
    }
}
