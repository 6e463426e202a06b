//! SHA-256 of bytes and files as lower-case hexadecimal.
//!
//! The crate sha2 computes the sums. The hexadecimal digits are one line, which does not justify
//! another dependency.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use sha2::{Digest, Sha256};

/// Lower-case hexadecimal digits, two per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-256 of `bytes` in hexadecimal.
pub fn of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file in hexadecimal. The file is read in chunks of 1 MiB.
pub fn of_file(path: &Path) -> io::Result<String> {
    let (mut sum, mut file) = (Sha256::new(), File::open(path)?);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&sum.finalize())),
            read => sum.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_files_have_the_sums_of_sha256sum() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(of(bytes), expected);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(of_file(file.path()).unwrap(), expected);
        };
        check(
            b"",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
        check(
            b"abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        );
        check(
            &vec![b'a'; 3 << 20],
            "6f850bc94ae6f7de14297c01616c36d712d22864497b28a63b81d776b035e656",
        );
    }
}
