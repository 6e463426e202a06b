//! The function `strftime_now`: the time in UTC, with all directives of C's `strftime` in English.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::Error;

use super::arguments::error;
use super::limits::check_size;

/// The time as `format` says.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (seconds, micros) = now.map_or((0, 0), |t| (t.as_secs(), t.subsec_micros()));
    strftime(format, seconds, micros)
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
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A moment of the calendar.
struct Moment {
    seconds: u64,
    micros: u32,
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From Sunday.
    weekday: u64,
}

/// `seconds` since the beginning of 1970, which was a Thursday.
fn strftime(format: &str, seconds: u64, micros: u32) -> Result<String, Error> {
    let (year, month, day, day_of_year) = date(seconds / 86400);
    let moment = Moment {
        seconds,
        micros,
        year,
        month,
        day,
        day_of_year,
        weekday: (seconds / 86400 + 4) % 7,
    };
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        // Flags, a width, and a modifier for other calendars, which English does not have.
        let is_flag = |c: char| "-_0^#".contains(c);
        let flags = &rest[..rest.find(|c| !is_flag(c)).unwrap_or(rest.len())];
        rest = &rest[flags.len()..];
        let digits = &rest[..rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len())];
        rest = rest[digits.len()..].trim_start_matches(['E', 'O']);
        let unknown = || {
            error(format!(
                "strftime_now: {format:?} has a directive that is not known"
            ))
        };
        let directive = rest.chars().next().ok_or_else(unknown)?;
        rest = &rest[directive.len_utf8()..];
        let width = match digits {
            "" => None,
            digits => Some(digits.parse().map_err(|_| unknown())?),
        };
        check_size(width.unwrap_or(0))?;
        out += &moment
            .field(directive, flags, width)
            .ok_or_else(unknown)??;
        check_size(out.len())?;
    }
    Ok(out + rest)
}

impl Moment {
    /// One directive; None for an unknown one.
    fn field(
        &self,
        directive: char,
        flags: &str,
        width: Option<usize>,
    ) -> Option<Result<String, Error>> {
        let (day, hour) = (self.seconds % 86400, self.seconds % 86400 / 3600);
        let twelve = (hour + 11) % 12 + 1;
        // Days since the last Monday, and the week with the year that it belongs to.
        let monday = (self.weekday + 6) % 7;
        let (iso_year, iso_week) = self.iso_week(monday);
        let composed = |format: &str| strftime(format, self.seconds, self.micros);
        let (number, digits, fill) = match directive {
            'd' => (self.day, 2, '0'),
            'e' => (self.day, 2, ' '),
            'm' => (self.month as u64 + 1, 2, '0'),
            'y' => (self.year % 100, 2, '0'),
            'C' => (self.year / 100, 2, '0'),
            'Y' => (self.year, 1, '0'),
            'H' => (hour, 2, '0'),
            'k' => (hour, 2, ' '),
            'I' => (twelve, 2, '0'),
            'l' => (twelve, 2, ' '),
            'M' => (day / 60 % 60, 2, '0'),
            'S' => (day % 60, 2, '0'),
            'f' => (self.micros.into(), 6, '0'),
            'j' => (self.day_of_year, 3, '0'),
            'u' => (monday + 1, 1, '0'),
            'w' => (self.weekday, 1, '0'),
            'U' => ((self.day_of_year + 6 - self.weekday) / 7, 2, '0'),
            'W' => ((self.day_of_year + 6 - monday) / 7, 2, '0'),
            'G' => (iso_year, 4, '0'),
            'g' => (iso_year % 100, 2, '0'),
            'V' => (iso_week, 2, '0'),
            's' => (self.seconds, 1, '0'),
            _ => {
                let weekday = DAYS[self.weekday as usize];
                let month = MONTHS[self.month];
                let text = match directive {
                    'a' => weekday[..3].to_owned(),
                    'A' => weekday.to_owned(),
                    'b' | 'h' => month[..3].to_owned(),
                    'B' => month.to_owned(),
                    'p' | 'P' => {
                        let half = if hour < 12 { "AM" } else { "PM" };
                        let is_small = directive == 'P' || flags.contains('#');
                        if is_small {
                            half.to_lowercase()
                        } else {
                            half.to_owned()
                        }
                    }
                    // The time has no zone, as in transformers.
                    'z' | 'Z' => String::new(),
                    'n' => "\n".to_owned(),
                    't' => "\t".to_owned(),
                    '%' => "%".to_owned(),
                    'c' => return Some(composed("%a %b %e %H:%M:%S %Y")),
                    'x' | 'D' => return Some(composed("%m/%d/%y")),
                    'X' | 'T' => return Some(composed("%H:%M:%S")),
                    'F' => return Some(composed("%Y-%m-%d")),
                    'R' => return Some(composed("%H:%M")),
                    'r' => return Some(composed("%I:%M:%S %p")),
                    _ => return None,
                };
                let is_large = flags.contains('^') || flags.contains('#') && directive != 'p';
                let text = if is_large { text.to_uppercase() } else { text };
                let fill = if flags.contains('0') { "0" } else { " " };
                let space = width.unwrap_or(0).saturating_sub(text.len());
                return Some(Ok(fill.repeat(space) + &text));
            }
        };
        let fill = match flags.chars().rfind(|flag| "-_0".contains(*flag)) {
            Some('_') => ' ',
            Some('0') => '0',
            _ => fill,
        };
        let digits = if flags.contains('-') { 1 } else { digits };
        let mut text = String::new();
        write!(text, "{number}").expect("writing to a string cannot fail");
        let space = width.unwrap_or(digits).saturating_sub(text.len());
        Some(Ok(fill.to_string().repeat(space) + &text))
    }

    /// Year and week of ISO 8601: a week belongs to the year of its Thursday.
    fn iso_week(&self, monday: u64) -> (u64, u64) {
        let thursday = self.seconds / 86400 + 3 - monday.min(self.seconds / 86400 + 3);
        let (year, _, _, day_of_year) = date(thursday);
        (year, (day_of_year - 1) / 7 + 1)
    }
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

    /// Expected values are those of Python's `datetime`.
    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |format, seconds, expected| {
            assert_eq!(strftime(format, seconds, 42).unwrap(), expected, "{format}");
        };
        check("%d %b %Y", 0, "01 Jan 1970");
        check(
            "%A %-d %B %Y, %j",
            951782400,
            "Tuesday 29 February 2000, 060",
        );
        check("%a %y-%m-%d %H:%M:%S", 1735689599, "Tue 24-12-31 23:59:59");
        check("%I %p %-I 100%%", 1735689599, "11 PM 11 100%");
        check(
            "%c|%x|%X",
            1700000000,
            "Tue Nov 14 22:13:20 2023|11/14/23|22:13:20",
        );
        check(
            "%D|%F|%T|%R|%r",
            1700000000,
            "11/14/23|2023-11-14|22:13:20|22:13|10:13:20 PM",
        );
        check(
            "%e|%k|%l|%u|%w|%P|%h|%n|%t",
            1709251200,
            " 1| 0|12|5|5|am|Mar|\n|\t",
        );
        check("%U|%W|%V|%G|%g", 1704067199, "53|52|52|2023|23");
        check("%U|%W|%V|%G|%g", 1609459200, "00|00|53|2020|20");
        check("%C|%s|%f|%z|%Z", 1700000000, "20|1700000000|000042||");
        check(
            "%^a|%#p|%_d|%-m|%05d|%_H|%10A|%^B",
            1700000000,
            "TUE|pm|14|11|00014|22|   Tuesday|NOVEMBER",
        );
        check("%Ey|%Od|%-j|%-y|%03m", 1700000000, "23|14|318|23|011");
        assert!(strftime("%Q", 0, 0).is_err() && strftime("%", 0, 0).is_err());
        assert!(strftime("%99999999d", 0, 0).is_err());
    }
}
