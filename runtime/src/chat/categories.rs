//! Kinds of characters as Python's `str` tells them apart. They follow general categories of
//! Unicode; Rust's methods follow other properties, which some marks and numbers have too.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// Characters in ranges, in order.
struct Ranges {
    /// A class of the syntax of regular expressions.
    class: &'static str,
    ranges: OnceLock<Vec<(char, char)>>,
}

impl Ranges {
    const fn of(class: &'static str) -> Ranges {
        let ranges = OnceLock::new();
        Ranges { class, ranges }
    }

    fn contains(&self, c: char) -> bool {
        let ranges = self.ranges.get_or_init(|| parsed(self.class));
        let at = ranges.partition_point(|(_, end)| *end < c);
        ranges.get(at).is_some_and(|(start, _)| *start <= c)
    }
}

fn parsed(class: &str) -> Vec<(char, char)> {
    let parsed = regex_syntax::parse(class).expect("the classes are those of this file");
    match parsed.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().map(|r| (r.start(), r.end())).collect()
        }
        _ => unreachable!("the pattern is a class"),
    }
}

/// `str.isalpha`: letters, without marks and without numbers that look like letters.
pub(super) fn is_alpha(c: char) -> bool {
    static LETTERS: Ranges = Ranges::of(r"\p{L}");
    LETTERS.contains(c)
}

/// Letters that are large and small, such as `ǅ`.
pub(super) fn is_title(c: char) -> bool {
    static TITLES: Ranges = Ranges::of(r"\p{Lt}");
    TITLES.contains(c)
}

/// `str.islower`: small letters, and no others that have a size.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

/// `str.isupper`: large letters, and no others that have a size.
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

/// `str.isdecimal`: the digits from 0 to 9 of all scripts.
pub(super) fn is_decimal(c: char) -> bool {
    static DECIMALS: Ranges = Ranges::of(r"\p{Nd}");
    DECIMALS.contains(c)
}

/// `str.isdigit`: also digits that are raised, lowered or in circles.
pub(super) fn is_digit(c: char) -> bool {
    static OTHERS: Ranges = Ranges::of(
        r"(?x)[
        \u{b2}-\u{b3}\u{b9}\u{1369}-\u{1371}\u{19da}\u{2070}\u{2074}-\u{2079}
        \u{2080}-\u{2089}\u{2460}-\u{2468}\u{2474}-\u{247c}\u{2488}-\u{2490}\u{24ea}
        \u{24f5}-\u{24fd}\u{24ff}\u{2776}-\u{277e}\u{2780}-\u{2788}\u{278a}-\u{2792}
        \u{10a40}-\u{10a43}\u{10e60}-\u{10e68}\u{11052}-\u{1105a}\u{1f100}-\u{1f10a}
        ]",
    );
    is_decimal(c) || OTHERS.contains(c)
}

/// `str.isnumeric`: also fractions, Roman numbers and the Chinese characters that are numbers.
pub(super) fn is_numeric(c: char) -> bool {
    static NUMBERS: Ranges = Ranges::of(
        r"(?x)[\p{N}
        \u{3405}\u{3483}\u{382a}\u{3b4d}\u{4e00}\u{4e03}\u{4e07}\u{4e09}\u{4e5d}
        \u{4e8c}\u{4e94}\u{4e96}\u{4ebf}-\u{4ec0}\u{4edf}\u{4ee8}\u{4f0d}\u{4f70}
        \u{5104}\u{5146}\u{5169}\u{516b}\u{516d}\u{5341}\u{5343}-\u{5345}\u{534c}
        \u{53c1}-\u{53c4}\u{56db}\u{58f1}\u{58f9}\u{5e7a}\u{5efe}-\u{5eff}
        \u{5f0c}-\u{5f0e}\u{5f10}\u{62fe}\u{634c}\u{67d2}\u{6f06}\u{7396}\u{767e}
        \u{8086}\u{842c}\u{8cae}\u{8cb3}\u{8d30}\u{9621}\u{9646}\u{964c}\u{9678}
        \u{96f6}\u{f96b}\u{f973}\u{f978}\u{f9b2}\u{f9d1}\u{f9d3}\u{f9fd}\u{20001}
        \u{20064}\u{200e2}\u{20121}\u{2092a}\u{20983}\u{2098c}\u{2099c}\u{20aea}
        \u{20afd}\u{20b19}\u{22390}\u{22998}\u{23b1b}\u{2626d}\u{2f890}
        ]",
    );
    NUMBERS.contains(c)
}

/// `str.isalnum`, and the characters of words of `re` but for `_`.
pub(super) fn is_alnum(c: char) -> bool {
    is_alpha(c) || is_numeric(c)
}

/// `str.isprintable`: what `repr` writes as it is.
pub(super) fn is_printable(c: char) -> bool {
    static HIDDEN: Ranges = Ranges::of(r"[\p{C}\p{Z}]");
    c == ' ' || !HIDDEN.contains(c)
}

/// `str.isidentifier`: a name of Python.
pub(super) fn is_identifier(text: &str) -> bool {
    static STARTS: Ranges = Ranges::of(r"[_\p{XID_Start}]");
    static PARTS: Ranges = Ranges::of(r"\p{XID_Continue}");
    text.starts_with(|c| STARTS.contains(c)) && text.chars().all(|c| PARTS.contains(c))
}
