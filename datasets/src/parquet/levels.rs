//! Small integers in runs: either one value many times, or values of a few bits side by side.
//!
//! This is the encoding of repetition and definition levels, dictionary indices and booleans. A run
//! of billions takes five bytes, so runs are kept as they are and values come out one by one.

use super::Reason;

/// The bytes of a page and a position in them.
#[derive(Clone, Debug)]
pub(super) struct ByteReader {
    page: std::sync::Arc<[u8]>,
    at: usize,
    end: usize,
}

impl ByteReader {
    pub(super) fn new(page: Vec<u8>) -> Self {
        let end = page.len();
        Self {
            page: page.into(),
            at: 0,
            end,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.page[self.at..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&[u8], Reason> {
        let rest = self.end - self.at;
        if length > rest {
            return Err(format!(
                "a page ends early: {length} bytes expected, {rest} left"
            ));
        }
        self.at += length;
        Ok(&self.page[self.at - length..self.at])
    }

    /// Takes the next bytes as a reader with its own position.
    pub(super) fn part(&mut self, length: usize) -> Result<Self, Reason> {
        let at = self.at;
        self.take(length)?;
        Ok(Self {
            page: self.page.clone(),
            at,
            end: self.at,
        })
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        Ok(self.take(N)?.try_into().expect("`take` returned N bytes"))
    }

    /// A length of four bytes.
    pub(super) fn length(&mut self) -> Result<usize, Reason> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Reason> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number in a page is too long".into())
    }

    pub(super) fn zigzag(&mut self) -> Result<i64, Reason> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The integer of `width` bits, at most 64, that begins at a bit of the remaining bytes, lowest
    /// bit first.
    pub(super) fn bits(&self, start: usize, width: u32) -> Result<u64, Reason> {
        let bytes = self.rest();
        let mut value = 0u128;
        let last = (start + width as usize).div_ceil(8);
        let taken = bytes
            .get(start / 8..last)
            .ok_or("a page ends within packed numbers")?;
        for (i, byte) in taken.iter().enumerate() {
            value |= u128::from(*byte) << (8 * i);
        }
        let value = (value >> (start % 8)) as u64;
        Ok(if width == 64 {
            value
        } else {
            value & ((1 << width) - 1)
        })
    }
}

/// Runs of integers of a fixed number of bits.
#[derive(Clone, Debug)]
pub(super) struct IntegerRuns {
    bytes: ByteReader,
    width: u32,
    run: IntegerRun,
}

#[derive(Clone, Debug)]
enum IntegerRun {
    Repeated { value: u64, left: u64 },
    Packed { at: usize, count: usize },
}

impl IntegerRuns {
    /// Integers of `width` bits, at most 32.
    pub(super) fn new(bytes: ByteReader, width: u32) -> Result<Self, Reason> {
        let run = IntegerRun::Repeated { value: 0, left: 0 };
        match width {
            0..=32 => Ok(Self { bytes, width, run }),
            _ => Err(format!(
                "packed numbers have {width} bits, expected at most 32"
            )),
        }
    }

    /// Integers that are at most `max`.
    pub(super) fn up_to(bytes: ByteReader, max: u16) -> Result<Self, Reason> {
        Self::new(bytes, u16::BITS - max.leading_zeros())
    }

    pub(super) fn next(&mut self) -> Result<u64, Reason> {
        loop {
            match &mut self.run {
                IntegerRun::Repeated { left: 0, .. } => self.open()?,
                IntegerRun::Repeated { value, left } => {
                    *left -= 1;
                    return Ok(*value);
                }
                IntegerRun::Packed { at, count } if *at < *count => {
                    let value = self.bytes.bits(*at * self.width as usize, self.width)?;
                    *at += 1;
                    return Ok(value);
                }
                IntegerRun::Packed { count, .. } => {
                    // The last run may be cut where the page ends.
                    let length = *count / 8 * self.width as usize;
                    self.bytes.take(length)?;
                    self.run = IntegerRun::Repeated { value: 0, left: 0 };
                }
            }
        }
    }

    fn open(&mut self) -> Result<(), Reason> {
        let head = self.bytes.varint()?;
        self.run = if head & 1 == 1 {
            let count = usize::try_from(head >> 1)
                .ok()
                .and_then(|n| n.checked_mul(8));
            let count = count.filter(|n| n.checked_mul(self.width as usize).is_some());
            let count = count.ok_or("a run of packed numbers is too long")?;
            IntegerRun::Packed { at: 0, count }
        } else {
            let mut value = [0; 8];
            let length = self.width.div_ceil(8) as usize;
            value[..length].copy_from_slice(self.bytes.take(length)?);
            let (value, left) = (u64::from_le_bytes(value), head >> 1);
            IntegerRun::Repeated { value, left }
        };
        Ok(())
    }
}
