//! Fetching an image into an archive that `docker load` takes: the Docker layout, with the layers as the registry has them. Every blob is compared with
//! its digest on the way; nothing is held in memory but the configuration.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use ring::digest::{Context, SHA256};
use serde_json::json;

use super::{
    archive::{MAX_CONFIG_BYTES, MAX_LAYERS, hex_digest},
    client::{Registry, RegistryError},
    tar,
};
use crate::model::image::{is_digest, short};

/// Why an image did not come.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no such image, or none that may be pulled.
    #[error("there is no image {0} in the platform's registry, or it is not yours")]
    Missing(String),
    /// The file.
    #[error("the archive cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes the image `repository`:`version` to `out`, under `names`; `progress` hears of bytes that came. Answers the manifest's digest.
///
/// # Errors
/// See [`PullError`]. What was written then is of no use.
pub async fn pull(
    registry: &Registry,
    token: &str,
    (repository, version): (&str, &str),
    names: &[String],
    out: &mut (dyn Write + Send),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<String, PullError> {
    let missing = || PullError::Missing(format!("{}:{version}", short(repository)));
    let manifest = registry.manifest(token, repository, version).await?.ok_or_else(missing)?;
    let parsed = manifest.parse()?;
    let nonsense = |text: &str| RegistryError::Nonsense(text.to_owned());
    let descriptor = |blob: &serde_json::Value| {
        let digest = blob["digest"].as_str().filter(|digest| is_digest(digest)).ok_or_else(|| nonsense("a manifest names no digest"))?;
        let size = blob["size"].as_u64().ok_or_else(|| nonsense("a manifest names no size"))?;
        Ok::<_, RegistryError>((digest.to_owned(), size))
    };
    let (config, _) = descriptor(&parsed["config"])?;
    let layers =
        parsed["layers"].as_array().filter(|layers| layers.len() <= MAX_LAYERS).ok_or_else(|| nonsense("a manifest has no layers"))?;
    let layers = layers.iter().map(descriptor).collect::<Result<Vec<_>, _>>()?;

    let limit = usize::try_from(MAX_CONFIG_BYTES).unwrap_or(usize::MAX);
    let bytes = registry.small_blob(token, repository, &config, limit).await?;
    file(out, &path(&config), &bytes)?;
    let mut written = BTreeSet::new();
    for (digest, size) in &layers {
        if written.insert(digest) {
            layer(registry, token, repository, (digest, *size), out, progress).await?;
        }
    }
    let files: Vec<String> = layers.iter().map(|(digest, _)| path(digest)).collect();
    let table = json!([{ "Config": path(&config), "RepoTags": names, "Layers": files }]);
    file(out, "manifest.json", table.to_string().as_bytes())?;
    out.write_all(&tar::END)?;
    out.flush()?;
    Ok(manifest.digest)
}

async fn layer(
    registry: &Registry,
    token: &str,
    repository: &str,
    (digest, size): (&str, u64),
    out: &mut (dyn Write + Send),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), PullError> {
    out.write_all(&tar::file_header(&path(digest), size))?;
    let mut response = registry.blob(token, repository, digest).await?;
    let (mut sum, mut came) = (Context::new(&SHA256), 0);
    while let Some(piece) = registry.next_part(&mut response).await? {
        came += piece.len() as u64;
        if came > size {
            break;
        }
        sum.update(&piece);
        out.write_all(&piece)?;
        progress(piece.len() as u64);
    }
    if came != size || hex_digest(sum.finish().as_ref()) != digest {
        return Err(RegistryError::Nonsense(format!("{digest} has other contents")).into());
    }
    out.write_all(&vec![0; tar::padding(size)])?;
    Ok(())
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn file(out: &mut (dyn Write + Send), name: &str, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&tar::file_header(name, bytes.len() as u64))?;
    out.write_all(bytes)?;
    out.write_all(&vec![0; tar::padding(bytes.len() as u64)])
}
