//! What this machine has seen of a brick's leases. It outlives every process here, so that a message that comes late cannot mount a brick again
//! after its lease has ended.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{BrickError, durable};

/// The leases seen of one brick. Both numbers only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The last one that was allowed to mount; 0: none yet.
    pub held: u64,
    /// The last one that ended: it and all before it are over.
    pub released: u64,
}

impl Lease {
    /// The lease that makes `epoch` void; `None` when `epoch` may mount.
    pub fn later_than(self, epoch: u64) -> Option<u64> {
        (epoch <= self.released || epoch < self.held).then(|| self.released.max(self.held))
    }

    /// What both have seen.
    pub fn or(self, other: Lease) -> Lease {
        Lease { held: self.held.max(other.held), released: self.released.max(other.released) }
    }

    /// Reads the file; one that is missing says that nothing was seen.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read(path: &Path) -> Result<Lease, BrickError> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                BrickError::Refused(format!(
                    "{} is damaged ({error}): make sure that nothing uses the brick, then remove this file",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lease::default()),
            Err(error) => Err(BrickError::io(format!("cannot read {}", path.display()), error)),
        }
    }

    /// Writes the file durably.
    ///
    /// # Errors
    /// As the file system says; then nothing has changed.
    pub fn write(self, path: &Path) -> Result<(), BrickError> {
        let text = serde_json::to_vec(&self).unwrap_or_default();
        durable::write(path, &text).map_err(|error| BrickError::io(format!("cannot write {}", path.display()), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_ended_or_was_overtaken_is_void() {
        let check = |held, released, epoch, expected| {
            assert_eq!(Lease { held, released }.later_than(epoch), expected, "held {held}, released {released}, asked {epoch}");
        };
        check(0, 0, 1, None);
        check(3, 0, 3, None);
        check(3, 0, 4, None);
        check(3, 0, 2, Some(3));
        check(3, 3, 3, Some(3));
        check(3, 5, 4, Some(5));
        check(3, 5, 5, Some(5));
        check(3, 5, 6, None);
    }

    #[test]
    fn a_damaged_file_is_named_and_a_missing_one_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.epoch");
        assert_eq!(Lease::read(&path).unwrap(), Lease::default());
        Lease { held: 7, released: 6 }.write(&path).unwrap();
        assert_eq!(Lease::read(&path).unwrap(), Lease { held: 7, released: 6 });
        std::fs::write(&path, "{\"held\":").unwrap();
        assert!(Lease::read(&path).unwrap_err().to_string().contains("x.epoch is damaged"));
    }
}
