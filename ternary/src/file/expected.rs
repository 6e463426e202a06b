//! What the header of a packed file must say: its config, and the layout that follows from it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use crate::header::{Header, Tensor};
use crate::layout::{self, Contents, Dtype, EMBEDDING, HEAD, Layout, Role};
use crate::table::MOST_COLUMNS;
use crate::{Config, Error, LinearType, Result, Scaling, json, scales};

use super::FILES;

pub(super) fn read_config(path: &Path, data: &[u8], header: &Header) -> Result<Config> {
    let bad = |expected: &str, found: String| Error::Tensor {
        path: path.to_owned(),
        tensor: "config.json".into(),
        expected: expected.into(),
        found,
    };
    let tensor = header.tensors.get("config.json");
    let tensor = tensor.ok_or_else(|| bad("the embedded config", "nothing".into()))?;
    let bytes = data.get(tensor.start..tensor.end);
    let bytes = bytes.ok_or_else(|| bad("the embedded config", "a part of it".into()))?;
    let json = json::parse(bytes).map_err(|e| bad("the embedded config", e))?;
    Config::from_json(&json).map_err(|e| bad("a config that can be computed", e.to_string()))
}

/// Fewest tensors per layer in any family: seven matrices and two norms. Ternary matrices add their
/// scales.
const LEAST_PER_LAYER: usize = 9;
const LEAST_PER_TERNARY_LAYER: usize = 16;

/// The layout that follows from the config and from the table types and files in the header.
pub(super) fn expected_layout(path: &Path, config: &Config, header: &Header) -> Result<Layout> {
    let tensor = |name: &str| header.tensors.get(name);
    let form = &header.form;
    let least = match form.packing {
        LinearType::Ternary(_) => LEAST_PER_TERNARY_LAYER,
        LinearType::Dense(_) => LEAST_PER_LAYER,
    };
    // Compare the number of layers with the size of the header before the layout is computed: a
    // hostile config could ask for any number.
    if config.num_hidden_layers * least > header.tensors.len() {
        return Err(Error::Tensor {
            path: path.to_owned(),
            tensor: format!("model.layers.{}", config.num_hidden_layers - 1),
            expected: format!("{} layers", config.num_hidden_layers),
            found: format!("{} tensors", header.tensors.len()),
        });
    }
    let planes: usize = header.form.tables.iter().map(|t| t.planes()).sum();
    if planes > 0 && config.hidden_size > MOST_COLUMNS {
        return Err(Error::Tensor {
            path: path.to_owned(),
            tensor: HEAD.into(),
            expected: format!("at most {MOST_COLUMNS} columns in a coded table"),
            found: config.hidden_size.to_string(),
        });
    }
    // A number that no table can have becomes 0, which the header then differs from.
    let exceptions = [EMBEDDING, HEAD].map(|name| {
        let name = match config.tie_word_embeddings {
            true => EMBEDDING,
            false => name,
        };
        let count = tensor(&layout::exceptions_name(name)).and_then(|t| t.shape.first().copied());
        let values = config.vocab_size.saturating_mul(config.hidden_size);
        count
            .filter(|count| *count <= values.min(u32::MAX as usize))
            .unwrap_or(0)
    });
    let (mut scaling, mut numbers) = (HashMap::new(), HashMap::new());
    for weight in layout::weights(config) {
        if weight.role == Role::Linear {
            let dtype = tensor(&weight.name).map(|t| t.dtype);
            if let Some(dtype) = dtype.filter(|dtype| *dtype != Dtype::U8) {
                numbers.insert(weight.name.clone(), dtype);
            }
            let scales = tensor(&layout::scale_name(&weight.name));
            let found =
                scales.and_then(|t| Scaling::from_shape(&t.shape, weight.rows, weight.columns));
            scaling.insert(weight.name, found.unwrap_or_default());
        }
    }
    scales::check_scaling(path, form.packing, &scaling)?;
    let files: Vec<(String, usize)> = FILES
        .iter()
        .filter_map(|name| tensor(name).map(|t| (name.to_string(), t.end.wrapping_sub(t.start))))
        .filter(|(_, len)| *len <= isize::MAX as usize / 8)
        .collect();
    Ok(Layout::new(&Contents {
        config,
        packing: form.packing,
        tables: form.tables,
        exceptions,
        scaling: &scaling,
        numbers: &numbers,
        group_scales: form.group_scales,
        files: &files,
    }))
}

/// Parts of the file of which generation reads single rows only: low planes with their exceptions,
/// and an embedding that is not the head.
pub(super) fn seldom_read(
    config: &Config,
    layout: &Layout,
    data_start: usize,
) -> Vec<Range<usize>> {
    let low_plane = |name| [layout::low_plane_name(name), layout::exceptions_name(name)];
    let mut names: Vec<String> = [EMBEDDING, HEAD].into_iter().flat_map(low_plane).collect();
    if !config.tie_word_embeddings {
        let plane = |i| layout::plane_name(EMBEDDING, i);
        names.extend([
            plane(0),
            plane(1),
            plane(2),
            layout::multipliers_name(EMBEDDING),
        ]);
    }
    let entries = names.iter().filter_map(|name| layout.find(name));
    let mut parts: Vec<Range<usize>> = entries
        .map(|e| data_start + e.offset..data_start + e.offset + e.len)
        .collect();
    parts.sort_by_key(|part| part.start);
    parts
}

pub(super) fn compare(path: &Path, layout: &Layout, header: &Header) -> Result<()> {
    let error = |tensor: &str, expected: String, found: String| {
        let (path, tensor) = (path.to_owned(), tensor.to_owned());
        Err(Error::Tensor {
            path,
            tensor,
            expected,
            found,
        })
    };
    for e in &layout.entries {
        let (start, end) = (e.offset, e.offset + e.len);
        let expected = Tensor {
            dtype: e.dtype,
            shape: e.shape.clone(),
            start,
            end,
        };
        match header.tensors.get(&e.name) {
            None => return error(&e.name, describe(&expected), "nothing".into()),
            Some(found) if *found != expected => {
                return error(&e.name, describe(&expected), describe(found));
            }
            Some(_) => {}
        }
    }
    match header
        .tensors
        .keys()
        .filter(|name| layout.find(name).is_none())
        .min()
    {
        Some(name) => error(
            &json::shown(name),
            "no such tensor".into(),
            describe(&header.tensors[name]),
        ),
        None => Ok(()),
    }
}

fn describe(t: &Tensor) -> String {
    format!(
        "{} {} at bytes {}..{}",
        t.dtype.name(),
        json::shown(&format!("{:?}", t.shape)),
        t.start,
        t.end
    )
}
