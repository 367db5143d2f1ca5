//! A source file as the checks see it: without comments, literals and tests, with the paths that it names. It knows as much of Rust's grammar as
//! that needs.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
};

/// One file below `src`.
pub(super) struct Source {
    /// Relative to `src`.
    pub path: PathBuf,
    /// As it is.
    pub text: String,
    /// As long as the text; comments, literals and tests are blanks.
    pub code: String,
    /// The whole file is only compiled for tests.
    pub is_test: bool,
    /// The bodies of inline modules.
    inner_modules: Vec<Range<usize>>,
}

impl Source {
    /// Every Rust file below `root`.
    pub fn all(root: &Path) -> Vec<Self> {
        let mut sources: Vec<Self> = files(root)
            .into_iter()
            .map(|file| {
                let text = std::fs::read_to_string(&file).unwrap();
                Self::new(file.strip_prefix(root).unwrap().to_owned(), text, false)
            })
            .collect();
        let tests: BTreeSet<PathBuf> = sources.iter().flat_map(Self::test_modules).collect();
        for source in &mut sources {
            let module = source.path.with_extension("");
            source.is_test = tests.iter().any(|test| module.starts_with(test));
        }
        sources
    }

    pub fn new(path: PathBuf, text: String, is_test: bool) -> Self {
        let without_tests = without_tests(&without_literals(&text));
        let inner_modules = inner_modules(&without_tests);
        Self { path, text, code: without_tests, is_test, inner_modules }
    }

    /// The first part of its path; none for `lib.rs` and programs.
    pub fn room(&self) -> Option<&str> {
        let first = self.path.iter().next()?.to_str()?;
        let room = first.strip_suffix(".rs").unwrap_or(first);
        (!["lib", "bin", "tidy"].contains(&room)).then_some(room)
    }

    /// `path:line: what`.
    pub fn complaint(&self, at: usize, what: &str) -> String {
        let line = self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: {what}", self.path.display())
    }

    /// Where `word` stands in `text` as a word of its own.
    pub fn words<'a>(&self, text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        text.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let (before, after) = (text[..*at].chars().next_back(), text[at + word.len()..].chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    }

    /// The paths that begin with `root`, itself included, one for each leaf of a group.
    pub fn paths_from<'a>(&'a self, root: &'a str) -> impl Iterator<Item = (usize, Vec<String>)> + 'a {
        self.words(&self.code, root)
            .filter(|at| !self.code[..*at].trim_end().ends_with("::"))
            .filter_map(move |at| {
                let rest = self.code[at + root.len()..].trim_start();
                // `use rand;` names the crate too, but `rand` alone may be anything.
                let tree = rest.strip_prefix("::")?;
                Some(leaves(tree).into_iter().map(move |path| (at, std::iter::once(root.to_owned()).chain(path).collect())))
            })
            .flatten()
    }

    /// The paths that begin at the root of the crate, without it: through `crate`, or through enough `super`s.
    pub fn crate_paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut found: Vec<(usize, Vec<String>)> = self.paths_from("crate").map(|(at, path)| (at, path[1..].to_vec())).collect();
        for (at, path) in self.paths_from("super") {
            let supers = path.iter().take_while(|part| *part == "super").count();
            if supers == self.depth(at) {
                found.push((at, path[supers..].to_vec()));
            }
        }
        found
    }

    /// How many modules enclose the place `at`.
    fn depth(&self, at: usize) -> usize {
        let inner = self.inner_modules.iter().filter(|body| body.contains(&at)).count();
        self.path.components().count() + inner
    }

    /// The modules, as paths without extension, that this file declares for tests only.
    fn test_modules(&self) -> Vec<PathBuf> {
        let code = without_literals(&self.text);
        let folder = if self.path == Path::new("lib.rs") { PathBuf::new() } else { self.path.with_extension("") };
        let items = code.match_indices(TEST_ATTRIBUTE).map(|(at, attribute)| code[at + attribute.len()..].trim_start());
        items
            .filter_map(|item| {
                let item = item.strip_prefix("pub(crate) ").or(item.strip_prefix("pub(super) ")).unwrap_or(item);
                let (name, _) = item.strip_prefix("mod ")?.split_once(';').filter(|(name, _)| name.chars().all(is_word))?;
                Some(folder.join(name))
            })
            .collect()
    }
}

const TEST_ATTRIBUTE: &str = "#[cfg(test)]";

pub(super) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.sort();
    found
}

/// The leaves of `a::{b, c::d}`, `a::b` or `{a, b}`, at the beginning of `tree`; `*` and `self` are leaves too.
fn leaves(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        let body = &group[..matching(group)];
        return split_at_commas(body).into_iter().flat_map(leaves).collect();
    }
    let name: String = tree.chars().take_while(|letter| is_word(*letter) || *letter == '*').collect();
    if name.is_empty() {
        return vec![Vec::new()];
    }
    let rest = tree[name.len()..].trim_start();
    match rest.strip_prefix("::") {
        Some(below) => leaves(below).into_iter().map(|path| std::iter::once(name.clone()).chain(path).collect()).collect(),
        None => vec![vec![name]],
    }
}

/// Where the brace closes that was opened before `text`.
fn matching(text: &str) -> usize {
    let mut open = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
    }
    text.len()
}

fn split_at_commas(group: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut open) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 0 => {
                parts.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[begin..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

fn inner_modules(code: &str) -> Vec<Range<usize>> {
    let declared = code.match_indices("mod ").filter(|(at, _)| !code[..*at].chars().next_back().is_some_and(is_word));
    declared
        .filter_map(|(at, word)| {
            let name = &code[at + word.len()..];
            let after = name.trim_start_matches(is_word);
            let body = after.trim_start().strip_prefix('{')?;
            let begin = code.len() - body.len();
            Some(begin..begin + matching(body))
        })
        .collect()
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut result = code.to_owned();
    while let Some(at) = result.find(TEST_ATTRIBUTE) {
        let item = &result[at + TEST_ATTRIBUTE.len()..];
        let length = match (item.find(';'), item.find('{')) {
            (Some(end), Some(open)) if end < open => end + 1,
            (Some(end), None) => end + 1,
            (_, Some(open)) => open + 1 + matching(&item[open + 1..]) + 1,
            (None, None) => item.len(),
        };
        let range = at..(at + TEST_ATTRIBUTE.len() + length).min(result.len());
        let blanks = blank(&result[range.clone()]);
        result.replace_range(range, &blanks);
    }
    result
}

/// Blanks comments and the insides of literals.
fn without_literals(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' | 'b' | 'c' if !result.chars().next_back().is_some_and(is_word) => prefixed_literal(rest).unwrap_or(0),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        let (taken, blanked) = if length == 0 { (letter.len_utf8(), false) } else { (length, true) };
        let part = &rest[..taken];
        if blanked {
            result.push_str(&blank(part))
        } else {
            result.push_str(part)
        }
        rest = &rest[taken..];
    }
    result
}

/// As many bytes, lines kept.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

fn block_comment(text: &str) -> usize {
    let (mut open, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (open, at) = (open + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (open, at) = (open - 1, at + 2);
            if open == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the literal that begins with the quote at the beginning of `text`.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"..."`, `r#"..."#`, `b"..."`, `br"..."`, `c"..."`, `b'x'`; none for raw identifiers and other words.
fn prefixed_literal(text: &str) -> Option<usize> {
    let prefix: String = text.chars().take_while(char::is_ascii_lowercase).take(3).collect();
    let rest = &text[prefix.len()..];
    match prefix.as_str() {
        "b" if rest.starts_with('\'') => character(rest).map(|length| 1 + length),
        "b" | "c" if rest.starts_with('"') => Some(1 + string(rest)),
        "r" | "br" | "cr" => {
            let hashes = rest.bytes().take_while(|byte| *byte == b'#').count();
            let body = rest[hashes..].strip_prefix('"')?;
            let end = format!("\"{}", "#".repeat(hashes));
            Some(prefix.len() + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()))
        }
        _ => None,
    }
}

/// `'x'` or `'\n'`; none for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    let (_, first) = letters.next()?;
    if first == '\\' {
        // The escaped letter may be a quote itself.
        letters.next()?;
        return text[1..].char_indices().skip(2).find(|(_, letter)| *letter == '\'').map(|(at, _)| at + 2);
    }
    letters.next().filter(|(_, letter)| *letter == '\'').map(|(at, _)| at + 1)
}

#[test]
fn comments_and_literals_are_blank_and_everything_else_stays_in_its_place() {
    let check = |text: &str, expected: &str| {
        assert_eq!(without_literals(text), expected);
        assert_eq!(without_literals(text).len(), text.len());
    };
    check("a // b\nc", "a     \nc");
    check("a /* b /* c */ d */ e", "a                   e");
    check("f(\"a\\\"b\", 'x', '\\'', '\\u{1}')", "f(      ,    ,     ,        )");
    check("f::<'a>(r#\"a\"b\"#, b\"c\", b'd', br\"e\")", "f::<'a>(        ,     ,     ,      )");
    check("r#type + bar(\"\")", "r#type + bar(  )");
    check("é'é'é", "é    é");
}

#[test]
fn paths_are_taken_out_of_groups() {
    let paths = |code: &str| leaves(code).iter().map(|path| path.join("::")).collect::<Vec<_>>().join(" ");
    assert_eq!(paths("a::{b, c::{d, e as f}, g::*};"), "a::b a::c::d a::c::e a::g::*");
    assert_eq!(paths("a::b::<C>(d)"), "a::b");
    assert_eq!(paths(" {\n a,\n b::{self},\n}"), "a b::self");
}
