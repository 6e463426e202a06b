//! From the text of an answer to its content and its calls, symbol by symbol, so that it does not
//! matter in which parts the text comes.
//!
//! The answer keeps to the grammar of its calls, so what stands around names and arguments is known
//! before it comes. Of a text that may become the beginning of a call nothing is shown.

use std::sync::Arc;

use sterna_runtime::calls::{CallSyntax, Part, Place};

/// A character, or above all characters a special token.
pub type Symbol = u32;

/// The symbol of a special token.
pub fn special(id: u32) -> Symbol {
    0x11_0000 + id
}

/// The symbols of a fixed text.
pub fn symbols(parts: &[Part]) -> Vec<Symbol> {
    let of = |part: &Part| match part {
        Part::Text(text) => text.chars().map(u32::from).collect(),
        Part::Special(id) => vec![special(*id)],
    };
    parts.iter().flat_map(of).collect()
}

/// How the calls of an answer are found.
#[derive(Debug)]
pub struct Format {
    open: Vec<Symbol>,
    /// The beginning of `open` after which nothing but a call follows.
    tag: Vec<Symbol>,
    /// Each name with what follows it.
    heads: Vec<(Vec<Symbol>, String)>,
    separator: Option<Vec<Symbol>>,
    start: State,
}

impl Format {
    /// The format of answers that may call these tools.
    pub fn new<'n>(
        syntax: &CallSyntax,
        place: &Place,
        names: impl Iterator<Item = &'n str>,
    ) -> Format {
        let middle = symbols(&syntax.middle);
        let head = |name: &str| {
            let head = name.chars().map(u32::from).chain(middle.iter().copied());
            (head.collect(), name.to_owned())
        };
        let (open, tag) = match place {
            Place::First | Place::Start(_) => (symbols(&syntax.open), Vec::new()),
            Place::Tag(tag) => (symbols(&syntax.open), symbols(std::slice::from_ref(tag))),
        };
        Format {
            start: match place {
                Place::First => State::Open(open.len()),
                Place::Tag(_) => State::Text,
                Place::Start(_) => State::Start,
            },
            open,
            tag,
            heads: names.map(head).collect(),
            separator: syntax.separator.as_deref().map(symbols),
        }
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Text for the reader.
    Content(String),
    /// A call of this tool begins.
    Name(String),
    /// More of its arguments.
    Arguments(String),
    /// The arguments are complete.
    End,
}

/// Where a parser is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// In a text, in which the tag may come.
    Text,
    /// At the start of an answer that may be a call.
    Start,
    /// In a text without calls.
    Plain,
    /// Before the rest of `open`, with this number of symbols.
    Open(usize),
    /// Before a name and what follows it.
    Head,
    /// In arguments.
    Arguments(Scan),
    /// After arguments.
    After,
}

/// A place in a JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Scan {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Scan {
    /// Goes on by a symbol. Returns whether the object is complete.
    fn push(&mut self, symbol: Symbol) -> bool {
        if self.is_in_string {
            match char::from_u32(symbol) {
                _ if self.is_escaped => self.is_escaped = false,
                Some('\\') => self.is_escaped = true,
                Some('"') => self.is_in_string = false,
                _ => {}
            }
            return false;
        }
        match char::from_u32(symbol) {
            // Nothing else begins an object.
            other if self.depth == 0 && other != Some('{') => return false,
            Some('"') => self.is_in_string = true,
            Some('{' | '[') => self.depth += 1,
            Some('}' | ']') => self.depth = self.depth.saturating_sub(1),
            _ => return false,
        }
        self.depth == 0 && !self.is_in_string
    }
}

/// Takes one answer apart.
#[derive(Debug, Clone)]
pub struct Parser {
    format: Arc<Format>,
    state: State,
    /// Symbols that are not decided.
    held: Vec<Symbol>,
    /// How many of the first ones are known to be spaces, in a text.
    spaces: usize,
}

impl Parser {
    /// At the start of an answer.
    pub fn new(format: Arc<Format>) -> Parser {
        Parser {
            state: format.start.clone(),
            format,
            held: Vec::new(),
            spaces: 0,
        }
    }

    /// What is certain after more symbols.
    pub fn push(&mut self, symbols: impl IntoIterator<Item = Symbol>) -> Vec<Found> {
        let mut found = Vec::new();
        for symbol in symbols {
            self.step(symbol, &mut found);
        }
        found
    }

    /// The content that was held back, when the answer has ended.
    pub fn finish(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        if matches!(self.state, State::Text | State::Start | State::Plain) {
            self.show(self.held.len(), &mut found);
        }
        self.held.clear();
        found
    }

    fn step(&mut self, symbol: Symbol, found: &mut Vec<Found>) {
        let format = Arc::clone(&self.format);
        if let State::Arguments(scan) = &mut self.state {
            let is_complete = scan.push(symbol);
            add(found, Found::Arguments, &[symbol]);
            if is_complete {
                found.push(Found::End);
                self.state = State::After;
            }
            return;
        }
        self.held.push(symbol);
        let held = self.held.len();
        match self.state {
            State::Text if self.held.ends_with(&format.tag) => {
                self.held.truncate(held - format.tag.len());
                let kept = self.held.iter().rposition(|symbol| !is_space(*symbol));
                self.show(kept.map_or(0, |last| last + 1), found);
                self.go(State::Open(format.open.len() - format.tag.len()));
            }
            State::Text => {
                // The end may become the tag, and spaces before it are not content then.
                let may_be = |length: &usize| self.held.ends_with(&format.tag[..*length]);
                let longest = (0..format.tag.len().min(held + 1)).rev().find(may_be);
                let end = held - longest.unwrap_or(0);
                let start = self.spaces.min(end);
                let new = &self.held[start..end];
                let last = new.iter().rposition(|symbol| !is_space(*symbol));
                let shown = last.map_or(0, |last| start + last + 1);
                self.show(shown, found);
                self.spaces = end - shown;
            }
            State::Start if self.held == format.open => self.go(State::Open(0)),
            State::Start if !format.open.starts_with(&self.held) => {
                self.show(held, found);
                self.state = State::Plain;
            }
            State::Plain => self.show(held, found),
            State::Open(left) if held == left => self.go(State::Open(0)),
            State::Head => {
                let heads = &mut format.heads.iter();
                if let Some((_, name)) = heads.find(|(head, _)| *head == self.held) {
                    found.push(Found::Name(name.clone()));
                    self.go(State::Arguments(Scan::default()));
                }
            }
            State::After if format.separator.as_ref() == Some(&self.held) => {
                self.go(State::Head);
            }
            State::Start | State::Open(_) | State::After | State::Arguments(_) => {}
        }
    }

    /// Goes to another state; what is held belongs to none.
    fn go(&mut self, state: State) {
        self.held.clear();
        self.state = match state {
            State::Open(0) => State::Head,
            other => other,
        };
    }

    /// Shows the first symbols that are held as content.
    fn show(&mut self, count: usize, found: &mut Vec<Found>) {
        let shown: Vec<Symbol> = self.held.drain(..count).collect();
        add(found, Found::Content, &shown);
    }
}

fn is_space(symbol: Symbol) -> bool {
    char::from_u32(symbol).is_some_and(char::is_whitespace)
}

/// Adds a text to the last part if that is of the same kind.
fn add(found: &mut Vec<Found>, kind: fn(String) -> Found, symbols: &[Symbol]) {
    let text: String = symbols.iter().filter_map(|s| char::from_u32(*s)).collect();
    match (found.last_mut(), kind(text)) {
        (_, Found::Content(text) | Found::Arguments(text)) if text.is_empty() => {}
        (Some(Found::Content(before)), Found::Content(text))
        | (Some(Found::Arguments(before)), Found::Arguments(text)) => *before += &text,
        (_, part) => found.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn tagged() -> (CallSyntax, Place) {
        let syntax = CallSyntax {
            open: vec![text("<tool_call>\n{\"name\": \"")],
            middle: vec![text("\", \"arguments\": ")],
            separator: Some(vec![text("}\n</tool_call>\n<tool_call>\n{\"name\": \"")]),
            close: vec![text("}\n</tool_call>")],
            takes_text: false,
        };
        (syntax, Place::Tag(text("<tool_call>")))
    }

    fn with_special() -> (CallSyntax, Place) {
        let (open, close) = (Part::Special(7), Part::Special(8));
        let syntax = CallSyntax {
            open: vec![open.clone(), text("{\"name\": \"")],
            middle: vec![text("\", \"arguments\": ")],
            separator: Some(vec![
                text("}"),
                close.clone(),
                open.clone(),
                text("{\"name\": \""),
            ]),
            close: vec![text("}"), close],
            takes_text: false,
        };
        (syntax, Place::Tag(open))
    }

    /// The parts of an answer, joined, whatever parts it comes in: `<7>` is a special token.
    fn check(syntax: &CallSyntax, place: &Place, answer: &str, expected: &[Found]) {
        let format = Arc::new(Format::new(syntax, place, ["a", "ab"].into_iter()));
        let mut all = Vec::new();
        let mut rest = answer;
        while let Some(first) = rest.chars().next() {
            let token = [("<7>", 7), ("<8>", 8)]
                .into_iter()
                .find(|(n, _)| rest.starts_with(n));
            let (symbol, length) = match token {
                Some((name, id)) => (special(id), name.len()),
                None => (u32::from(first), first.len_utf8()),
            };
            all.push(symbol);
            rest = &rest[length..];
        }
        let joined = |parts: &[&[Symbol]]| {
            let mut parser = Parser::new(Arc::clone(&format));
            let mut found: Vec<Found> = parts
                .iter()
                .flat_map(|part| parser.push(part.iter().copied()))
                .collect();
            found.extend(parser.finish());
            let mut joined: Vec<Found> = Vec::new();
            for part in found {
                match (joined.last_mut(), part) {
                    (Some(Found::Content(before)), Found::Content(text))
                    | (Some(Found::Arguments(before)), Found::Arguments(text)) => *before += &text,
                    (_, part) => joined.push(part),
                }
            }
            joined
        };
        assert_eq!(joined(&[&all]), expected, "{answer}");
        for first in 0..=all.len() {
            for second in first..=all.len() {
                let parts = [&all[..first], &all[first..second], &all[second..]];
                assert_eq!(joined(&parts), expected, "{answer} at {first} and {second}");
            }
        }
    }

    fn content(text: &str) -> Found {
        Found::Content(text.to_owned())
    }

    fn call(name: &str, arguments: &str) -> [Found; 3] {
        [
            Found::Name(name.to_owned()),
            Found::Arguments(arguments.to_owned()),
            Found::End,
        ]
    }

    #[test]
    fn tags_end_a_text_wherever_it_is_cut() {
        let (syntax, place) = tagged();
        let object = "{\"x\": \"}\\\"{</tool_call>\", \"é\": [{}]}";
        let one =
            format!("<tool_call>\n{{\"name\": \"ab\", \"arguments\": {object}}}\n</tool_call>");
        check(&syntax, &place, &one, &call("ab", object));
        let more = "\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>";
        let both = [call("ab", object), call("a", "{}")].concat();
        check(&syntax, &place, &(one.clone() + more), &both);
        let after = [&[content("Let me <tool see.")][..], &call("ab", object)].concat();
        check(
            &syntax,
            &place,
            &format!("Let me <tool see. \n\n{one}"),
            &after,
        );
        check(&syntax, &place, &format!(" \n{one}"), &call("ab", object));
        // The longest beginning of a tag that a text ends with is not always what was held.
        let after = [&[content("<<tool_cal")][..], &call("ab", object)].concat();
        check(&syntax, &place, &format!("<<tool_cal{one}"), &after);
    }

    #[test]
    fn a_text_without_a_call_is_shown_as_it_is() {
        let (syntax, place) = tagged();
        for text in [
            "",
            " ",
            "é\n",
            "a <tool_call",
            "<tool_call",
            "< \n<tool_calling\n",
        ] {
            let expected = match text {
                "" => vec![],
                text => vec![content(text)],
            };
            check(&syntax, &place, text, &expected);
            let (syntax, place) = with_special();
            check(&syntax, &place, text, &expected);
        }
    }

    #[test]
    fn special_tokens_are_tags() {
        let (syntax, place) = with_special();
        let text = "I see.\n<7>{\"name\": \"a\", \"arguments\": {\"b\": 1}}<8>";
        let expected = [&[content("I see.")][..], &call("a", "{\"b\": 1}")].concat();
        check(&syntax, &place, text, &expected);
        let two = format!("{text}<7>{{\"name\": \"ab\", \"arguments\": {{}}}}<8>");
        check(
            &syntax,
            &place,
            &two,
            &[expected, call("ab", "{}").to_vec()].concat(),
        );
    }

    #[test]
    fn an_answer_is_a_call_or_not_from_its_start() {
        let syntax = CallSyntax {
            separator: None,
            ..CallSyntax::plain()
        };
        let place = Place::Start(vec![]);
        let one = "{\"name\": \"a\", \"arguments\": {\"b\": {}}}";
        check(&syntax, &place, one, &call("a", "{\"b\": {}}"));
        check(&syntax, &Place::First, one, &call("a", "{\"b\": {}}"));
        for text in ["{\"nam\": \"a\"}", " {\"name\": \"a\"", "{\"na", "é"] {
            check(&syntax, &place, text, &[content(text)]);
        }
    }

    #[test]
    fn arguments_begin_as_objects_do() {
        let format = Arc::new(Format::new(&tagged().0, &Place::First, ["a"].into_iter()));
        let text = "<tool_call>\n{\"name\": \"a\", \"arguments\": 5}\n</tool_call>";
        let found = Parser::new(format).push(text.chars().map(u32::from));
        assert!(!found.contains(&Found::End), "{found:?}");
    }

    #[test]
    fn many_spaces_take_no_longer_each() {
        let (syntax, place) = tagged();
        let mut parser = Parser::new(Arc::new(Format::new(&syntax, &place, ["a"].into_iter())));
        let start = std::time::Instant::now();
        let spaces = 400_000;
        assert_eq!(parser.push(vec![u32::from(' '); spaces]), []);
        assert_eq!(
            parser.push([u32::from('x')]),
            [content(&(" ".repeat(spaces) + "x"))]
        );
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }

    #[test]
    fn what_is_cut_is_there_as_far_as_it_goes() {
        let (syntax, _) = tagged();
        let whole =
            "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"b\": 1}}\n</tool_call>\n<tool_ca";
        for end in 0..whole.len() {
            let expected = match end {
                0..=38 => vec![],
                39 => vec![Found::Name("a".into())],
                40..=46 => vec![
                    Found::Name("a".into()),
                    Found::Arguments(whole[39..end].into()),
                ],
                _ => call("a", "{\"b\": 1}").to_vec(),
            };
            check(&syntax, &Place::First, &whole[..end], &expected);
        }
    }
}
