//! A packed file, with a checksum of its header that fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_fuzz::{read, seal, write};
use sterna_ternary::PackedFile;

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    seal(&mut file);
    let path = write("hostile.sterna", &file);
    let _ = read(&path);
    let _ = PackedFile::open(&path).and_then(|file| file.verify());
});
