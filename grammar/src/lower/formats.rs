//! Formats of strings.

/// A format of JSON Schema.
pub(crate) enum Format {
    /// The parser has it, under this name.
    Known(&'static str),
    /// All of these match the whole string.
    Patterns(Vec<String>),
    /// It cannot be enforced.
    Refused,
}

const SEGMENT: &str = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=@]|%[0-9A-Fa-f]{2})";
const POINTER: &str = r"(?:/(?:[^/~]|~[01])*)*";

/// A format by its name; `None` if JSON Schema does not have it.
///
/// Times are those without leap seconds. `iri`, `iri-reference`, `idn-email` and `idn-hostname`
/// have ASCII only.
pub(crate) fn format(name: &str) -> Option<Format> {
    Some(match name {
        "date" => one(date()),
        "time" => one(time()),
        "date-time" => one(format!("{}[tT]{}", date(), time())),
        "duration" => Format::Known("duration"),
        "email" | "idn-email" => Format::Patterns(email()),
        "hostname" | "idn-hostname" => Format::Patterns(hostname()),
        "ipv4" => Format::Known("ipv4"),
        "ipv6" => Format::Known("ipv6"),
        "uuid" => Format::Known("uuid"),
        "uri" | "iri" => Format::Known("uri"),
        "uri-reference" | "iri-reference" => one(reference()),
        "json-pointer" => one(POINTER.into()),
        "relative-json-pointer" => one(format!("(?:0|[1-9][0-9]*)(?:#|{POINTER})")),
        "regex" | "uri-template" => Format::Refused,
        _ => return None,
    })
}

fn one(pattern: String) -> Format {
    Format::Patterns(vec![pattern])
}

/// Words with single `-` between; two would announce an encoding.
const LABEL: &str = "[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*";

/// Labels, their lengths, the length of all.
fn hostname() -> Vec<String> {
    vec![
        format!(r"{LABEL}(?:\.{LABEL})*"),
        r"(?:[^.]{1,63}\.)*[^.]{1,63}".into(),
        ".{1,253}".into(),
    ]
}

/// Words and a host, the lengths of labels, the lengths of both sides.
fn email() -> Vec<String> {
    let word = r"[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~]+";
    vec![
        format!(r"{word}(?:\.{word})*@{LABEL}(?:\.{LABEL})*"),
        r"[^@]+@(?:[^.@]{1,63}\.)*[^.@]{1,63}".into(),
        "[^@]{1,64}@[^@]{1,253}".into(),
    ]
}

/// A day of the calendar.
fn date() -> String {
    let long = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])";
    let short = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)";
    let february = "02-(?:0[1-9]|1[0-9]|2[0-8])";
    // Years that 4 divides, without those that only 100 divides.
    let leap = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29";
    format!("(?:[0-9]{{4}}-(?:{long}|{short}|{february})|{leap})")
}

fn time() -> String {
    let hour = "(?:[01][0-9]|2[0-3])";
    let zone = format!("(?:[zZ]|[+-]{hour}:[0-5][0-9])");
    format!(r"{hour}:[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?{zone}")
}

/// A URI or a path relative to one.
fn reference() -> String {
    let authority = format!("//{SEGMENT}*(?::[0-9]{{0,4}})?(?:/{SEGMENT}*)*");
    let absolute = format!("/(?:{SEGMENT}+(?:/{SEGMENT}*)*)?");
    let relative = format!("{SEGMENT}+(?:/{SEGMENT}*)*");
    let rest = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=@/?:]|%[0-9A-Fa-f]{2})*";
    let path = format!("(?:{authority}|{absolute}|{relative}|)");
    format!(r"(?:[A-Za-z][A-Za-z0-9+.\-]*:)?{path}(?:\?{rest})?(?:\#{rest})?")
}
