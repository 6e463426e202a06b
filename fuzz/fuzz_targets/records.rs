//! Rows of a Parquet file, and the elements of a JSON list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_datasets::records::records;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    for name in ["data.parquet", "data.json"] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("room for temporary files");
        let records = records(&[path]).expect("the file is there");
        records.take(1000).for_each(drop);
    }
});
