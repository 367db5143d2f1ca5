//! Answers to requests: "done" and "refused" mean what the records say, and apps change by nothing but requests about them.

use super::{
    super::{server::Stepped, world::World},
    Wanted,
};
use crate::{
    core::{Frame, Input, RequestId},
    model::{
        group::input::GroupInput,
        id::PathId,
        record::{AppEntry, Change, Record, RecordKey},
        request::{KillSelector, Origin, Possession, Reply, Request, RequestError},
    },
};

impl World<'_> {
    /// An app's entry changes only in the frame of a request that names the app.
    pub(super) fn check_cause(&mut self, one: &Stepped, app: &PathId) {
        let Input::Api(_, _, request) = &one.cause else {
            return self.violate("wrong-write", || format!("{app} changes without a request"));
        };
        if !touches(request, app) {
            self.violate("wrong-write", || format!("{app} changes by a request about something else: {request:?}"));
        }
    }

    /// An answer and the records say the same.
    pub(super) fn check_written(
        &mut self,
        origin: &Origin,
        request: &Request,
        reply: &Result<Reply, RequestError>,
        wanted: Wanted,
        frame: &Frame,
    ) {
        if reply.is_err() {
            let written = frame.changes.iter().find(|change| {
                matches!(change.key(), RecordKey::App(_) | RecordKey::Port(_) | RecordKey::Group(_) | RecordKey::RootVersion(_))
                    || matches!(change, Change::Put(Record::Definition(_)))
                    || matches!(change, Change::Put(Record::Brick(brick)) if brick.lease.is_none() && brick.condemned)
            });
            if let Some(change) = written {
                let key = change.key();
                self.violate("wrong-write", || format!("refused ({reply:?}), and yet {key:?} was written"));
            }
            return;
        }
        let mark = wanted.mark.map(|mark| mark.to_string());
        let is_written = |app: &PathId| {
            self.disk.current(app).is_some_and(|app| {
                (mark.is_none() || app.labels.get("mark") == mark.as_ref()) && wanted.instances.is_none_or(|wanted| wanted == app.instances)
            })
        };
        let done = match request {
            Request::CreateApp { input, .. } => input.id().and_then(|id| id.parse().ok()).is_some_and(|id| is_written(&id)),
            Request::CreatePod { input, .. } => input.path().is_ok_and(|id| is_written(&id)),
            Request::UpdatePod { pod, .. } => is_written(pod),
            Request::UpdateApps { updates, .. } => updates.iter().all(|(app, _)| is_written(app)),
            Request::UpdateGroup { base, input, .. } => self.is_group_written(origin, base, input, &is_written),
            Request::DeleteGroup { group, .. } => self.disk.apps().all(|entry| !entry.id.is_below(group)),
            Request::DeleteApp { app, .. } | Request::DeletePod { pod: app, .. } => self.disk.app(app).is_none(),
            Request::RestartApp { app, .. } => self.disk.app(app).is_some(),
            Request::ReleasePort { port } => self.disk.port(*port).is_none(),
            other => self.is_owned_as(other),
        };
        if !done {
            self.violate("wrong-write", || format!("answered {reply:?}, but the records differ from {request:?}"));
        }
    }

    /// All that is named is there as written, and nothing else of the caller's where something is named.
    fn is_group_written(&self, origin: &Origin, id: &PathId, input: &GroupInput, is_written: &dyn Fn(&PathId) -> bool) -> bool {
        let within = |text: Option<&str>| PathId::resolve(text.unwrap_or_default(), id).ok();
        let apps = input.apps.as_ref().is_none_or(|apps| {
            let named: Vec<PathId> = apps.iter().filter_map(|app| within(app.id())).collect();
            let is_pod = |entry: &AppEntry| self.disk.current(&entry.id).is_some_and(|app| app.pod.is_some());
            let is_others = |entry: &AppEntry| !origin.may_touch(Some(&entry.owner));
            let is_named = |entry: &AppEntry| entry.id.parent() != *id || named.contains(&entry.id) || is_pod(entry) || is_others(entry);
            named.iter().all(is_written) && self.disk.apps().all(is_named)
        });
        let groups = input.groups.iter().flatten();
        let mut groups = groups.filter_map(|group| Some((within(group.id.as_deref())?, group)));
        apps && groups.all(|(child, group)| self.is_group_written(origin, &child, group, is_written))
    }

    /// An answer leaves.
    pub(in crate::sim) fn check_reply(&mut self, id: RequestId, reply: &Result<Reply, RequestError>) {
        self.rules.asked.remove(&id);
        match reply {
            Ok(Reply::Killed(instances)) => {
                let live = instances.iter().filter(|instance| instance.condition.is_live());
                self.rules.doomed.extend(live.flat_map(|instance| self.disk.tasks_of(instance)).map(|(task, _)| task));
                self.stats.accepted += 1;
            }
            Ok(_) => self.stats.accepted += 1,
            Err(_) => self.stats.refused += 1,
        }
    }
}

fn touches(request: &Request, app: &PathId) -> bool {
    match request {
        Request::CreateApp { input, .. } => input.id().and_then(|id| id.parse::<PathId>().ok()).as_ref() == Some(app),
        Request::UpdateApps { updates, .. } => updates.iter().any(|(id, _)| id == app),
        Request::CreatePod { input, .. } => input.path().is_ok_and(|id| id == *app),
        Request::UpdatePod { pod: named, .. } | Request::DeletePod { pod: named, .. } => named == app,
        Request::DeleteApp { app: named, .. } | Request::RestartApp { app: named, .. } => named == app,
        Request::KillTasks { selection, scale, .. } => {
            *scale
                && match selection {
                    KillSelector::App { app: named, .. } | KillSelector::Task { app: named, .. } => named == app,
                    KillSelector::Instances { pod, .. } => pod == app,
                    KillSelector::Tasks(tasks) => tasks.iter().any(|task| task.instance.app() == app),
                }
        }
        Request::UpdateGroup { base: group, .. } | Request::DeleteGroup { group, .. } => app.is_below(group),
        Request::CancelDeployment { force, .. } => !force,
        Request::HandOver { what: Possession::App(named), .. } => named == app,
        _ => false,
    }
}
