//! Rows of a Parquet file, and the elements of a JSON list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_datasets::records::records;
use sterna_fuzz::write;

fuzz_target!(|bytes: &[u8]| {
    for name in ["data.parquet", "data.json"] {
        let records = records(&[write(name, bytes)]).expect("the file is there");
        records.take(1000).for_each(drop);
    }
});
