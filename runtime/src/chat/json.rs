//! The filter `tojson`, with the spacing of Python's `json.dumps`.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

const WIDEST_INDENT: usize = 16;

/// JSON on one line, or with `indent` on several. Unlike Jinja's own filter it escapes nothing for
/// HTML.
pub(super) fn tojson(value: &Value, options: &Kwargs) -> Result<Value, Error> {
    let bad = |why: String| Error::new(ErrorKind::InvalidOperation, why);
    let indent: Option<usize> = options.get("indent")?;
    if options
        .get::<Option<bool>>("ensure_ascii")?
        .unwrap_or(false)
    {
        return Err(bad("tojson with ensure_ascii is not supported".into()));
    }
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, Python)),
        Some(width) if width <= WIDEST_INDENT => {
            let indent = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        }
        Some(width) => {
            return Err(bad(format!(
                "tojson with indent {width}: expected at most {WIDEST_INDENT}"
            )));
        }
    };
    written.map_err(|e| bad(format!("tojson: {e}")))?;
    let text = String::from_utf8(bytes).expect("serde_json writes UTF-8");
    Ok(Value::from(text))
}

/// `, ` and `: `.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        separate(w, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        separate(w, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

fn separate<W: ?Sized + Write>(w: &mut W, first: bool) -> io::Result<()> {
    if first { Ok(()) } else { w.write_all(b", ") }
}
