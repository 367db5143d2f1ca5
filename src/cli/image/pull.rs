//! `imgcli pull`: an image out of the registry into an archive for `docker load`.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::json;

use super::{About, Context, Error, show, tokens::OfServer};
use crate::{
    cli::{program, terminal},
    model::image::{ImageName, Version, short},
    registry::{
        client::Registry,
        pull::{PullError, pull},
        push::{PushError, Tokens as _},
    },
};

/// A figure is drawn after so many further bytes.
const DRAW_EVERY: u64 = 4 << 20;

pub(super) async fn run(text: &str, file: &Path, context: &Context) -> Result<(), Error> {
    let to_stdout = file == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Error::Word(
            "an archive is nothing to look at: write it to a file, or pipe it, as in imgcli pull NAME - | docker load".to_owned(),
        ));
    }
    let about = About::ask(&context.client).await?;
    let name = about.name(text)?;
    let registry = Registry::new(about.address()?)?;
    let token = match OfServer::new(&context.client, "pull").token(name.repository(), None).await {
        // What is not one's own is as if it were not there.
        Err(PushError::Token(words)) if words.starts_with("the server does not allow") => {
            return Err(PullError::Missing(name.to_string()).into());
        }
        token => token?,
    };
    let names = names(&name, &about);
    let came = AtomicU64::new(0);
    let draw = !context.json && io::stderr().is_terminal();
    let progress = |bytes: u64| {
        let before = came.fetch_add(bytes, Ordering::Relaxed);
        if draw && (before + bytes) / DRAW_EVERY != before / DRAW_EVERY {
            _ = write!(io::stderr(), "\r\x1b[Kpulling {name}: {}", show::mib(before + bytes));
        }
    };
    let wanted = (name.repository(), name.version().as_str());
    let digest = if to_stdout {
        pull(&registry, &token, wanted, &names, &mut BufWriter::new(io::stdout()), &progress).await
    } else {
        let mut out = Part::new(file)?;
        let pulled = pull(&registry, &token, wanted, &names, &mut out.writer, &progress).await;
        match pulled {
            Ok(digest) => out.keep(file).map(|()| digest).map_err(PullError::from),
            Err(error) => Err(error),
        }
    };
    if draw {
        _ = write!(io::stderr(), "\r\x1b[K");
    }
    let digest = digest?;
    match (to_stdout, context.json) {
        (true, _) => terminal::note(&format!("pulled {name} ({digest})")),
        (false, true) => terminal::say(&program::json(&json!({ "name": name.to_string(), "digest": digest, "file": file }))),
        (false, false) => terminal::say(&format!("pulled {name} ({digest}) into {}", file.display())),
    }
    Ok(())
}

/// The short name and the full one; an image that was asked for by its digest has neither.
fn names(name: &ImageName, about: &About) -> Vec<String> {
    match name.version() {
        Version::Tag(tag) => vec![name.to_string(), format!("{}/{}:{tag}", about.name, short(name.repository()))],
        Version::Digest(_) => Vec::new(),
    }
}

/// A file that is there only when it is complete.
struct Part {
    path: PathBuf,
    writer: BufWriter<File>,
    kept: bool,
}

impl Part {
    fn new(file: &Path) -> Result<Self, Error> {
        let mut path = file.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let made = File::create(&path).map_err(|error| Error::Failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(Self { path, writer: BufWriter::with_capacity(1 << 20, made), kept: false })
    }

    fn keep(mut self, file: &Path) -> io::Result<()> {
        self.writer.flush()?;
        std::fs::rename(&self.path, file)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            _ = std::fs::remove_file(&self.path);
        }
    }
}
