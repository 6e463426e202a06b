//! Regular expressions of ECMA-262, which JSON Schema has, in the syntax of the crate `regex`.

/// What `.` does not match.
const LINE_ENDS: &str = r"\n\r\u2028\u2029";
/// White space in ECMA-262 and in Unicode.
const SPACES: &str = r"\t-\r \xA0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000";
/// White space in one of them only.
const OTHER_SPACES: &str = r"\x85\uFEFF";

/// The beginning of a class of all other characters. It leaves out NUL, which no string of ours can
/// have: the parser takes a class with all control characters for one with `"` and `\` as well.
const NEGATED: &str = r"[^\x00";

/// The same pattern for the parser. Where ECMA-262 and Unicode disagree about white space, a
/// character is neither `\s` nor `\S`.
///
/// # Errors
/// What only one of the two syntaxes has, in one sentence.
pub(crate) fn translated(pattern: &str) -> Result<String, String> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    // Whether we are in a class, and whether it is one of all other characters.
    let mut class: Option<bool> = None;
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied());
        i += 1;
        match (c, class) {
            ('\\', _) => {
                let Some(next) = next else {
                    return Err(r"it ends with a single \".into());
                };
                let nul = ["0", "x00", "u0000"]
                    .into_iter()
                    .rev()
                    .find(|nul| chars[i..].iter().take(nul.len()).copied().eq(nul.chars()));
                if let (Some(nul), Some(_)) = (nul, class) {
                    out.push_str(r"\x01");
                    i += nul.len();
                    continue;
                }
                i += 1;
                escape(next, class, &mut out)?;
            }
            ('[', None) => {
                let negates = next == Some('^');
                out.push_str(if negates { NEGATED } else { "[" });
                i += usize::from(negates);
                if chars.get(i) == Some(&']') {
                    return Err("an empty class [] matches nothing or everything; \
                                write [\\s\\S] for everything"
                        .into());
                }
                class = Some(negates);
            }
            (']', Some(_)) => {
                out.push(']');
                class = None;
            }
            // In a class these begin operations of the other syntax.
            ('[' | '&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
            }
            ('-', Some(_)) if next == Some('-') => {
                return Err(r"-- in a class cannot be enforced; write \- for the character".into());
            }
            ('.', None) => {
                out.push_str(NEGATED);
                out.push_str(LINE_ENDS);
                out.push(']');
            }
            ('(', None) if next == Some('?') => {
                let kind: String = chars[i + 1..].iter().take(2).collect();
                if kind.starts_with(['=', '!']) || ["<=", "<!"].contains(&kind.as_str()) {
                    return Err(
                        "lookahead and lookbehind, as (?=a) and (?!a), cannot be enforced; \
                                write the pattern without them"
                            .into(),
                    );
                }
                out.push('(');
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

fn escape(c: char, class: Option<bool>, out: &mut String) -> Result<(), String> {
    let is_class = class.is_some();
    let mut set = |is_negated: bool, characters: &str| match (is_class, is_negated) {
        (true, false) => out.push_str(characters),
        (_, is_negated) => {
            out.push_str(if is_negated { NEGATED } else { "[" });
            out.push_str(characters);
            out.push(']');
        }
    };
    let both = format!("{SPACES}{OTHER_SPACES}");
    match (c, class) {
        // In a class of other characters, what is uncertain is excluded.
        ('s', Some(true)) => set(false, &both),
        ('s', _) => set(false, SPACES),
        ('S', Some(true)) => set(true, SPACES),
        ('S', _) => set(true, &both),
        ('b' | 'B', None) => {
            return Err(format!(
                r"\{c} cannot be enforced; write the characters around it"
            ));
        }
        ('b', Some(_)) => out.push_str(r"\x08"),
        ('0', _) => out.push_str(r"\x00"),
        ('1'..='9', _) => {
            return Err(format!(
                r"\{c} refers to a group, which cannot be enforced; write the group again"
            ));
        }
        ('d' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' | 'u' | 'x' | 'p' | 'P', _) => {
            out.push('\\');
            out.push(c);
        }
        (c, _) if c.is_ascii_alphanumeric() => {
            return Err(format!(
                r"\{c} is not in the syntax of ECMA-262; remove the \ or write what it means"
            ));
        }
        (c, _) if c.is_ascii_punctuation() && !"<>".contains(c) => {
            out.push('\\');
            out.push(c);
        }
        (c, _) => out.push(c),
    }
    Ok(())
}

/// Most bytes of strings that are excluded, and of one of them. The pattern has a level for each
/// character.
const EXCLUDED: (usize, usize) = (4000, 80);

/// A pattern of all strings but these.
///
/// # Errors
/// They are too long.
pub(crate) fn others(words: &[&str]) -> Result<String, String> {
    let longest = words.iter().map(|word| word.len()).max().unwrap_or(0);
    let total: usize = words.iter().map(|word| word.len()).sum();
    if total > EXCLUDED.0 || longest > EXCLUDED.1 {
        return Err(format!(
            "strings of {total} bytes cannot be excluded; expected at most {} bytes, {} in one",
            EXCLUDED.0, EXCLUDED.1
        ));
    }
    let words: Vec<Vec<char>> = words.iter().map(|word| word.chars().collect()).collect();
    let words: Vec<&[char]> = words.iter().map(Vec::as_slice).collect();
    Ok(format!("^(?:{})$", others_of(&words)))
}

/// All strings but these, by their first characters.
fn others_of(words: &[&[char]]) -> String {
    let mut firsts: Vec<char> = words
        .iter()
        .filter_map(|word| word.first().copied())
        .collect();
    firsts.sort_unstable();
    firsts.dedup();
    if firsts.is_empty() {
        return r"[\s\S]+".into();
    }
    let mut choices = Vec::new();
    if words.iter().all(|word| !word.is_empty()) {
        choices.push(String::new());
    }
    let excluded: String = firsts.iter().map(|c| literal(*c)).collect();
    choices.push(format!(r"{NEGATED}{excluded}][\s\S]*"));
    for first in firsts {
        let rest: Vec<&[char]> = words
            .iter()
            .filter_map(|word| word.strip_prefix(&[first]))
            .collect();
        choices.push(format!("{}(?:{})", literal(first), others_of(&rest)));
    }
    choices.join("|")
}

/// A pattern of one character.
pub(crate) fn literal(c: char) -> String {
    match c.is_ascii_alphanumeric() {
        true => c.to_string(),
        false => format!("\\x{{{:x}}}", u32::from(c)),
    }
}
