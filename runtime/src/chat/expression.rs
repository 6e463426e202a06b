//! Rewrites the expressions of a template, so that they are computed as Python computes them.
//!
//! The interpreter has operators, subscripts and methods of its own, which differ from Python's
//! and have no limits. The parser here follows the grammar of Jinja2, with its precedences, and
//! writes calls instead: `a * b` becomes `__arith(a, "*", b)`, `m.items()` becomes
//! `__method(m, "items")`. Their functions are in `operators.rs` and `methods.rs`. What has one
//! meaning (names, literals, filters, tests, `and`, `or`, `if`) stays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::lexer::{Kind, Token, lex, unescape};
use super::methods;

/// Functions that rewritten templates call. Templates cannot use these names.
pub(super) const FUNCTIONS: [&str; 12] = [
    "__arith",
    "__attr",
    "__bound",
    "__compare",
    "__concat",
    "__item",
    "__dict",
    "__iter",
    "__method",
    "__sign",
    "__slice",
    "__variadic",
];

/// Levels of expressions in one another: the parsers recurse.
const DEEPEST: usize = 60;
/// Operators of one tag that the interpreter nests in one another, on the stack.
const MOST_OPERATORS: usize = 256;

/// Macros that take more arguments than they have parameters, by name: the parameters, and after a
/// semicolon which of [`EXTRA`] the body reads.
pub(super) type Variadic = BTreeMap<String, String>;

/// What a macro gets beyond its parameters.
pub(super) const EXTRA: [&str; 2] = ["varargs", "kwargs"];

/// What went wrong, and where in the tag: an offset in bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed {
    pub at: usize,
    pub why: String,
}

pub(super) type Result<T> = std::result::Result<T, Malformed>;

/// Reads the inside of a tag.
pub(super) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
    operators: usize,
    variadic: &'a Variadic,
    /// Which of [`EXTRA`] the tag reads.
    pub reads: [bool; 2],
}

pub(super) fn malformed(at: usize, why: impl Into<String>) -> Malformed {
    let why = why.into();
    Malformed { at, why }
}

impl<'a> Parser<'a> {
    pub fn new(source: &'a str, variadic: &'a Variadic) -> Result<Parser<'a>> {
        Ok(Parser {
            tokens: lex(source)?,
            next: 0,
            depth: 0,
            operators: 0,
            variadic,
            reads: [false; 2],
        })
    }

    fn peek(&self) -> Token<'a> {
        self.tokens[self.next]
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    /// Whether the next token is this operator or name.
    pub fn is(&self, text: &str) -> bool {
        let token = self.peek();
        matches!(token.kind, Kind::Operator | Kind::Name) && token.text == text
    }

    /// Whether the token after the next one is this operator or name.
    fn is_second(&self, text: &str) -> bool {
        let token = self.tokens.get(self.next + 1);
        token.is_some_and(|t| t.kind != Kind::Text && t.text == text)
    }

    /// Takes the token if it is the next one, and writes it.
    pub fn skip(&mut self, text: &str) -> bool {
        let is_next = self.is(text);
        if is_next {
            self.take();
        }
        is_next
    }

    pub fn expect(&mut self, text: &str) -> Result<()> {
        match self.skip(text) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{text}`"))),
        }
    }

    /// The tag must be complete.
    pub fn end(&self) -> Result<()> {
        match self.peek().kind {
            Kind::End => Ok(()),
            _ => Err(self.unexpected("the end of the tag")),
        }
    }

    fn unexpected(&self, expected: &str) -> Malformed {
        let token = self.peek();
        let found = match token.kind {
            Kind::End => "the end of the tag".to_owned(),
            _ => format!("`{}`", token.text),
        };
        malformed(token.at, format!("expected {expected}, found {found}"))
    }

    pub fn name(&mut self) -> Result<&'a str> {
        let token = self.peek();
        if token.kind != Kind::Name {
            return Err(self.unexpected("a name"));
        }
        if FUNCTIONS.contains(&token.text) {
            return Err(malformed(
                token.at,
                format!("the name `{}` is taken", token.text),
            ));
        }
        self.take();
        Ok(token.text)
    }

    /// The attribute of a namespace that a tag sets. transformers refuses those with `_` too.
    pub fn attribute(&mut self) -> Result<&'a str> {
        let at = self.peek().at;
        match self.name()? {
            name if name.starts_with('_') => Err(malformed(
                at,
                format!("attribute `{name}`: expected no `_` in front"),
            )),
            name => Ok(name),
        }
    }

    fn nest(&mut self) -> Result<()> {
        self.operators += 1;
        if self.operators > MOST_OPERATORS {
            let why = format!("a tag with more than {MOST_OPERATORS} operators");
            return Err(malformed(self.peek().at, why));
        }
        Ok(())
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let why = format!("expressions lie deeper than {DEEPEST} in one another");
            return Err(malformed(self.peek().at, why));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// A tuple without brackets, or a single expression.
    pub fn tuple(&mut self, with_condition: bool) -> Result<String> {
        let one = |p: &mut Self| match with_condition {
            true => p.expression(),
            false => p.disjunction(),
        };
        let mut items = vec![one(self)?];
        let mut is_tuple = false;
        while self.skip(",") {
            is_tuple = true;
            let ends = [")", "]", "in", "if", "recursive"];
            if self.peek().kind == Kind::End || ends.iter().any(|end| self.is(end)) {
                break;
            }
            items.push(one(self)?);
        }
        Ok(match (is_tuple, items.len()) {
            (false, _) => items.remove(0),
            (true, 1) => format!("({},)", items[0]),
            (true, _) => format!("({})", items.join(", ")),
        })
    }

    pub fn expression(&mut self) -> Result<String> {
        self.deeper(|p| {
            let mut value = p.disjunction()?;
            while p.skip("if") {
                p.nest()?;
                let condition = p.disjunction()?;
                value = match p.skip("else") {
                    true => format!("({value} if {condition} else {})", p.expression()?),
                    false => format!("({value} if {condition})"),
                };
            }
            Ok(value)
        })
    }

    pub fn disjunction(&mut self) -> Result<String> {
        self.chain("or", |p| p.chain("and", Self::negation))
    }

    fn chain(&mut self, word: &str, part: impl Fn(&mut Self) -> Result<String>) -> Result<String> {
        let mut parts = vec![part(self)?];
        while self.skip(word) {
            self.nest()?;
            parts.push(part(self)?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => format!("({})", parts.join(&format!(" {word} "))),
        })
    }

    fn negation(&mut self) -> Result<String> {
        if self.is("not") {
            self.take();
            return self.deeper(|p| Ok(format!("(not {})", p.negation()?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<String> {
        let mut parts = vec![self.sum()?];
        loop {
            let operators = ["==", "!=", "<=", ">=", "<", ">", "in"];
            if let Some(operator) = operators.iter().find(|o| self.is(o)) {
                self.take();
                parts.push(format!("\"{operator}\""));
            } else if self.is("not") && self.is_second("in") {
                self.take();
                self.take();
                parts.push("\"not in\"".into());
            } else {
                break;
            }
            parts.push(self.sum()?);
        }
        Ok(called("__compare", parts))
    }

    /// A chain of operators of one precedence, from left to right.
    fn arithmetic(
        &mut self,
        operators: &[&str],
        part: impl Fn(&mut Self) -> Result<String>,
    ) -> Result<String> {
        let mut parts = vec![part(self)?];
        while let Some(operator) = operators.iter().find(|o| self.is(o)) {
            self.take();
            parts.push(format!("\"{operator}\""));
            parts.push(part(self)?);
        }
        Ok(called("__arith", parts))
    }

    fn sum(&mut self) -> Result<String> {
        self.arithmetic(&["+", "-"], |p| {
            let mut parts = vec![p.product()?];
            while p.skip("~") {
                parts.push(p.product()?);
            }
            Ok(called("__concat", parts))
        })
    }

    fn product(&mut self) -> Result<String> {
        self.arithmetic(&["*", "//", "/", "%"], |p| {
            p.arithmetic(&["**"], |p| p.unary(true))
        })
    }

    fn unary(&mut self, with_filters: bool) -> Result<String> {
        let mut value = match ["-", "+"].iter().find(|sign| self.is(sign)) {
            Some(sign) => {
                self.take();
                let value = self.deeper(|p| p.unary(false))?;
                match value.bytes().all(|b| b.is_ascii_digit()) && *sign == "-" {
                    true => format!("(-{value})"),
                    false => format!("__sign(\"{sign}\", {value})"),
                }
            }
            None => self.primary()?,
        };
        value = self.postfix(value)?;
        match with_filters {
            true => self.filters(value),
            false => Ok(value),
        }
    }

    fn primary(&mut self) -> Result<String> {
        let token = self.peek();
        match token.kind {
            Kind::Name => {
                let name = self.name()?;
                // Words of the grammar are no values.
                let words = ["and", "or", "not", "if", "else", "in", "is"];
                if words.contains(&name) {
                    let why = format!("expected a value, found `{name}`");
                    return Err(malformed(token.at, why));
                }
                for (reads, extra) in self.reads.iter_mut().zip(EXTRA) {
                    *reads |= name == extra;
                }
                // Only the blocks of `self` have a meaning.
                if name == "self" && !self.is(".") {
                    let why = "`self` is not a value here; expected `self.` and a block";
                    return Err(malformed(token.at, why));
                }
                Ok(name.to_owned())
            }
            Kind::Number => {
                self.take();
                Ok(token.text.replace('_', ""))
            }
            Kind::Text => {
                let mut text = String::new();
                while self.peek().kind == Kind::Text {
                    text += &unescape(self.take().text);
                }
                Ok(literal(&text))
            }
            Kind::Operator if token.text == "(" => {
                self.take();
                if self.skip(")") {
                    return Ok("()".into());
                }
                let inner = self.deeper(|p| p.tuple(true))?;
                self.expect(")")?;
                Ok(inner)
            }
            Kind::Operator if token.text == "[" => {
                self.take();
                let items = self.deeper(|p| p.list("]", Self::expression))?;
                Ok(format!("[{items}]"))
            }
            Kind::Operator if token.text == "{" => {
                self.take();
                self.dictionary()
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Items with commas, up to a bracket.
    fn list(&mut self, end: &str, item: impl Fn(&mut Self) -> Result<String>) -> Result<String> {
        let mut items = Vec::new();
        while !self.skip(end) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.skip(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items.join(", "))
    }

    /// A dictionary, after the opening bracket. Keys that may be equal or no keys are checked
    /// later.
    fn dictionary(&mut self) -> Result<String> {
        let (plain, pairs) = (Cell::new(true), RefCell::new(Vec::new()));
        self.deeper(|p| {
            p.list("}", |p| {
                let is_text = p.peek().kind == Kind::Text && p.is_second(":");
                plain.set(plain.get() && is_text);
                let key = p.expression()?;
                p.expect(":")?;
                pairs.borrow_mut().push((key, p.expression()?));
                Ok(String::new())
            })
        })?;
        let written = |(key, value): (String, String)| match plain.get() {
            true => format!("{key}: {value}"),
            false => format!("{key}, {value}"),
        };
        let items: Vec<String> = pairs.into_inner().into_iter().map(written).collect();
        Ok(match plain.get() {
            true => format!("{{{}}}", items.join(", ")),
            false => format!("__dict({})", items.join(", ")),
        })
    }

    /// The arguments of a call, after the opening bracket.
    fn arguments(&mut self) -> Result<String> {
        self.deeper(|p| {
            p.list(")", |p| {
                if p.is("*") || p.is("**") {
                    let stars = p.take().text;
                    return Ok(format!("{stars}{}", p.expression()?));
                }
                if p.peek().kind == Kind::Name && p.is_second("=") {
                    let name = p.name()?;
                    p.take();
                    return Ok(format!("{name}={}", p.expression()?));
                }
                p.expression()
            })
        })
    }

    fn postfix(&mut self, mut value: String) -> Result<String> {
        loop {
            if self.skip(".") {
                self.nest()?;
                if self.peek().kind == Kind::Number {
                    value = format!("__item({value}, {})", self.take().text);
                    continue;
                }
                let name = self.name()?;
                value = match (methods::is_name(name), self.is("(")) {
                    (true, true) => {
                        self.take();
                        let arguments = self.arguments()?;
                        let comma = if arguments.is_empty() { "" } else { ", " };
                        format!("__method({value}, \"{name}\"{comma}{arguments})")
                    }
                    (true, false) => format!("__attr({value}, \"{name}\")"),
                    (false, _) if name.starts_with('_') => {
                        format!("__attr({value}, \"{name}\")")
                    }
                    (false, _) => format!("{value}.{name}"),
                };
            } else if self.skip("[") {
                self.nest()?;
                value = self.deeper(|p| p.subscript(&value))?;
            } else if self.skip("(") {
                self.nest()?;
                let arguments = self.arguments()?;
                value = match self.variadic.get(&value) {
                    None => format!("{value}({arguments})"),
                    Some(macro_) => {
                        let comma = if arguments.is_empty() { "" } else { ", " };
                        format!("{value}(**__variadic(\"{macro_}\"{comma}{arguments}))")
                    }
                };
            } else {
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self, value: &str) -> Result<String> {
        let (mut parts, mut is_slice) = (vec![String::from("none")], false);
        let is_empty = self.is("]");
        while !self.skip("]") {
            if self.skip(":") {
                is_slice = true;
                parts.push("none".into());
                continue;
            }
            let last = parts.last_mut().expect("it begins with one");
            *last = self.tuple(true)?;
        }
        match (is_slice, parts.len()) {
            (false, _) if !is_empty => Ok(format!("__item({value}, {})", parts[0])),
            (true, 2 | 3) => Ok(format!("__slice({value}, {})", parts.join(", "))),
            _ => Err(self.unexpected("a subscript")),
        }
    }

    fn filters(&mut self, mut value: String) -> Result<String> {
        loop {
            if self.skip("|") {
                self.nest()?;
                let filter = self.filter()?;
                value = format!("{value} | {filter}");
            } else if self.skip("is") {
                self.nest()?;
                let not = if self.skip("not") { "not " } else { "" };
                let test = match self.test()? {
                    // One name is one object; the test itself sees only values.
                    test if is_name(&value) && test == format!("sameas({value})") => {
                        format!("sameas({value}, true)")
                    }
                    test => test,
                };
                value = format!("({value} is {not}{test})");
            } else if self.skip("(") {
                self.nest()?;
                value = format!("({value})({})", self.arguments()?);
            } else {
                return Ok(value);
            }
        }
    }

    /// The name of a filter and its arguments.
    pub fn filter(&mut self) -> Result<String> {
        let mut name = self.name()?.to_owned();
        while self.skip(".") {
            name += ".";
            name += self.name()?;
        }
        Ok(match self.skip("(") {
            true => format!("{name}({})", self.arguments()?),
            false => name,
        })
    }

    fn test(&mut self) -> Result<String> {
        let name = self.name()?;
        if self.skip("(") {
            return Ok(format!("{name}({})", self.arguments()?));
        }
        let token = self.peek();
        let is_argument = match token.kind {
            Kind::Name => !["else", "or", "and", "is", "if", "in", "not"].contains(&token.text),
            Kind::Number | Kind::Text => true,
            Kind::Operator => ["[", "{"].contains(&token.text),
            Kind::End => false,
        };
        match is_argument {
            true => {
                let argument = self.primary()?;
                Ok(format!("{name}({})", self.postfix(argument)?))
            }
            false => Ok(name.to_owned()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.chars().all(is_part) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// A call, unless there is only one part.
fn called(function: &str, mut parts: Vec<String>) -> String {
    match parts.len() {
        1 => parts.remove(0),
        _ => format!("{function}({})", parts.join(", ")),
    }
}

/// A string as the interpreter reads it.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '"' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests;
