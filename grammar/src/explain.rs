//! The parser's errors in the words of a rule.

/// Most characters of an error of the parser.
const LONGEST: usize = 240;
/// What is said of a rule that goes beyond a limit.
pub(crate) const TOO_LARGE: &str = "it is too large or has too many alternatives; make it simpler";

/// An error of the parser in one sentence that says what to do.
pub(crate) fn explained(error: &str) -> String {
    let first = short(error);
    let has = |text: &str| first.contains(text);
    let sentence = if has("NoExtensionBias") {
        "no text keeps to it; check for parts that exclude each other or never end"
    } else if ["too big", "schema too large", "too large", "fuel exhausted"]
        .iter()
        .any(|t| has(t))
        || ["precomputation failed", "symbols.len()", "stack level"]
            .iter()
            .any(|t| has(t))
    {
        TOO_LARGE
    } else if has("Unable to determine") || has("can't determine") || has("too many expressions") {
        "its regular expressions, together with lengths, are too complex; make them simpler"
    } else if has("Current row has") {
        "too many things can follow at one place; write fewer alternatives or required properties"
    } else if has("circular references") {
        "a reference to a schema from inside of it cannot stand beside other keywords; \
         move these into the schema that it names"
    } else if has("only supported when all keys") {
        "minProperties and maxProperties cannot be enforced beside optional properties; \
         list the properties in required"
    } else if has("has too many digits") || has("multipleOf") {
        "this multipleOf cannot be enforced; expected a number with few digits"
    } else if has("lookarounds not supported") {
        "^ and $ can stand at the ends of a regular expression only, and lookahead, lookbehind \
         and \\b cannot be enforced; write it without them"
    } else if has("Failed to generate regex") {
        "these bounds of a number cannot be enforced; write bounds with fewer digits"
    } else if has("panic") {
        "the parser failed on it; write it in another way"
    } else if let Some((_, why)) = first.split_once("Unsatisfiable schema: ") {
        return format!("nothing is valid by it: {why}; change it");
    } else if let Some((_, names)) = first.split_once("patternProperty regexes ") {
        let names = names.trim_end_matches(" are not disjoint");
        return format!(
            "the patterns {names} can match the same name; write patterns of \
                        different names"
        );
    } else {
        return first;
    };
    sentence.to_owned()
}

/// An error of the parser in one line: its first one, and after a text with a mark below it what
/// the mark means.
pub(crate) fn short(error: &str) -> String {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let text = match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(meaning) => format!("{first} {meaning}"),
        None => first.to_owned(),
    };
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
