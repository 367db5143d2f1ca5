//! `imgcli push`: reads the archive, looks whose its images are, sends what the registry does not have.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{About, Context, Error, known, show, tokens::OfServer};
use crate::{
    cli::{program, terminal},
    model::image::{ImageName, Version},
    registry::{
        archive::{self, Archive, Image},
        client::Registry,
        platform::copy_of,
        push::{Push, Step, Watch},
    },
};

/// Between two lines about what goes on, on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Digits of a layer's sum that are shown.
const SHOWN_DIGITS: usize = 12;

/// Opens and reads the archive's table.
pub(super) fn open(file: &Path) -> Result<Archive, Error> {
    archive::open(file).map_err(|error| Error::Archive { file: file.to_owned(), error })
}

pub(super) async fn run(file: &Path, archive: Archive, given: &[String], context: &Context) -> Result<(), Error> {
    let about = About::ask(&context.client).await?;
    let targets = targets(file, &archive, given, &about)?;
    let registry = Registry::new(about.address()?)?;
    let tokens = OfServer::new(&context.client, "push");
    let watch = Arc::new(Progress::new(&archive, context.json));
    let archive = Arc::new(archive);
    let cache = known::file();
    let known = known::read(cache.as_deref());
    let push = Push { registry: &registry, tokens: &tokens, archive: archive.clone(), known: &known, watch: watch.clone() };
    let mut pushed = Vec::new();
    let mut outcome = Ok(());
    for (image, repository, tags) in &targets {
        let sent = send(&push, &archive.images[*image], repository, tags).await;
        match sent {
            Ok(digest) => {
                pushed.extend(tags.iter().map(|tag| (format!("{}:{tag}", crate::model::image::short(repository)), digest.clone())))
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    watch.clear();
    known::write(cache.as_deref(), &known);
    outcome?;
    if context.json {
        let pushed: Vec<_> = pushed.iter().map(|(name, digest)| json!({ "name": name, "digest": digest })).collect();
        terminal::say(&program::json(&json!({ "pushed": pushed })));
    } else {
        pushed.iter().for_each(|(name, digest)| terminal::say(&format!("pushed {name} ({digest})")));
    }
    Ok(())
}

async fn send(push: &Push<'_>, image: &Image, repository: &str, tags: &[String]) -> Result<String, Error> {
    let digest = push.run(image, repository, tags).await?;
    if let Some(copy) = copy_of(repository) {
        for tag in tags {
            push.copy(image, repository, tag, copy).await?;
        }
    }
    Ok(digest)
}

/// What goes where: images by their place in the archive, each with a repository and its tags there.
type Targets = Vec<(usize, String, Vec<String>)>;

fn targets(file: &Path, archive: &Archive, given: &[String], about: &About) -> Result<Targets, Error> {
    let shown = file.display();
    if !given.is_empty() && archive.images.len() > 1 {
        return Err(Error::Word(format!("--name is for one image, and {shown} has {}: save them one by one", archive.images.len())));
    }
    let mut targets = Vec::new();
    for (at, image) in archive.images.iter().enumerate() {
        let names = if given.is_empty() { &image.names } else { given };
        if names.is_empty() {
            return Err(Error::Word(format!(
                "an image in {shown} has no name (it was saved by its id): save it by its name, or give one with --name {}/IMAGE:TAG",
                about.user
            )));
        }
        let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in names {
            let name: ImageName = about.name(text).map_err(|error| match error {
                Error::Elsewhere(what) => Error::Word(format!("{what}; give it a name here, as in --name {}/IMAGE:TAG", about.user)),
                other => other,
            })?;
            about.check_owner(&name)?;
            let Version::Tag(tag) = name.version() else {
                return Err(Error::Word(format!("'{text}' has a digest instead of a tag: what is pushed gets its digest by itself")));
            };
            let known = tags.entry(name.repository().to_owned()).or_default();
            if !known.contains(tag) {
                known.push(tag.clone());
            }
        }
        targets.extend(tags.into_iter().map(|(repository, tags)| (at, repository, tags)));
    }
    Ok(targets)
}

/// Tells on standard error what goes on: on a terminal one line that changes, elsewhere a line for each layer.
struct Progress {
    quiet: bool,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sizes: BTreeMap<String, u64>,
    read: BTreeMap<String, u64>,
    done: usize,
    drawn: Option<Instant>,
}

impl Progress {
    fn new(archive: &Archive, quiet: bool) -> Self {
        let layers = archive.images.iter().flat_map(|image| &image.layers);
        let sizes = layers.map(|layer| (layer.diff_id.clone(), layer.size)).collect();
        let terminal = std::io::stderr().is_terminal();
        Self { quiet, terminal, state: Mutex::new(State { sizes, ..State::default() }) }
    }

    fn tell(&self, text: &str) {
        if !self.quiet {
            self.clear();
            terminal::note(text);
        }
    }

    /// Wipes the line that changes.
    fn clear(&self) {
        if self.terminal && !self.quiet {
            _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn draw(&self, state: &mut State) {
        if self.quiet || !self.terminal || state.drawn.is_some_and(|at| at.elapsed() < DRAW_EVERY) {
            return;
        }
        state.drawn = Some(Instant::now());
        let (done, total): (u64, u64) = (state.read.values().sum(), state.sizes.values().sum());
        _ = write!(
            std::io::stderr(),
            "\r\x1b[Ksending: {} of {}, {} of {} layers done",
            show::mib(done),
            show::mib(total),
            state.done,
            state.sizes.len()
        );
    }
}

fn short(layer: &str) -> String {
    layer.trim_start_matches("sha256:").chars().take(SHOWN_DIGITS).collect()
}

impl Watch for Progress {
    fn step(&self, step: Step<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::Present(layer) | Step::Sent(layer, _) => {
                state.done += 1;
                let size = state.sizes.get(layer).copied().unwrap_or_default();
                state.read.insert(layer.to_owned(), size);
                let layer = short(layer);
                self.tell(&match step {
                    Step::Sent(_, bytes) => format!("layer {layer}: {} sent as {}", show::mib(size), show::mib(bytes)),
                    _ => format!("layer {layer}: there already"),
                });
                state.drawn = None;
            }
            Step::Sending(layer, _) => _ = state.read.insert(layer.to_owned(), 0),
            Step::Read(layer, bytes) => *state.read.entry(layer.to_owned()).or_default() += bytes,
            Step::Again(layer, reason) => self.tell(&format!("layer {}: {reason}; trying again", short(layer))),
            Step::Tagged(..) => {}
        }
        self.draw(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(user: &str, admin: bool) -> About {
        About {
            name: "registry.marathon.mesos:5000".into(),
            state: "running".into(),
            address: Some("10.0.0.5:5000".into()),
            user: user.into(),
            admin,
        }
    }

    /// What would be pushed of an archive with one image of these names.
    fn check(names: &[&str], given: &[&str], about: &About, expected: &str) {
        let image =
            Image { names: names.iter().map(|name| (*name).to_owned()).collect(), config: Vec::new(), layers: Vec::new(), manifest: None };
        let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
        let archive = Archive::of_images(vec![image]);
        let found = match targets(Path::new("x.tar"), &archive, &given, about) {
            Ok(targets) => {
                targets.iter().map(|(_, repository, tags)| format!("{repository}:{}", tags.join(","))).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("{} ({})", error, program::Failure::exit_code(&error)),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn an_image_goes_where_its_name_says_if_it_is_one_s_own() {
        let zmfsea = about("zmfsea", false);
        check(&["zmfsea/x:latest", "zmfsea/x:1", "zmfsea/y:1"], &[], &zmfsea, "zmfsea/x:latest,1 zmfsea/y:1");
        check(&["registry.marathon.mesos:5000/zmfsea/x:1"], &[], &zmfsea, "zmfsea/x:1");
        check(&["x:1"], &["zmfsea/x"], &zmfsea, "zmfsea/x:latest");
        check(&["anna:latest"], &[], &about("root", true), "library/anna:latest");
        check(&["zmfsea/x:1"], &[], &about("root", true), "zmfsea/x:1");
        check(
            &["zmfsea/x:1"],
            &[],
            &about("other", false),
            "you are other, and may not push or remove zmfsea/x:1: it belongs to zmfsea. An image of your own is called other/x (4)",
        );
        check(
            &["anna:latest"],
            &[],
            &zmfsea,
            "you are zmfsea, and may not push or remove anna:latest: a name without a user is the administrators'. \
             An image of your own is called zmfsea/anna (4)",
        );
        check(
            &["quay.io/zmfsea/x:1"],
            &[],
            &zmfsea,
            "'quay.io/zmfsea/x:1' names another registry than the platform's (registry.marathon.mesos:5000); \
             give it a name here, as in --name zmfsea/IMAGE:TAG (2)",
        );
        check(
            &[],
            &[],
            &zmfsea,
            "an image in x.tar has no name (it was saved by its id): save it by its name, or give one with --name zmfsea/IMAGE:TAG (2)",
        );
        check(
            &["x"],
            &["zmfsea/X"],
            &zmfsea,
            "'zmfsea/X' is not the name of an image: a name has words of a-z, 0-9, dots, dashes and underscores, separated by slashes (2)",
        );
    }
}
