//! Weights that are stored as products of trits and scales: TriLM, Bonsai and BitCPM.

mod checkpoint;

use std::fs;
use std::path::Path;

use checkpoint::{Checkpoint, OPTIONS, Storage, byte_level, config, store, tokenizer, unpack};
use safetensors::Dtype;
use serde_json::{Value, json};
use sterna_convert::{
    ConversionReport, Error, GgufOptions, GgufType, HeadType, PackedOptions, open, repack, verify,
    write_gguf, write_huggingface,
};
use sterna_ternary::layout::{self, Role};
use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::{
    Activations, Config, Output, OutputFolder, PackedFile, Packing, Scaling, TableType,
    file::Values,
};

const UP: &str = "model.layers.1.mlp.up_proj.weight";

/// The scale of a weight: one for q_proj, one per row of k_proj (two rows), one per group in
/// the other layers.
fn scale(name: &str, row: usize, column: usize) -> f32 {
    let group = column / GROUP_COLUMNS;
    if name.contains("q_proj") {
        0.5
    } else if name.contains("k_proj") {
        [0.25, 0.375][row % 2]
    } else {
        0.25 + 0.125 * ((row * 5 + group * 3) % 4) as f32
    }
}

fn products() -> Checkpoint {
    products_of(&[("hidden_size", 300), ("intermediate_size", 260)], scale)
}

/// A model whose weights are products with these scales of tensor, row and column.
fn products_of(sizes: &[(&str, usize)], scale: impl Fn(&str, usize, usize) -> f32) -> Checkpoint {
    let mut json = config(Storage::Online, true);
    json["quantization_config"] = Value::Null;
    for (key, size) in sizes {
        json[*key] = json!(size);
    }
    let mut made = Checkpoint::from_config(json.clone(), Storage::Online, Dtype::F16);
    for w in layout::weights(&Config::from_json(&json).unwrap()) {
        if w.role == Role::Linear {
            let weight = |i: usize| {
                let trit = [1.0, 0.0, -1.0, -1.0][(i * i + i / 7) % 4];
                trit * scale(&w.name, i / w.columns, i % w.columns)
            };
            let weights: Vec<f32> = (0..w.rows * w.columns).map(weight).collect();
            let (tensor, weights) = store(Dtype::F16, &[w.rows, w.columns], &weights);
            made.tensors.insert(w.name.clone(), tensor);
            made.values.insert(w.name, weights);
        }
    }
    made
}

fn convert(checkpoint: &Checkpoint) -> (ConversionReport, PackedFile, tempfile::TempDir) {
    let options = PackedOptions {
        packing: Packing::I2.into(),
        ..OPTIONS
    };
    checkpoint.convert(&options).unwrap()
}

fn check(checkpoint: &Checkpoint, packed: &PackedFile) {
    packed.verify().unwrap();
    for w in layout::weights(&packed.config) {
        if w.role != Role::Linear {
            continue;
        }
        let matrix = packed.matrix(&w.name);
        let scaling = match &w.name {
            name if name.contains("q_proj") => Scaling::Matrix,
            name if name.contains("k_proj") => Scaling::Row,
            name if name.contains("o_proj") => Scaling::Row, // 6 columns
            _ => Scaling::Group,
        };
        assert_eq!(matrix.scaling, scaling, "{}", w.name);
        let scale = |row: usize, column: usize| match scaling {
            Scaling::Matrix => matrix.scales.at(0),
            Scaling::Row => matrix.scales.at(row),
            Scaling::Group => matrix.scales.at(column / GROUP_COLUMNS * w.rows + row),
        };
        let trits = unpack(packed, &w.name).into_iter().enumerate();
        let weights = trits.map(|(i, t)| f32::from(t) * scale(i / w.columns, i % w.columns));
        assert!(weights.eq(checkpoint.values[&w.name].iter().copied()));
    }
}

#[test]
fn every_weight_is_the_product_again() {
    let checkpoint = products();
    let (report, packed, folder) = convert(&checkpoint);
    check(&checkpoint, &packed);
    let up = report.matrices.iter().find(|m| m.name == UP).unwrap();
    assert_eq!((up.scales, up.stored_scale), (3 * 260, "products"));
    assert_eq!(report.activations, Some("int16"));
    assert_eq!(packed.activations, Activations::Int16);
    assert_eq!(packed.group_scales, sterna_ternary::Dtype::F16);
    let again = folder.path().join("again");
    repack(&packed, Packing::I2, &Output::new(&again).unwrap()).unwrap();
    check(&checkpoint, &PackedFile::open(&again).unwrap());
    let found = verify(folder.path(), &again, &mut |_, _| {}).unwrap();
    assert!(found.is_equal() && found.scales == report.scales);
    let error = repack(&packed, Packing::T5, &Output::new(&again).unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("pack the model as i2"), "{error}");
}

#[test]
fn a_step_of_f16_is_reported() {
    let mut checkpoint = products();
    checkpoint.set(UP, 0, scale(UP, 0, 0) * (1.0 - 1.0 / 2048.0));
    let (report, _, _folder) = convert(&checkpoint);
    assert!(
        report
            .warnings
            .join("")
            .contains("1 weights were one step of f16")
    );
}

#[test]
fn a_scale_that_differs_is_found() {
    let checkpoint = products();
    let (_, packed, _folder) = convert(&checkpoint);
    let mut other = products();
    for i in 0..300 {
        let weight = other.values[UP][i];
        other.set(UP, i, 2.0 * weight);
    }
    let (_, changed, _other) = convert(&other);
    let found = verify(packed.path(), changed.path(), &mut |_, _| {}).unwrap();
    assert_eq!((found.differ, found.scales_differ), (0, 3));
    assert_eq!(found.first.as_deref(), Some(UP));
}

/// The same with tables of trits and one scale per group. Every sixteenth group is zeros.
fn ternary_tables() -> Checkpoint {
    let mut checkpoint = products();
    let value = |i: usize| {
        let (row, column) = (i / 300, i % 300);
        let scale = 0.25 + 0.125 * ((row * 3 + column / GROUP_COLUMNS) % 5) as f32;
        let is_zero = (row * 3 + column / GROUP_COLUMNS) % 16 == 1;
        let scale = if is_zero { 0.0 } else { scale };
        [1.0, 0.0, -1.0, 1.0][(i * i + i / 3) % 4] * scale + 0.0 // no minus zero
    };
    for name in [layout::EMBEDDING, layout::HEAD] {
        if checkpoint.values.contains_key(name) {
            let rows = checkpoint.values[name].len() / 300;
            let values: Vec<f32> = (0..rows * 300).map(value).collect();
            let (tensor, values) = store(Dtype::F16, &[rows, 300], &values);
            checkpoint.tensors.insert(name.into(), tensor);
            checkpoint.values.insert(name.into(), values);
        }
    }
    checkpoint
}

fn with_head(
    checkpoint: &Checkpoint,
    head: HeadType,
) -> sterna_convert::Result<(ConversionReport, PackedFile, tempfile::TempDir)> {
    checkpoint.convert(&PackedOptions {
        head,
        packing: Packing::I2.into(),
        ..OPTIONS
    })
}

#[test]
fn ternary_tables_are_found() {
    let checkpoint = ternary_tables();
    for head in [HeadType::Auto, HeadType::Lossless, HeadType::Ternary] {
        let (report, packed, folder) = with_head(&checkpoint, head).unwrap();
        packed.verify().unwrap();
        assert_eq!(packed.head_type, TableType::Ternary);
        assert!(
            report
                .tables
                .iter()
                .all(|t| t.dtype == "ternary" && t.max_error == 0.0)
        );
        let Values::Trits(trits) = packed.head().values else {
            panic!("{:?}", packed.head_type);
        };
        let name = match packed.config.tie_word_embeddings {
            true => layout::EMBEDDING,
            false => layout::HEAD,
        };
        let expected = &checkpoint.values[name];
        let mut row = vec![0.0; 300];
        for (r, expected) in expected.chunks(300).enumerate() {
            trits.decode(r, &mut row);
            assert_eq!(row, expected);
        }
        let again = folder.path().join("again");
        repack(&packed, Packing::I2, &Output::new(&again).unwrap()).unwrap();
        let found = verify(folder.path(), &again, &mut |_, _| {}).unwrap();
        assert!(found.is_equal(), "{found:?}");
        assert_eq!(
            PackedFile::open(&again).unwrap().activations,
            Activations::Int16
        );
    }
    let (report, packed, _folder) = with_head(&checkpoint, HeadType::Q8).unwrap();
    assert_eq!(
        (packed.head_type, report.tables.last().unwrap().dtype),
        (TableType::Q8, "q8")
    );
}

#[test]
fn tables_that_are_not_ternary_are_named() {
    let mut checkpoint = ternary_tables();
    let name = match checkpoint.values.contains_key(layout::HEAD) {
        true => layout::HEAD,
        false => layout::EMBEDDING,
    };
    let value = checkpoint.values[name][3 * 300];
    checkpoint.set(name, 3 * 300, value * (1.0 - 1.0 / 2048.0));
    let (report, packed, _folder) = with_head(&checkpoint, HeadType::Auto).unwrap();
    assert_eq!(packed.head_type, TableType::Ternary);
    assert!(report.tables.last().unwrap().max_error > 0.0);
    let (_, packed, _folder) = with_head(&checkpoint, HeadType::Lossless).unwrap();
    assert_eq!(packed.head_type, TableType::F16Planes);
    checkpoint.set(name, 3 * 300, value * 0.5);
    let (_, packed, _folder) = with_head(&checkpoint, HeadType::Auto).unwrap();
    assert_eq!(packed.head_type, TableType::Q8);
    let error = with_head(&checkpoint, HeadType::Ternary)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("row 3, column") && error.contains("--head q8"),
        "{error}"
    );
}

#[test]
fn activations_as_asked_for() {
    let asked = |activations| {
        let options = PackedOptions {
            activations,
            packing: Packing::I2.into(),
            ..OPTIONS
        };
        products().convert(&options).unwrap()
    };
    let (report, packed, _folder) = asked(Some(Activations::Int8));
    assert_eq!(packed.activations, Activations::Int8);
    assert!(report.warnings.join("").contains("--activations int8"));
    let (report, packed, _folder) = asked(Some(Activations::Int16));
    assert_eq!(packed.activations, Activations::Int16);
    assert!(!report.warnings.join("").contains("int8"));
}

/// Sizes that are multiples of the blocks of every type.
const WHOLE: &[(&str, usize)] = &[
    ("hidden_size", 256),
    ("intermediate_size", 512),
    ("num_attention_heads", 4),
    ("num_key_value_heads", 2),
    ("head_dim", 64),
];

/// A folder of a llama, whose rows GGUF holds in another order.
fn folder(checkpoint: &mut Checkpoint) -> tempfile::TempDir {
    checkpoint.config["model_type"] = "llama".into();
    checkpoint.config["architectures"] = json!(["LlamaForCausalLM"]);
    checkpoint.config["hidden_act"] = "silu".into();
    let norms = |name: &String| name.contains("sub_norm");
    let norms: Vec<String> = checkpoint
        .tensors
        .keys()
        .filter(|n| norms(n))
        .cloned()
        .collect();
    for name in norms {
        checkpoint.tensors.remove(&name);
    }
    let folder = checkpoint.folder();
    let text = tokenizer(byte_level()).to_string();
    fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    folder
}

fn to(
    weights: GgufType,
    lossy: bool,
    source: &Path,
    out: &Path,
) -> Result<ConversionReport, Error> {
    let options = GgufOptions {
        weights,
        head: HeadType::Lossless,
        pre: None,
        lossy,
        allow_missing: false,
    };
    let source = open(source, options.allow_missing)?;
    write_gguf(&*source, &Output::new(out)?, &options, &mut |_, _| {})
}

fn check_equal(a: &Path, b: &Path) {
    let found = verify(a, b, &mut |_, _| {}).unwrap();
    assert!(
        found.is_equal(),
        "{} {}: {found:?}",
        a.display(),
        b.display()
    );
}

#[test]
fn a_scale_a_group_is_exact_in_blocks_of_64_and_128_and_nowhere_else() {
    let folder = folder(&mut products_of(WHOLE, scale));
    let [out, back, again] = ["out", "back", "again"].map(|name| folder.path().join(name));
    for weights in GgufType::ALL {
        let made = to(weights, false, folder.path(), &out);
        if [GgufType::Q2_0, GgufType::Q2_0G128].contains(&weights) {
            assert_eq!(made.unwrap().scale_rounding, 0.0);
            check_equal(folder.path(), &out);
            sterna_convert::convert(&out, &back, &OPTIONS, &mut |_, _| {}).unwrap();
            check_equal(folder.path(), &back);
            to(weights, false, &back, &again).unwrap();
            check_equal(folder.path(), &again);
            continue;
        }
        let error = made.unwrap_err().to_string();
        for part in [
            "_proj",
            weights.name().to_uppercase().as_str(),
            "off by",
            "--lossy",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let report = to(weights, true, folder.path(), &out).unwrap();
        assert!(report.scale_rounding > 0.1 && report.scale_rounding < 1.0);
        let found = verify(folder.path(), &out, &mut |_, _| {}).unwrap();
        assert!(
            found.differ == 0 && found.scales_differ > 0,
            "trits stay as they are"
        );
    }
}

#[test]
fn a_scale_a_row_is_exact_where_blocks_lie_in_rows() {
    let rows = |_: &str, row: usize, _: usize| [0.25, 0.375, 0.5][row % 3];
    let folder = folder(&mut products_of(WHOLE, rows));
    let out = folder.path().join("out");
    for weights in GgufType::ALL {
        let made = to(weights, false, folder.path(), &out);
        match weights {
            GgufType::I2S => assert!(made.unwrap_err().to_string().contains("for the matrix")),
            _ => {
                made.unwrap();
                check_equal(folder.path(), &out);
            }
        }
    }
}

#[test]
fn scales_that_f16_does_not_hold_are_refused_or_rounded() {
    let mut checkpoint = products_of(WHOLE, scale);
    for (name, values) in &checkpoint.values {
        let (rows, columns) = (values.len() / 256, 256);
        if name.ends_with("up_proj.weight") {
            let small: Vec<f32> = (0..rows * columns)
                .map(|i| [1.0, 0.0, -1.0][i % 3] * [1e-9, 0.2][i / columns % 2])
                .collect();
            let (tensor, _) = store(Dtype::F32, &[rows, columns], &small);
            checkpoint.tensors.insert(name.clone(), tensor);
        }
    }
    let folder = folder(&mut checkpoint);
    let out = folder.path().join("out");
    let error = to(GgufType::Q2_0, false, folder.path(), &out).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("f16 holds") && error.contains("off by"),
        "{error}"
    );
    let error = to(GgufType::Q2_0, true, folder.path(), &out).unwrap_err();
    assert!(error.to_string().contains("become 0"), "{error}");
}

#[test]
fn several_scales_become_an_ordinary_folder_in_the_narrowest_type() {
    let fine = |_: &str, row: usize, _: usize| 0.25 + row as f32 / 1024.0; // eleven bits
    let wide = |_: &str, row: usize, _: usize| [1e-30f32, 1.0][row % 2];
    let wide =
        move |name: &str, row, column| half::bf16::from_f32(wide(name, row, column)).to_f32();
    let check = |checkpoint: &mut Checkpoint, dtype: &str| {
        let folder = folder(checkpoint);
        let [out, packed, other] = ["out", "packed", "other"].map(|n| folder.path().join(n));
        let source = open(folder.path(), false).unwrap();
        let report =
            write_huggingface(&*source, &OutputFolder::new(&out).unwrap(), &mut |_, _| {}).unwrap();
        assert_eq!(report.packing, "hf, products");
        check_equal(folder.path(), &out);
        let config = fs::read(out.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(
            (&config["torch_dtype"], config.get("quantization_config")),
            (&json!(dtype), None)
        );
        sterna_convert::convert(&out, &packed, &OPTIONS, &mut |_, _| {}).unwrap();
        let source = open(&packed, false).unwrap();
        write_huggingface(
            &*source,
            &OutputFolder::new(&other).unwrap(),
            &mut |_, _| {},
        )
        .unwrap();
        let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert_eq!(bytes(&out), bytes(&other));
    };
    // No number of rows, columns or groups is a multiple of four.
    let odd = &[("hidden_size", 301), ("intermediate_size", 263)];
    check(&mut products_of(odd, fine), "float16");
    let in_type = |checkpoint: Checkpoint, dtype: Dtype| {
        let mut checkpoint = checkpoint;
        for (name, values) in &checkpoint.values {
            let shape = checkpoint.tensors[name].shape.clone();
            let scale = |row: usize| wide(name, row, 0);
            let width = shape[shape.len() - 1];
            let weights: Vec<f32> = match shape.len() == 2 && name.contains("_proj") {
                true => (0..values.len())
                    .map(|i| [1.0, 0.0, -1.0][i * i % 3] * scale(i / width))
                    .collect(),
                false => values
                    .iter()
                    .map(|x| half::bf16::from_f32(*x).to_f32())
                    .collect(),
            };
            checkpoint
                .tensors
                .insert(name.clone(), store(dtype, &shape, &weights).0);
        }
        checkpoint
    };
    check(
        &mut in_type(products_of(odd, wide), Dtype::BF16),
        "bfloat16",
    );
    let mut both = in_type(products_of(odd, wide), Dtype::F32);
    both.set("model.norm.weight", 0, 1.0 + 1.0 / 1024.0);
    check(&mut both, "float32");
}
