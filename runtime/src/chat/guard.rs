//! Makes a template check itself and compute as Python does: expressions are rewritten
//! (`expression.rs`), and after every tag that binds names a call of [`BOUND`] with these names is
//! inserted. Everything else stays, so the lines of errors are those of the template.

use super::expression::{EXTRA, Malformed, Parser, Variadic};
use super::lexer::quoted;
use super::limits::BOUND;

/// Longest template in bytes; published ones have up to 50 KiB.
const LONGEST: usize = 256 << 10;
/// `elif` in a template, which the interpreter nests on the stack.
const MOST_BRANCHES: usize = 256;

/// The template with its expressions rewritten and a check after each tag that binds names.
///
/// The tags `generation`, with which some templates mark what to train on, become `with`: names
/// that are bound between them end there, as in transformers.
pub(super) fn guard(source: &str) -> Result<String, String> {
    if source.len() > LONGEST {
        return Err(format!(
            "a template of {} bytes: expected at most {LONGEST}",
            source.len()
        ));
    }
    // Like Jinja2, which knows one kind of line ends.
    let source = &*source.replace("\r\n", "\n").replace('\r', "\n");
    // Calls are written when it is known which macros take more arguments than parameters.
    let (text, found) = rewritten(source, &Variadic::new())?;
    match found.is_empty() {
        true => Ok(text),
        false => rewritten(source, &found).map(|(text, _)| text),
    }
}

/// The template, and its macros that take more arguments than parameters.
fn rewritten(source: &str, variadic: &Variadic) -> Result<(String, Variadic), String> {
    let mut guard = Guard {
        source,
        out: String::with_capacity(source.len() * 2),
        captures: Vec::new(),
        branches: 0,
        variadic,
        macros: Vec::new(),
        found: Variadic::new(),
    };
    let mut at = 0;
    while let Some(start) = opening(&source[at..]) {
        guard.out += &source[at..at + start];
        at = guard.tag(at + start)?;
    }
    match guard.branches {
        0..=MOST_BRANCHES => Ok((guard.out + &source[at..], guard.found)),
        branches => Err(format!(
            "{branches} `elif`: expected at most {MOST_BRANCHES}"
        )),
    }
}

/// A macro whose end is not reached.
struct Macro {
    name: String,
    /// Names with commas.
    parameters: String,
    /// Where in the output its parameters end.
    end: usize,
    /// Which of [`EXTRA`] its body reads.
    reads: [bool; 2],
}

struct Guard<'a> {
    source: &'a str,
    out: String,
    /// Names of `{% set name %}` blocks that are open.
    captures: Vec<String>,
    branches: usize,
    variadic: &'a Variadic,
    /// Macros that are open, the innermost last.
    macros: Vec<Macro>,
    found: Variadic,
}

impl Guard<'_> {
    /// Writes the tag or comment that begins at `at`. Returns its end.
    fn tag(&mut self, at: usize) -> Result<usize, String> {
        let rest = &self.source[at..];
        let place = |at: usize, why: String| {
            let before = &self.source[..at];
            let line = before.matches('\n').count() + 1;
            let column = before
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            format!("line {line}, column {column}: {why}")
        };
        if rest.starts_with("{#") {
            let end = rest.find("#}").map_or(rest.len(), |end| end + 2);
            self.out += &rest[..end];
            return Ok(at + end);
        }
        let closing = if rest.starts_with("{{") { "}}" } else { "%}" };
        let length = tag_length(rest, closing).ok_or_else(|| {
            let start: String = rest.chars().take(40).collect();
            place(at, format!("a tag without its end: {start:?}"))
        })?;
        let whole = &rest[..length];
        // The marks of whitespace control belong to the braces.
        let open = 2 + usize::from(whole[2..].starts_with(['-', '+']));
        let close = length - 2;
        let close = close - usize::from(close > open && whole[..close].ends_with(['-', '+']));
        let inner = &whole[open..close];
        let written = match closing {
            "}}" => self.print(inner),
            _ => self.statement(inner),
        };
        let error = |e: Malformed| place(at + open + e.at, e.why);
        let written = written.map_err(error)?;
        if written.is_raw {
            let end = endraw(&rest[length..]);
            let end = end.ok_or_else(|| place(at, "`raw` without `endraw`".into()))?;
            self.out += &rest[..length + end];
            return Ok(at + length + end);
        }
        if let Some(macro_) = self.macros.last_mut().filter(|m| m.end == 0) {
            // Before the closing bracket of the parameters.
            macro_.end = self.out.len() + open + 1 + written.text.len() - 1;
        }
        // Line breaks in the tag, so that the lines of errors stay those of the template.
        let lines = "\n".repeat(inner.matches('\n').count());
        self.out += &format!(
            "{} {}{lines} {}",
            &whole[..open],
            written.text,
            &whole[close..]
        );
        let bound = written.bound;
        if let Some(names) = bound {
            // The check ends with the same whitespace control as the statement.
            self.out += &format!("{{% do {BOUND}({names}) {}", &whole[close..]);
        }
        Ok(at + length)
    }

    /// A statement, `{% … %}`.
    fn statement(&mut self, inner: &str) -> Result<Written, Malformed> {
        let mut parser = Parser::new(inner, self.variadic)?;
        let p = &mut parser;
        let word = p.name()?;
        let mut bound = None;
        let rest = match word {
            "raw" => {
                let is_raw = true;
                return Ok(Written {
                    is_raw,
                    ..Written::plain(word.into())
                });
            }
            "generation" => return Ok(Written::plain("with".into())),
            "endgeneration" => return Ok(Written::plain("endwith".into())),
            "if" | "elif" => {
                self.branches += usize::from(word == "elif");
                p.tuple(true)?
            }
            "for" => {
                let targets = targets(p)?;
                p.expect("in")?;
                let values = p.tuple(false)?;
                let mut text = format!("{targets} in __iter({values})");
                if p.skip("if") {
                    text += &format!(" if {}", p.expression()?);
                }
                text += if p.skip("recursive") {
                    " recursive"
                } else {
                    ""
                };
                bound = Some(targets);
                text
            }
            "set" => {
                let targets = targets(p)?;
                if p.skip("=") {
                    bound = Some(targets.clone());
                    format!("{targets} = {}", p.tuple(true)?)
                } else {
                    self.captures.push(targets.clone());
                    targets + &filters(p)?
                }
            }
            "endset" => {
                bound = self.captures.pop();
                String::new()
            }
            "with" => {
                let (text, names) = assignments(p)?;
                bound = Some(names);
                text
            }
            "macro" => {
                let name = p.name()?;
                let (text, names) = parameters(p)?;
                self.macros.push(Macro {
                    name: name.to_owned(),
                    parameters: names.replace(' ', ""),
                    end: 0,
                    reads: [false; 2],
                });
                bound = Some(names);
                format!("{name}{text}")
            }
            "call" => {
                let (text, names) = match p.is("(") {
                    true => parameters(p)?,
                    false => Default::default(),
                };
                bound = Some(names);
                format!("{text} {}", p.expression()?)
            }
            "filter" => {
                let first = p.filter()?;
                first + &filters(p)?
            }
            "autoescape" if !["false", "False"].iter().any(|no| p.is(no)) => {
                let why = "the tag `autoescape` is not supported".to_owned();
                return Err(Malformed { at: 0, why });
            }
            "autoescape" | "extends" | "include" | "import" | "from" | "block" => {
                return Ok(Written::plain(inner.trim().to_owned()));
            }
            "endmacro" => {
                self.end_macro();
                return Ok(Written::plain(inner.trim().to_owned()));
            }
            // `else`, `endif`, `endblock name`, `break` and so on, or an unknown word.
            _ if p.end().is_err() => {
                return Ok(Written::plain(inner.trim().to_owned()));
            }
            _ => String::new(),
        };
        p.end()?;
        let reads = p.reads;
        self.read(reads);
        let text = format!("{word} {rest}");
        let is_raw = false;
        Ok(Written {
            text,
            bound,
            is_raw,
        })
    }
}

impl Guard<'_> {
    /// Notes what a tag reads of what a macro gets beyond its parameters.
    fn read(&mut self, reads: [bool; 2]) {
        for macro_ in &mut self.macros {
            let parameters: Vec<&str> = macro_.parameters.split(',').collect();
            for ((is, reads), extra) in macro_.reads.iter_mut().zip(reads).zip(EXTRA) {
                *is |= reads && !parameters.contains(&extra);
            }
        }
    }

    /// Gives a macro that reads more than its parameters these as parameters.
    fn end_macro(&mut self) {
        let Some(macro_) = self.macros.pop().filter(|m| m.reads.contains(&true)) else {
            return;
        };
        let defaults = ["varargs=()", "kwargs={}"].iter().zip(macro_.reads);
        let mut more: Vec<&str> = defaults
            .filter(|(_, is)| *is)
            .map(|(text, _)| *text)
            .collect();
        if !macro_.parameters.is_empty() {
            more.insert(0, "");
        }
        self.out.insert_str(macro_.end, &more.join(", "));
        let caught: Vec<&str> = EXTRA
            .into_iter()
            .zip(macro_.reads)
            .filter_map(|(extra, is)| is.then_some(extra))
            .collect();
        let described = format!("{};{}", macro_.parameters, caught.join(","));
        self.found.insert(macro_.name, described);
    }

    /// An expression that is printed, `{{ … }}`.
    fn print(&mut self, inner: &str) -> Result<Written, Malformed> {
        let mut p = Parser::new(inner, self.variadic)?;
        let text = p.tuple(true)?;
        p.end()?;
        let reads = p.reads;
        self.read(reads);
        Ok(Written::plain(text))
    }
}

/// What a tag becomes, and the names that it binds.
struct Written {
    text: String,
    bound: Option<String>,
    /// Whether text follows that looks like tags, up to `endraw`.
    is_raw: bool,
}

impl Written {
    fn plain(text: String) -> Written {
        Written {
            text,
            bound: None,
            is_raw: false,
        }
    }
}

/// The targets of an assignment or of a loop: names, attributes of a namespace, tuples.
fn targets(p: &mut Parser) -> Result<String, Malformed> {
    let mut names = Vec::new();
    let mut is_tuple = false;
    loop {
        if p.skip("(") {
            names.push(format!("({})", targets(p)?));
            p.expect(")")?;
        } else {
            let mut name = p.name()?.to_owned();
            while p.skip(".") {
                name += ".";
                name += p.attribute()?;
            }
            names.push(name);
        }
        if !p.skip(",") {
            break;
        }
        is_tuple = true;
        if p.is("in") || p.is("=") || p.is(")") {
            break;
        }
    }
    match (is_tuple, names.len()) {
        (true, 1) => Ok(names.remove(0) + ","),
        _ => Ok(names.join(", ")),
    }
}

/// Filters of a block, such as `| upper | trim`.
fn filters(p: &mut Parser) -> Result<String, Malformed> {
    let mut text = String::new();
    while p.skip("|") {
        text += &format!(" | {}", p.filter()?);
    }
    Ok(text)
}

/// The assignments of `with`, and their names.
fn assignments(p: &mut Parser) -> Result<(String, String), Malformed> {
    let (mut text, mut names) = (Vec::new(), Vec::new());
    while p.end().is_err() {
        if !names.is_empty() {
            p.expect(",")?;
        }
        let name = p.name()?;
        p.expect("=")?;
        text.push(format!("{name} = {}", p.expression()?));
        names.push(name);
    }
    Ok((text.join(", "), names.join(", ")))
}

/// The parameters of a macro in brackets with their defaults, and their names.
fn parameters(p: &mut Parser) -> Result<(String, String), Malformed> {
    let (mut text, mut names) = (Vec::new(), Vec::new());
    p.expect("(")?;
    while !p.skip(")") {
        if !names.is_empty() {
            p.expect(",")?;
            if p.skip(")") {
                break;
            }
        }
        let name = p.name()?;
        names.push(name);
        text.push(match p.skip("=") {
            true => format!("{name}={}", p.expression()?),
            false => name.to_owned(),
        });
    }
    Ok((format!("({})", text.join(", ")), names.join(", ")))
}

/// Place of the next tag or comment.
fn opening(text: &str) -> Option<usize> {
    let mut braces = text.match_indices('{').map(|(at, _)| at);
    braces.find(|at| text[at + 1..].starts_with(['{', '%', '#']))
}

/// Length of the tag that a text begins with; strings and brackets in it may contain its end.
fn tag_length(text: &str, closing: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (2, 0i32);
    while at < bytes.len() {
        match bytes[at] {
            _ if depth <= 0 && bytes[at..].starts_with(closing.as_bytes()) => return Some(at + 2),
            b'\'' | b'"' => at += quoted(&text[at..])? - 1,
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Length of the text before `{% endraw %}`.
fn endraw(text: &str) -> Option<usize> {
    let is_end = |at: &usize| {
        let tag = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        tag.starts_with("endraw")
    };
    text.match_indices("{%").map(|(at, _)| at).find(is_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_bind_names_check_them() {
        let check = |source: &str, expected: &str| assert_eq!(guard(source).unwrap(), expected);
        check(
            "a {{b}} {# {% set x = 1 %} #}",
            "a {{ b }} {# {% set x = 1 %} #}",
        );
        check(
            "{%- set x=1 -%} a",
            "{%- set x = 1 -%}{% do __bound(x) -%} a",
        );
        check(
            "{% set n.x = '%}' + y %}",
            r#"{% set n.x = __arith("%}", "+", y) %}{% do __bound(n.x) %}"#,
        );
        check(
            "{% for a, b in c.items() if a %}",
            "{% for a, b in __iter(__method(c, \"items\")) if a %}{% do __bound(a, b) %}",
        );
        check(
            "{% set x | trim %}a{% endset %}",
            "{% set x | trim %}a{% endset  %}{% do __bound(x) %}",
        );
        check(
            "{% macro m(a, b='(,', c=[1, 2]) %}",
            "{% macro m(a, b=\"(,\", c=[1, 2]) %}{% do __bound(a, b, c) %}",
        );
        check(
            "{% call(a) m(1) %}{% endcall %}",
            "{% call (a) m(1) %}{% do __bound(a) %}{% endcall  %}",
        );
        check(
            "{% with a=1, b = 2 %}",
            "{% with a = 1, b = 2 %}{% do __bound(a, b) %}",
        );
        check(
            "{%- generation %}a{% endgeneration -%}",
            "{%- with %}a{% endwith -%}",
        );
        check(
            "{% raw %}{% set x = 1 %}{%- endraw %}",
            "{% raw %}{% set x = 1 %}{%- endraw  %}",
        );
        check("{{ {'a': {'b': 1}} }}", r#"{{ {"a": {"b": 1}} }}"#);
        check("{% if\na %}", "{% if a\n %}");
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        let check = |source: &str, expected: &str| {
            let why = guard(source).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check("a\n b {{ 1 + }}", "line 2, column 11: expected a value");
        check("{% set __bound = 1 %}", "taken");
        check("{% if 'a", "without its end");
        check("{% raw %}", "endraw");
        check("{% for x of y %}", "expected `in`, found `of`");
        check(&"a".repeat(LONGEST + 1), "at most");
        check(
            &format!("{{{{ a{} }}}}", ".a".repeat(300)),
            "more than 256 operators",
        );
    }
}
