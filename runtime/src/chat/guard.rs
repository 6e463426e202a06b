//! Makes a template check itself: after every tag that binds names, it inserts a call of [`BOUND`]
//! with these names. Statements that bind in other ways, and multiplication, which makes much from
//! little, are refused; no published template has them.

use super::limits::BOUND;

/// Longest template in bytes; published ones have up to 20 KiB.
const LONGEST: usize = 256 << 10;
/// Operators in one tag: the interpreter nests them, on the stack.
const MOST_OPERATORS: usize = 256;
/// `elif` in a template, which it nests as well.
const MOST_BRANCHES: usize = 256;

/// The template with a check after each tag that binds names. The tags `generation`, with which
/// some templates mark what to train on, become `if true`.
pub(super) fn guard(source: &str) -> Result<String, String> {
    if source.contains(BOUND) {
        return Err(format!("the name `{BOUND}` is taken"));
    }
    if source.len() > LONGEST {
        return Err(format!(
            "a template of {} bytes: expected at most {LONGEST}",
            source.len()
        ));
    }
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    // Names of `{% set name %}` blocks that are open.
    let mut captures = Vec::new();
    let mut branches = 0;
    while let Some(at) = opening(rest) {
        out += &rest[..at];
        rest = &rest[at..];
        if rest.starts_with("{#") {
            let end = rest.find("#}").map_or(rest.len(), |end| end + 2);
            out += &rest[..end];
            rest = &rest[end..];
            continue;
        }
        // A tag: an expression `{{ … }}` binds nothing, a statement `{% … %}` may.
        let closing = if rest.starts_with("{{") { "}}" } else { "%}" };
        let length = tag(rest, closing)?;
        let whole = &rest[..length];
        rest = &rest[length..];
        if closing == "}}" {
            out += whole;
            continue;
        }
        let statement = whole[2..length - 2].trim_matches(['-', '+']).trim();
        // The inserted check ends with the same whitespace control as the statement.
        let end = match whole.as_bytes()[length - 3] {
            b'-' => "-%}",
            b'+' => "+%}",
            _ => "%}",
        };
        // The keyword decides which names the statement binds.
        let word = statement.split(|c: char| !c.is_alphanumeric()).next();
        let word = word.unwrap_or_default();
        let after = statement[word.len()..].trim();
        let mut bound = None;
        match word {
            // Text that looks like tags, up to `endraw`.
            "raw" => {
                let end = endraw(rest).ok_or("`raw` without `endraw`")?;
                out += whole;
                out += &rest[..end];
                rest = &rest[end..];
                continue;
            }
            "generation" => {
                out += &whole.replacen(word, "if true", 1);
                continue;
            }
            "endgeneration" => {
                out += &whole.replacen(word, "endif", 1);
                continue;
            }
            "with" | "call" => return Err(format!("the statement `{word}` is not supported")),
            "set" => match assignment(after) {
                Some(at) => bound = Some(after[..at].to_owned()),
                None => captures.push(name(after).to_owned()),
            },
            "elif" => branches += 1,
            "endset" => bound = captures.pop(),
            "for" => {
                let at = targets(after).ok_or("`for` without `in`")?;
                bound = Some(after[..at].to_owned());
            }
            "macro" => bound = Some(parameters(after)),
            _ => {}
        }
        out += whole;
        if let Some(names) = bound {
            out += &format!("{{% do {BOUND}({}) {end}", names.trim());
        }
    }
    match branches {
        0..=MOST_BRANCHES => Ok(out + rest),
        _ => Err(format!(
            "{branches} `elif`: expected at most {MOST_BRANCHES}"
        )),
    }
}

/// Place of the next tag or comment.
fn opening(text: &str) -> Option<usize> {
    let mut braces = text.match_indices('{').map(|(at, _)| at);
    braces.find(|at| text[at + 1..].starts_with(['{', '%', '#']))
}

/// Length of the tag that a text begins with, strings in it skipped.
fn tag(text: &str, closing: &str) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut operators) = (2, 0i32, 0);
    while at < bytes.len() {
        match bytes[at] {
            _ if depth <= 0 && bytes[at..].starts_with(closing.as_bytes()) => {
                return match operators {
                    0..=MOST_OPERATORS => Ok(at + 2),
                    _ => Err(format!(
                        "a tag with {operators} operators: expected at most {MOST_OPERATORS}"
                    )),
                };
            }
            quote @ (b'\'' | b'"') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'(' | b'[' | b'{' => {
                depth += 1;
                operators += 1;
            }
            b')' | b']' | b'}' => depth -= 1,
            b'*' => return Err("the operator `*` is not supported".into()),
            b'+' | b'-' | b'~' | b'.' | b'|' | b'/' | b'%' | b'=' | b'<' | b'>' => operators += 1,
            b' ' | b'\n' | b'\t' | b'\r' if is_operator(&text[at + 1..]) => operators += 1,
            _ => {}
        }
        at += 1;
    }
    let start: String = text.chars().take(40).collect();
    Err(format!("a tag without its end: {start:?}"))
}

fn is_operator(text: &str) -> bool {
    let operators = ["not", "and", "or", "is", "in", "if"];
    operators.iter().any(|word| text.starts_with(word))
}

/// Length of the targets of a loop.
fn targets(statement: &str) -> Option<usize> {
    let is_in = |at: &usize| {
        let (before, after) = (&statement[..*at], &statement[at + 2..]);
        before.ends_with(char::is_whitespace) && !after.starts_with(|c: char| c.is_alphanumeric())
    };
    let mut places = statement.match_indices("in").map(|(at, _)| at);
    places.find(is_in)
}

/// Length of the text before `{% endraw %}`.
fn endraw(text: &str) -> Option<usize> {
    let is_end = |at: &usize| {
        let tag = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        tag.starts_with("endraw")
    };
    text.match_indices("{%").map(|(at, _)| at).find(is_end)
}

/// Place of the `=` of an assignment; a block that captures text has none.
fn assignment(statement: &str) -> Option<usize> {
    let at = statement.find(['=', '|'])?;
    (statement.as_bytes()[at] == b'=').then_some(at)
}

fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && !"_.".contains(c));
    &text[..end.unwrap_or(text.len())]
}

/// The parameters of a macro, without their defaults.
fn parameters(signature: &str) -> String {
    let inner = signature.split_once('(').map_or("", |(_, inner)| inner);
    let (mut names, mut depth, mut start, mut quote) = (Vec::new(), 0, 0, None);
    for (at, c) in inner.char_indices() {
        match c {
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => {}
            '\'' | '"' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ',' | ')' if depth == 0 => {
                names.push(name(inner[start..at].trim()));
                start = at + 1;
            }
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_bind_names_check_them() {
        let check = |source: &str, expected: &str| assert_eq!(guard(source).unwrap(), expected);
        check(
            "a {{ b }} {# {% set x = 1 %} #}",
            "a {{ b }} {# {% set x = 1 %} #}",
        );
        check(
            "{%- set x = 1 -%} a",
            "{%- set x = 1 -%}{% do __bound(x) -%} a",
        );
        check(
            "{% set n.x = '%}' + y %}",
            "{% set n.x = '%}' + y %}{% do __bound(n.x) %}",
        );
        check(
            "{% for a, b in c.items() %}",
            "{% for a, b in c.items() %}{% do __bound(a, b) %}",
        );
        check(
            "{% set x %}a{% endset %}",
            "{% set x %}a{% endset %}{% do __bound(x) %}",
        );
        check(
            "{% macro m(a, b='(,', c=[1, 2]) %}",
            "{% macro m(a, b='(,', c=[1, 2]) %}{% do __bound(a, b, c) %}",
        );
        check(
            "{%- generation %}a{% endgeneration -%}",
            "{%- if true %}a{% endif -%}",
        );
        check(
            "{% raw %}{% set x = 1 %}{%- endraw %}",
            "{% raw %}{% set x = 1 %}{%- endraw %}",
        );
        check("{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}} }}");
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        let check = |source: &str, expected: &str| {
            let why = guard(source).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check("{{ 'a' * 9 }}", "`*`");
        check("{% with a = 1 %}{% endwith %}", "`with`");
        check("{% call m() %}{% endcall %}", "`call`");
        check("{% set __bound = 1 %}", "taken");
        check("{% if 'a", "without its end");
        check("{% raw %}", "endraw");
        check(&"a".repeat(LONGEST + 1), "at most");
        check(
            &format!("{{{{ a{} }}}}", " ~ a".repeat(300)),
            "300 operators",
        );
    }
}
