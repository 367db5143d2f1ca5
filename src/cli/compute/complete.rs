//! What may come next on a line: commands, options, and the names of things. Pure, from the tree of commands that also reads the line.

use clap::{Arg, ArgAction};

/// What completes a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// These words.
    Words(Vec<String>),
    /// Names that only the server knows.
    Names(Kind),
    /// Nothing that could be known.
    Nothing,
}

/// Names that only the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Service,
    Brick,
    Port,
    Node,
}

/// What may stand after `words`, beginning with `begin`.
pub(super) fn wanted(root: &clap::Command, words: &[String], begin: &str) -> Wanted {
    let mut command = root;
    // `help` takes the names of commands and nothing else.
    let is_help = words.first().is_some_and(|word| word == "help");
    let mut positionals = 0;
    let mut pending: Option<&Arg> = None;
    for word in words.iter().skip(usize::from(is_help)) {
        if pending.take().is_some() {
            continue;
        }
        if let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) {
            pending = option(command, name).filter(|arg| !word.contains('=') && takes_value(arg));
        } else if let Some(next) = command.find_subcommand(word) {
            (command, positionals) = (next, 0);
        } else {
            positionals += 1;
        }
    }
    if let Some(arg) = pending {
        return values(command, arg);
    }
    let mut found: Vec<String> = Vec::new();
    if begin.starts_with('-') && !is_help {
        let options = command.get_arguments().chain(globals(root, command)).filter(|arg| !arg.is_hide_set() && !arg.is_positional());
        found.extend(options.filter_map(|arg| arg.get_long()).map(|name| format!("--{name}")));
        found.push("--help".to_owned());
    } else {
        let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
        found.extend(subcommands.map(|command| command.get_name().to_owned()));
        if words.is_empty() {
            found.extend(["help", "exit"].map(str::to_owned));
        }
        let next = command.get_positionals().nth(positionals).filter(|_| !is_help);
        if let Some(arg) = next.filter(|_| found.is_empty()) {
            return values(command, arg);
        }
    }
    found.retain(|word| word.starts_with(begin));
    found.sort();
    found.dedup();
    if found.is_empty() { Wanted::Nothing } else { Wanted::Words(found) }
}

/// The options of the commands above that hold below too.
fn globals<'a>(root: &'a clap::Command, command: &'a clap::Command) -> impl Iterator<Item = &'a Arg> {
    let below = root.get_name() != command.get_name();
    root.get_arguments().filter(move |arg| below && arg.is_global_set())
}

fn option<'a>(command: &'a clap::Command, name: &str) -> Option<&'a Arg> {
    let name = name.split('=').next().unwrap_or_default();
    let long = name.strip_prefix('-');
    command.get_arguments().find(|arg| match long {
        Some(long) => arg.get_long() == Some(long),
        None => name.chars().next_back().is_some_and(|short| arg.get_short() == Some(short)),
    })
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn values(command: &clap::Command, arg: &Arg) -> Wanted {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match (arg.get_id().as_str(), value) {
        // Where it is the id of what is there already.
        ("id", _) if command.get_name() == "update" => Wanted::Names(Kind::Service),
        (_, Some("SERVICE")) => Wanted::Names(Kind::Service),
        (_, Some("BRICK")) => Wanted::Names(Kind::Brick),
        (_, Some("PORT")) if arg.is_positional() => Wanted::Names(Kind::Port),
        ("host" | "node", _) => Wanted::Names(Kind::Node),
        _ => {
            let possible: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            if possible.is_empty() { Wanted::Nothing } else { Wanted::Words(possible) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_next_is_known_from_the_tree_of_commands() {
        let mut root = crate::cli::compute::shell::grammar();
        root.build();
        let check = |line: &str, expected: &str| {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let begin = words.pop().unwrap();
            let found = match wanted(&root, &words, &begin) {
                Wanted::Words(words) => words.join(" "),
                Wanted::Names(kind) => format!("{kind:?}"),
                Wanted::Nothing => String::new(),
            };
            assert_eq!(found, expected, "{line}");
        };
        check("", "completion exit help logout mgmt");
        check("m", "mgmt");
        check("x", "");
        check("mgmt ", "brick node port service user");
        check("mgmt service l", "list logs");
        check("mgmt service --i", "--id --image --insecure --instances");
        check("mgmt service --id web --im", "--image");
        check("mgmt service show ", "Service");
        check("mgmt service show web ", "");
        check("mgmt service logs -f ", "Service");
        check("mgmt service logs --ta", "--tail --task");
        check("mgmt service logs --tail ", "");
        check("mgmt service update --id ", "Service");
        check("mgmt service --id ", "");
        check("mgmt service --host ", "Node");
        check("mgmt service list -d ", "Node");
        check("mgmt brick backup ", "Brick");
        check("mgmt port release ", "Port");
        check("help mgmt s", "service");
        check("help mgmt service sh", "show");
        check("mgmt service list --j", "--json");
        check("mgmt service scale web 3 --d", "--detach");
    }
}
