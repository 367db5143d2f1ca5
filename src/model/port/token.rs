//! `@PORT`, `@PORT1`, `@PORT2` ... inside the values of an app's environment.
//!
//! `@PORT` and `@PORT0` are the first port, `@PORT1` the second, and so on. Such a text is a token unless a word character (a letter, a digit or
//! `_`) stands before it, or one follows that is not part of its index: `user@PORTAL`, `x@PORT` and `@PORT1x` stay as they are. A further `@` before
//! a token takes it back: `@@PORT` is the text `@PORT`.

use std::ops::Range;

const MARK: &str = "@PORT";

/// The indexes of the tokens in `value`, in order, with repetitions. An index above 65535 is given as 65535.
pub fn tokens(value: &str) -> impl Iterator<Item = u16> + '_ {
    places(value).filter(|place| !place.escaped).map(|place| place.index)
}

/// `value` with each token replaced by its port, and each escaped token by its text. A token for which there is no port stays.
pub fn substitute(value: &str, port: impl Fn(u16) -> Option<u16>) -> String {
    let mut result = String::with_capacity(value.len());
    let mut done = 0;
    for Place { range, index, escaped } in places(value) {
        let number = if escaped { None } else { port(index) };
        result.push_str(&value[done..range.start - usize::from(escaped)]);
        match number {
            Some(number) => result.push_str(&number.to_string()),
            None => result.push_str(&value[range.clone()]),
        }
        done = range.end;
    }
    result.push_str(&value[done..]);
    result
}

/// Where a token stands; `range` is without the `@` that escapes it.
struct Place {
    range: Range<usize>,
    index: u16,
    escaped: bool,
}

fn places(value: &str) -> impl Iterator<Item = Place> + '_ {
    value.match_indices(MARK).filter_map(|(start, mark)| {
        let digits = index_digits(&value[start + mark.len()..]);
        let end = start + mark.len() + digits.len();
        let before = value[..start].chars().next_back();
        let ends = !value[end..].chars().next().is_some_and(is_word);
        let index = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u16::MAX) };
        (ends && !before.is_some_and(is_word)).then_some(Place { range: start..end, index, escaped: before == Some('@') })
    })
}

/// The digits of an index at the start of `text`: none, `0`, or some without a leading zero.
fn index_digits(text: &str) -> &str {
    let count = if text.starts_with('0') { 1 } else { text.bytes().take_while(u8::is_ascii_digit).count() };
    &text[..count]
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first port is 1066, each further one is one higher, up to index 12.
    fn ports(index: u16) -> Option<u16> {
        (index <= 12).then(|| 1066 + index)
    }

    #[test]
    fn tokens_are_found_by_their_borders() {
        let check = |value: &str, indexes: &[u16], substituted: &str| {
            assert_eq!(tokens(value).collect::<Vec<_>>(), indexes, "{value}");
            assert_eq!(substitute(value, ports), substituted, "{value}");
        };
        check("", &[], "");
        check("5432", &[], "5432");
        check("@PORT", &[0], "1066");
        check("@PORT0", &[0], "1066");
        check("@PORT1", &[1], "1067");
        check("@PORT12", &[12], "1078");
        check("http://0.0.0.0:@PORT/", &[0], "http://0.0.0.0:1066/");
        check(":@PORT/@PORT2;@PORT", &[0, 2, 0], ":1066/1068;1066");
        check("@PORT-1", &[0], "1066-1");
        check("-@PORT.", &[0], "-1066.");
        check("@PORT@PORT", &[0], "1066@PORT");
        check("@PORT @PORT", &[0, 0], "1066 1066");
        check("user@PORTAL", &[], "user@PORTAL");
        check("@PORTAL", &[], "@PORTAL");
        check("x@PORT", &[], "x@PORT");
        check("1@PORT", &[], "1@PORT");
        check("_@PORT", &[], "_@PORT");
        check("@PORT_", &[], "@PORT_");
        check("@PORT1x", &[], "@PORT1x");
        check("@PORT1_", &[], "@PORT1_");
        check("@PORT01", &[], "@PORT01");
        check("@PORTS", &[], "@PORTS");
        check("@port", &[], "@port");
        check("@ PORT", &[], "@ PORT");
        check("PORT", &[], "PORT");
        check("é@PORT", &[], "é@PORT");
        check("@PORTé", &[], "@PORTé");
        check("@PORT٣", &[], "@PORT٣");
        check("→@PORT←", &[0], "→1066←");
        check("@PORT13", &[13], "@PORT13");
        check("@PORT99999999999999999999", &[65535], "@PORT99999999999999999999");
    }

    #[test]
    fn a_second_at_sign_takes_a_token_back() {
        let check = |value: &str, substituted: &str| {
            assert_eq!(tokens(value).count(), 0, "{value}");
            assert_eq!(substitute(value, ports), substituted, "{value}");
        };
        check("@@PORT", "@PORT");
        check("@@PORT1", "@PORT1");
        check("@@@PORT", "@@PORT");
        check("x@@PORT", "x@PORT");
        check("a=@@PORT,b", "a=@PORT,b");
        check("@@PORTAL", "@@PORTAL");
        assert_eq!(substitute("@PORT@@PORT", ports), "1066@PORT");
        assert_eq!(substitute("@PORT:@@PORT", ports), "1066:@PORT");
    }

    proptest! {
        #[test]
        fn text_without_tokens_and_escapes_stays(value in "[^@]{0,40}") {
            prop_assert_eq!(substitute(&value, ports), value);
        }

        #[test]
        fn any_text_can_be_written_with_escapes(value in "[@PORT01x_ é]{0,30}") {
            let mut written = value.clone();
            for Place { range, .. } in places(&value).collect::<Vec<_>>().into_iter().rev() {
                written.insert(range.start, '@');
            }
            prop_assert_eq!(tokens(&written).count(), 0);
            prop_assert_eq!(substitute(&written, ports), value);
        }
    }
}
