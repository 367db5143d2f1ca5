//! The rules of secrets: Marathon's, with its texts, and where a secret may be.
//!
//! Facts (Marathon 1.11, wix/accord): a rule about an expression that is no chain of fields stands under the expression as it is written, so that the
//! paths of secret volumes name Marathon's own functions.

use std::fmt::Display;

use super::{Ctx, Found, MAX_ENTRIES};
use crate::model::app::{App, Container, Env, EnvValue, Volume};

/// Bytes of a source.
const MAX_SOURCE_BYTES: usize = 1024;

const DISABLED: &str = "Feature secrets is not enabled. Enable with --enable_features secrets)";
const DISABLED_IN_ENV: &str = "use of secret-references in the environment requires the secrets feature to be enabled";
const UNDEFINED_IN_ENV: &str = "references an undefined secret";
const UNDEFINED_IN_VOLUME: &str = "volume.secret must refer to an existing secret";

/// `secrets` itself.
pub(super) fn defined(app: &App, ctx: Ctx<'_>, found: &mut Found) {
    if app.secrets.is_empty() {
        return;
    }
    found.at_most("/secrets", app.secrets.len(), MAX_ENTRIES);
    if !ctx.secrets {
        found.unless(app.pod.is_none(), "/secrets", "must be empty");
        return found.add("/secrets", DISABLED);
    }
    for (index, (name, secret)) in app.secrets.iter().enumerate() {
        found.unless(!name.is_empty(), format_args!("/secrets/keys({index})"), "must not be empty");
        let at = format_args!("/secrets/{name}/source");
        let text = "must be a path below the directory of the secrets, without . and .., of at most 1024 bytes";
        found.unless(is_source(&secret.source), at, text);
        if let Some(owner) = ctx.secrets_of {
            let first = secret.source.trim_start_matches('/').split_once('/').map(|(first, _)| first);
            let text = format_args!("must begin with '{owner}/': the secrets of others are for administrators");
            found.unless(first == Some(owner.as_str()), at, text);
        }
    }
}

/// One slash before it is as good as none, because Marathon's users write one.
fn is_source(source: &str) -> bool {
    let path = source.strip_prefix('/').unwrap_or(source);
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.chars().any(char::is_control);
    source.len() <= MAX_SOURCE_BYTES && path.split('/').all(is_name)
}

/// References in an environment, which stands at `at`.
pub(super) fn env(at: &str, env: &Env, app: &App, ctx: Ctx<'_>, found: &mut Found) {
    let references =
        || env.iter().filter_map(|(name, value)| if let EnvValue::Secret { secret } = value { Some((name, secret)) } else { None });
    found.unless(ctx.secrets || references().next().is_none(), at, DISABLED_IN_ENV);
    for (name, secret) in references() {
        found.unless(app.secrets.contains_key(secret), format_args!("{at}/{name}/secret"), UNDEFINED_IN_ENV);
    }
}

/// With what an image is pulled.
pub(super) fn pull_config(at: impl Display, secret: Option<&String>, app: &App, ctx: Ctx<'_>, found: &mut Found) {
    let Some(secret) = secret else { return };
    if !ctx.secrets {
        found.add(&at, "must be empty");
        found.add(&at, DISABLED);
    }
    found.unless(app.secrets.contains_key(secret), &at, "pullConfig.secret must refer to an existing secret");
}

/// The secret volumes of an app.
pub(super) fn volumes(app: &App, container: &Container, ctx: Ctx<'_>, found: &mut Found) {
    let mut any = false;
    for (index, volume) in container.volumes.iter().enumerate() {
        let Volume::Secret { secret, .. } = volume else { continue };
        any = true;
        found.unless(app.secrets.contains_key(secret), format_args!("/container/volumes({index})"), UNDEFINED_IN_VOLUME);
    }
    if any && !ctx.secrets {
        found.add("/container/secretVolumes(container)", "must be empty");
        found.add("/container/secretVolumes(container)", DISABLED);
    }
}

/// The secret volumes of a pod.
pub(super) fn volumes_of_pod(app: &App, ctx: Ctx<'_>, found: &mut Found) {
    const PATH: &str = "/podSecretVolumes(pod)";
    let volumes = || app.pod.iter().flat_map(|pod| &pod.volumes).filter_map(|volume| volume.secret.as_ref()).enumerate();
    if volumes().next().is_none() {
        return;
    }
    let undefined = volumes().any(|(_, secret)| !app.secrets.contains_key(secret));
    // Either of two rules begins so.
    found.unless(ctx.secrets && !undefined, PATH, "must be empty");
    found.unless(ctx.secrets, PATH, DISABLED);
    for (index, secret) in volumes() {
        found.unless(app.secrets.contains_key(secret), format_args!("{PATH}({index})/secret"), UNDEFINED_IN_VOLUME);
    }
}
