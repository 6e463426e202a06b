//! The compact protocol of Apache Thrift, in which Parquet writes its footer and page headers.
//!
//! Everything is parsed into a tree without knowledge of its meaning; callers ask for a field by
//! its number. It is written here because hostile files must not panic or exhaust memory. An item
//! takes at least one byte of input, so the tree is bounded by the bytes given.

use super::Reason;

/// The largest depth of nested structs and lists.
const MAX_DEPTH: usize = 32;

/// One value.
#[derive(Debug)]
pub(super) enum ThriftValue<'a> {
    Bool(bool),
    Int(i64),
    Double,
    Bytes(&'a [u8]),
    List(Vec<ThriftValue<'a>>),
    Map,
    Struct(Vec<(i16, ThriftValue<'a>)>),
}

impl<'a> ThriftValue<'a> {
    /// The field of a struct with this number.
    pub(super) fn field(&self, number: i16) -> Option<&ThriftValue<'a>> {
        let Self::Struct(fields) = self else {
            return None;
        };
        let found = fields.iter().find(|(found, _)| *found == number);
        found.map(|(_, item)| item)
    }

    /// An integer field.
    pub(super) fn int(&self, number: i16) -> Option<i64> {
        match self.field(number)? {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer field that must be there.
    pub(super) fn needed(&self, number: i16, name: &str) -> Result<i64, Reason> {
        self.int(number)
            .ok_or_else(|| format!("there is no {name}"))
    }

    /// A field that counts or measures something.
    pub(super) fn count(&self, number: i16, name: &str) -> Result<usize, Reason> {
        let found = self.needed(number, name)?;
        usize::try_from(found).map_err(|_| format!("{name} is {found}, expected at least 0"))
    }

    /// A truth value.
    pub(super) fn flag(&self, number: i16) -> Option<bool> {
        match self.field(number)? {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A field of text.
    pub(super) fn text(&self, number: i16, name: &str) -> Result<&'a str, Reason> {
        match self.field(number) {
            Some(Self::Bytes(bytes)) => {
                std::str::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))
            }
            _ => Err(format!("there is no {name}")),
        }
    }

    /// The entries of a list; none if the field is missing.
    pub(super) fn list(&self, number: i16) -> &[ThriftValue<'a>] {
        match self.field(number) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }
}

/// Parses the struct at the start of some bytes; also says how many bytes it takes.
pub(super) fn parse(bytes: &[u8]) -> Result<(ThriftValue<'_>, usize), Reason> {
    let mut reader = Reader { bytes, at: 0 };
    let item = reader.structure(0)?;
    Ok((item, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Reason> {
        let byte = self.bytes.get(self.at).ok_or("a header ends early")?;
        self.at += 1;
        Ok(*byte)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Reason> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or("a header ends early")?;
        self.at += length;
        Ok(taken)
    }

    fn unsigned(&mut self) -> Result<u64, Reason> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number in a header is too long".into())
    }

    fn signed(&mut self) -> Result<i64, Reason> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// A length that the rest of the bytes can hold.
    fn length(&mut self) -> Result<usize, Reason> {
        let found = self.unsigned()?;
        let rest = self.bytes.len() - self.at;
        let length = usize::try_from(found).ok().filter(|length| *length <= rest);
        length.ok_or_else(|| format!("a header claims {found} entries with {rest} bytes left"))
    }

    fn structure(&mut self, depth: usize) -> Result<ThriftValue<'a>, Reason> {
        let mut fields = Vec::new();
        let mut number = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(ThriftValue::Struct(fields));
            }
            number = match head >> 4 {
                0 => self.signed()? as i16,
                delta => number.wrapping_add(i16::from(delta)),
            };
            let item = match head & 0x0f {
                1 => ThriftValue::Bool(true),
                2 => ThriftValue::Bool(false),
                kind => self.item(kind, depth + 1)?,
            };
            fields.push((number, item));
        }
    }

    fn item(&mut self, kind: u8, depth: usize) -> Result<ThriftValue<'a>, Reason> {
        if depth > MAX_DEPTH {
            return Err(format!("a header is more than {MAX_DEPTH} structs deep"));
        }
        Ok(match kind {
            1 | 2 => ThriftValue::Bool(self.byte()? == 1),
            3 => ThriftValue::Int(i64::from(self.byte()? as i8)),
            4..=6 => ThriftValue::Int(self.signed()?),
            7 => {
                self.take(8)?;
                ThriftValue::Double
            }
            8 => {
                let length = self.length()?;
                ThriftValue::Bytes(self.take(length)?)
            }
            9 | 10 => self.entries(depth)?,
            11 => self.map(depth)?,
            12 => self.structure(depth)?,
            other => return Err(format!("a header has a field of the unknown type {other}")),
        })
    }

    fn entries(&mut self, depth: usize) -> Result<ThriftValue<'a>, Reason> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.length()?,
            short => usize::from(short),
        };
        let item = |_| self.item(head & 0x0f, depth + 1);
        Ok(ThriftValue::List(
            (0..count).map(item).collect::<Result<_, _>>()?,
        ))
    }

    /// Skips a map; none of the fields read here is one.
    fn map(&mut self, depth: usize) -> Result<ThriftValue<'a>, Reason> {
        let count = self.length()?;
        if count > 0 {
            let kinds = self.byte()?;
            for _ in 0..count {
                self.item(kinds >> 4, depth + 1)?;
                self.item(kinds & 0x0f, depth + 1)?;
            }
        }
        Ok(ThriftValue::Map)
    }
}
