//! Shared by the targets: a folder in memory, a small model around one hostile part, and reading it
//! whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sterna_convert::{Error, open};
use sterna_ternary::file::Description;
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{Activations, Config, Dtype, PackedFile, PackedWriter, Packing, TableType};
use tempfile::TempDir;

static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.expect("there is room for temporary files")
});

/// Writes a file of this name, in memory where there is such a place.
pub fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = PLACE.path().join(name);
    fs::create_dir_all(path.parent().expect("a file lies in a folder"))
        .expect("folders can be made");
    fs::write(&path, bytes).expect("files can be written");
    path
}

/// Opens a model as the command line does and reads all of it.
pub fn read(path: &Path) -> Result<(), Error> {
    let source = open(path, true)?;
    for weight in layout::weights(source.config()) {
        match weight.role {
            Role::Linear => drop(source.linear(&weight)?),
            Role::Norm => drop(source.vector(&weight)?),
            Role::Table => {
                let mut values = vec![0.0; weight.rows * weight.columns];
                source.rows(&weight, 0, &mut values)?;
            }
        }
    }
    Ok(())
}

/// config.json of a llama of one layer with four columns.
pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 2, "vocab_size": 5, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 2,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "online"},
    })
}

/// A packed file of that model with these files inside.
pub fn packed(files: &[(&str, &[u8])]) -> PackedFile {
    let path = PLACE.path().join("model.sterna");
    let json = config();
    let config = Config::from_json(&json).expect("the config is good");
    let mut all = vec![("config.json".to_owned(), json.to_string().into_bytes())];
    all.extend(
        files
            .iter()
            .map(|(name, bytes)| (name.to_string(), bytes.to_vec())),
    );
    let description = Description {
        config: config.clone(),
        packing: Packing::I2.into(),
        activations: Activations::Int8,
        embedding: TableType::F32,
        head: TableType::F32,
        scaling: Default::default(),
        group_scales: Dtype::F32,
        numbers: Default::default(),
        files: all,
    };
    let written = PackedWriter::write(&path, &description, |writer| {
        for w in layout::weights(&config) {
            match w.role {
                Role::Linear => {
                    let zeros = vec![0; w.columns];
                    let mut row = vec![0; Packing::I2.row_bytes(w.columns)];
                    Packing::I2.pack_row(&zeros, &mut row);
                    writer.rows(&w.name, &row.repeat(w.rows))?;
                    writer.vector(&layout::scale_name(&w.name), &[1.0])?;
                }
                Role::Norm => writer.vector(&w.name, &vec![1.0; w.columns])?,
                Role::Table => writer.rows(&w.name, &vec![0; 4 * w.rows * w.columns])?,
            }
        }
        Ok::<(), sterna_ternary::Error>(())
    });
    written.expect("the model is good");
    PackedFile::open(&path).expect("the model is good")
}

/// Makes the checksum of a header anew, so that what it says is read.
pub fn seal(bytes: &mut [u8]) {
    const KEY: &[u8] = b"\"header_sha256\":\"";
    let length = bytes
        .first_chunk()
        .map_or(u64::MAX, |b| u64::from_le_bytes(*b));
    let end = usize::try_from(length).ok().and_then(|n| n.checked_add(8));
    let Some(end) = end.filter(|end| *end <= bytes.len()) else {
        return;
    };
    let at = bytes[..end].windows(KEY.len()).position(|w| w == KEY);
    let Some(at) = at.map(|at| at + KEY.len()).filter(|at| at + 64 <= end) else {
        return;
    };
    bytes[at..at + 64].fill(b'0');
    let sum = Sha256::digest(&bytes[..end]);
    let sum: String = sum.iter().map(|b| format!("{b:02x}")).collect();
    bytes[at..at + 64].copy_from_slice(sum.as_bytes());
}
