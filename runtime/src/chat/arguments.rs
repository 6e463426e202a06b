//! Arguments of functions, filters and methods: by position or by name, as in Python.

use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs};
use minijinja::{Error, ErrorKind};

/// What the interpreter passes to a function with arguments of both kinds.
pub(super) type Passed = Rest<ValueOrKwargs>;

/// The arguments of one call.
pub(super) struct Arguments {
    pub positional: Vec<Value>,
    named: Option<Kwargs>,
}

impl Arguments {
    /// Divides what the interpreter passes.
    pub fn of(passed: Passed) -> Result<Arguments, Error> {
        Arguments::of_values(passed.into_values())
    }

    /// Divides values of which the last may hold all that are given by name.
    pub fn of_values(mut positional: Vec<Value>) -> Result<Arguments, Error> {
        let named = match positional.last().is_some_and(Value::is_kwargs) {
            true => positional.pop().map(Kwargs::try_from).transpose()?,
            false => None,
        };
        Ok(Arguments { positional, named })
    }

    /// The arguments in the order of the names of parameters; None where one is not given.
    pub fn bind<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Value>; N], Error> {
        if self.positional.len() > N {
            let found = self.positional.len();
            return Err(error(format!(
                "expected at most {N} arguments, found {found}"
            )));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(&self.positional) {
            *slot = Some(value.clone());
        }
        for name in self.names() {
            let at = names.iter().position(|known| *known == name);
            let slot = at.map(|at| &mut bound[at]).filter(|slot| slot.is_none());
            let slot = slot.ok_or_else(|| error(format!("unexpected argument `{name}`")))?;
            *slot = self.named(&name);
        }
        Ok(bound)
    }

    /// Names of the arguments that are given by name.
    pub fn names(&self) -> Vec<String> {
        let names = self.named.iter().flat_map(Kwargs::args);
        names.map(str::to_owned).collect()
    }

    /// An argument that is given by name.
    pub fn named(&self, name: &str) -> Option<Value> {
        self.named.as_ref()?.get(name).ok()
    }
}

/// An error of a template that is computed wrongly.
pub(super) fn error(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}
