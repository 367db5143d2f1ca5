//! Reads the tables: what is asked, and what must come back.
//!
//! ```text
//! # a comment
//! = ITEM...  DEFINITION  POINTER  VALUE     an app of this definition (the id is given) shows VALUE at POINTER; `-`: it shows nothing there.
//!                                           In files whose name begins with `pods`: a pod (a container is given, too, when there is none)
//! ! ITEM...  DEFINITION  PATH  TEXT         it is refused: 422 "Object is not valid", with TEXT at PATH
//! ? ITEM...  DEFINITION  PATH  TEXT         as `!`, and the types are wrong: 422 "Invalid JSON"
//! @ ITEM...  DEFINITION                     what GET shows of an app (or a pod) of this definition can be sent back by PUT, whole and without its version,
//!                                           and changes nothing: `SENT_BACK`
//! ~ why                                     the line before differs from Marathon on purpose
//!
//! == a case with several requests
//!    covers ITEM...
//!    deviates why
//!    setting NAME VALUE                     of the server, by the name of its flag, or of the node: `Options` in run.rs
//! > METHOD PATH [BODY]
//! > STREAM /v2/events...                    from now on the events come on this stream
//! > NODE WORD APP                           the node tells something of an app's tasks: `Order` in cluster.rs. Nothing is answered
//!   accept MEDIA                            what the client accepts
//!   type MEDIA                              what the body is, when it is no JSON
//!   send NAME VALUE                         a header of the request
//!   busy                                    while another request stands, of which the body does not come
//! < STATUS
//!   message TEXT                            the whole `message` of an error
//!   detail PATH TEXT                        the whole text of one of its `details`
//!   is JSON                                 the body, once times and ids are out of it
//!   has JSON                                a part of the body
//!   lacks POINTER...                        nothing there
//!   same NAME POINTER                       what was kept under this name; here `/` is the whole
//!   other NAME POINTER                      something else
//!   text TEXT                               a part of a body that is no JSON (with \t and \n)
//!   empty                                   no body
//!   header NAME VALUE                       `*`: any; `-`: none
//!   event TYPE [JSON]                       comes on the stream, in this order among those of this step
//!   event TYPE only JSON                    and has no other fields, `eventType` and `timestamp` apart
//!   next TYPE [[only] JSON]                 as `event`, and nothing comes before it
//!   no-event TYPE                           has not come in this step up to here
//!   keep NAME POINTER [-KEY...]             what is there in the body, without these keys, is `$NAME` in later paths, headers, bodies and texts
//!   mark NAME                               the id on the stream of the last event is `$NAME`
//! ```
//!
//! Columns are separated by two blanks or more. A line may go on in further lines, indented by four blanks or more: after a comma with more of the same
//! column, otherwise with the next one. In what a body or an event is compared with, `"<any>"` stands for any value.

use serde_json::{Map, Value};

/// One line, or one block.
#[derive(Debug)]
pub struct Case {
    /// `file:line name`
    pub name: String,
    /// A line of its own is about a pod.
    pub pods: bool,
    pub covers: Vec<String>,
    pub deviates: Option<String>,
    pub settings: Vec<(String, String)>,
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
    pub headers: Vec<(String, String)>,
    pub busy: bool,
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
    Event(Event),
    NoEvent(String),
    Same(String, String),
    Other(String, String),
    /// The keys are left out.
    Keep(String, String, Vec<String>),
    Mark(String),
}

/// An event that is to come.
#[derive(Debug)]
pub struct Event {
    pub kind: String,
    pub part: Value,
    /// It has no other fields.
    pub only: bool,
    /// Nothing comes before it.
    pub next: bool,
}

impl Case {
    /// The events that are waited for.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        let steps = if let What::Steps(steps) = &self.what { steps.as_slice() } else { &[] };
        steps.iter().flat_map(|step| &step.wanted).filter_map(|wanted| if let Wanted::Event(event) = wanted { Some(event) } else { None })
    }
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
            "@" => cases.push(sent_back(&at, pods, rest)),
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

/// What is asked of a pod whose definition goes back.
const POD_SENT_BACK: &str = r#"
> POST /v2/pods DEFINITION
< 201
  event deployment_success
> GET /v2/pods/x
< 200
  keep all /
  keep bare / -version
  keep version /version
> PUT /v2/pods/x $all
< 200
  same version /version
  event deployment_success {"plan": {"steps": []}}
  no-event instance_changed_event
> PUT /v2/pods/x $bare
< 200
  same version /version
  event deployment_success {"plan": {"steps": []}}
  no-event instance_changed_event
> GET /v2/pods/x
< 200
  same all /
> GET /v2/pods/x::versions
< 200
  is ["<time>"]
"#;

/// What is asked of an app whose definition goes back.
const SENT_BACK: &str = r#"
> POST /v2/apps DEFINITION
< 201
  event deployment_success
> GET /v2/apps/x
< 200
  keep all /app
  keep bare /app -version
  keep version /app/version
> PUT /v2/apps/x $all
< 422
  detail / The 'version' field may only be combined with the 'id' field.
> PUT /v2/apps/x?partialUpdate=false $all
< 200
  is {"version": "<time>", "deploymentId": "<uuid>"}
  event deployment_success {"plan": {"steps": []}}
  no-event instance_changed_event
> PUT /v2/apps/x $bare
< 200
  is {"version": "<time>", "deploymentId": "<uuid>"}
  event deployment_success {"plan": {"steps": []}}
  no-event instance_changed_event
> GET /v2/apps/x
< 200
  same version /app/version
  same all /app
> GET /v2/apps/x/versions
< 200
  is {"versions": ["<time>"]}
"#;

fn sent_back(at: &str, pods: bool, rest: &str) -> Case {
    let (items, definition) = rest.split_once("  ").unwrap_or_else(|| panic!("{at}: two columns are expected"));
    let mut definition = json(at, definition);
    definition["id"] = "/x".into();
    let what = What::Steps(Vec::new());
    let name = format!("{at} {items}");
    let mut case = Case { name, pods, covers: words(items), deviates: None, settings: Vec::new(), what };
    let steps = if pods { POD_SENT_BACK } else { SENT_BACK };
    let steps = steps.replace("DEFINITION", &definition.to_string());
    steps.lines().filter(|line| !line.is_empty()).for_each(|line| more(&mut case, at, line.trim()));
    case
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
            case.settings.push((name, value));
        }
        "type" => steps.last_mut().unwrap().kind = Some(rest.to_owned()),
        "send" => steps.last_mut().unwrap().headers.push(two(rest)),
        "busy" => steps.last_mut().unwrap().busy = true,
        "accept" => steps.last_mut().unwrap().accept = Some(rest.to_owned()),
        "<" => steps.last_mut().unwrap().status = rest.parse().unwrap_or_else(|_| panic!("{at}: no status: {rest}")),
        "message" => of_step(steps, Wanted::Message(rest.to_owned())),
        "is" => of_step(steps, Wanted::Is(json(at, rest))),
        "has" => of_step(steps, Wanted::Has(json(at, rest))),
        "lacks" => words(rest).into_iter().for_each(|pointer| of_step(steps, Wanted::Lacks(pointer))),
        "text" => of_step(steps, Wanted::Text(rest.replace("\\t", "\t").replace("\\n", "\n"))),
        "no-event" => of_step(steps, Wanted::NoEvent(rest.to_owned())),
        "empty" => of_step(steps, Wanted::Empty),
        "mark" => of_step(steps, Wanted::Mark(rest.to_owned())),
        "event" | "next" => {
            let (kind, rest) = two(rest);
            let (only, rest) = rest.strip_prefix("only ").map_or((false, &*rest), |rest| (true, rest));
            let part = if rest.is_empty() { Value::Object(Map::new()) } else { json(at, rest) };
            of_step(steps, Wanted::Event(Event { kind, part, only, next: word == "next" }));
        }
        "detail" | "header" | "keep" | "same" | "other" => {
            let (name, rest) = two(rest);
            let wanted = match word {
                "detail" => Wanted::Detail(name, rest),
                "header" => Wanted::Header(name, rest),
                "same" => Wanted::Same(name, rest),
                "other" => Wanted::Other(name, rest),
                _ => {
                    let (pointer, without) = two(&rest);
                    let key = |word: String| word.strip_prefix('-').unwrap_or_else(|| panic!("{at}: {word}: -KEY is expected")).to_owned();
                    Wanted::Keep(name, pointer, words(&without).into_iter().map(key).collect())
                }
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
