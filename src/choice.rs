//! Flags whose values are those of a library enum: the library names the values, the command line
//! describes them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A parser of the names of these values. The descriptions are for `--help`; an empty one is left
/// out.
pub fn choice<T, const N: usize>(
    values: [(T, &'static str); N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let described = values.map(|(value, help)| match help {
        "" => PossibleValue::new(name(value)),
        help => PossibleValue::new(name(value)).help(help),
    });
    PossibleValuesParser::new(described).map(move |given| {
        let found = values.iter().find(|(value, _)| name(*value) == given);
        found.expect("clap accepts only these names").0
    })
}
