//! Keys of clients. Only their sums are kept, so that no log and no dump of memory has them.

use sterna_ternary::sha256::{Digest, Sha256};

/// The keys that clients may use; without any, none is needed.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It is short enough to be guessed.
    #[error("key {0} has fewer than {min} characters; use a longer one", min = SHORTEST)]
    Short(usize),
    /// A header cannot hold it.
    #[error("key {0} has spaces or characters other than ASCII; use letters and digits")]
    Characters(usize),
    /// It is there twice.
    #[error("key {0} is there twice; remove one of them")]
    Twice(usize),
}

/// Least length of a key.
const SHORTEST: usize = 8;

impl Keys {
    /// One key per line; empty lines and lines that begin with # are left out. The position of a
    /// key among them is its index.
    ///
    /// # Errors
    /// [`BadKey`] with the number of the key, counted from 1. The key itself is not told.
    pub fn parse(text: &str) -> Result<Keys, BadKey> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for (line, number) in lines.zip(1..) {
            if line.len() < SHORTEST {
                return Err(BadKey::Short(number));
            }
            if !line.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(BadKey::Characters(number));
            }
            let sum = Sha256::digest(line.as_bytes()).into();
            if keys.contains(&sum) {
                return Err(BadKey::Twice(number));
            }
            keys.push(sum);
        }
        Ok(Keys(keys))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no key is needed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The index of a key. The time does not depend on how much of it is right: sums are compared,
    /// all of them and in full.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let given: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (index, sum) in self.0.iter().enumerate() {
            let difference = sum.iter().zip(&given).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(index);
            }
        }
        found
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_place() {
        let keys = Keys::parse("# of the team\nfirst-key-1\n\n second-key-2 \n").unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.find(b"first-key-1"), Some(0));
        assert_eq!(keys.find(b"second-key-2"), Some(1));
        for wrong in ["", "first-key-", "first-key-12", "# of the team"] {
            assert_eq!(keys.find(wrong.as_bytes()), None);
        }
        assert!(!format!("{keys:?}").contains("first"));
    }

    #[test]
    fn bad_keys_are_refused_by_number() {
        assert_eq!(
            Keys::parse("good-key-1\nshort").unwrap_err(),
            BadKey::Short(2)
        );
        assert_eq!(
            Keys::parse("with spaces").unwrap_err(),
            BadKey::Characters(1)
        );
        let twice = Keys::parse("good-key-1\ngood-key-1").unwrap_err();
        assert_eq!(twice, BadKey::Twice(2));
        assert!(Keys::parse("").unwrap().is_empty());
    }
}
