//! Help texts as a terminal of 100 columns shows them.

mod program;

use program::stdout;

/// The verbs of a page, nested ones too, each with its words, like `data generate`.
fn verbs(of: &[&str]) -> Vec<Vec<String>> {
    let page = stdout(&[of, &["-h"]].concat());
    let mut found = Vec::new();
    let sections = page.split("\n\n").filter(|section| {
        // The program's own page has a section per group of verbs, the others have `Commands`.
        let is_usage = section.contains("Usage:") || section.contains("Options:");
        let is_group = !is_usage && of.is_empty() && section.contains(":\n");
        is_group || section.starts_with("Commands:")
    });
    for line in sections.flat_map(|section| section.lines().skip(1)) {
        let name = line.split_whitespace().next().unwrap();
        if name == "help" {
            continue;
        }
        let words = [of, &[name]].concat();
        found.extend(verbs(&words));
        found.push(words.into_iter().map(str::to_owned).collect());
    }
    found
}

/// Descriptions of a page: of a verb, and of its arguments and flags.
fn descriptions(page: &str) -> impl Iterator<Item = &str> {
    let is_entry = |line: &&str| line.starts_with("  ") && !line.trim().starts_with("sterna ");
    let entries = page.lines().skip(1).filter(is_entry);
    let texts = entries.map(|line| {
        let entry = line.trim_start();
        entry.split_once("  ").map_or("", |(_, text)| text.trim())
    });
    page.lines().take(1).chain(texts)
}

#[test]
fn short_help_has_one_line_per_flag() {
    let verbs = verbs(&[]);
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in &verbs {
        let mut args: Vec<&str> = verb.iter().map(String::as_str).collect();
        args.push("-h");
        let page = stdout(&args);
        assert!(!page.contains("Examples:"), "{verb:?}");
        let about = page.lines().next().unwrap();
        assert!(about.chars().count() <= 70, "{verb:?}: {about}");
        for line in page.lines() {
            assert!(line.chars().count() <= 100, "{verb:?}: {line}");
            let indent = line.len() - line.trim_start().len();
            let is_usage = line.trim_start().starts_with("sterna ");
            assert!(indent <= 6 || is_usage, "{verb:?}: {line:?} goes on");
        }
        for text in descriptions(&page) {
            let own = text.split(" [").next().unwrap();
            assert!(own.chars().count() <= 75, "{verb:?}: {own}");
            assert!(!own.is_empty(), "{verb:?}: a flag has no description");
        }
    }
}

#[test]
fn long_lists_of_flags_have_headings() {
    for verb in verbs(&[]) {
        let mut args: Vec<&str> = verb.iter().map(String::as_str).collect();
        args.push("-h");
        let page = stdout(&args);
        for section in page.split("\n\n") {
            let is_flag = |line: &&str| line.trim_start().starts_with('-');
            // Help and version belong to every verb.
            let is_common = |line: &&str| line.contains("--help") || line.contains("--version");
            let flags = section.lines().filter(is_flag).filter(|l| !is_common(l));
            let most = match section.starts_with("Options:") {
                true => 7,
                false => 10,
            };
            let count = flags.count();
            assert!(count <= most, "{verb:?}: {count} flags:\n{section}");
        }
    }
}

#[test]
fn values_that_short_help_leaves_out_are_in_the_long_one() {
    let short = stdout(&["convert", "-h"]);
    let long = stdout(&["convert", "--help"]);
    assert!(!short.contains("q2_0_g128"), "{short}");
    for expected in [
        "- q2_0_g128: The older layout",
        "- hf: ",
        "- i2: Trits",
        "- lossless",
    ] {
        assert!(long.contains(expected), "{expected}: {long}");
    }
    let completions = stdout(&["completions", "bash"]);
    assert!(completions.contains("q2_0_g128"));
}
