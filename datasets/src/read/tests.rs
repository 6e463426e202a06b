use std::fs;
use std::path::Path;

use super::*;

fn read(files: &[(&str, &[u8])], separator: Option<&str>) -> Vec<Result<String, String>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let paths = [folder.path().to_owned()];
    let options = ReadOptions {
        separator: separator.map(str::to_owned),
        column: None,
    };
    let documents = documents(&paths, &options).unwrap();
    let shown = |error: Error| {
        error
            .to_string()
            .replace(folder.path().to_str().unwrap(), "")
            .replace('\\', "/")
    };
    documents.map(|document| document.map_err(shown)).collect()
}

fn texts(files: &[(&str, &[u8])], separator: Option<&str>) -> Vec<String> {
    read(files, separator)
        .into_iter()
        .map(|document| document.unwrap())
        .collect()
}

#[test]
fn a_folder_is_walked_in_the_order_of_names() {
    let files: [(&str, &[u8]); 5] = [
        ("b.txt", b"second\n"),
        ("a/z.txt", "first é".as_bytes()),
        (
            "c.jsonl",
            b"{\"text\": \"third\"}\n\n{\"text\": \"fourth\"}",
        ),
        ("notes.rst", b"not read"),
        ("empty.txt", b" \n"),
    ];
    assert_eq!(
        texts(&files, None),
        ["first é", "second\n", "third", "fourth"]
    );
}

#[test]
fn a_separator_splits_txt_files_only() {
    let files: [(&str, &[u8]); 2] = [
        ("a.txt", b"one\ntwo\n---\n---\r\nthree --- four\n---\n"),
        ("b.jsonl", b"{\"text\":\"---\"}"),
    ];
    assert_eq!(
        texts(&files, Some("---")),
        ["one\ntwo\n", "three --- four\n", "---"]
    );
}

#[test]
fn the_three_kinds_of_records() {
    let lines = "\u{feff}{\"text\": \"a\\nb\", \"other\": 1}\n\
        {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, \
                        {\"role\": \"assistant\", \"content\": \"Hello\"}]}\n\
        {\"prompt\": \"2+2=\", \"completion\": \"4\"}\n";
    let expected = ["a\nb", "User: Hi\nAssistant: Hello\n", "2+2=4"];
    assert_eq!(texts(&[("a.jsonl", lines.as_bytes())], None), expected);
}

#[test]
fn line_breaks_and_marks_of_windows_change_no_record() {
    let lines =
        "\u{feff}{\"text\": \"a\"}\r\n\r\n{\"prompt\": \"2+2=\", \"completion\": \"4\"}\r\n";
    assert_eq!(
        texts(&[("a.jsonl", lines.as_bytes())], None),
        ["a", "2+2=4"]
    );
    for mark in [b"\xff\xfe{\0", b"\xfe\xff\0{"] {
        for name in ["a.jsonl", "a.txt"] {
            let found = read(&[(name, &mark[..])], None);
            assert_eq!(found.len(), 1);
            let error = found[0].as_ref().unwrap_err();
            assert!(error.contains("UTF-16") && error.contains(name), "{error}");
        }
    }
}

#[test]
fn errors_name_file_and_line_and_reading_goes_on() {
    let lines = b"{\"text\": 1}\n{\"text\": \"good\"}\nnot json\n[]\n{\"prompt\": \"p\"}\n\
        {\"messages\": 3}\n{\"messages\": [{\"role\": \"user\"}]}\n\xff\n{\"text\": \"end\"}";
    let found = read(&[("a.jsonl", lines)], None);
    let check = |position: usize, line: &str, reason: &str| {
        let error = found[position].as_ref().unwrap_err();
        assert!(
            error.contains("/a.jsonl") && error.contains(line),
            "{error}"
        );
        assert!(error.contains(reason), "{error}");
    };
    check(0, "line 1:", "`text` is not a string");
    assert_eq!(found[1].as_deref(), Ok("good"));
    check(2, "line 3:", "expected");
    check(3, "line 4:", "none of these keys");
    check(4, "line 5:", "no `completion`");
    check(5, "line 6:", "not a list");
    check(6, "line 7:", "no `content`");
    check(7, "line 8:", "UTF-8");
    assert_eq!(found[8].as_deref(), Ok("end"));
    assert_eq!(found.len(), 9);
}

#[test]
fn bad_records_and_records_without_text_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let tolerant = |lines: &[&str], is_strict: bool| {
        fs::write(&path, lines.join("\n")).unwrap();
        let paths = [path.clone()];
        let mut parts = parts(&paths, &ReadOptions::default())
            .unwrap()
            .tolerant(is_strict);
        let texts = parts.by_ref().map(|part| part.map(|part| part.text));
        let texts = texts.collect::<Result<Vec<_>>>().map_err(|e| e.to_string());
        (texts, parts.warnings(), parts.left_out())
    };
    let mut lines = vec![r#"{"text": "a", "score": NaN}"#; 20];
    lines[3] = r#"{"text": null}"#;
    lines[4] = r#"{"text": null, "prompt": "half \ud83d", "completion": "!"}"#;
    lines[5] = "nothing";
    let (texts, warnings, left_out) = tolerant(&lines, false);
    let texts = texts.unwrap();
    assert_eq!((texts.len(), texts[3].as_str()), (18, "half \u{fffd}!"));
    assert!(
        warnings[0].starts_with("1 of 19 records cannot be used"),
        "{warnings:?}"
    );
    assert_eq!(warnings[1], "1 records have no text and were left out");
    assert!(
        warnings[2].starts_with("18 records have NaN"),
        "{warnings:?}"
    );
    assert_eq!(left_out, 2);
    assert!(tolerant(&lines, true).0.unwrap_err().contains("line 6"));
    lines[6] = "nothing";
    let error = tolerant(&lines, false).0.unwrap_err();
    assert!(
        error.starts_with("2 of 19 records cannot be used"),
        "{error}"
    );
    let book = folder.path().join("a.txt");
    fs::write(&book, b"good\n\xff\n").unwrap();
    let mut parts = parts(&[book], &ReadOptions::default())
        .unwrap()
        .tolerant(false);
    assert!(parts.any(|part| matches!(part, Err(Error::NotUtf8 { .. }))));
}

#[test]
fn rows_of_parquet_are_read_like_lines_of_jsonl() {
    let fixtures = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/parquet"
    ));
    let read = |name: &str| -> Vec<Result<String, String>> {
        let documents = documents(&[fixtures.join(name)], &ReadOptions::default()).unwrap();
        let shown = |error: Error| error.to_string().replace(", line ", ", record ");
        documents.map(|document| document.map_err(shown)).collect()
    };
    // Rows whose text is null are left out.
    let found = read("zstd.parquet");
    assert_eq!(found.iter().filter(|document| document.is_ok()).count(), 27);
    assert_eq!(found.len(), 27);
    let lines = read("rows.jsonl").into_iter();
    let lines = lines.map(|line| line.map_err(|e| e.replace("rows.jsonl", "zstd.parquet")));
    assert_eq!(lines.collect::<Vec<_>>(), found);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Uncompressed;
    ruzstd::encoding::compress_to_vec(bytes, level)
}

#[test]
fn packed_files_are_read_and_damaged_ones_named() {
    let lines = b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    // Several members, as `pigz` and `cat` write them, and a frame that readers skip.
    let two = [gzip(b"one\n"), gzip(b"two")].concat();
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let frames = [zstd(&lines[..20]), skipped.to_vec(), zstd(&lines[20..])].concat();
    let list = gzip(b"[{\"text\": \"in a list\"}]");
    let files: [(&str, &[u8]); 7] = [
        ("a.jsonl.gz", &gzip(lines)),
        ("b.jsonl.zst", &frames),
        ("c.ndjson", lines),
        ("d.json.gz", &list),
        ("e.txt.gz", &two),
        ("f.md", b"# Terns"),
        ("g.JSONL.ZST", &zstd(lines)),
    ];
    let pair = ["one", "two"];
    let expected = [
        &pair[..],
        &pair,
        &pair,
        &["in a list", "one\ntwo", "# Terns"],
        &pair,
    ];
    assert_eq!(texts(&files, None), expected.concat());
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 6].to_vec();
    for (name, bytes) in [
        ("a.jsonl.gz", cut(gzip(lines))),
        ("a.jsonl.zst", cut(zstd(lines))),
    ] {
        let found = read(&[(name, &bytes)], None);
        let error = found.last().unwrap().as_ref().unwrap_err();
        assert!(
            error.contains(name) && error.contains("cannot read"),
            "{error}"
        );
    }
}

#[test]
fn hidden_files_are_not_data_and_others_are_left_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a.jsonl",
        ".a.jsonl",
        "._a.jsonl",
        ".git/b.txt",
        ".ipynb_checkpoints/a-checkpoint.txt",
        "data.csv",
        "sub/README.md",
        "sub/config.json",
        "sub/notes.md",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"text\": \"seen\"}").unwrap();
    }
    let parts = parts(&[folder.path().to_owned()], &ReadOptions::default()).unwrap();
    let names = |paths: &[PathBuf]| -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.iter().map(name).collect()
    };
    let expected = ["data.csv", "README.md", "config.json"];
    assert_eq!(names(parts.left_out()), expected);
    assert!(left_out(parts.left_out()).unwrap().contains("data.csv"));
    assert_eq!(left_out(&[]), None);
    assert_eq!(
        parts.filter(|part| part.as_ref().unwrap().is_last).count(),
        2
    );
    // What is named is read.
    let hidden = [
        folder.path().join(".git"),
        folder.path().join("sub/README.md"),
    ];
    let options = ReadOptions::default();
    assert_eq!(documents(&hidden, &options).unwrap().count(), 2);
}

#[test]
fn a_column_is_picked_and_the_keys_of_a_record_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, r#"{"body": "fn main", "text": 3, "size": 7}"#).unwrap();
    let read = |column: Option<&str>| {
        let options = ReadOptions {
            separator: None,
            column: column.map(str::to_owned),
        };
        let mut documents = documents(std::slice::from_ref(&path), &options).unwrap();
        documents.next().unwrap().map_err(|error| error.to_string())
    };
    assert_eq!(read(Some("body")).unwrap(), "fn main");
    let error = read(Some("code")).unwrap_err();
    assert!(
        error.contains("no `code`, it has `body`, `text`, `size`"),
        "{error}"
    );
    let error = read(None).unwrap_err();
    assert!(
        error.contains("`text` is not a string") && error.contains("--column"),
        "{error}"
    );
}

#[test]
fn long_documents_arrive_in_parts_with_their_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    // Letters of two bytes, so that parts end inside of them; lines and a separator.
    let long = format!("x{}\n{}", "é".repeat(PART), "short\n".repeat(20_000));
    fs::write(&path, format!("one\n--\n{long}--\n \n--\n{long}")).unwrap();
    for packed in [false, true] {
        if packed {
            let bytes = gzip(&fs::read(&path).unwrap());
            fs::write(folder.path().join("a.txt.gz"), bytes).unwrap();
            fs::remove_file(&path).unwrap();
        }
        let options = ReadOptions {
            separator: Some("--".into()),
            column: None,
        };
        let parts = parts(&[folder.path().to_owned()], &options).unwrap();
        let (mut found, mut lengths) = (vec![], vec![]);
        for part in parts.map(Result::unwrap) {
            assert!(part.text.len() < 2 * PART + 4);
            if part.is_first {
                found.push(String::new());
                lengths.push(part.bytes as usize);
            }
            *found.last_mut().unwrap() += &part.text;
        }
        assert!(found == ["one\n", &long, &long]);
        assert_eq!(lengths, [4, long.len(), long.len()]);
    }
}

#[test]
fn missing_empty_and_unknown_inputs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.txt");
    let other = folder.path().join("data.csv");
    let empty = folder.path().join("empty");
    fs::write(&other, b"a,b").unwrap();
    fs::create_dir(&empty).unwrap();
    let open = |path| documents(&[path], &ReadOptions::default()).err();
    assert!(matches!(open(missing), Some(Error::Io { .. })));
    assert!(matches!(open(other), Some(Error::UnknownFormat { .. })));
    assert!(matches!(open(empty), Some(Error::NoInput { .. })));
}
