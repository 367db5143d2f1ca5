//! Label selectors: the grammar of `label=`, and which apps it picks.
//!
//! Facts (Marathon 1.11): terms joined by commas must all hold. A term is `key`, `key==value`, `key!=value`, `key in (a, b)` or `key notin (a, b)`.
//! Letters, digits, `-`, `_` and `.` stand for themselves, anything else behind a backslash. The negative forms pick only apps that have the label.

use indexmap::IndexMap;

/// A selector that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    /// Reads a selector; an empty one picks everything.
    ///
    /// # Errors
    /// Marathon's text for a selector that is none.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text };
        let terms = reader.selector().map_err(|reason| format!("Can not parse label selector {text}. Reason: {reason}"))?;
        Ok(Self(terms))
    }

    /// True when every term holds.
    pub fn picks(&self, labels: &IndexMap<String, String>) -> bool {
        self.0.iter().all(|term| {
            let Some(value) = labels.get(&term.key) else { return false };
            match &term.test {
                Test::Exists => true,
                Test::In(values) => values.contains(value),
                Test::NotIn(values) => !values.contains(value),
            }
        })
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn selector(&mut self) -> Result<Vec<Term>, String> {
        let mut terms = Vec::new();
        self.skip_blanks();
        while !self.rest.is_empty() {
            terms.push(self.term()?);
            if !self.take(",") {
                break;
            }
            if self.rest.is_empty() {
                return Err("a label is expected after the last comma".into());
            }
        }
        if self.rest.is_empty() { Ok(terms) } else { Err(format!("'{}' is not expected here", self.rest)) }
    }

    fn term(&mut self) -> Result<Term, String> {
        let key = self.word()?;
        let test = if self.take("==") {
            Test::In(vec![self.word()?])
        } else if self.take("!=") {
            Test::NotIn(vec![self.word()?])
        } else if self.take("notin") {
            Test::NotIn(self.set()?)
        } else if self.take("in") {
            Test::In(self.set()?)
        } else {
            Test::Exists
        };
        Ok(Term { key, test })
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err("'(' is expected".into());
        }
        let mut values = Vec::new();
        if self.take(")") {
            return Ok(values);
        }
        loop {
            values.push(self.word()?);
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err("',' or ')' is expected".into());
            }
        }
    }

    fn word(&mut self) -> Result<String, String> {
        let mut word = String::new();
        let mut letters = self.rest.chars();
        loop {
            let before = letters.as_str();
            match letters.next() {
                Some('\\') => word.push(letters.next().ok_or("a character is expected after '\\'")?),
                Some(letter) if letter.is_ascii_alphanumeric() || "-_.".contains(letter) => word.push(letter),
                _ => {
                    self.rest = before;
                    break;
                }
            }
        }
        if word.is_empty() {
            return Err(format!("a name or value is expected at '{}'", self.rest));
        }
        self.skip_blanks();
        Ok(word)
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        self.skip_blanks();
        true
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_picks_by_every_term() {
        let labels: IndexMap<String, String> =
            [("tier", "db"), ("env", "prod"), ("a b", "x,y")].map(|(key, value)| (key.into(), value.into())).into();
        let check = |text: &str, expected: bool| assert_eq!(Selector::read(text).unwrap().picks(&labels), expected, "{text}");
        check("", true);
        check("tier", true);
        check("none", false);
        check("tier==db", true);
        check("tier == web", false);
        check("tier!=web", true);
        check("tier!=db", false);
        check("none!=db", false);
        check("env in (test, prod)", true);
        check("env in ()", false);
        check("env notin (test,dev)", true);
        check("none notin (test)", false);
        check("tier==db, env==prod", true);
        check("tier==db,env==test", false);
        check(r"a\ b==x\,y", true);
        check("env in(prod)", true);
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_text() {
        for text in ["tier=db", "tier==", "==db", "env in prod", "env in (a", "env in (a b)", "a b", "tier,", ",", "(", "a\\", "ä"] {
            let error = Selector::read(text).unwrap_err();
            assert!(error.starts_with(&format!("Can not parse label selector {text}. Reason: ")), "{error}");
        }
    }
}
