//! The pages that people see, each one document without requests to other hosts: the chat, and the
//! curves of a run that is trained.
//!
//! [`page`] puts the files of the chat together. Comments and indentation stay behind, so that
//! the document is small. The policy names the hashes of its script and style: the browser runs
//! nothing else, not even if the text of a model got into the document as HTML.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sterna_ternary::sha256::{Digest, Sha256};

const DOCUMENT: &str = include_str!("index.html");
const LIVE: &str = include_str!("live.html");
const STYLE: &str = include_str!("style.css");
/// Later files use what earlier ones define.
const SCRIPTS: [&str; 10] = [
    include_str!("tree.js"),
    include_str!("store.js"),
    include_str!("markdown.js"),
    include_str!("tokens.js"),
    include_str!("request.js"),
    include_str!("errors.js"),
    include_str!("api.js"),
    include_str!("chat.js"),
    include_str!("messages.js"),
    include_str!("main.js"),
];

/// A document and what it may do.
#[derive(Debug)]
pub struct Page {
    /// The document.
    pub html: String,
    /// The value of the header `Content-Security-Policy`.
    pub policy: String,
}

/// The page.
pub fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(assembled);
    &PAGE
}

/// The page that shows a run while it is trained.
pub fn live() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page::of(LIVE.into()));
    &PAGE
}

fn assembled() -> Page {
    let (style, script) = (without_comments(STYLE), without_comments(&SCRIPTS.concat()));
    let html = without_comments(DOCUMENT)
        .replace("<style></style>", &format!("<style>{style}</style>"))
        .replace("></script>", &format!(">{script}</script>"));
    Page::of(html)
}

impl Page {
    /// A document with one style and one script, which may do what these two do and nothing else.
    fn of(html: String) -> Page {
        let hash_of = |tag, end| hash(inside(&html, tag, end).expect("the document has it"));
        let (style, script) = (
            hash_of("<style", "</style>"),
            hash_of("<script", "</script>"),
        );
        let policy = format!(
            "default-src 'none'; connect-src 'self'; img-src data:; style-src {style}; \
             script-src {script}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        Page { html, policy }
    }
}

/// The text of the first element of a kind.
fn inside<'a>(html: &'a str, tag: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(tag)?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once(end).map(|(text, _)| text)
}

/// The lines that are code. A comment has lines of its own.
fn without_comments(source: &str) -> String {
    let lines = source.lines().map(str::trim);
    let is_comment = |line: &&str| line.starts_with("//") || line.starts_with("/*");
    let code = lines.filter(|line| !line.is_empty() && !is_comment(line));
    code.flat_map(|line| [line, "\n"]).collect()
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_whole() {
        let html = &page().html;
        assert!(html.len() <= 60_000, "{} bytes", html.len());
        for (tag, end) in [
            ("<style>", "</style>"),
            ("<script type=\"module\">", "</script>"),
        ] {
            assert_eq!(html.matches(tag).count(), 1, "{tag}");
            assert_eq!(html.matches(end).count(), 1, "{end}");
        }
        assert!(html.contains("\nstart();\n</script>") && html.contains("color-scheme"));
    }

    #[test]
    fn the_pages_name_no_other_host() {
        for Page { html, .. } in [page(), live()] {
            // A name of SVG, which nothing is loaded from.
            let html = html.replace("\"http://www.w3.org/2000/svg\"", "");
            for address in ["://", "\"//", "'//", "`//", "@import", "url("] {
                assert!(!html.contains(address), "{address}");
            }
            let mut loaded = html
                .match_indices(" src=")
                .chain(html.match_indices(" href="));
            let is_here = |(at, name): (usize, &str)| {
                let value = &html[at + name.len()..];
                value.starts_with("\"data:,\"")
            };
            assert!(loaded.all(is_here));
        }
    }

    #[test]
    fn texts_cannot_become_code() {
        check_texts_are_texts(page(), "<script type=\"module\">");
        check_texts_are_texts(live(), "<script>");
    }

    fn check_texts_are_texts(Page { html, policy }: &Page, script: &str) {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!html.contains(way), "{way}");
        }
        for attribute in [" style=\"", " onclick=\"", " onload=\"", "javascript:"] {
            assert!(!html.contains(attribute), "{attribute}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        for (tag, end, directive) in [
            ("<style>", "</style>", "style-src"),
            (script, "</script>", "script-src"),
        ] {
            let (_, rest) = html.split_once(tag).unwrap();
            let (text, _) = rest.split_once(end).unwrap();
            let allowed = format!("; {directive} {};", hash(text));
            assert!(policy.contains(&allowed), "{allowed} in {policy}");
        }
    }
}
