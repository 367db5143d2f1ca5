//! A line that somebody typed, as words; and one word that is a list, as its entries. Pure.
//!
//! Words are split as a shell splits them: at blanks, unless they stand between quotes or after a backslash. Lists are split at commas; blanks around
//! an entry do not count, and a value that begins with a quote ends with it, so that it may hold commas and blanks. A quote elsewhere is a letter like
//! any other. Typographic quotes, which come from copying out of a document, open and close like plain ones.

/// Longest line, in bytes; a service's description fits many times.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// Most entries of one list.
pub const MAX_ENTRIES: usize = 4096;

/// What is wrong with a line or a list. The text names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WordsError(String);

/// The words of `line`.
///
/// # Errors
/// A quote that is not closed, a backslash at the very end, or a line that is too long.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(WordsError(format!("the line is longer than {MAX_LINE_BYTES} bytes")));
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if let Some(end) = closing(letter) {
            quoted(&mut letters, end, word.get_or_insert_default())?;
        } else if letter == '\\' {
            let next = letters.next().ok_or_else(|| WordsError("nothing follows the backslash at the end".to_owned()))?;
            word.get_or_insert_default().push(next);
        } else if letter.is_whitespace() {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(letter);
        }
    }
    words.extend(word);
    Ok(words)
}

/// A word as it must be typed to be one word again.
pub fn quote(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:@=,+%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

fn closing(letter: char) -> Option<char> {
    match letter {
        '\'' | '"' => Some(letter),
        '\u{201c}' => Some('\u{201d}'),
        '\u{2018}' => Some('\u{2019}'),
        _ => None,
    }
}

/// Up to the quote `end`. In double quotes a backslash keeps its meaning before a quote or another backslash.
fn quoted(letters: &mut std::str::Chars<'_>, end: char, word: &mut String) -> Result<(), WordsError> {
    let begin: String = letters.as_str().chars().take(20).collect();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == end => return Ok(()),
            '\\' if end == '"' => {
                let next = letters.clone().next();
                if let Some(escaped) = next.filter(|next| matches!(next, '"' | '\\')) {
                    letters.next();
                    word.push(escaped);
                } else {
                    word.push('\\');
                }
            }
            _ => word.push(letter),
        }
    }
    Err(WordsError(format!("the quote before '{begin}' is not closed")))
}

/// The entries of a list. `separator` is what stands between the parts of an entry (`=` or `:`): a quote opens there too.
///
/// # Errors
/// An empty entry, a quote that is not closed or that something follows, too many entries.
pub fn list(text: &str, separator: char) -> Result<Vec<String>, WordsError> {
    let mut entries = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if entries.len() == MAX_ENTRIES {
            return Err(WordsError(format!("there are more than {MAX_ENTRIES} entries")));
        }
        let (entry, after) = entry(rest, separator)?;
        if entry.is_empty() {
            return Err(WordsError(match entries.last() {
                Some(before) => format!("an empty entry follows '{before}'"),
                None => "the first entry is empty".to_owned(),
            }));
        }
        entries.push(entry);
        rest = after.trim_start();
    }
    Ok(entries)
}

/// The first entry, and what follows its comma.
fn entry(text: &str, separator: char) -> Result<(String, &str), WordsError> {
    let mut entry = String::new();
    // What must stay although blanks at the end are cut.
    let mut kept = 0;
    let mut may_open = true;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == ',' {
            break;
        }
        if let Some(end) = closing(letter).filter(|_| may_open) {
            quoted(&mut letters, end, &mut entry)?;
            kept = entry.len();
            let after = letters.as_str().trim_start();
            let more = after.chars().next();
            if more.is_some_and(|more| more != ',' && more != separator) {
                return Err(WordsError(format!("after the closing quote of '{entry}' comes '{after}', where a comma belongs")));
            }
            letters = after.chars();
            may_open = false;
            continue;
        }
        if letter == '\\' && letters.as_str().starts_with([',', '\\', '"', '\'']) {
            entry.extend(letters.next());
            kept = entry.len();
            may_open = false;
            continue;
        }
        entry.push(letter);
        may_open = letter == separator || may_open && letter.is_whitespace();
    }
    let end = entry.trim_end().len().max(kept);
    entry.truncate(end);
    Ok((entry, letters.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(result: Result<Vec<String>, WordsError>) -> String {
        result.map_or_else(|error| format!("error: {error}"), |words| words.join("|"))
    }

    #[test]
    fn lines_are_split_as_a_shell_splits_them() {
        let check = |line: &str, expected: &str| assert_eq!(shown(split(line)), expected, "{line}");
        check("", "");
        check("  mgmt \t service  ", "mgmt|service");
        check(r#"--env "A=1, B=2" --id x"#, "--env|A=1, B=2|--id|x");
        check("--env 'A=\"1\"'", "--env|A=\"1\"");
        check(r#"a\ b "c\"d\\e\f" 'g\h'"#, r#"a b|c"d\e\f|g\h"#);
        check(r#"a"b c"d'e f'"#, "ab cde f");
        check("a '' \"\"", "a||");
        check("--env “A=1, B='2'” ‘x y’", "--env|A=1, B='2'|x y");
        check("a 'b c", "error: the quote before 'b c' is not closed");
        check("a\\", "error: nothing follows the backslash at the end");
        check(&"x".repeat(MAX_LINE_BYTES + 1), "error: the line is longer than 262144 bytes");
    }

    #[test]
    fn lists_are_split_at_commas_outside_quotes() {
        let check = |text: &str, expected: &str| assert_eq!(shown(list(text, '=')), expected, "{text}");
        check("", "");
        check("  ", "");
        check("A=1,B=2", "A=1|B=2");
        check(" A=1 , B = 2 ,\tC=3 4 ", "A=1|B = 2|C=3 4");
        check("A='1, 2', B=\"3,4\" ,C= 'x '", "A=1, 2|B=3,4|C= x ");
        check("'A=1,2',B=3", "A=1,2|B=3");
        check("A=it's,B=say \"x\"", "A=it's|B=say \"x\"");
        check(r"A=1\,2,B=\'x\',C=a\b,D=c\\", r"A=1,2|B='x'|C=a\b|D=c\");
        check("A=,B==", "A=|B==");
        check("A=1,,B=2", "error: an empty entry follows 'A=1'");
        check(",A=1", "error: the first entry is empty");
        check("A=1,", "A=1");
        check("A='1,2", "error: the quote before '1,2' is not closed");
        check("A='1'2,B=3", "error: after the closing quote of 'A=1' comes '2,B=3', where a comma belongs");
        check(&"a,".repeat(MAX_ENTRIES + 1), "error: there are more than 4096 entries");
        assert_eq!(shown(list("1:'/a,b', 2:/c", ':')), "1:/a,b|2:/c");
        assert_eq!(shown(list("'/a,b':/x:ro", ':')), "/a,b:/x:ro");
    }

    #[test]
    fn whatever_is_thrown_at_words_and_lists_is_taken_apart_or_refused() {
        let text = prop_oneof!["[ ,=:'\"\\\\“”‘’a-zé\t]{0,40}", "\\PC{0,40}"];
        crate::fuzz::check("words", 400, &text, |text| {
            _ = split(&text);
            _ = list(&text, '=');
            _ = list(&text, ':');
            Ok(())
        });
    }

    proptest! {
        #[test]
        fn a_quoted_word_is_one_word_again(words in prop::collection::vec("\\PC{0,12}", 0..5)) {
            let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&line).unwrap(), words);
        }

        #[test]
        fn entries_in_double_quotes_keep_their_commas(values in prop::collection::vec("[a-z, ]{0,8}", 1..5)) {
            let text = values.iter().map(|value| format!("K=\"{value}\"")).collect::<Vec<_>>().join(", ");
            let expected: Vec<String> = values.iter().map(|value| format!("K={value}")).collect();
            prop_assert_eq!(list(&text, '=').unwrap(), expected);
        }
    }
}
