//! Ways in which a header can lie.

use super::{File, text, value};

const Q: &str = "blk.0.attn_q.weight";

/// Name of the lie, the change to a good file, and the required parts of the error.
pub type Lie = (&'static str, fn(&mut File), &'static [&'static str]);

pub const LIES: &[Lie] = &[
    ("magic", |f| f.magic = *b"GGUX", &["another kind"]),
    ("version 0", |f| f.version = 0, &["version 0"]),
    ("version 1", |f| f.version = 1, &["version 1", "export"]),
    ("version 4", |f| f.version = 4, &["version 4", "update"]),
    ("big endian", |f| f.version = 3 << 24, &["big-endian"]),
    (
        "2^64 - 1 tensors",
        |f| f.count_tensors = Some(u64::MAX),
        &["header", "tensors"],
    ),
    (
        "2^64 - 1 pairs",
        |f| f.count_pairs = Some(u64::MAX),
        &["header", "pairs"],
    ),
    (
        "more tensors than there are",
        |f| f.count_tensors = Some(40),
        &["tensor"],
    ),
    (
        "more pairs than there are",
        |f| f.count_pairs = Some(40),
        &["key"],
    ),
    (
        "fewer tensors",
        |f| f.count_tensors = Some(3),
        &["attn_k", "64 bytes", "found 912"],
    ),
    (
        "fewer pairs",
        |f| f.count_pairs = Some(3),
        &["tensor", "dimensions"],
    ),
    (
        "no pairs",
        |f| f.pairs.clear(),
        &["general.architecture", "nothing"],
    ),
    ("no tensors", |f| f.tensors.clear(), &["vocab_size"]),
    (
        "empty key",
        |f| f.pairs[0].0.clear(),
        &["key 0", "1 to 65535"],
    ),
    (
        "long key",
        |f| f.pairs[0].0 = "k".repeat(70_000),
        &["key 0", "70000"],
    ),
    (
        "key twice",
        |f| f.pairs[1].0 = f.pairs[0].0.clone(),
        &["general.architecture", "second"],
    ),
    (
        "key is not UTF-8",
        |f| f.raw_key = Some(vec![0xff, 0xfe]),
        &["key 0", "UTF-8"],
    ),
    (
        "key length 2^64 - 1",
        |f| f.key_length = Some(u64::MAX),
        &["key 0", "before the end"],
    ),
    (
        "value of type 13",
        |f| f.pairs[2].1 = 13,
        &["general.file_type", "0 to 12"],
    ),
    (
        "value of type 2^32 - 1",
        |f| f.pairs[2].1 = u32::MAX,
        &["general.file_type"],
    ),
    (
        "bool of 2",
        |f| f.set("x", 7, vec![2]),
        &["key x", "false or true"],
    ),
    (
        "string of 2^64 - 1 bytes",
        |f| f.set("x", 8, vec![255; 8]),
        &["key x", "before the end"],
    ),
    (
        "string of 2^63 bytes",
        |f| f.set("x", 8, (1u64 << 63).to_le_bytes().to_vec()),
        &["key x"],
    ),
    (
        "string is not UTF-8",
        |f| f.set("x", 8, value::bytes(&[0xc0])),
        &["key x", "UTF-8"],
    ),
    (
        "array of arrays",
        |f| f.set("x", 9, value::array(9, 1, &[0; 20])),
        &["key x", "arrays"],
    ),
    (
        "array of type 99",
        |f| f.set("x", 9, value::array(99, 0, &[])),
        &["key x", "99"],
    ),
    (
        "array of 2^64 - 1",
        |f| f.set("x", 9, value::array(4, u64::MAX, &[])),
        &["key x", "elements"],
    ),
    (
        "array of 2^61 f64",
        |f| f.set("x", 9, value::array(12, 1 << 61, &[])),
        &["key x", "elements"],
    ),
    (
        "array of 2^40 strings",
        |f| f.set("x", 9, value::array(8, 1 << 40, &[])),
        &["key x"],
    ),
    (
        "array with a long string",
        |f| f.set("x", 9, value::array(8, 1, &[255; 8])),
        &["key x"],
    ),
    (
        "alignment 0",
        |f| f.set("general.alignment", 4, value::u32(0)),
        &["general.alignment", "0"],
    ),
    (
        "alignment 33",
        |f| f.set("general.alignment", 4, value::u32(33)),
        &["general.alignment", "33"],
    ),
    (
        "alignment 2^31",
        |f| f.set("general.alignment", 4, value::u32(1 << 31)),
        &["power of two"],
    ),
    (
        "alignment 4",
        |f| f.set("general.alignment", 4, value::u32(4)),
        &["general.alignment"],
    ),
    (
        "alignment is a string",
        |f| f.set("general.alignment", 8, text("32")),
        &["general.alignment"],
    ),
    (
        "alignment below zero",
        |f| f.set("general.alignment", 5, vec![255; 4]),
        &["general.alignment"],
    ),
    (
        "another alignment",
        |f| f.set("general.alignment", 4, value::u32(1 << 12)),
        &["multiple"],
    ),
    (
        "empty tensor name",
        |f| f.tensors[0].name.clear(),
        &["tensor 0", "1 to 64"],
    ),
    (
        "long tensor name",
        |f| f.tensors[0].name = "t".repeat(65),
        &["tensor 0", "65"],
    ),
    (
        "tensor twice",
        |f| f.tensors[1].name = f.tensors[0].name.clone(),
        &["token_embd", "second"],
    ),
    (
        "0 dimensions",
        |f| f.tensors[0].dimensions.clear(),
        &["token_embd", "1 to 4"],
    ),
    (
        "5 dimensions",
        |f| f.tensors[0].dimensions = vec![1; 5],
        &["token_embd", "1 to 4"],
    ),
    (
        "2^32 - 1 dimensions",
        |f| f.count_dimensions = Some(u32::MAX),
        &["token_embd", "1 to 4"],
    ),
    (
        "a dimension of zero",
        |f| f.tensors[0].dimensions[1] = 0,
        &["token_embd", "above zero"],
    ),
    (
        "product of 2^128",
        |f| f.tensors[0].dimensions = vec![1 << 32; 4],
        &["token_embd", "2^56"],
    ),
    (
        "product of 2^64",
        |f| f.tensors[0].dimensions = vec![1 << 32; 2],
        &["token_embd", "2^56"],
    ),
    (
        "product of 2^63",
        |f| f.tensors[0].dimensions = vec![1 << 31, 1 << 32],
        &["token_embd"],
    ),
    (
        "a dimension of 2^64 - 1",
        |f| f.tensors[0].dimensions[0] = u64::MAX,
        &["token_embd"],
    ),
    (
        "product of 2^56",
        |f| f.tensors[0].dimensions = vec![1 << 28; 2],
        &["token_embd", "bytes"],
    ),
    (
        "unknown type",
        |f| f.tensors[0].type_id = 77,
        &["token_embd", "type 77"],
    ),
    (
        "type 2^32 - 1",
        |f| f.tensors[0].type_id = u32::MAX,
        &["token_embd", "type 4294967295"],
    ),
    (
        "a type of other bytes",
        |f| f.tensors[0].type_id = 1,
        &["token_embd", "bytes"],
    ),
    (
        "a width that is no block",
        |f| f.tensors[0].type_id = 8,
        &["token_embd", "a width"],
    ),
    (
        "TL1",
        |f| f.find(Q).type_id = 38,
        &["attn_q", "TL1", "width"],
    ),
    (
        "TL2",
        |f| f.find(Q).type_id = 39,
        &["attn_q", "TL2", "width"],
    ),
    (
        "offset that is not aligned",
        |f| f.tensors[1].offset += 1,
        &["multiple of 32"],
    ),
    (
        "offset past the end",
        |f| f.tensors[1].offset = 1 << 20,
        &["offset below"],
    ),
    (
        "offset 2^64 - 32",
        |f| f.tensors[1].offset = u64::MAX - 31,
        &["offset below"],
    ),
    (
        "offset of another tensor",
        |f| f.tensors[1].offset = 0,
        &["another tensor"],
    ),
    (
        "offset inside another",
        |f| f.tensors[1].offset = 32,
        &["bytes"],
    ),
    (
        "a gap",
        |f| {
            f.tensors.last_mut().unwrap().offset += 64;
            f.behind = vec![0; 64];
        },
        &["ffn_norm", "bytes"],
    ),
    ("no data", |f| f.cut_data = true, &["offset below"]),
    (
        "bytes behind the data",
        |f| f.behind = vec![1; 64],
        &["bytes"],
    ),
    (
        "data that starts late",
        |f| {
            f.tensors.iter_mut().for_each(|t| t.offset += 32);
            f.behind = vec![0; 32];
        },
        &["data", "32 bytes later"],
    ),
    (
        "architecture absent",
        |f| f.remove("general.architecture"),
        &["nothing", "bitnet-b1.58"],
    ),
    (
        "architecture unknown",
        |f| f.set("general.architecture", 8, text("mamba")),
        &["mamba"],
    ),
    (
        "architecture is a number",
        |f| f.set("general.architecture", 4, value::u32(1)),
        &["a string"],
    ),
    (
        "rotated basis",
        |f| f.set("prism.hadamard.version", 4, value::u32(1)),
        &["rotated"],
    ),
    (
        "layers absent",
        |f| f.remove("llama.block_count"),
        &["block_count", "nothing"],
    ),
    (
        "0 layers",
        |f| f.set("llama.block_count", 4, value::u32(0)),
        &["block_count", "above zero"],
    ),
    (
        "2^32 - 1 layers",
        |f| f.set("llama.block_count", 4, value::u32(u32::MAX)),
        &["num_hidden_layers"],
    ),
    (
        "9999 layers",
        |f| f.set("llama.block_count", 4, value::u32(9999)),
        &["9999 layers"],
    ),
    (
        "-1 layers",
        |f| f.set("llama.block_count", 5, vec![255; 4]),
        &["block_count", "-1"],
    ),
    (
        "0 heads",
        |f| f.set("llama.attention.head_count", 4, value::u32(0)),
        &["head_count"],
    ),
    (
        "3 kv heads",
        |f| f.set("llama.attention.head_count_kv", 4, value::u32(3)),
        &["key_value_heads"],
    ),
    (
        "epsilon 0",
        |f| f.set("llama.attention.layer_norm_rms_epsilon", 6, vec![0; 4]),
        &["eps"],
    ),
    (
        "epsilon NaN",
        |f| f.set("llama.attention.layer_norm_rms_epsilon", 6, vec![255; 4]),
        &["eps"],
    ),
    (
        "theta infinite",
        |f| f.set("llama.rope.freq_base", 6, value::f32(f32::INFINITY)),
        &["theta"],
    ),
    (
        "another width of heads",
        |f| f.set("llama.rope.dimension_count", 4, value::u32(4)),
        &["dimension_count"],
    ),
    (
        "unknown scaling",
        |f| f.set("llama.rope.scaling.type", 8, text("longrope")),
        &["longrope"],
    ),
    (
        "experts",
        |f| f.set("llama.expert_count", 4, value::u32(8)),
        &["expert_count", "8"],
    ),
    (
        "sliding window",
        |f| f.set("llama.attention.sliding_window", 4, value::u32(8)),
        &["sliding_window"],
    ),
    (
        "a tensor is absent",
        |f| drop(f.tensors.pop()),
        &["output_norm.weight", "nothing"],
    ),
    (
        "a tensor too many",
        |f| f.push("blk.0.attn_q.bias", vec![1.0]),
        &["attn_q.bias", "no such tensor"],
    ),
    (
        "frequencies of another model",
        |f| f.push("rope_freqs.weight", vec![3.0]),
        &["rope_freqs"],
    ),
    (
        "other shape",
        |f| f.find(Q).dimensions = vec![2, 8],
        &["attn_q", "[4, 4]", "[2, 8]"],
    ),
    (
        "NaN in a norm",
        |f| f.data("output_norm.weight", 0, f32::NAN),
        &["norm", "NaN"],
    ),
    (
        "infinity in a table",
        |f| f.data("token_embd.weight", 3, f32::INFINITY),
        &["embed", "inf"],
    ),
    (
        "NaN in a matrix",
        |f| f.data(Q, 3, f32::NAN),
        &["q_proj", "NaN"],
    ),
    (
        "not ternary",
        |f| f.data(Q, 3, 0.25),
        &["attn_q", "-s, 0 and +s", "50.0 %"],
    ),
    (
        "tokenizer of another kind",
        |f| f.set("tokenizer.ggml.model", 8, text("bert")),
        &["bert"],
    ),
    (
        "unknown split rule",
        |f| f.set("tokenizer.ggml.pre", 8, text("x")),
        &["pre", "llama-bpe"],
    ),
    (
        "tokens are numbers",
        |f| f.set("tokenizer.ggml.tokens", 9, value::array(4, 1, &[0; 4])),
        &["tokens"],
    ),
    (
        "tokens twice",
        |f| {
            f.set(
                "tokenizer.ggml.tokens",
                9,
                value::texts(&["a", "a", "b", "c", "d"]),
            )
        },
        &["twice"],
    ),
    (
        "kinds of other tokens",
        |f| f.set("tokenizer.ggml.token_type", 9, value::array(4, 1, &[0; 4])),
        &["token_type"],
    ),
    (
        "merge without a space",
        |f| f.set("tokenizer.ggml.merges", 9, value::texts(&["ab"])),
        &["merges"],
    ),
    (
        "merges are absent",
        |f| f.remove("tokenizer.ggml.merges"),
        &["merges", "nothing"],
    ),
    (
        "end is no token",
        |f| f.set("tokenizer.ggml.eos_token_id", 4, value::u32(99)),
        &["eos", "99"],
    ),
    (
        "a tokenizer.json that is none",
        |f| f.set("tokenizer.huggingface.json", 8, text("[")),
        &["JSON"],
    ),
    (
        "a config that is none",
        |f| f.set("sterna.config.json", 8, text("[]")),
        &["sterna.config.json"],
    ),
    (
        "more tokens than rows",
        |f| {
            f.set(
                "tokenizer.ggml.tokens",
                9,
                value::texts(&["a", "b", "c", "d", "e", "f"]),
            );
            f.remove("tokenizer.ggml.token_type");
        },
        &["tokens", "at most 5"],
    ),
    (
        "a part of a file",
        |f| f.set("split.count", 2, vec![3, 0]),
        &["split.count", "one of 3 parts"],
    ),
];
