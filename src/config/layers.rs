//! Three sources of the same settings: flags over environment over file. Each becomes flags; the winners are read together.

use std::{collections::HashSet, path::Path};

use clap::{
    ArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use serde_json::{Map, Value};

use super::{
    ConfigError, Warning,
    flags::{self, Flags, OURS, SWITCHES, parse},
    marathon::{self, Meaning, OTHER_VARIABLES, Takes},
};

/// The variable prefix of Marathon's flags.
const MARATHON: &str = "MARATHON_";

/// The variable prefix of ours.
const XTAO: &str = "XTAO_";

/// Set by Marathon (and by us) in the environment of every task, so a server that runs as a task sees them.
const TASK_VARIABLES: &str = "MARATHON_APP_";

/// One setting of a layer, as flags, and where it stands, for messages.
struct Setting {
    /// Without `disable_`.
    name: String,
    args: Vec<String>,
    at: String,
}

/// `--node-address` is `--node_address`: dashes in names become underscores, values stay as they are.
pub(super) fn with_underscores(args: &[String]) -> Vec<String> {
    let normal = |arg: &String| match arg.strip_prefix("--") {
        Some(flag) if !flag.is_empty() => {
            let (name, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
            format!("--{}{value}", name.replace('-', "_"))
        }
        _ => arg.clone(),
    };
    // Everything after a bare `--` is no flag.
    let flags = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    args[..flags].iter().map(normal).chain(args[flags..].iter().cloned()).collect()
}

/// What the three sources say together.
pub(super) struct Merged {
    pub flags: Flags,
    /// See [`flags::shown`].
    pub shown: Map<String, Value>,
    pub warnings: Vec<Warning>,
}

/// The flags that count, and what is to be said about those that do not.
pub(super) fn merge(args: &[String], env: &[(String, String)], file: Option<(&Path, &str)>) -> Result<Merged, ConfigError> {
    let mut merged = with_underscores(args);
    let (_, matches) = parse(&merged).map_err(ConfigError::Flags)?;
    let mut warnings = Vec::new();
    let mut given = given_flags(&matches);
    let mut layers = environment(env, &mut warnings)?;
    if let Some((path, text)) = file {
        layers.extend(settings_of(path, text)?);
    }
    let mut places: Vec<(String, String)> = given.iter().map(|name| (name.clone(), format!("--{name}"))).collect();
    for setting in layers {
        check(&setting)?;
        if given.insert(setting.name.clone()) {
            merged.extend(setting.args);
            places.push((setting.name, setting.at));
        }
    }
    let (flags, matches) = parse(&merged).map_err(ConfigError::Flags)?;
    let place = |name: &str| places.iter().find(|(other, _)| other == name).map_or_else(|| format!("--{name}"), |(_, at)| at.clone());
    for known in marathon::unheeded().filter(|known| given.contains(known.name)) {
        match known.meaning {
            Meaning::Works(_) => {}
            Meaning::Nothing(why) => warnings.push(Warning(format!("{} has no effect: {why}", place(known.name)))),
            Meaning::Refused(why) => return Err(ConfigError::Setting { at: place(known.name), reason: why.to_owned() }),
        }
    }
    Ok(Merged { flags, shown: flags::shown(&matches), warnings })
}

fn given_flags(matches: &ArgMatches) -> HashSet<String> {
    let given = matches.ids().map(clap::Id::as_str).filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
    given.map(|id| base_name(id).to_owned()).collect()
}

/// The name of the setting that `flag` is about.
fn base_name(flag: &str) -> &str {
    flag.strip_prefix("disable_").filter(|name| takes(name) == Some(Takes::Switch)).unwrap_or(flag)
}

/// What follows the flag `name`; `None` when there is no such flag.
fn takes(name: &str) -> Option<Takes> {
    if SWITCHES.contains(&name) {
        return Some(Takes::Switch);
    }
    match marathon::unheeded().find(|known| known.name == name) {
        Some(known) => Some(known.takes),
        None => flags::command().get_arguments().any(|arg| arg.get_long() == Some(name)).then_some(Takes::Value),
    }
}

/// Reads one setting alone, so that a message can say where it stands.
fn check(setting: &Setting) -> Result<(), ConfigError> {
    parse(&setting.args).map(drop).map_err(|error| {
        let reason = match (error.kind(), suggestion(&error)) {
            (ErrorKind::UnknownArgument, Some(similar)) => format!("there is no such setting; did you mean {similar}?"),
            (ErrorKind::UnknownArgument, None) => "there is no such setting".into(),
            _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        ConfigError::Setting { at: setting.at.clone(), reason }
    })
}

fn suggestion(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(flag) => Some(flag.trim_start_matches("--").to_owned()),
        ContextValue::Strings(flags) => flags.first().map(|flag| flag.trim_start_matches("--").to_owned()),
        _ => None,
    }
}

fn environment(env: &[(String, String)], warnings: &mut Vec<Warning>) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (variable, value) in env {
        if let Some((_, name)) = OTHER_VARIABLES.iter().find(|(other, _)| other == variable) {
            settings.push(setting(name, value, variable));
        } else if variable.starts_with(TASK_VARIABLES) {
            // Not ours.
        } else if let Some(name) = variable.strip_prefix(MARATHON).map(str::to_ascii_lowercase) {
            let ours = OURS.contains(&name.as_str());
            if ours || takes(base_name(&name)).is_none() {
                let hint = if ours { format!("; use {}", variable.replacen(MARATHON, XTAO, 1)) } else { String::new() };
                warnings.push(Warning(format!("{variable} has no effect: Marathon has no such flag{hint}")));
            } else {
                settings.push(setting(&name, value, variable));
            }
        } else if let Some(name) = variable.strip_prefix(XTAO).map(str::to_ascii_lowercase) {
            if OURS.contains(&name.as_str()) {
                settings.push(setting(&name, value, variable));
            } else {
                let marathons = takes(base_name(&name)).is_some();
                let hint = if marathons { format!("; use {}", variable.replacen(XTAO, MARATHON, 1)) } else { String::new() };
                warnings.push(Warning(format!("{variable} has no effect: there is no such setting{hint}")));
            }
        }
    }
    // The file's own name is not in the file.
    Ok(settings)
}

/// An empty value is a bare flag, as in Marathon.
fn setting(flag: &str, value: &str, at: &str) -> Setting {
    let mut args = vec![format!("--{flag}")];
    if !value.is_empty() {
        args[0] += &format!("={value}");
    }
    Setting { name: base_name(flag).to_owned(), args, at: at.to_owned() }
}

fn settings_of(path: &Path, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::File {
        path: path.to_owned(),
        reason: format!("it is not TOML: {}", error.to_string().trim_end()),
    })?;
    table.into_iter().map(|(key, value)| setting_of(path, &key, value)).collect()
}

fn setting_of(path: &Path, key: &str, value: toml::Value) -> Result<Setting, ConfigError> {
    let at = format!("{key} in {}", path.display());
    let refuse = |reason: &str| Err(ConfigError::Setting { at: at.clone(), reason: reason.into() });
    let flag = key.replace('-', "_");
    if flag == "config" {
        return refuse("a file cannot name another one");
    }
    let is_switch = takes(base_name(&flag)) == Some(Takes::Switch);
    let plain = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    let args = match (&value, is_switch) {
        (toml::Value::Boolean(on), true) => {
            let name = base_name(&flag);
            // `disable_x = false` is `x = true`.
            let on = if name == flag { *on } else { !on };
            vec![if on { format!("--{name}") } else { format!("--disable_{name}") }]
        }
        (_, true) => return refuse("must be true or false"),
        (toml::Value::Array(values), false) => match values.iter().map(plain).collect::<Option<Vec<_>>>() {
            Some(values) => values.iter().map(|value| format!("--{flag}={value}")).collect(),
            None => return refuse("must be a list of texts or numbers"),
        },
        (value, false) => match plain(value) {
            Some(value) => vec![format!("--{flag}={value}")],
            None if takes(&flag).is_none() => vec![format!("--{flag}")],
            None => return refuse("must be a text, a number or a list of them"),
        },
    };
    Ok(Setting { name: base_name(&flag).to_owned(), args, at })
}
