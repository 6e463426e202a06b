//! The hashes by which the hub identifies contents: SHA-256 for files in large storage, git's SHA-1
//! of `blob <size>\0<content>` for the others. The same hash is the name of the blob in the cache.

use sha1::Sha1;
use sterna_ternary::sha256::{Digest, Sha256, hex};

use super::name::is_lower_hex;

/// 64 hex digits of SHA-256 or 40 of a git blob; safe as a file name.
#[derive(Debug, Clone, PartialEq)]
pub struct Hash(String);

impl Hash {
    /// The hash that an `ETag` header or a listing gives; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Hash> {
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let is_hash = matches!(text.len(), 40 | 64) && is_lower_hex(text);
        is_hash.then(|| Hash(text.to_owned()))
    }

    /// Its hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hasher of this kind, for a content of `size` bytes.
    pub fn hasher(&self, size: u64) -> Hasher {
        match self.0.len() {
            64 => Hasher::Sha256(Sha256::new()),
            _ => Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Git(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Hash {
        Hash(match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Git(hasher) => hex(&hasher.finalize()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        let check = |expected: &str, content: &str| {
            let hash = Hash::parse(expected).unwrap();
            let mut hasher = hash.hasher(content.len() as u64);
            hasher.update(content.as_bytes());
            assert_eq!(hasher.finish(), hash);
        };
        // `git hash-object` and `sha256sum` of the same contents.
        check("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "");
        check("ce013625030ba8dba906f756967f9e9ca394464a", "hello\n");
        check(
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "hello\n",
        );
    }

    #[test]
    fn headers_are_unquoted_and_nothing_else_passes() {
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for text in [git.to_owned(), format!("\"{git}\""), format!("W/\"{git}\"")] {
            assert_eq!(Hash::parse(&text).unwrap().as_str(), git);
        }
        for text in [
            "",
            "\"abc-2\"",
            &git[1..],
            &git.to_uppercase(),
            "../../../../etc/passwd",
        ] {
            assert_eq!(Hash::parse(text), None);
        }
    }
}
