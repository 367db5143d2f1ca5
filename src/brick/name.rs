//! Names become file names here: whatever could leave its directory, or meet one of our own files, is refused.

use super::BrickError;
use crate::model::id::{BrickName, PoolName};

/// Longest name, in bytes: with the longest suffix it stays below the 255 of every file system.
pub const MAX_NAME_BYTES: usize = 200;

/// The brick's name as a file name.
///
/// # Errors
/// Anything but letters, digits, `.`, `-` and `_`, a leading `.` or `-`, nothing, or more than [`MAX_NAME_BYTES`].
pub fn brick(name: &BrickName) -> Result<&str, BrickError> {
    checked("brick", name.as_str())
}

/// The pool's name as a file name; the same rule.
///
/// # Errors
/// See [`brick`].
pub fn pool(name: &PoolName) -> Result<&str, BrickError> {
    checked("pool", name.as_str())
}

fn checked<'name>(what: &str, name: &'name str) -> Result<&'name str, BrickError> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with(['.', '-']) || !name.bytes().all(safe) {
        let shown: String = name.chars().take(80).collect();
        return Err(BrickError::Refused(format!(
            "{shown:?} is no name of a {what}: it has 1 to {MAX_NAME_BYTES} letters, digits, '.', '-' and '_', and starts with neither '.' nor '-'"
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_directory() {
        for good in ["testdb-var-lib-pgsql-9.6-data-0123456789abcdef", "a", "A_b..c"] {
            assert_eq!(brick(&BrickName::new(good)).unwrap(), good);
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a\nb", "-rf", ".hidden", "ä", "a b", "a\\b", "a'b", &long] {
            assert!(brick(&BrickName::new(bad)).is_err(), "{bad:?}");
            assert!(pool(&PoolName::new(bad)).is_err(), "{bad:?}");
        }
    }
}
