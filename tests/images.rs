//! Images against the real registry (Debian's `docker-registry`) and the real Docker: pushed, looked at, pulled, and refused to who may not.
//! The parts with Docker need root; see `support/docker.rs`.

mod house;

use std::{
    io::Read,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex, atomic::Ordering},
};

use async_trait::async_trait;
use xtao::{
    model::{cluster::TaskState, id::Owner, image::ImageName},
    registry::{
        archive::{self as saved, Archive, Image, sha256},
        client::{Registry, RegistryError},
        platform::{PlatformError, Whereabouts},
        push::{Memory, Push, PushError, Step, Tokens, Watch},
    },
};

use self::house::{House, archive, bad_line, noise, oci_archive, who};
use crate::support::{
    docker::{Daemon, IMAGE, Options},
    rig::{Rig, command},
};

/// Tokens of one user, straight from the authority.
struct Of<'a>(&'a House, &'a str);

#[async_trait]
impl Tokens for Of<'_> {
    async fn token(&self, repository: &str, _source: Option<&str>) -> Result<String, PushError> {
        Ok(self.0.token(self.1, repository, &["pull", "push"]))
    }
}

/// What was seen, in words.
#[derive(Default)]
struct Seen(Mutex<Vec<&'static str>>);

impl Watch for Seen {
    fn step(&self, step: Step<'_>) {
        let word = match step {
            Step::Present(_) => "present",
            Step::Sent(..) => "sent",
            Step::Again(..) => "again",
            Step::Tagged(..) => "tagged",
            Step::Sending(..) | Step::Read(..) => return,
        };
        self.0.lock().unwrap().push(word);
    }
}

/// Pushes the one image of an archive, and says what was seen.
async fn push(
    house: &House,
    user: &str,
    registry: &Registry,
    file: &Path,
    to: (&str, &[&str]),
    known: &Memory,
) -> Result<String, PushError> {
    let archive = Arc::new(saved::open(file).unwrap());
    let seen = Arc::new(Seen::default());
    let tokens = Of(house, user);
    let push = Push { registry, tokens: &tokens, archive: archive.clone(), known, watch: seen.clone() };
    let tags: Vec<String> = to.1.iter().map(|tag| (*tag).to_owned()).collect();
    push.run(&archive.images[0], to.0, &tags).await?;
    let mut words = seen.0.lock().unwrap().clone();
    words.sort_unstable();
    Ok(words.join(" "))
}

fn name(house: &House, text: &str) -> ImageName {
    house.platform.parse(text).unwrap()
}

async fn listed(house: &House, user: &str) -> String {
    let listed = house.platform.list(&who(user)).await.unwrap();
    listed.iter().map(|image| format!("{}:{}", image.name, image.tags.join(","))).collect::<Vec<_>>().join(" ")
}

/// The plain contents of a layer.
fn plain(archive: &Archive, layer: &saved::Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reader = archive.layer(layer).unwrap();
    match layer.compressed {
        true => flate2::read::MultiGzDecoder::new(reader).read_to_end(&mut bytes).unwrap(),
        false => { reader }.read_to_end(&mut bytes).unwrap(),
    };
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_seen_fetched_and_removed_by_whose_it_is() {
    let house = House::start().await;
    let file = house.path("image.tar");
    let layers = [noise(1, 300_000), vec![0; 2_000_000], noise(2, 10)];
    archive(&file, &["zmfsea/x:latest"], &layers);
    let registry = house.platform.registry().unwrap();
    let known = Memory::default();

    let seen = push(&house, "zmfsea", &registry, &file, ("zmfsea/x", &["latest", "1"]), &known).await.unwrap();
    assert_eq!(seen, "sent sent sent tagged tagged", "{}", house.log());
    assert_eq!(known.all().len(), 3);
    // The second time nothing is sent, and nothing but the table is read.
    let seen = push(&house, "zmfsea", &registry, &file, ("zmfsea/x", &["2"]), &known).await.unwrap();
    assert_eq!(seen, "present present present tagged");

    // Ownership is the registry's business, whatever a client does.
    for (user, repository) in [("other", "zmfsea/x"), ("zmfsea", "other/x"), ("zmfsea", "library/x"), ("zmfsea", "x"), ("", "zmfsea/x")] {
        let refused = push(&house, user, &registry, &file, (repository, &["latest"]), &known).await.unwrap_err();
        assert!(matches!(refused, PushError::Registry(RegistryError::Denied(_))), "{user} {repository}: {refused}");
    }
    let pull = |user: &str| house.token(user, "zmfsea/x", &["pull"]);
    for stranger in
        [String::new(), pull("other"), house.token("zmfsea", "zmfsea/x", &["push"]), house.token("zmfsea", "zmfsea/y", &["pull"])]
    {
        let refused = registry.manifest(&stranger, "zmfsea/x", "latest").await.unwrap_err();
        assert!(matches!(refused, RegistryError::Denied(_)), "{refused}");
    }
    // A token signed by somebody else, and one that was changed.
    let elsewhere = tempfile::tempdir().unwrap();
    let forger = xtao::registry::token::Authority::open(elsewhere.path()).unwrap();
    let forged = forger.token(&who("zmfsea"), &[xtao::registry::access::Access::repository("zmfsea/x", &["pull"])]).text;
    let changed = format!("{}x", pull("zmfsea"));
    for token in [forged, changed] {
        assert!(matches!(registry.manifest(&token, "zmfsea/x", "latest").await, Err(RegistryError::Denied(_))));
    }

    // Seen by whose it is, and by administrators.
    assert_eq!(listed(&house, "zmfsea").await, "zmfsea/x:1,2,latest");
    assert_eq!(listed(&house, "admin").await, "zmfsea/x:1,2,latest");
    assert_eq!(listed(&house, "other").await, "");
    let shown = house.platform.show(&who("zmfsea"), &name(&house, "zmfsea/x")).await.unwrap();
    let [one, two, latest] = shown.tags.as_slice() else { panic!("three tags: {shown:?}") };
    assert_eq!((&one.digest, &two.digest, one.layers), (&latest.digest, &latest.digest, 3));
    assert_eq!((one.created.as_deref(), one.architecture.as_deref()), (Some("2026-01-31T12:00:00Z"), Some("amd64")));
    let missing = house.platform.show(&who("other"), &name(&house, "zmfsea/x")).await.unwrap_err();
    assert!(matches!(missing, PlatformError::Missing(_)));

    // Fetched, it has the same configuration and the same layers.
    let (back, names) = (house.path("back.tar"), ["zmfsea/x:latest".to_owned()]);
    let mut out = std::fs::File::create(&back).unwrap();
    let pulled = xtao::registry::pull::pull(&registry, &pull("zmfsea"), ("zmfsea/x", "latest"), &names, &mut out, &|_| {}).await.unwrap();
    assert_eq!(pulled, latest.digest);
    let (first, second) = (saved::open(&file).unwrap(), saved::open(&back).unwrap());
    let of = |archive: &Archive| archive.images[0].clone();
    let ids = |image: &Image| image.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>();
    assert_eq!((of(&first).config, of(&first).names, ids(&of(&first))), (of(&second).config, of(&second).names, ids(&of(&second))));
    for layer in &of(&second).layers {
        assert_eq!(sha256(&plain(&second, layer)), layer.diff_id);
    }

    // One tag of several, then all.
    let forbidden = house.platform.delete(&who("other"), &name(&house, "zmfsea/x"), true).await.unwrap_err();
    assert!(matches!(forbidden, PlatformError::Missing(_)));
    house.platform.delete(&who("zmfsea"), &name(&house, "zmfsea/x:1"), false).await.unwrap();
    assert_eq!(listed(&house, "zmfsea").await, "zmfsea/x:2,latest");
    house.platform.delete(&who("zmfsea"), &name(&house, "zmfsea/x"), true).await.unwrap();
    assert_eq!(listed(&house, "zmfsea").await, "");
    let gone = house.platform.delete(&who("zmfsea"), &name(&house, "zmfsea/x"), true).await.unwrap_err();
    assert_eq!(gone.to_string(), "Image 'zmfsea/x' does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_over_a_bad_line_is_tried_again_and_gives_up_in_the_end() {
    let house = House::start().await;
    let file = house.path("image.tar");
    archive(&file, &["zmfsea/x:latest"], &[noise(3, 4_000_000)]);

    let (line, broken) = bad_line(house.address(), 1_000_000, 2).await;
    let registry = Registry::new(&line.to_string()).unwrap();
    let seen = push(&house, "zmfsea", &registry, &file, ("zmfsea/x", &["latest"]), &Memory::default()).await.unwrap();
    assert_eq!((seen.as_str(), broken.load(Ordering::SeqCst)), ("again again sent tagged", 2));

    let (line, broken) = bad_line(house.address(), 1_000_000, u64::MAX).await;
    let registry = Registry::new(&line.to_string()).unwrap();
    let failed = push(&house, "zmfsea", &registry, &file, ("zmfsea/y", &["latest"]), &Memory::default()).await.unwrap_err();
    assert!(matches!(failed, PushError::Registry(RegistryError::Unreachable { .. })), "{failed}");
    assert_eq!(broken.load(Ordering::SeqCst), 4);
    // Nothing is tagged that is not complete.
    assert_eq!(listed(&house, "admin").await, "zmfsea/x:latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_layer_is_not_sent() {
    let house = House::start().await;
    let file = house.path("image.tar");
    archive(&file, &["zmfsea/x:latest"], &[noise(4, 1_000_000)]);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let registry = house.platform.registry().unwrap();
    let failed = push(&house, "zmfsea", &registry, &file, ("zmfsea/x", &["latest"]), &Memory::default()).await.unwrap_err();
    assert!(matches!(failed, PushError::Damaged(_)), "{failed}");
    assert_eq!(listed(&house, "admin").await, "");
}

fn imgcli(house: &House, api: std::net::SocketAddr, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgcli"));
    command.env("HOME", house.path("home")).env_remove("XDG_CACHE_HOME").args(["-d", &format!("http://{api}")]).args(words);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {}{}", output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn imgcli_pushes_and_pulls_and_says_what_it_will_not_do() {
    let house = House::start().await;
    let file = house.path("cmp-postgresql.tar");
    let file_name = file.to_string_lossy().into_owned();
    archive(&file, &["zmfsea/cmp-postgresql:latest"], &[noise(5, 1 << 20)]);
    let zmfsea = house.api("zmfsea", house.address()).await;
    let other = house.api("other", house.address()).await;
    let admin = house.api("admin", house.address()).await;

    let first = said(&imgcli(&house, zmfsea, &["push", &file_name]));
    assert!(first.starts_with("0 pushed zmfsea/cmp-postgresql:latest (sha256:") && first.contains(": 1.0 MiB sent as"), "{first}");
    let second = said(&imgcli(&house, zmfsea, &["push", &file_name]));
    assert!(second.starts_with("0 pushed ") && second.contains(": there already"), "{second}");

    let refused = said(&imgcli(&house, other, &["push", &file_name]));
    assert!(refused.starts_with("4 error: you are other, and may not push or remove zmfsea/cmp-postgresql:latest"), "{refused}");
    let refused = said(&imgcli(&house, zmfsea, &["push", "--name", "other/cmp-postgresql", &file_name]));
    assert!(refused.starts_with("4 error: you are zmfsea, and may not"), "{refused}");
    let refused = said(&imgcli(&house, zmfsea, &["push", "/etc/hostname"]));
    assert!(refused.starts_with("1 error: /etc/hostname: "), "{refused}");
    let refused = said(&imgcli(&house, zmfsea, &["push", "/nowhere"]));
    assert!(refused.starts_with("1 error: /nowhere: the archive cannot be read: No such file"), "{refused}");

    // The platform's own images have two names in the registry, so that Docker finds them whichever way it asks.
    assert!(said(&imgcli(&house, admin, &["push", "--name", "anna", &file_name])).starts_with("0 pushed anna:latest"));
    let registry = house.platform.registry().unwrap();
    for repository in ["library/anna", "anna"] {
        let token = house.token("", repository, &["pull"]);
        assert!(registry.manifest(&token, repository, "latest").await.unwrap().is_some(), "{repository}");
    }
    assert_eq!(listed(&house, "other").await, "anna:latest");
    house.platform.delete(&who("admin"), &name(&house, "anna"), true).await.unwrap();
    assert_eq!(registry.tags(&house.token("", "anna", &["pull"]), "anna").await.unwrap(), Vec::<String>::new());

    let back = house.path("back.tar").to_string_lossy().into_owned();
    let pulled = said(&imgcli(&house, zmfsea, &["pull", "zmfsea/cmp-postgresql", &back]));
    assert!(pulled.starts_with("0 pulled zmfsea/cmp-postgresql:latest"), "{pulled}");
    let names = saved::open(Path::new(&back)).unwrap().images[0].names.clone();
    assert_eq!(names, ["zmfsea/cmp-postgresql:latest", "registry.marathon.mesos:5000/zmfsea/cmp-postgresql:latest"]);
    std::fs::remove_file(&back).unwrap();
    for (api, text) in [(other, "zmfsea/cmp-postgresql"), (zmfsea, "zmfsea/nothing")] {
        let missing = said(&imgcli(&house, api, &["pull", text, &back]));
        assert!(missing.starts_with("1 error: there is no image") && !Path::new(&back).exists(), "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_saves_goes_through_the_registry_and_comes_back() {
    let house = House::start().await;
    let daemon = Daemon::start(Options::default());
    daemon.docker(&["tag", IMAGE, "zmfsea/tool:1"]);
    daemon.docker(&["tag", IMAGE, "zmfsea/tool:2"]);
    let id = daemon.docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]);
    let file = house.path("tool.tar").to_string_lossy().into_owned();
    daemon.docker(&["save", "-o", &file, "zmfsea/tool:1", "zmfsea/tool:2"]);
    let packed = format!("{file}.gz");
    assert!(Command::new("sh").args(["-c", &format!("gzip -1 < '{file}' > '{packed}'")]).status().unwrap().success());
    let zmfsea = house.api("zmfsea", house.address()).await;
    for file in [&packed, &file] {
        let pushed = said(&imgcli(&house, zmfsea, &["push", file]));
        assert!(pushed.contains("pushed zmfsea/tool:1 ") && pushed.contains("pushed zmfsea/tool:2 "), "{pushed}");
    }
    daemon.docker(&["rmi", "-f", "zmfsea/tool:1", "zmfsea/tool:2", IMAGE]);
    let back = house.path("back.tar").to_string_lossy().into_owned();
    assert!(said(&imgcli(&house, zmfsea, &["pull", "zmfsea/tool:2", &back])).starts_with("0 "));
    daemon.docker(&["load", "-i", &back]);
    assert_eq!(daemon.docker(&["image", "inspect", "--format", "{{.Id}}", "registry.marathon.mesos:5000/zmfsea/tool:2"]), id);
}

/// Another registry is asked when ours has said that it does not have the image, and never for the name of a user.
#[tokio::test(flavor = "multi_thread")]
async fn another_registry_is_asked_after_a_definite_no_only() {
    let mut house = House::start().await;
    let file = house.path("image.tar");
    archive(&file, &["zmfsea/x:1"], &[noise(6, 1000)]);
    let registry = house.platform.registry().unwrap();
    push(&house, "zmfsea", &registry, &file, ("zmfsea/x", &["1"]), &Memory::default()).await.unwrap();
    push(&house, "admin", &registry, &file, ("library/anna", &["1"]), &Memory::default()).await.unwrap();
    let check = async |image: &str, owner: &str, expected: &str| {
        let found = house.platform.find(&name(&house, image), &Owner::new(owner), &"/app".parse().unwrap()).await;
        let found = found.map_or_else(|error| error.to_string(), |source| format!("{source:?}"));
        assert!(found.contains(expected), "{image} for {owner}: {found}");
    };
    // Nobody here is called so, and no account on the machine.
    let strange = "nobody-called-so/x:1";
    check("zmfsea/x:1", "zmfsea", "Platform").await;
    check("zmfsea/x:1", "admin", "Platform").await;
    check("zmfsea/x:1", "other", "belongs to the user zmfsea").await;
    check("anna:1", "other", "Platform").await;
    check("zmfsea/x:2", "zmfsea", "so no other registry is asked").await;
    check("zmfsea/y", "other", "so no other registry is asked").await;
    check("anna:2", "zmfsea", "Elsewhere").await;
    check(strange, "zmfsea", "Elsewhere").await;
    check("quay.io/zmfsea/x:1", "other", "Elsewhere").await;

    // That it does not answer is no 'no'.
    house.stop();
    let check = async |image: &str, expected: &str| {
        let found = house.platform.find(&name(&house, image), &Owner::new("zmfsea"), &"/app".parse().unwrap()).await;
        let found = found.map_or_else(|error| error.to_string(), |source| format!("{source:?}"));
        assert!(found.contains(expected), "{image}: {found}");
    };
    for image in ["zmfsea/x:1", "anna:1", "busybox", strange] {
        check(image, "so nobody can say whether it has the image").await;
    }
    house.say(Whereabouts::Down);
    for image in ["zmfsea/x:1", "anna:1", "busybox", strange] {
        check(image, "so nobody can say whether it has the image").await;
    }
    check("quay.io/a/b", "Elsewhere").await;
    house.say(Whereabouts::Absent);
    check("busybox", "Elsewhere").await;
    check(strange, "Elsewhere").await;
    check("zmfsea/x:1", "so no other registry is asked").await;
}

/// As newer Docker saves: an OCI layout, of which each image is pushed with its own manifest.
#[tokio::test(flavor = "multi_thread")]
async fn an_oci_archive_goes_through_the_registry_as_it_is() {
    let house = House::start().await;
    let file = house.path("oci.tar").to_string_lossy().into_owned();
    let digest = oci_archive(Path::new(&file), "zmfsea/oci", &["1", "2"], &[noise(7, 100_000), noise(8, 10)]);
    let zmfsea = house.api("zmfsea", house.address()).await;
    let packed = format!("{file}.gz");
    assert!(Command::new("sh").args(["-c", &format!("gzip -1 < '{file}' > '{packed}'")]).status().unwrap().success());
    for file in [&file, &packed] {
        let pushed = said(&imgcli(&house, zmfsea, &["push", file]));
        for tag in ["1", "2"] {
            assert!(pushed.contains(&format!("pushed zmfsea/oci:{tag} ({digest})")), "{pushed}");
        }
    }
    let back = house.path("back.tar").to_string_lossy().into_owned();
    assert!(said(&imgcli(&house, zmfsea, &["pull", "zmfsea/oci:2", &back])).starts_with("0 "));
    let (first, second) = (saved::open(Path::new(&file)).unwrap(), saved::open(Path::new(&back)).unwrap());
    assert_eq!(first.images[0].config, second.images[0].config);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_pulls_for_whose_it_is_and_for_nobody_else() {
    let mut house = House::start().await;
    let daemon = Daemon::start(Options::default());
    let file = house.path("tool.tar").to_string_lossy().into_owned();
    daemon.docker(&["tag", IMAGE, "zmfsea/tool:1"]);
    daemon.docker(&["save", "-o", &file, "zmfsea/tool:1"]);
    let (zmfsea, admin) = (house.api("zmfsea", house.address()).await, house.api("admin", house.address()).await);
    assert!(said(&imgcli(&house, zmfsea, &["push", &file])).starts_with("0 "));
    assert!(said(&imgcli(&house, admin, &["push", "--name", "anna", &file])).starts_with("0 "));
    daemon.docker(&["rmi", "zmfsea/tool:1"]);

    let mut rig = Rig::idle(&daemon);
    rig.platform(house.platform.clone());
    rig.begin(&daemon).await;
    let images = || {
        let mut names: Vec<String> =
            daemon.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect();
        names.sort();
        names
    };

    // The owner's app has it, under the name that the owner wrote and under no other.
    let own = rig.launch(command("/own", "echo it runs").image("registry.marathon.mesos:5000/zmfsea/tool:1").owner("zmfsea")).await;
    rig.status(&own, TaskState::Finished).await;
    rig.removed(&own).await;
    assert_eq!(rig.output(&own, "stdout"), "it runs\n");
    assert_eq!(images(), [IMAGE, "zmfsea/tool:1"]);

    // It is in Docker now, and still not everybody's, however it is written.
    let id = daemon.docker(&["image", "inspect", "--format", "{{.Id}}", "zmfsea/tool:1"]);
    let proxied = format!("{}/zmfsea/tool:1", house.platform.proxy());
    for (image, words) in [
        ("zmfsea/tool:1", "image zmfsea/tool:1 belongs to the user zmfsea, and this app to other"),
        ("docker.io/zmfsea/tool:1", "belongs to the user zmfsea"),
        ("registry.marathon.mesos:5000/zmfsea/tool:1", "belongs to the user zmfsea"),
        (&proxied, "belongs to the user zmfsea"),
        (&id, "is the id of an image"),
        (&id["sha256:".len()..], "is the id of an image"),
    ] {
        let refused = rig.launch(command("/other", "true").image(image).owner("other")).await;
        let message = rig.status(&refused, TaskState::Failed).await.message;
        assert!(message.contains(words), "{image}: {message}");
    }
    for (image, owner) in [("zmfsea/tool:1", "admin"), (id.as_str(), "admin"), ("anna", "other"), ("library/anna:latest", "zmfsea")] {
        let allowed = rig.launch(command("/allowed", "true").image(image).owner(owner)).await;
        rig.status(&allowed, TaskState::Finished).await;
    }

    // What the platform's registry does not have is asked of nobody else when it is a user's.
    for image in ["zmfsea/nothing", "zmfsea/tool:7"] {
        let missing = rig.launch(command("/missing", "true").image(image).owner("zmfsea")).await;
        let message = rig.status(&missing, TaskState::Failed).await.message;
        assert!(message.contains("is not in the platform's registry") && message.contains("so no other registry is asked"), "{message}");
    }
    // Its own image does not come from itself.
    let own = rig.launch(command("/registry", "true").image("no-such-registry-image").owner("admin")).await;
    let message = rig.status(&own, TaskState::Failed).await.message;
    assert!(message.contains("cannot come from itself: load it"), "{message}");

    // Through the way in nobody gets what is not for all, without the password of this server.
    let refused = Command::new("docker").args(["-H", &daemon.host(), "pull", &proxied]).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    daemon.docker(&["pull", &format!("{}/anna", house.platform.proxy())]);

    // While it does not run, nobody can say what it has, and Docker is told so.
    house.say(Whereabouts::Down);
    let waiting = rig.launch(command("/waiting", "true").image("zmfsea/tool:8").owner("zmfsea")).await;
    let message = rig.status(&waiting, TaskState::Failed).await.message;
    assert!(message.contains("the platform's registry does not run at the moment"), "{message}");
    let url = format!("http://{}/v2/anna/manifests/latest", house.platform.proxy());
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).bearer_auth("x").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("does not run at the moment"));
    house.stop();
    rig.stop().await;
}
