//! `mgmt service` and its options, as the app that they describe. Pure.
//!
//! Host mode without `--port`, bridge mode with it. What is not said is left to the server's defaults, which are Marathon's.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::words,
    model::{
        brick::DEFAULT_POOL,
        id::{PathId, RESERVED_SEGMENTS},
        port::token,
    },
};

/// What a service is. The options are the manual's, in its spelling.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_display_order = 10)]
pub struct Spec {
    #[arg(long, help = "service id: globally unique, made of 0-9 a-z - .")]
    pub id: Option<String>,
    /// docker image, e.g. postgresql:latest
    #[arg(long)]
    pub image: Option<String>,
    /// CPU requirement, e.g. 0.5 [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    pub cpu: Option<String>,
    /// memory requirement in MB, e.g. 512 [default: 128]
    #[arg(long, allow_negative_numbers = true)]
    pub mem: Option<String>,
    /// environment: KEY=value pairs separated by commas; '@PORT' as a value: the platform allots a port, sets the variable to it, and returns it.
    /// A value with commas stands in quotes: "LIST='a,b', N=1"
    #[arg(long)]
    pub env: Vec<String>,
    /// storage in MB: size:container_path, several separated by commas
    #[arg(long)]
    pub brick: Vec<String>,
    /// host path mapping: host_path:container_path, several separated by commas; directories or single files; ':ro' behind it: read only
    #[arg(long)]
    pub volume: Vec<String>,
    /// port mapping, tcp by default: @PORT:8080 or @PORT:9090:udp, several separated by commas; 0:80 for a port that changes, 8080:80 for this one
    #[arg(long)]
    pub port: Vec<String>,
    /// storage pool of the bricks [default: datapool]
    #[arg(long)]
    pub pool: Option<String>,
    /// pin the service to this compute host: it never starts elsewhere, even when that host is down or full
    #[arg(long)]
    pub host: Option<String>,
    /// how many of them [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub instances: Option<String>,
    /// a shell command to run in the container, instead of the image's own
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
}

/// A word that means nothing where it stands: behind an option, or as an argument, which is called by capitals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{option}: {problem}", if option.starts_with(char::is_uppercase) { "" } else { "--" })]
pub struct SpecError {
    option: &'static str,
    problem: String,
}

impl Spec {
    /// The id as a path.
    ///
    /// # Errors
    /// It is missing, or made of other letters.
    pub fn id(&self) -> Result<PathId, SpecError> {
        service_id("id", self.id.as_deref().unwrap_or_default())
    }

    /// The whole app, for `POST /v2/apps`.
    ///
    /// # Errors
    /// The first word that cannot be used.
    pub fn app(&self) -> Result<Value, SpecError> {
        let id = self.id()?;
        let image = self.image.as_deref().map(str::trim).filter(|image| !image.is_empty());
        let image = image.ok_or_else(|| error("image", "is missing: name the image to run, such as postgresql:latest"))?;
        let mut app = Map::new();
        app.insert("id".into(), id.as_str().into());
        app.insert("instances".into(), self.instances()?.unwrap_or(1).into());
        self.common(&mut app)?;
        app.entry("networks").or_insert_with(|| json!([{ "mode": "host" }]));
        if self.wants_env_port()? && self.port.is_empty() {
            // The allotted port is the port; Marathon would add one of its own.
            app.insert("portDefinitions".into(), json!([]));
        }
        let mut volumes = self.bricks()?;
        volumes.extend(self.volumes()?);
        let mut container = json!({ "type": "DOCKER", "docker": { "image": image }, "volumes": volumes });
        if !self.port.is_empty() {
            container["portMappings"] = self.ports()?.into();
        }
        app.insert("container".into(), container);
        Ok(Value::Object(app))
    }

    /// What changes in `present`, an app as the server shows it, for `PUT /v2/apps/{id}`. What is not said stays as it is.
    ///
    /// # Errors
    /// The first word that cannot be used.
    pub fn update(&self, present: &Value) -> Result<Value, SpecError> {
        let mut app = Map::new();
        if let Some(instances) = self.instances()? {
            app.insert("instances".into(), instances.into());
        }
        self.common(&mut app)?;
        if self.image.is_some() || !self.brick.is_empty() || !self.volume.is_empty() || !self.port.is_empty() {
            let mut container = present["container"].clone();
            if let Some(image) = &self.image {
                container["docker"]["image"] = image.trim().into();
            }
            let is_brick = |volume: &Value| volume["brick"].is_object();
            let mut volumes = container["volumes"].as_array().cloned().unwrap_or_default();
            if !self.brick.is_empty() {
                volumes.retain(|volume| !is_brick(volume));
                volumes.extend(self.bricks()?);
            }
            if !self.volume.is_empty() {
                volumes.retain(|volume| volume["hostPath"].is_null());
                volumes.extend(self.volumes()?);
            }
            container["volumes"] = volumes.into();
            if !self.port.is_empty() {
                container["portMappings"] = self.ports()?.into();
            }
            app.insert("container".into(), container);
        }
        if app.is_empty() {
            return Err(error("id", "nothing is to be changed: give what is to be different, such as --image or --mem"));
        }
        Ok(Value::Object(app))
    }

    fn common(&self, app: &mut Map<String, Value>) -> Result<(), SpecError> {
        for (option, key, text) in [("cpu", "cpus", &self.cpu), ("mem", "mem", &self.mem)] {
            if let Some(text) = text {
                app.insert(key.into(), amount(option, text)?);
            }
        }
        if let Some(command) = &self.cmd {
            if command.is_empty() {
                return Err(error("cmd", "is empty: leave it out to run the image's own command"));
            }
            app.insert("cmd".into(), command.as_str().into());
        }
        if !self.env.is_empty() {
            app.insert("env".into(), Value::Object(self.environment()?));
        }
        if !self.port.is_empty() {
            app.insert("networks".into(), json!([{ "mode": "container/bridge" }]));
        }
        if let Some(host) = &self.host {
            let host = host.trim();
            if host.is_empty() || host.contains(char::is_whitespace) || host.contains(',') {
                return Err(error("host", format!("'{host}' is no name of a compute host; 'mgmt node list' shows them")));
            }
            app.insert("constraints".into(), json!([["hostname", "CLUSTER", host]]));
        }
        Ok(())
    }

    fn instances(&self) -> Result<Option<u32>, SpecError> {
        self.instances.as_deref().map(|text| count("instances", text)).transpose()
    }

    fn environment(&self) -> Result<Map<String, Value>, SpecError> {
        let mut environment = Map::new();
        for entry in entries("env", &self.env, '=')? {
            let hint = "a value with a comma stands in quotes, as in KEY='a,b'";
            let Some((key, value)) = entry.split_once('=') else { return Err(error("env", format!("'{entry}' is no KEY=value ({hint})"))) };
            let (key, value) = (key.trim_end(), value.trim_start());
            if key.is_empty() || key.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
                return Err(error("env", format!("'{entry}' begins with no name of a variable ({hint})")));
            }
            if environment.insert(key.to_owned(), value.into()).is_some() {
                return Err(error("env", format!("'{key}' is given twice")));
            }
        }
        Ok(environment)
    }

    fn wants_env_port(&self) -> Result<bool, SpecError> {
        Ok(self.environment()?.values().filter_map(Value::as_str).any(|value| token::tokens(value).next().is_some()))
    }

    fn bricks(&self) -> Result<Vec<Value>, SpecError> {
        let pool = self.pool.as_deref().map_or(DEFAULT_POOL, str::trim);
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if pool.is_empty() || !pool.chars().all(is_name) {
            return Err(error("pool", format!("'{pool}' is no name of a pool: it is made of letters, digits, - _ and .")));
        }
        let mut seen = BTreeSet::new();
        let brick = |entry: String| {
            let how = "write size:container_path, such as 131072:/var/lib/data";
            let Some((size, path)) = entry.split_once(':') else { return Err(error("brick", format!("'{entry}' has no ':' ({how})"))) };
            let (size, path) = (size.trim(), path.trim());
            let number = size.parse::<u64>().ok().filter(|size| *size > 0);
            let number = number.ok_or_else(|| error("brick", format!("'{size}' in '{entry}' is no size in MB ({how})")))?;
            absolute("brick", path, &entry, how)?;
            if path.contains(':') {
                return Err(error("brick", format!("'{entry}' has too many ':' ({how})")));
            }
            if !seen.insert(path.trim_end_matches('/').to_owned()) {
                return Err(error("brick", format!("'{path}' is given twice")));
            }
            Ok(json!({ "containerPath": path, "mode": "RW", "brick": { "size": number, "pool": pool } }))
        };
        entries("brick", &self.brick, ':')?.into_iter().map(brick).collect()
    }

    fn volumes(&self) -> Result<Vec<Value>, SpecError> {
        let volume = |entry: String| {
            let how = "write host_path:container_path, such as /var/crash:/var/crash, with ':ro' behind it for reading only";
            let (paths, mode) = match entry.rsplit_once(':') {
                Some((paths, "ro")) => (paths, "RO"),
                Some((paths, "rw")) => (paths, "RW"),
                _ => (entry.as_str(), "RW"),
            };
            let Some((host, container)) = paths.split_once(':') else {
                return Err(error("volume", format!("'{entry}' has no ':' ({how})")));
            };
            let (host, container) = (host.trim(), container.trim());
            if container.contains(':') {
                return Err(error("volume", format!("'{entry}' has too many ':' ({how})")));
            }
            absolute("volume", host, &entry, how)?;
            absolute("volume", container, &entry, how)?;
            Ok(json!({ "containerPath": container, "hostPath": host, "mode": mode }))
        };
        entries("volume", &self.volume, ':')?.into_iter().map(volume).collect()
    }

    fn ports(&self) -> Result<Vec<Value>, SpecError> {
        let mut seen = BTreeSet::new();
        let port = |entry: String| {
            let how = "write @PORT:8080, @PORT:9090:udp, 0:80 or 8080:80";
            let parts: Vec<&str> = entry.split(':').map(str::trim).collect();
            let (host, container, protocol) = match parts.as_slice() {
                [host, container] => (*host, *container, "tcp"),
                [host, container, protocol] => (*host, *container, *protocol),
                _ => return Err(error("port", format!("'{entry}' is no port mapping ({how})"))),
            };
            let host_port: Value = match host {
                "@PORT" => "@PORT".into(),
                _ if host.starts_with('@') => return Err(error("port", format!("'{host}' in '{entry}' is not @PORT ({how})"))),
                _ => number(host, 0).ok_or_else(|| error("port", format!("'{host}' in '{entry}' is no port of a host ({how})")))?.into(),
            };
            let wrong = || error("port", format!("'{container}' in '{entry}' is no port of a container ({how})"));
            let container_port = number(container, 1).ok_or_else(wrong)?;
            let protocol = protocol.to_ascii_lowercase();
            if !matches!(protocol.as_str(), "tcp" | "udp") {
                return Err(error("port", format!("'{protocol}' in '{entry}' is no protocol: tcp or udp")));
            }
            if !seen.insert((container_port, protocol.clone())) {
                return Err(error("port", format!("container port {container_port} ({protocol}) is given twice")));
            }
            Ok(json!({ "containerPort": container_port, "hostPort": host_port, "protocol": protocol }))
        };
        entries("port", &self.port, ':')?.into_iter().map(port).collect()
    }
}

/// Reads the id of a service, as an option or argument called `option`.
///
/// # Errors
/// It is empty, or made of other letters.
pub fn service_id(option: &'static str, text: &str) -> Result<PathId, SpecError> {
    let rule = "an id is made of 0-9 a-z - . (and / between groups), and every part begins and ends with a letter or digit";
    let text = text.trim();
    if text.is_empty() {
        return Err(error(option, format!("is missing: {rule}")));
    }
    let wrong = || error(option, format!("'{text}' is no id of a service: {rule}"));
    let is_path = |path: &PathId| !path.is_root() && !text.split('/').any(|segment| matches!(segment, "." | ".."));
    let path = text.parse::<PathId>().ok().filter(is_path).ok_or_else(wrong)?;
    if let Some(last) = path.segments().next_back().filter(|last| RESERVED_SEGMENTS.contains(last)) {
        return Err(error(option, format!("'{text}' cannot be used: '{last}' means something else to the API")));
    }
    Ok(path)
}

/// Reads a count of instances, as an option or argument called `option`.
///
/// # Errors
/// It is no whole number.
pub fn count(option: &'static str, text: &str) -> Result<u32, SpecError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse().ok().filter(|_| digits);
    count.ok_or_else(|| error(option, format!("'{text}' is no number of instances: 0, 1, 2 ...")))
}

fn error(option: &'static str, problem: impl Into<String>) -> SpecError {
    SpecError { option, problem: problem.into() }
}

/// All entries of an option, which may be given several times.
fn entries(option: &'static str, texts: &[String], separator: char) -> Result<Vec<String>, SpecError> {
    let mut found = Vec::new();
    for text in texts {
        found.extend(words::list(text, separator).map_err(|problem| error(option, problem.to_string()))?);
    }
    Ok(found)
}

/// A positive number, whole where it can be.
fn amount(option: &'static str, text: &str) -> Result<Value, SpecError> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|number| plain && *number > 0.0 && number.is_finite());
    let example = if option == "cpu" { "cores, such as 0.5" } else { "MB, such as 512" };
    let number = number.ok_or_else(|| error(option, format!("'{text}' is no amount of {example}")))?;
    Ok(text.parse::<u64>().map_or_else(|_| json!(number), |whole| json!(whole)))
}

fn number(text: &str, least: u16) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u16>().ok().filter(|number| digits && *number >= least)
}

fn absolute(option: &'static str, path: &str, entry: &str, how: &str) -> Result<(), SpecError> {
    let problem = match path {
        _ if !path.starts_with('/') => "is no path from the root",
        _ if path.split('/').any(|segment| matches!(segment, "." | "..")) => "has '.' or '..' in it",
        _ if path.contains(char::is_control) => "has control characters in it",
        _ => return Ok(()),
    };
    let place = if path == entry { String::new() } else { format!(" in '{entry}'") };
    Err(error(option, format!("'{path}'{place} {problem} ({how})")))
}

#[cfg(test)]
mod tests;
