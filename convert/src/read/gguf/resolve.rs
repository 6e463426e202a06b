//! Determines the types of the tensors in a file.
//!
//! Several projects gave the same number to different layouts. A number therefore has several
//! candidates. The reader takes the one candidate that fills the bytes of every tensor with that
//! number. If none or several do, the file is refused.

use std::collections::HashMap;

use super::container::{Container, Info};
use crate::gguf::types::{Content, I2_S, I2_S_ARM, OTHER, Type, all};
use crate::gguf::{GgufHints, I2sOrder};
use crate::{Error, Result};

const LUT: &str = "\
    its layout depends on the kernel configuration of the program that wrote it, which the file \
    does not hold; give that program's include/kernel_config.ini (--kernel-config), or convert \
    the original checkpoint or a file in I2_S";

/// Determines the type of each number in a file.
pub(crate) fn resolve(
    container: &Container,
    hints: &GgufHints,
) -> Result<HashMap<u32, &'static Type>> {
    let mut by_id: HashMap<u32, Vec<&Info>> = HashMap::new();
    for info in container.tensors.values() {
        by_id.entry(info.type_id).or_default().push(info);
    }
    let mut types = HashMap::new();
    let mut ids: Vec<_> = by_id.into_iter().collect();
    ids.sort_by_key(|(id, _)| *id);
    for (id, mut infos) in ids {
        infos.sort_by(|a, b| (b.span, &a.name).cmp(&(a.span, &b.name)));
        let found = candidate(container, hints, id, &infos)?;
        types.insert(
            id,
            if hints.i2s_order == I2sOrder::Blocks64 && found.id == I2_S.id {
                &I2_S_ARM
            } else {
                found
            },
        );
    }
    Ok(types)
}

/// Finds the one candidate for tensors with the same number, the largest tensor first.
fn candidate(
    container: &Container,
    hints: &GgufHints,
    id: u32,
    infos: &[&Info],
) -> Result<&'static Type> {
    let error = |info: &Info, expected: String, found: String, advice| {
        Err(Error::Gguf {
            path: container.path.clone(),
            part: format!("tensor {}", info.name.escape_debug()),
            expected,
            found,
            advice,
        })
    };
    // Several projects use the same number; the bytes of the tensors tell which type it is.
    let candidates: Vec<&Type> = all().filter(|t| t.id == id).collect();
    if candidates.is_empty() {
        let names: Vec<_> = all().map(|t| format!("{} ({})", t.name, t.id)).collect();
        let expected = format!("one of the types {}", names.join(", "));
        return error(infos[0], expected, format!("type {id}"), OTHER);
    }
    let mut fitting = candidates
        .iter()
        .filter(|t| fits(container, t, infos).is_none());
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => match one.content {
            Content::Refused(why) => {
                let expected = "a type that can be read".into();
                error(infos[0], expected, one.name.into(), why)
            }
            Content::Lut(_) if hints.kernels.is_none() => {
                let expected = "a layout that the file describes".into();
                error(infos[0], expected, one.name.into(), LUT)
            }
            _ => Ok(one),
        },
        // No layout fits: name the tensor and the sizes that would.
        (None, _) => {
            let mut closest = candidates.iter().filter_map(|t| fits(container, t, infos));
            let info = closest.next_back().unwrap_or(infos[0]);
            let sizes = candidates.iter().map(|t| match t.bytes(info) {
                Some(bytes) => format!("{bytes} bytes of {}", t.name),
                None => format!("a width that {} can hold", t.name),
            });
            let expected = sizes.collect::<Vec<_>>().join(" or ");
            let found = format!("{} bytes for {:?} elements", info.span, info.dimensions);
            error(info, expected, found, SIZE)
        }
        (Some(a), Some(b)) => {
            let expected = "bytes that only one layout has".into();
            let found = format!("room for {} and for {}", a.name, b.name);
            error(infos[0], expected, found, OTHER)
        }
    }
}

const SIZE: &str =
    "the file was cut off, or written by a program that gives this number to another type";

/// The first tensor whose bytes do not have the size of the type.
fn fits<'a>(container: &Container, kind: &Type, infos: &[&'a Info]) -> Option<&'a Info> {
    let fills = |info: &Info| {
        let bytes = kind.bytes(info);
        bytes.is_some_and(|n| n <= info.span && info.span < n + container.alignment)
    };
    infos.iter().find(|info| !fills(info)).copied()
}
