//! External volumes: one app's each, and replaced in place.

use super::*;

fn with_volume(id: &str, name: &str, shared: bool) -> Value {
    let volume = json!({"containerPath": "/data", "mode": "RW",
        "external": {"name": name, "provider": "dvdi", "options": {"dvdi/driver": "local"}, "shared": shared}});
    json!({"id": id, "cmd": "sleep 100", "cpus": 1, "mem": 100, "backoffSeconds": 0,
        "container": {"type": "MESOS", "docker": {"image": "i"}, "volumes": [volume]}})
}

fn told(outcome: Result<Reply, RequestError>) -> String {
    match outcome {
        Ok(_) => "good".to_owned(),
        Err(RequestError::Invalid(violations)) => {
            violations.iter().map(|violation| format!("{}: {}", violation.path, violation.text)).collect::<Vec<_>>().join("; ")
        }
        Err(other) => other.to_string(),
    }
}

impl World {
    fn put_all(&mut self, apps: Vec<Value>) -> Result<Reply, RequestError> {
        let updates = apps.iter().map(|app| (path(app["id"].as_str().unwrap()), AppInput::read(app).unwrap())).collect();
        self.request(Request::UpdateApps { updates, partial: false, create: true, force: true })
    }
}

#[test]
fn a_volume_is_one_apps_unless_all_share_it() {
    let mut world = World::new();
    assert_eq!(told(world.create(with_volume("/a", "rows", false))), "good");
    assert_eq!(told(world.create(with_volume("/b", "other", false))), "good");
    let text = |of: &str, others: &str| {
        format!("/container: Volume name 'rows' in {of} conflicts with volume(s) of same name in app(s): {others}")
    };
    assert_eq!(told(world.create(with_volume("/c", "rows", false))), format!("{}; {}", text("/c", "/a"), text("/a", "/c")));
    world.restart();
    assert_eq!(told(world.create(with_volume("/c", "rows", true))), text("/c", "/a"));
    // Its own name is no conflict, and a name that is given up is free, also for one that takes it in the same breath.
    assert_eq!(told(world.put_all(vec![with_volume("/a", "rows", false)])), "good");
    assert_eq!(told(world.put_all(vec![with_volume("/c", "rows", false), with_volume("/a", "more", false)])), "good");
    assert_eq!(
        told(world.put_all(vec![with_volume("/d", "rows", true), with_volume("/c", "rows", true)])),
        "good",
        "both share it after the change"
    );
    assert_eq!(told(world.create(with_volume("/e", "rows", true))), "good");
    assert_eq!(
        told(world.put_all(vec![with_volume("/x", "two", false), with_volume("/y", "two", true)])),
        text("/y", "/x").replace("rows", "two")
    );
    world.request(Request::DeleteApp { app: path("/b"), force: true }).unwrap();
    assert_eq!(told(world.create(with_volume("/f", "other", false))), "good");
}

#[test]
fn another_users_app_is_not_named() {
    let mut world = World::new();
    world.create_by("ann", with_volume("/a", "rows", false)).unwrap();
    assert_eq!(told(world.create_by("bob", with_volume("/b", "rows", false))), "/container: Volume name 'rows' is taken");
}

#[test]
fn an_upgrade_ends_the_old_instance_before_it_starts_the_new_one() {
    let mut world = World::new();
    world.create(with_volume("/a", "rows", false)).unwrap();
    let first = world.offer("a", 9, 9000);
    run(&mut world, &first);
    world.update("/a", json!({"cmd": "sleep 200"}), false).unwrap();
    assert!(world.offer("a", 9, 9000).is_empty(), "nothing comes on top");
    assert_eq!(world.kills(), [first[0].task.clone()]);
    world.status(&first[0].task, TaskState::Killed);
    let second = world.offer("a", 9, 9000);
    run(&mut world, &second);
    assert_eq!((second.len(), world.conditions("/a").as_str()), (1, "Running*1"));
    assert!(world.tables().deployments.is_empty());
}

#[test]
fn an_administrator_answers_for_the_volumes_that_were_written_by_one() {
    let mut world = World::new();
    world.create(with_volume("/a", "rows", false)).unwrap();
    world.create_by("ann", with_volume("/b", "mine", false)).unwrap();
    let launches = world.offer("a", 9, 9000);
    let account = |id: &str| launches.iter().find(|launch| launch.app.id == path(id)).unwrap().account.clone();
    assert_eq!((account("/a"), account("/b")), (None, Some(Owner::new("ann"))));
}
