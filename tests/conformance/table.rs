//! Reads the tables: what is asked, and what must come back.
//!
//! ```text
//! # a comment
//! = ITEM...  DEFINITION  POINTER  VALUE     an app of this definition (the id is given) shows VALUE at POINTER; `-`: it shows nothing there.
//!                                           In files whose name begins with `pods`: a pod (a container is given, too, when there is none)
//! ! ITEM...  DEFINITION  PATH  TEXT         it is refused: 422 "Object is not valid", with TEXT at PATH
//! ? ITEM...  DEFINITION  PATH  TEXT         as `!`, and the types are wrong: 422 "Invalid JSON"
//! ~ why                                     the line before differs from Marathon on purpose
//!
//! == a case with several requests
//!    covers ITEM...
//!    deviates why
//!    setting NAME VALUE                     of the server: max_running_deployments, local_port_max, or secrets (1: their feature is enabled)
//! > METHOD PATH [BODY]
//!   accept MEDIA                            what the client accepts
//!   type MEDIA                              what the body is, when it is no JSON
//! < STATUS
//!   message TEXT                            the `message` of an error
//!   detail PATH TEXT                        one of its `details`
//!   is JSON                                 the body, once times and ids are out of it
//!   has JSON                                a part of the body
//!   lacks POINTER...                        nothing there
//!   text TEXT                               a part of a body that is no JSON (with \t and \n)
//!   empty                                   no body
//!   header NAME VALUE
//!   event TYPE [JSON]                       comes on the stream, in this order among those of this step
//!   no-event TYPE                           has not come in this step up to here
//! ```
//!
//! Columns are separated by two blanks or more. A line may go on in further lines, indented by four blanks or more: after a comma with more of the same
//! column, otherwise with the next one. `$name` in a path stands for what an earlier `keep NAME POINTER` took out of a body.

use serde_json::Value;

/// One line, or one block.
#[derive(Debug)]
pub struct Case {
    /// `file:line name`
    pub name: String,
    /// A line of its own is about a pod.
    pub pods: bool,
    pub covers: Vec<String>,
    pub deviates: Option<String>,
    pub settings: Vec<(String, usize)>,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// An app shows a value, or none, in one place.
    Shows {
        definition: Value,
        pointer: String,
        value: Option<Value>,
    },
    /// A definition is refused.
    Refused {
        definition: Value,
        message: &'static str,
        path: String,
        text: String,
    },
    Steps(Vec<Step>),
}

#[derive(Debug, Default)]
pub struct Step {
    pub method: String,
    pub path: String,
    pub body: String,
    pub accept: Option<String>,
    pub kind: Option<String>,
    pub status: u16,
    pub wanted: Vec<Wanted>,
}

#[derive(Debug)]
pub enum Wanted {
    Message(String),
    Detail(String, String),
    Is(Value),
    Has(Value),
    Lacks(String),
    Text(String),
    Empty,
    Header(String, String),
    Event(String, Value),
    NoEvent(String),
    Keep(String, String),
}

/// All cases of a file.
pub fn read(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let pods = file.starts_with("pods");
    for (number, line) in joined(text) {
        let at = format!("{file}:{number}");
        let (sign, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match sign {
            "=" | "!" | "?" => cases.push(Case { pods, ..short(&at, sign, rest) }),
            "~" => cases.last_mut().unwrap_or_else(|| panic!("{at}: of which line?")).deviates = Some(rest.to_owned()),
            "==" => {
                let name = format!("{at} {rest}");
                let what = What::Steps(Vec::new());
                cases.push(Case { name, pods, covers: Vec::new(), deviates: None, settings: Vec::new(), what });
            }
            _ => more(cases.last_mut().unwrap_or_else(|| panic!("{at}: nothing was begun")), &at, line.trim()),
        }
    }
    cases
}

/// Lines without comments; those that go on are one.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match lines.last_mut().filter(|_| line.starts_with("    ")) {
            Some((_, last)) => *last += &format!("{}{}", if last.ends_with(',') { " " } else { "  " }, line.trim()),
            None => lines.push((number + 1, line.to_owned())),
        }
    }
    lines
}

fn short(at: &str, sign: &str, rest: &str) -> Case {
    let columns: Vec<&str> = rest.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    let &[items, definition, place, expected] = columns.as_slice() else {
        panic!("{at}: four columns are expected, not {}", columns.len());
    };
    let definition = json(at, definition);
    let what = match sign {
        "=" => What::Shows { definition, pointer: place.to_owned(), value: (expected != "-").then(|| json(at, expected)) },
        "!" => What::Refused { definition, message: "Object is not valid", path: place.to_owned(), text: expected.to_owned() },
        _ => What::Refused { definition, message: "Invalid JSON", path: place.to_owned(), text: expected.to_owned() },
    };
    Case { name: format!("{at} {items}"), pods: false, covers: words(items), deviates: None, settings: Vec::new(), what }
}

fn more(case: &mut Case, at: &str, line: &str) {
    let (word, rest) = line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()));
    let What::Steps(steps) = &mut case.what else { panic!("{at}: a line of its own is no block") };
    let of_step =
        |steps: &mut Vec<Step>, wanted: Wanted| steps.last_mut().unwrap_or_else(|| panic!("{at}: nothing was asked")).wanted.push(wanted);
    let two =
        |rest: &str| rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.trim().to_owned())).unwrap_or((rest.to_owned(), String::new()));
    match word {
        "covers" => case.covers.extend(words(rest)),
        "deviates" => case.deviates = Some(rest.to_owned()),
        ">" => {
            let (method, rest) = two(rest);
            let (path, body) = two(&rest);
            steps.push(Step { method, path, body, ..Step::default() });
        }
        "setting" => {
            let (name, value) = two(rest);
            case.settings.push((name, value.parse().unwrap_or_else(|_| panic!("{at}: no number: {value}"))));
        }
        "type" => steps.last_mut().unwrap().kind = Some(rest.to_owned()),
        "accept" => steps.last_mut().unwrap().accept = Some(rest.to_owned()),
        "<" => steps.last_mut().unwrap().status = rest.parse().unwrap_or_else(|_| panic!("{at}: no status: {rest}")),
        "message" => of_step(steps, Wanted::Message(rest.to_owned())),
        "is" => of_step(steps, Wanted::Is(json(at, rest))),
        "has" => of_step(steps, Wanted::Has(json(at, rest))),
        "lacks" => words(rest).into_iter().for_each(|pointer| of_step(steps, Wanted::Lacks(pointer))),
        "text" => of_step(steps, Wanted::Text(rest.replace("\\t", "\t").replace("\\n", "\n"))),
        "no-event" => of_step(steps, Wanted::NoEvent(rest.to_owned())),
        "empty" => of_step(steps, Wanted::Empty),
        "detail" | "header" | "event" | "keep" => {
            let (name, rest) = two(rest);
            let wanted = match word {
                "detail" => Wanted::Detail(name, rest),
                "header" => Wanted::Header(name, rest),
                "keep" => Wanted::Keep(name, rest),
                _ if rest.is_empty() => Wanted::Event(name, Value::Object(Default::default())),
                _ => Wanted::Event(name, json(at, &rest)),
            };
            of_step(steps, wanted);
        }
        other => panic!("{at}: {other} means nothing"),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn json(at: &str, text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{at}: {error}: {text}"))
}
