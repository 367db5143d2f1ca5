//! The regular expressions of LIKE and UNLIKE, which match a whole value.
//!
//! Most are matched in a time that grows with the value alone. Java's look-around, back-references and groups that give nothing back need a matcher
//! that tries: it is used for nothing else, and everything about it has a limit, so that no expression can stall the core. What exceeds a limit
//! while it is matched is undecided, which is neither a match nor none.

use fancy_regex::Expr;
use regex::RegexBuilder;

/// Bytes that a compiled regular expression may take; one `\w` takes 50 KiB.
pub const MAX_REGEX_BYTES: usize = 1024 * 1024;
/// The same for each part of one that tries, which has a compiled expression of its own.
const MAX_PART_BYTES: usize = MAX_REGEX_BYTES / 4;
/// Such parts, and groups that look around or back.
const MAX_PARTS: usize = 32;
/// Steps that an expression which tries can make without consuming anything: its nodes, as often as its counted repetitions say.
const MAX_STEPS: usize = 10_000;
/// Ways that one match may try in vain.
pub const MAX_BACKTRACKS: usize = 10_000;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Pattern(Matcher);

#[derive(Clone, Debug)]
enum Matcher {
    Linear(regex::Regex),
    Trying(fancy_regex::Regex),
}

/// The text is no regular expression, or takes more than the limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a regular expression within the limits")]
pub struct NoPattern;

/// A match was given up after [`MAX_BACKTRACKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the expression takes too long to match")]
pub struct Undecided;

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// No regular expression, or one beyond the limits.
    pub fn read(text: &str) -> Result<Self, NoPattern> {
        let whole = format!(r"\A(?:{text})\z");
        let linear = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).nest_limit(50).build();
        // By itself first: `a)|(b` is one only between parentheses.
        if let Ok(regex) = linear(text).and_then(|_| linear(&whole)) {
            return Ok(Self(Matcher::Linear(regex)));
        }
        if has_foreign_escape(text) || !is_bounded(text) {
            return Err(NoPattern);
        }
        let mut builder = fancy_regex::RegexBuilder::new(&whole);
        builder.backtrack_limit(MAX_BACKTRACKS).max_prog_size(MAX_STEPS);
        builder.delegate_size_limit(MAX_PART_BYTES).delegate_dfa_size_limit(MAX_PART_BYTES);
        builder.build().map(|regex| Self(Matcher::Trying(regex))).map_err(|_| NoPattern)
    }

    /// Whether it matches the whole of `value`.
    ///
    /// # Errors
    /// It tried too long.
    pub fn matches(&self, value: &str) -> Result<bool, Undecided> {
        match &self.0 {
            Matcher::Linear(regex) => Ok(regex.is_match(value)),
            Matcher::Trying(regex) => regex.is_match(value).map_err(|_| Undecided),
        }
    }

    /// True when a match may be given up, and takes more memory.
    pub fn tries(&self) -> bool {
        matches!(self.0, Matcher::Trying(_))
    }
}

/// Escapes that Java does not have, or means otherwise: `\h` is a blank there and a hexadecimal digit here.
fn has_foreign_escape(text: &str) -> bool {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\\' && letters.next().is_some_and(|escaped| "gGhHKNOXyY".contains(escaped)) {
            return true;
        }
    }
    false
}

/// True for what needs the matcher that tries, and nothing of it beyond Java and the limits.
fn is_bounded(text: &str) -> bool {
    let Ok(tree) = Expr::parse_tree(text) else { return false };
    let mut parts = 0;
    let steps = steps(&tree.expr, &mut parts);
    tree.expr.has_descendant_or_self(looks) && parts <= MAX_PARTS && steps.is_some_and(|steps| steps <= MAX_STEPS)
}

fn looks(expr: &Expr) -> bool {
    matches!(expr, Expr::LookAround(..) | Expr::Backref { .. } | Expr::AtomicGroup(_))
}

/// `None`: too many to count, or something that Java does not have.
fn steps(expr: &Expr, parts: &mut usize) -> Option<usize> {
    let times = match expr {
        // A repetition without an end stops by itself when it consumes nothing; one with an end does not.
        Expr::Repeat { lo, hi, .. } => if *hi == usize::MAX { *lo } else { *hi }.max(1),
        Expr::LookAround(..) | Expr::Backref { .. } | Expr::AtomicGroup(_) | Expr::Delegate { .. } => {
            *parts += 1;
            1
        }
        Expr::Empty | Expr::Any { .. } | Expr::Assertion(_) | Expr::GeneralNewline { .. } | Expr::Literal { .. } => 1,
        Expr::Concat(_) | Expr::Alt(_) | Expr::Group(_) => 1,
        _ => return None,
    };
    let inner = expr.children_iter().try_fold(1_usize, |sum, child| sum.checked_add(steps(child, parts)?));
    inner?.checked_mul(times)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_values_match() {
        let check = |pattern: &str, value: &str, expected: bool| {
            assert_eq!(Pattern::read(pattern).unwrap().matches(value), Ok(expected), "{pattern} {value}");
        };
        check("a|ab", "ab", true);
        check("a|ab", "abc", false);
        check("node[0-9]+", "node12", true);
        check("node[0-9]+", "xnode12", false);
        check(r"\w+", "größe", true);
        check("", "", true);
        // What Java has beyond that.
        check("^(?!web).*$", "web-1", false);
        check("^(?!web).*$", "db-1", true);
        check("(?!a)b", "b", true);
        check("(?!a)b", "bb", false);
        check(r"(?i)(?!.*\.old).*\.LOCAL", "node.local", true);
        check(r"(?i)(?!.*\.old).*\.LOCAL", "node.old.local", false);
        check(".*(?<!-test)", "node-test", false);
        check(".*(?<=-(?:a|bb))", "node-bb", true);
        check(r"(\w+)-\1", "eu-eu", true);
        check(r"(\w+)-\1", "eu-us", false);
        check(r"(?<zone>[a-z])\k<zone>", "aa", true);
        check("(?>a|ab)c", "abc", false);
        check("(?=a)a|b", "b", true);
        check("(?=a)a|b", "ab", false);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "(",
            "(?!a",
            "(?!a))",
            "(?!a)b)|(c",
            "(?x)(?!a) b # c",
            r"(?!a)\h",
            r"\Ka(?!b)",
            r"(?!a)\g<0>",
            "(?R)?(?!a)",
            "(?!a)(?~b)",
            "(?!a)(*FAIL)",
            r"(a)(?(1)b|c)",
            r"\2(a)",
            "((a{1000}){1000}){1000}",
            // What repeats without consuming.
            "(?:(?!x)){4000000000}",
            "(?:(?:(?!x)){1000}){1000}",
            "(?:(?!x)){0,4000000000}",
        ] {
            assert!(Pattern::read(text).is_err(), "{text}");
        }
        assert!(Pattern::read(&"(?!a)".repeat(MAX_PARTS)).is_ok());
        assert!(Pattern::read(&"(?!a)".repeat(MAX_PARTS + 1)).is_err());
    }

    #[test]
    fn what_tries_too_long_is_given_up() {
        for text in [r"(a*)*(?!c)b\1", "(?:a|a)*(?=b)b", r"(?:(a+)+)+\1b", "(?=(?:a?){30}a{30}b).*", r"(a|aa)+(?<=b)\1"] {
            let pattern = Pattern::read(text).unwrap();
            let began = std::time::Instant::now();
            let decided = pattern.matches(&"a".repeat(200));
            assert_ne!(decided, Ok(true), "{text}");
            assert!(began.elapsed().as_secs() < 5, "{text} took {:?}", began.elapsed());
        }
        assert_eq!(Pattern::read(r"(?:a|a)*(?=b)\bb").unwrap().matches(&"a".repeat(200)), Err(Undecided));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r"[a-c(){}|*+?!<>=:,\[\]\\.0-9#^$-]{0,20}", value in ".{0,10}") {
            if let Ok(pattern) = Pattern::read(&text) {
                let _ = pattern.matches(&value);
            }
        }
    }
}
