//! Writer of a Hugging Face folder that `transformers` can load.
//!
//! In the packed form, a byte holds four codes in the layout that [`crate::HuggingFace`] reads. A
//! scale is stored as a multiplier or as a divisor, whichever is exact in the narrower type.
//! `transformers` reads scales, norms and tables in one type: bf16 if it represents all of them
//! exactly, f32 if not.
//!
//! A model with several scales per matrix, or with weights from products, has no packed form. Its
//! weights are written as trit × scale in the narrowest of f16, bf16 and f32 that is exact, without
//! a quantization config, so that `transformers` loads an ordinary model.
//!
//! The safetensors header is written here, because the crate's `View` cannot return an error when a
//! tensor is read from the source while the file is written.

use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};
use sterna_ternary::card::{Card, README, hub_name};
use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::{Config, Dtype, OutputFolder, Scaling, durable, sha256};

use crate::progress::ProgressCounter;
use crate::proof;
use crate::read::embedded::parse_object;
use crate::read::safetensors::SINGLE;
use crate::report::coarser;
use crate::value_type::is_same;
use crate::write::stream;
use crate::write::table::{self, TablePlan};
use crate::{
    ConversionReport, Error, HuggingFace, MatrixReport, Result, Scales, Source, StoredScale,
    Ternary, ValueType, parallel,
};

/// Storage of the linear layers, and the type of all tensors that are not packed.
struct FolderForm {
    linear: LinearForm,
    precision: ValueType,
}

enum LinearForm {
    /// Packed codes, and the stored scale of each matrix, in order.
    Packed { divides: bool, stored: Vec<f32> },
    /// Numbers: the products trit × scale.
    Products,
}

impl FolderForm {
    fn name(&self) -> &'static str {
        match self.linear {
            LinearForm::Packed { divides: true, .. } => "hf, scales divide",
            LinearForm::Packed { divides: false, .. } => "hf, scales multiply",
            LinearForm::Products => "hf, products",
        }
    }

    fn dtype(&self) -> Dtype {
        match self.precision {
            ValueType::F16 => Dtype::F16,
            ValueType::Bf16 => Dtype::Bf16,
            _ => Dtype::F32,
        }
    }
}

pub(crate) fn write(
    source: &dyn Source,
    out: &OutputFolder,
    show: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    let weights = layout::weights(source.config());
    let size = |w: &Weight| (w.rows * w.columns) as u64;
    let total = 3 * weights.iter().map(size).sum::<u64>();
    let mut progress = ProgressCounter::new(total, show);
    let form = survey(source, &weights, &mut progress)?;
    if let LinearForm::Packed { .. } = form.linear {
        check_rows(source, &weights)?;
    }
    let files = files(source, &form)?;

    // The folder gets its final name only after the proof.
    out.make(|unproven| {
        for (name, bytes) in &files {
            let path = unproven.join(name);
            durable::write(&path, |file| file.write_all(bytes)).map_err(Error::io(&path))?;
        }
        let model = unproven.join(SINGLE);
        let matrices = write_weights(source, &weights, &form, &model, &mut progress)?;
        let result = HuggingFace::open(unproven, true)?;
        let (path, exact) = (out.path(), ValueType::F32);
        let proof = proof::prove(source, &result, &files, path, exact, &mut progress)?;
        let plans = table_plans(source, &weights, form.precision);
        let mut report = ConversionReport::new(form.name(), source, &proof, &plans, matrices);
        if let LinearForm::Packed { .. } = form.linear {
            let warning = coarser(source, "transformers, in this form,");
            report.warnings.extend(warning);
        }
        report.bytes_out = model.metadata().map_err(Error::io(&model))?.len();
        report.sha256 = sha256::of_file(&model).map_err(Error::io(&model))?;
        write_card(source, &form, unproven)?;
        Ok(report)
    })
}

/// Writes the model card: the README.md of the source, unchanged because the model is the same; or
/// a new card with the known facts.
fn write_card(source: &dyn Source, form: &FolderForm, folder: &Path) -> Result<()> {
    let own = source.path().join(README);
    if own.is_file() {
        let copied = std::fs::copy(&own, folder.join(README));
        return copied.map(drop).map_err(Error::io(&own));
    }
    let last = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let base = hub_name(source.path(), "models");
    let from = base.clone().unwrap_or_else(|| last(source.path()));
    let card = Card {
        title: from.clone(),
        base_model: base,
        is_quantized: matches!(form.linear, LinearForm::Packed { .. }),
        about: format!(
            "A ternary (1.58-bit) language model: each weight of its linear layers is -1, 0 or \
             +1 times a scale. It was converted from `{}` by Sterna {}, which compared every \
             weight with the source.",
            from.replace('`', ""),
            env!("CARGO_PKG_VERSION")
        ),
        ..Card::default()
    };
    card.write(folder, source.config())
        .map_err(Error::io(folder))
}

/// Checks the number of rows, by which `transformers` recognizes packed weights.
fn check_rows(source: &dyn Source, weights: &[Weight]) -> Result<()> {
    let mut linears = weights.iter().filter(|w| w.role == Role::Linear);
    match linears.find(|w| w.rows % 4 != 0) {
        None => Ok(()),
        Some(odd) => Err(Error::Tensor {
            path: source.path().to_owned(),
            tensor: odd.name.clone(),
            expected: "a multiple of four rows, as transformers requires of packed weights".into(),
            found: odd.rows.to_string(),
            advice: "write a packed file of Sterna",
        }),
    }
}

/// The types that represent all values seen so far exactly.
struct Fits {
    f16: bool,
    bf16: bool,
}

impl Fits {
    fn see(&mut self, values: &[f32]) {
        self.f16 &= values.iter().all(|x| is_f16(*x));
        self.bf16 &= values.iter().all(|x| is_bf16(*x));
    }
}

fn survey(
    source: &dyn Source,
    weights: &[Weight],
    progress: &mut ProgressCounter,
) -> Result<FolderForm> {
    let mut others = Fits {
        f16: true,
        bf16: true,
    };
    let mut products = Fits {
        f16: true,
        bf16: true,
    };
    let mut scales = Vec::new();
    let mut are_products = false;
    for weight in weights {
        match weight.role {
            Role::Linear => {
                let Ternary {
                    scales: of, stored, ..
                } = source.linear(weight)?;
                products.see(&of.values);
                are_products |= matches!(stored, StoredScale::Products(_));
                match of.single() {
                    Some(scale) => scales.push((scale, stored)),
                    None => are_products = true,
                }
            }
            Role::Norm | Role::Table => table::for_each_chunk(source, weight, |_, values| {
                let offset = weight.offset(source.config());
                let stored: Vec<f32> = values.iter().map(|x| x - offset).collect();
                others.see(&stored);
                Ok(())
            })?,
        }
        progress.add(weight.rows * weight.columns);
    }
    Ok(match are_products {
        true => FolderForm {
            linear: LinearForm::Products,
            precision: match (others.f16 && products.f16, others.bf16 && products.bf16) {
                (true, _) => ValueType::F16,
                (false, true) => ValueType::Bf16,
                (false, false) => ValueType::F32,
            },
        },
        false => packed_form(&scales, others.bf16),
    })
}

fn packed_form(scales: &[(f32, StoredScale)], fits_bf16: bool) -> FolderForm {
    let multiply: Vec<f32> = scales.iter().map(|(scale, _)| *scale).collect();
    let divide: Option<Vec<f32>> = scales
        .iter()
        .map(|(s, stored)| divisor(*s, *stored))
        .collect();
    let divided = scales
        .iter()
        .all(|(_, s)| matches!(s, StoredScale::Divide(_)));
    let mut ways = vec![(false, Some(multiply)), (true, divide)];
    if divided {
        ways.reverse();
    }
    let mut forms = ways.into_iter().filter_map(|(divides, stored)| {
        let stored = stored?;
        let narrow = fits_bf16 && stored.iter().all(|x| is_bf16(*x));
        Some(FolderForm {
            precision: if narrow {
                ValueType::Bf16
            } else {
                ValueType::F32
            },
            linear: LinearForm::Packed { divides, stored },
        })
    });
    let first = forms.next().expect("every scale can be multiplied by");
    match forms.next() {
        Some(second)
            if second.precision != first.precision && second.precision == ValueType::Bf16 =>
        {
            second
        }
        _ => first,
    }
}

fn is_f16(x: f32) -> bool {
    is_same(f16::from_f32(x).to_f32(), x)
}

fn is_bf16(x: f32) -> bool {
    is_same(bf16::from_f32(x).to_f32(), x)
}

/// A number whose reciprocal equals the scale bit for bit.
fn divisor(scale: f32, stored: StoredScale) -> Option<f32> {
    let candidate = match stored {
        StoredScale::Divide(x) => x,
        StoredScale::Multiply(_) | StoredScale::Masters | StoredScale::Products(_) => {
            bf16::from_f32(1.0 / scale).to_f32()
        }
    };
    is_same(1.0 / candidate, scale).then_some(candidate)
}

/// The files of the folder except the weights. config.json states the storage of the weights.
fn files(source: &dyn Source, form: &FolderForm) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = source.files().to_vec();
    let config = files.iter_mut().find(|(name, _)| name == "config.json");
    let (_, bytes) = config.expect("every source has a config.json");
    let mut json = parse_object(&source.path().join("config.json"), bytes)?;
    let object = json.as_object_mut().expect("an object was parsed");
    for key in ["quantization_config", "weight_bits", "input_bits"] {
        object.shift_remove(key);
    }
    if let LinearForm::Packed { divides, .. } = form.linear {
        let mut quantization =
            json!({"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"});
        if !divides {
            quantization["linear_class"] = "autobitlinear".into();
            quantization["quantization_mode"] = "offline".into();
        }
        if let Some(eps) = source.config().linear_norm_eps {
            quantization["use_rms_norm"] = true.into();
            quantization["rms_norm_eps"] = json!(eps);
        }
        json["quantization_config"] = quantization;
    }
    let dtype = match form.precision {
        ValueType::F16 => "float16",
        ValueType::Bf16 => "bfloat16",
        _ => "float32",
    };
    json["torch_dtype"] = dtype.into();
    if let Some(other) = json.get_mut("dtype") {
        *other = dtype.into();
    }
    check_multiplier(source, &json, dtype)?;
    *bytes = format!("{json:#}\n").into_bytes();
    Ok(files)
}

/// Checks the type of the checkpoint, which also determines the rounding of the embedding
/// multiplier.
fn check_multiplier(source: &dyn Source, json: &Value, dtype: &str) -> Result<()> {
    let written = Config::from_json(json).map_err(|source_error| Error::Config {
        path: source.path().to_owned(),
        source: source_error,
    })?;
    let (expected, found) = (
        source.config().embedding_multiplier,
        written.embedding_multiplier,
    );
    if expected == found {
        return Ok(());
    }
    Err(Error::Tensor {
        path: source.path().to_owned(),
        tensor: layout::EMBEDDING.into(),
        expected: format!("a multiplier of {expected}"),
        found: format!("{found}, what transformers takes for weights of {dtype}, which these need"),
        advice: "write a packed file of Sterna",
    })
}

fn table_plans(source: &dyn Source, weights: &[Weight], precision: ValueType) -> Vec<TablePlan> {
    let tables = weights.iter().filter(|w| w.role == Role::Table);
    let plan = |w: &Weight| TablePlan::exact(source, w, precision);
    tables.map(plan).collect()
}

fn write_weights(
    source: &dyn Source,
    weights: &[Weight],
    form: &FolderForm,
    path: &Path,
    progress: &mut ProgressCounter,
) -> Result<Vec<MatrixReport>> {
    let mut matrices = Vec::new();
    let wrap = |e| Error::io(path)(e);
    durable::write_with(path, wrap, |file| {
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
        put(&header(weights, form))?;
        for weight in weights {
            if weight.role == Role::Linear {
                let ternary = source.linear(weight)?;
                match &form.linear {
                    LinearForm::Packed { stored, .. } => {
                        put(&pack(weight, &ternary.trits)?)?;
                        let scale = stored[matrices.len()];
                        put(&table::number_bytes(form.precision, &[scale])?)?;
                    }
                    LinearForm::Products => for_each_product(weight, &ternary, |values| {
                        put(&table::number_bytes(form.precision, values)?)
                    })?,
                }
                matrices.push(MatrixReport::new(weight, &ternary));
            } else {
                // Checkpoints store norms without the offset that the family adds.
                let offset = weight.offset(source.config());
                table::for_each_chunk(source, weight, |_, values| {
                    let stored: Vec<f32> = values.iter().map(|x| x - offset).collect();
                    put(&table::number_bytes(form.precision, &stored)?)
                })?;
            }
            progress.add(weight.rows * weight.columns);
        }
        Ok(())
    })?;
    Ok(matrices)
}

/// Computes the weights of a matrix as numbers, a chunk of rows at a time.
fn for_each_product(
    weight: &Weight,
    ternary: &Ternary,
    mut f: impl FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let (rows, columns) = (weight.rows, weight.columns);
    let Scales { scaling, values } = &ternary.scales;
    let scale = |row: usize, column: usize| match scaling {
        Scaling::Matrix => values[0],
        Scaling::Row => values[row],
        Scaling::Group => values[column / GROUP_COLUMNS * rows + row],
    };
    let fill = |row: usize, products: &mut [f32]| {
        let trits = &ternary.trits[row * columns..][..columns];
        for (column, (product, trit)) in products.iter_mut().zip(trits).enumerate() {
            *product = f32::from(*trit) * scale(row, column);
        }
        Ok(())
    };
    stream::rows(rows, columns, columns, fill, |products| f(products))
}

/// The header of the safetensors file, padded with spaces to a multiple of eight.
fn header(weights: &[Weight], form: &FolderForm) -> Vec<u8> {
    let dtype = form.dtype();
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    let mut push = |name: String, dtype: Dtype, shape: Value, elements: usize| {
        let start = end;
        end += elements * dtype.bytes();
        let offsets = [start, end];
        let entry = json!({"dtype": dtype.name(), "shape": shape, "data_offsets": offsets});
        entries.insert(name, entry);
    };
    for w in weights {
        let (name, elements) = (w.name.clone(), w.rows * w.columns);
        match w.role {
            Role::Norm => push(name, dtype, json!([w.columns]), elements),
            Role::Table => push(name, dtype, json!([w.rows, w.columns]), elements),
            Role::Linear => match form.linear {
                LinearForm::Products => push(name, dtype, json!([w.rows, w.columns]), elements),
                LinearForm::Packed { .. } => {
                    let shape = json!([w.rows / 4, w.columns]);
                    push(name, Dtype::U8, shape, elements / 4);
                    push(layout::scale_name(&w.name), dtype, json!([1]), 1);
                }
            },
        }
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

/// Packs trits: row r of the bytes holds the rows r, R + r, 2R + r and 3R + r from the low bits up,
/// where R is a quarter of all rows.
fn pack(weight: &Weight, trits: &[i8]) -> Result<Vec<u8>> {
    let quarter = trits.len() / 4;
    let mut bytes = vec![0; quarter];
    parallel::rows(trits.len(), &mut bytes, weight.columns, |first, bytes| {
        for (i, byte) in (first * weight.columns..).zip(bytes) {
            *byte = (0..4)
                .map(|n| ((trits[n * quarter + i] + 1) as u8) << (2 * n))
                .sum();
        }
        Ok(())
    })?;
    Ok(bytes)
}
