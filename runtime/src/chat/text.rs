//! Printing and string functions of templates: what Python would write, within the limits.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

use super::limits::{self, RenderUsage};

/// Prints a value as Python's `str` writes it.
pub(super) fn print(out: &mut Output, limits: &RenderUsage, value: &Value) -> Result<(), Error> {
    let text = plain(value)?;
    limits.print(text.len())?;
    out.write_str(&text).map_err(Error::from)
}

fn plain(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut text = String::new();
    repr(value, &mut text)?;
    Ok(text)
}

/// Python's `repr`.
fn repr(value: &Value, out: &mut String) -> Result<(), Error> {
    limits::check_size(out.len())?;
    let mut join = |brackets: [char; 2], with_values: bool| {
        out.push(brackets[0]);
        for (i, item) in value.try_iter()?.enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            repr(&item, out)?;
            if with_values {
                out.push_str(": ");
                repr(&value.get_item(&item)?, out)?;
            }
        }
        out.push(brackets[1]);
        Ok(())
    };
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => return join(['[', ']'], false),
        ValueKind::Map => return join(['{', '}'], true),
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool if value.is_true() => out.push_str("True"),
        ValueKind::Bool => out.push_str("False"),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == '\\' || c == mark => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// The filter and method `replace`.
pub(super) fn replace(value: Value, from: &str, to: &str) -> Result<String, Error> {
    let text = plain(&value)?;
    let places = text.matches(from).count();
    limits::check_size(text.len() + places * to.len())?;
    Ok(text.replace(from, to))
}

/// The filter and method `join`.
pub(super) fn join(values: Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        if i > 0 {
            joined += separator.unwrap_or_default();
        }
        joined += &plain(&value)?;
        limits::check_size(joined.len())?;
    }
    Ok(joined)
}

/// The filter `indent`: spaces before every line except the first and empty ones.
pub(super) fn indent(text: &str, width: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let width = width.or(options.get("width")?).unwrap_or(4);
    let first: bool = options.get::<Option<bool>>("first")?.unwrap_or(false);
    let blank: bool = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    limits::check_size(
        width
            .saturating_mul(text.lines().count())
            .saturating_add(text.len()),
    )?;
    let spaces = " ".repeat(width);
    let lines = text.split('\n').enumerate().map(|(i, line)| {
        let wanted = if i == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        format!("{}{line}", if wanted { &spaces } else { "" })
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Methods of Python's strings, lists and dictionaries.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match (value.as_str(), name, args) {
        (Some(_), "format", _) => Err(limits::refuse("the method `format` is not supported")),
        (Some(_), "replace", [from, to]) => match (text(from), text(to)) {
            (Some(from), Some(to)) => replace(value.clone(), &from, &to).map(Value::from),
            _ => Err(limits::refuse("`replace`: expected two strings")),
        },
        (Some(separator), "join", [values]) => {
            join(values.clone(), Some(separator)).map(Value::from)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The time as `format` says, in UTC.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    strftime(format, now.map_or(0, |t| t.as_secs()))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// `seconds` since the beginning of 1970, which was a Thursday.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, second) = (seconds / 86400, seconds % 86400);
    let (year, month, day, of_year) = date(days);
    let (hour, name, weekday) = (second / 3600, MONTHS[month], DAYS[days as usize % 7]);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = rest.next();
        let padded = directive != Some('-');
        if !padded {
            directive = rest.next();
        }
        let mut number = |n: u64| match padded {
            true => write!(out, "{n:02}"),
            false => write!(out, "{n}"),
        };
        match directive {
            Some('d') => number(day)?,
            Some('m') => number(month as u64 + 1)?,
            Some('y') => number(year % 100)?,
            Some('H') => number(hour)?,
            Some('I') => number((hour + 11) % 12 + 1)?,
            Some('M') => number(second / 60 % 60)?,
            Some('S') => number(second % 60)?,
            Some('Y') => write!(out, "{year}")?,
            Some('j') => write!(out, "{of_year:03}")?,
            Some('B') => out.push_str(name),
            Some('b') => out.push_str(&name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('%') => out.push('%'),
            _ => {
                let why = format!("strftime_now: {format:?} has a directive that is not known");
                return Err(Error::new(ErrorKind::InvalidOperation, why));
            }
        }
    }
    Ok(out)
}

/// Year, month from 0, day of the month and day of the year from 1.
fn date(mut days: u64) -> (u64, usize, u64, u64) {
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let (of_year, mut month) = (days + 1, 0);
    let february = 28 + u64::from(is_leap(year));
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1, of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |format, seconds, expected| {
            assert_eq!(strftime(format, seconds).unwrap(), expected);
        };
        check("%d %b %Y", 0, "01 Jan 1970");
        check(
            "%A %-d %B %Y, %j",
            951_782_400,
            "Tuesday 29 February 2000, 060",
        );
        check(
            "%a %y-%m-%d %H:%M:%S",
            1_735_689_599,
            "Tue 24-12-31 23:59:59",
        );
        check("%I %p %-I 100%%", 1_735_689_599, "11 PM 11 100%");
        assert!(strftime("%Q", 0).is_err() && strftime("%", 0).is_err());
    }
}
