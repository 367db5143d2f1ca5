//! A node of the cluster, as far as it is remembered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{id::AgentId, time::Timestamp};

/// A node on which something was offered to us. Durable, so that names resolve before it has spoken again after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// As the cluster names it.
    pub id: AgentId,
    /// Its host name.
    pub host: String,
    /// Its addresses, the preferred one first; what `.slave` names answer.
    pub addresses: Vec<IpAddr>,
    /// For constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// `None` outside any fault domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `None` outside any fault domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// When it was first seen.
    pub seen_at: Timestamp,
}

/// An attribute of a node, in the text form that constraints compare: a scalar with up to three decimals, ranges as `[1-2,5-6]` in ascending order, a
/// set as `{a,b}` sorted, a text as it is. (Marathon 1.11: `Constraints.getValueString`; Mesos: its documentation of attributes and resources.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its text form.
    pub text: String,
}

/// What an attribute's text form says.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue<'a> {
    /// Anything else.
    Text(&'a str),
    /// A number.
    Scalar(f64),
    /// Both ends of each included.
    Ranges(Vec<(u64, u64)>),
    /// Its items.
    Set(Vec<&'a str>),
}

/// Why a value is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Nothing is left without blanks.
    #[error("its value is empty")]
    Empty,
    /// Something that begins like ranges.
    #[error("ranges are written as [1-2,5-6], each from the smaller to the larger number")]
    Ranges,
    /// Something that begins like a set.
    #[error("a set is written as {{a,b}}")]
    Set,
}

impl Attribute {
    /// An attribute whose value is written as Mesos' `--attributes` has it. The kind of a value follows from how it is written.
    ///
    /// # Errors
    /// Ranges or a set that are none.
    pub fn read(name: &str, value: &str) -> Result<Self, AttributeError> {
        Ok(Self { name: name.trim().to_owned(), text: canonical(value.trim())? })
    }

    /// What it says.
    pub fn value(&self) -> AttributeValue<'_> {
        let text = self.text.as_str();
        if let Some(ranges) = within(text, '[', ']').and_then(ranges) {
            AttributeValue::Ranges(ranges)
        } else if let Some(items) = within(text, '{', '}') {
            AttributeValue::Set(items.split(',').filter(|item| !item.is_empty()).collect())
        } else {
            scalar(text).map_or(AttributeValue::Text(text), AttributeValue::Scalar)
        }
    }
}

fn canonical(value: &str) -> Result<String, AttributeError> {
    if value.is_empty() {
        return Err(AttributeError::Empty);
    }
    if value.starts_with('[') {
        let mut ranges = within(value, '[', ']').and_then(ranges).ok_or(AttributeError::Ranges)?;
        ranges.sort_unstable();
        let ranges: Vec<String> = ranges.iter().map(|(begin, end)| format!("{begin}-{end}")).collect();
        return Ok(format!("[{}]", ranges.join(",")));
    }
    if value.starts_with('{') {
        let items = within(value, '{', '}').filter(|items| !items.contains(['{', '}'])).ok_or(AttributeError::Set)?;
        let mut items: Vec<&str> = items.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        items.sort_unstable();
        return Ok(format!("{{{}}}", items.join(",")));
    }
    Ok(scalar(value).map_or_else(|| value.to_owned(), scalar_text))
}

fn within(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}

fn ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    let range = |range: &str| {
        let (begin, end) = range.split_once('-')?;
        let (begin, end) = (begin.trim().parse().ok()?, end.trim().parse().ok()?);
        (begin <= end).then_some((begin, end))
    };
    text.split(',').map(range).collect()
}

fn scalar(text: &str) -> Option<f64> {
    // What Rust reads besides (inf, nan) is text.
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse::<f64>().ok().filter(|number| numeric && number.is_finite())
}

/// A number as Marathon's constraints compare it: three decimals at most, half to even, no zeros at the end.
pub fn scalar_text(number: f64) -> String {
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_mesos_writes_them() {
        let check = |value: &str, expected: &str, meaning: AttributeValue<'_>| {
            let attribute = Attribute::read("a", value).unwrap();
            assert_eq!(attribute.text, expected, "{value}");
            assert_eq!(attribute.value(), meaning, "{value}");
            assert_eq!(Attribute::read("a", &attribute.text).unwrap(), attribute, "{value}");
        };
        use AttributeValue::*;
        check("rack-1", "rack-1", Text("rack-1"));
        check(" Ubuntu 20.04 ", "Ubuntu 20.04", Text("Ubuntu 20.04"));
        check("inf", "inf", Text("inf"));
        check("NaN", "NaN", Text("NaN"));
        check("e", "e", Text("e"));
        check("1.2.3", "1.2.3", Text("1.2.3"));
        check("5-7", "5-7", Text("5-7"));
        check("7", "7", Scalar(7.0));
        check("007", "7", Scalar(7.0));
        check("1.50", "1.5", Scalar(1.5));
        check("1e3", "1000", Scalar(1000.0));
        check("-0.0001", "0", Scalar(0.0));
        check("[5-7]", "[5-7]", Ranges(vec![(5, 7)]));
        check("[ 30-40, 5-7 ]", "[5-7,30-40]", Ranges(vec![(5, 7), (30, 40)]));
        check("{b, a}", "{a,b}", Set(vec!["a", "b"]));
        check("{}", "{}", Set(vec![]));
    }

    #[test]
    fn what_begins_like_ranges_or_a_set_must_be_one() {
        let check = |value: &str, expected: AttributeError| assert_eq!(Attribute::read("a", value), Err(expected), "{value}");
        check("", AttributeError::Empty);
        check("  ", AttributeError::Empty);
        check("[", AttributeError::Ranges);
        check("[5]", AttributeError::Ranges);
        check("[7-5]", AttributeError::Ranges);
        check("[a-b]", AttributeError::Ranges);
        check("[1-2,]", AttributeError::Ranges);
        check("{a", AttributeError::Set);
        check("{a}}", AttributeError::Set);
    }

    /// The facts of Java's `DecimalFormat("0.###")` that Marathon names.
    #[test]
    fn scalars_have_three_decimals_half_to_even() {
        let check = |number: f64, expected: &str| assert_eq!(scalar_text(number), expected, "{number}");
        check(1.0, "1");
        check(1.0005, "1");
        check(1.00051, "1.001");
        check(1.1005, "1.101");
        check(0.8001, "0.8");
        check(0.0625, "0.062");
        check(0.1875, "0.188");
        check(120.0, "120");
        check(1e15, "1000000000000000");
    }
}
