//! A value of the input together with its path: reads it as the type that is expected there, and notes what is wrong in the words of play-json,
//! which Marathon's clients know.

use std::cell::RefCell;

use serde_json::Value;

use crate::model::{id::is_written_path, request::Violation};

/// What is wrong is listed up to this many entries; a longer list helps nobody.
pub(in crate::model) const MAX_VIOLATIONS: usize = 100;

/// An object of so many keys is looked through, which is quicker than a look-up.
const SMALL: usize = 4;

/// Collects violations in the order in which they are found.
#[derive(Debug, Default)]
pub(in crate::model) struct Violations(RefCell<Vec<Violation>>);

impl Violations {
    /// Notes one, unless there are too many.
    pub(in crate::model) fn add(&self, path: impl Into<String>, text: impl Into<String>) {
        let mut list = self.0.borrow_mut();
        if list.len() < MAX_VIOLATIONS {
            list.push(Violation::new(path, text));
        }
    }

    /// All that were noted.
    pub(in crate::model) fn into_list(self) -> Vec<Violation> {
        self.0.into_inner()
    }
}

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(in crate::model) struct Reader<'a> {
    value: &'a Value,
    path: String,
    violations: &'a Violations,
}

impl<'a> Reader<'a> {
    /// The whole input.
    pub(in crate::model) fn root(value: &'a Value, violations: &'a Violations) -> Self {
        Self { value, path: String::new(), violations }
    }

    /// The value itself.
    pub(in crate::model) fn value(&self) -> &'a Value {
        self.value
    }

    /// Where it stands, in Marathon's notation.
    pub(in crate::model) fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    fn path_of(&self, key: &str) -> String {
        [&self.path, "/", key].concat()
    }

    /// Notes that something is wrong here.
    pub(in crate::model) fn reject(&self, text: impl Into<String>) {
        self.violations.add(self.path(), text);
    }

    /// False, and noted, unless this is an object.
    pub(in crate::model) fn is_object(&self) -> bool {
        let is = self.value.is_object();
        if !is {
            self.reject("error.expected.jsobject");
        }
        is
    }

    /// The value of `key`; `None` when it is absent or null.
    pub(in crate::model) fn get(&self, key: &str) -> Option<Reader<'a>> {
        let Value::Object(fields) = self.value else { return None };
        // Whoever changes something writes little of what could be written.
        let value = match fields.len() {
            ..=SMALL => fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value),
            _ => fields.get(key),
        };
        let value = value.filter(|value| !value.is_null())?;
        Some(Self { value, path: self.path_of(key), violations: self.violations })
    }

    /// The keys of an object, without those of nulls.
    pub(in crate::model) fn keys(&self) -> impl Iterator<Item = &'a str> {
        let fields = self.value.as_object().into_iter().flatten();
        fields.filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// The value of `key`; its absence is noted.
    pub(in crate::model) fn required(&self, key: &str) -> Option<Reader<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.violations.add(self.path_of(key), "error.path.missing");
        }
        found
    }

    /// The elements of an array.
    pub(in crate::model) fn items(&self) -> Option<Vec<Reader<'a>>> {
        let Value::Array(items) = self.value else {
            self.reject("error.expected.jsarray");
            return None;
        };
        let item = |(index, value)| Self { value, path: format!("{}({index})", self.path), violations: self.violations };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The keys and values of an object, in the order written.
    pub(in crate::model) fn entries(&self) -> Option<Vec<(&'a str, Reader<'a>)>> {
        let Value::Object(fields) = self.value else {
            self.reject("error.expected.jsobject");
            return None;
        };
        let entry =
            |(key, value): (&'a String, &'a Value)| (key.as_str(), Self { value, path: self.path_of(key), violations: self.violations });
        Some(fields.iter().map(entry).collect())
    }

    /// Each element read by `read`; those that cannot be read are left out (and noted).
    pub(in crate::model) fn list<T>(&self, read: impl Fn(&Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
        Some(self.items()?.iter().filter_map(read).collect())
    }

    /// As [`Reader::list`], without repetitions.
    pub(in crate::model) fn set<T: PartialEq>(&self, read: impl Fn(&Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut unique = Vec::new();
        for item in self.list(read)? {
            // Linear, but the length of such lists is limited before anything else is done with them.
            if unique.len() <= MAX_SET && !unique.contains(&item) {
                unique.push(item);
            }
        }
        Some(unique)
    }

    /// A text.
    pub(in crate::model) fn text(&self) -> Option<String> {
        let text = self.value.as_str().map(str::to_owned);
        if text.is_none() {
            self.reject("error.expected.jsstring");
        }
        text
    }

    /// A text of at least one character.
    pub(in crate::model) fn some_text(&self) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() {
            self.reject("error.minLength");
        }
        Some(text)
    }

    /// A URI or a path as Marathon's types have them: 1 to [`MAX_SHORT`] characters (of UTF-16, as Java counts).
    pub(in crate::model) fn short_text(&self) -> Option<String> {
        let text = self.some_text()?;
        if text.encode_utf16().count() > MAX_SHORT {
            self.reject("error.maxLength");
        }
        Some(text)
    }

    /// The id of an app, pod or group, unresolved.
    pub(in crate::model) fn path_id(&self) -> Option<String> {
        let text = self.some_text()?;
        if !is_written_path(&text) {
            self.reject("error.pattern");
        }
        Some(text)
    }

    /// The name of a port or network: lower case letters, digits and, within, dashes (and underscores, if `underscore`).
    pub(in crate::model) fn name(&self, max_length: usize, underscore: bool) -> Option<String> {
        let text = self.some_text()?;
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-' || underscore && *byte == b'_';
        let outer = |byte: Option<&u8>| byte.is_none_or(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = text.as_bytes();
        if !bytes.iter().all(inner) || !outer(bytes.first()) || !outer(bytes.last()) {
            self.reject("error.pattern");
        } else if bytes.len() > max_length {
            self.reject("error.maxLength");
        }
        Some(text)
    }

    /// A map of texts.
    pub(in crate::model) fn texts(&self) -> Option<indexmap::IndexMap<String, String>> {
        let entries = self.entries()?;
        Some(entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.text()?))).collect())
    }

    /// True or false.
    pub(in crate::model) fn boolean(&self) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.reject("error.expected.jsboolean");
        }
        boolean
    }

    /// A number of at least `min`.
    pub(in crate::model) fn number(&self, min: f64) -> Option<f64> {
        let Some(number) = self.value.as_f64() else {
            self.reject("error.expected.jsnumber");
            return None;
        };
        if number < min {
            self.reject("error.min");
        }
        Some(number)
    }

    /// A number from 0 to 1.
    pub(in crate::model) fn share(&self) -> Option<f64> {
        let number = self.number(0.0)?;
        if number > 1.0 {
            self.reject("error.max");
        }
        Some(number)
    }

    /// A whole number from 0 to `max`, of Java's `Int`. `2.0` is one, too.
    pub(in crate::model) fn whole(&self, max: u32) -> Option<u32> {
        let is_int = |number: f64| number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
        if self.value.as_f64().is_some_and(|number| !is_int(number)) {
            self.reject("error.expected.int");
            return None;
        }
        self.long(u64::from(max)).map(|number| u32::try_from(number).unwrap_or(max))
    }

    /// A whole number from 0 to `max` (at most 2^53).
    pub(in crate::model) fn long(&self, max: u64) -> Option<u64> {
        let Some(number) = self.value.as_f64() else {
            self.reject("error.expected.jsnumber");
            return None;
        };
        if number.fract() != 0.0 {
            self.reject("error.expected.long");
            return None;
        }
        if number < 0.0 {
            self.reject("error.min");
        } else if number > max as f64 {
            self.reject("error.max");
        }
        Some((number as u64).min(max))
    }

    /// A port; 0 means none in particular.
    pub(in crate::model) fn port(&self) -> Option<u16> {
        self.whole(u32::from(u16::MAX)).map(|port| u16::try_from(port).unwrap_or(u16::MAX))
    }

    /// One of `choices`, in upper or lower case.
    pub(in crate::model) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.value.as_str().unwrap_or_default();
        let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, choice)| choice);
        if found.is_none() {
            self.reject("error.unknown.enum.literal");
        }
        found
    }
}

/// Characters of a URI or a path.
const MAX_SHORT: usize = 1024;

/// Sets are compared with themselves element by element; what is longer is refused by validation anyway, so the rest is not read.
const MAX_SET: usize = 1000;
