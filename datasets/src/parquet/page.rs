//! One page: its header, and its bytes unpacked.

use std::io::Read;

use super::Reason;
use super::levels::ByteReader;
use super::thrift::{self, ThriftValue};

/// The largest unpacked page, in bytes: data pages have a mebibyte unless one value is larger.
pub(super) const MAX_PAGE: usize = 1 << 29;

/// A page of a column.
pub(super) enum Page {
    Dictionary {
        count: usize,
        bytes: ByteReader,
    },
    Data(DataPage),
    /// A page of another type, which is skipped.
    Other,
}

/// A page of values: levels, if the column has any, then values.
pub(super) struct DataPage {
    /// Values, missing ones included.
    pub(super) count: usize,
    pub(super) encoding: i64,
    /// Lengths of repetition and definition levels; in pages of the first version they are stored
    /// before the levels.
    pub(super) lengths: Option<(usize, usize)>,
    pub(super) bytes: ByteReader,
}

/// Reads the page at the start of some bytes; also says how many bytes it takes.
pub(super) fn read(bytes: &[u8], codec: i64) -> Result<(Page, usize), Reason> {
    let (header, head) = thrift::parse(bytes)?;
    let packed = header.count(3, "size of a page")?;
    let size = header.count(2, "unpacked size of a page")?;
    if size > MAX_PAGE {
        return Err(format!(
            "a page unpacks to {size} bytes, expected at most {MAX_PAGE}"
        ));
    }
    let end = head.checked_add(packed).filter(|end| *end <= bytes.len());
    let end = end.ok_or_else(|| format!("a page of {packed} bytes goes beyond its column"))?;
    let body = &bytes[head..end];
    let page = match header.needed(1, "type of a page")? {
        0 => first_version(&header, body, size, codec)?,
        2 => {
            let count = part(&header, 7)?.count(1, "number of values")?;
            let bytes = ByteReader::new(unpack(body, size, codec)?);
            Page::Dictionary { count, bytes }
        }
        3 => second_version(&header, body, size, codec)?,
        _ => Page::Other,
    };
    Ok((page, end))
}

fn part<'a>(header: &'a ThriftValue<'a>, number: i16) -> Result<&'a ThriftValue<'a>, Reason> {
    let part = header.field(number);
    part.ok_or_else(|| "a page has no header of its type".to_owned())
}

fn first_version(
    header: &ThriftValue<'_>,
    body: &[u8],
    size: usize,
    codec: i64,
) -> Result<Page, Reason> {
    let data = part(header, 5)?;
    Ok(Page::Data(DataPage {
        count: data.count(1, "number of values")?,
        encoding: data.needed(2, "encoding")?,
        lengths: None,
        bytes: ByteReader::new(unpack(body, size, codec)?),
    }))
}

/// A data page of the second version: its levels are not compressed.
fn second_version(
    header: &ThriftValue<'_>,
    body: &[u8],
    size: usize,
    codec: i64,
) -> Result<Page, Reason> {
    let data = part(header, 8)?;
    let definition = data.count(5, "length of definition levels")?;
    let repetition = data.count(6, "length of repetition levels")?;
    let levels = definition.checked_add(repetition);
    let levels = levels.filter(|levels| *levels <= body.len() && *levels <= size);
    let levels = levels.ok_or("the levels of a page are longer than the page")?;
    let codec = match data.flag(7) {
        Some(false) => 0,
        _ => codec,
    };
    let mut unpacked = body[..levels].to_vec();
    if size > levels {
        unpacked.extend(unpack(&body[levels..], size - levels, codec)?);
    }
    Ok(Page::Data(DataPage {
        count: data.count(1, "number of values")?,
        encoding: data.needed(4, "encoding")?,
        lengths: Some((repetition, definition)),
        bytes: ByteReader::new(unpacked),
    }))
}

/// Unpacks to exactly `size` bytes.
fn unpack(packed: &[u8], size: usize, codec: i64) -> Result<Vec<u8>, Reason> {
    let unpacked = match codec {
        0 => packed.to_vec(),
        1 => snappy(packed, size)?,
        2 => stream(flate2::read::MultiGzDecoder::new(packed), size)?,
        6 => stream(zstd(packed)?, size)?,
        other => {
            let name = match other {
                3 => "LZO",
                4 => "Brotli",
                5 | 7 => "LZ4",
                _ => "an unknown codec",
            };
            return Err(format!(
                "it is packed with {name}, expected snappy, gzip, zstd or nothing; write it again"
            ));
        }
    };
    match unpacked.len() {
        found if found == size => Ok(unpacked),
        found => Err(format!("a page unpacks to {found} bytes, expected {size}")),
    }
}

fn snappy(packed: &[u8], size: usize) -> Result<Vec<u8>, Reason> {
    let failed = |error: snap::Error| format!("a page cannot be unpacked: {error}");
    let found = snap::raw::decompress_len(packed).map_err(failed)?;
    // Three bytes of snappy unpack to 64 bytes at most.
    if found != size || size / 64 > packed.len() {
        return Err(format!(
            "a page claims to unpack to {found} bytes, expected {size}"
        ));
    }
    snap::raw::Decoder::new()
        .decompress_vec(packed)
        .map_err(failed)
}

fn zstd(packed: &[u8]) -> Result<impl Read, Reason> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(packed);
    decoder.map_err(|error| format!("a page cannot be unpacked: {error}"))
}

/// Reads one byte more than expected, so that too much is seen but not kept.
fn stream(reader: impl Read, size: usize) -> Result<Vec<u8>, Reason> {
    let mut unpacked = Vec::new();
    let read = reader.take(size as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|error| format!("a page cannot be unpacked: {error}"))?;
    Ok(unpacked)
}
