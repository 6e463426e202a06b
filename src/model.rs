//! The arguments of the verbs that run a model.

use std::path::PathBuf;
use std::time::Instant;

use sterna_runtime::{Kernels, KvType, Model, Options};
use sterna_ternary::Memory;

use crate::choice::choice;
use crate::exit::Usage;
use crate::output::detail;
use crate::packed::packed;

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// A packed file, a run, a Hugging Face folder, a GGUF file, a hub name.
    ///
    /// What is not packed is packed once and kept, in a folder .sterna beside the model or, for
    /// models of the hub and where that cannot be written, in the user's folder for caches.
    model: PathBuf,
    /// Threads [default: one per physical core that this process may use]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    threads: Option<usize>,
    #[command(flatten)]
    choices: Choices,
}

/// Options that do not depend on the model.
#[derive(clap::Args)]
pub struct Choices {
    /// Kernel table by name [default: the fastest]; results are the same
    #[arg(long, value_name = "NAME", help_heading = "Memory and kernels")]
    kernels: Option<String>,
    /// Element type of the KV cache.
    ///
    /// Results depend on it.
    #[arg(long, default_value = "f16", value_parser = choice(KV_TYPES, KvType::name))]
    #[arg(help_heading = "Memory and kernels")]
    pub kv: KvType,
    /// How the model is loaded.
    #[arg(long, default_value = "auto", value_parser = choice(MEMORY, Memory::name))]
    #[arg(help_heading = "Memory and kernels")]
    pub memory: Memory,
}

pub const KV_TYPES: [(KvType, &str); 3] = [(KvType::F32, ""), (KvType::F16, ""), (KvType::Q8, "")];

pub const MEMORY: [(Memory, &str); 3] = [
    (
        Memory::Auto,
        "Map the file, or copy it if that gives huge pages and memory is free",
    ),
    (
        Memory::Map,
        "Map the file: opens at once, shared between processes",
    ),
    (Memory::Copy, "Copy the file"),
];

impl Args {
    pub fn open(&self) -> anyhow::Result<Model> {
        let options = Options {
            threads: self.threads.map(check_threads).transpose()?,
            kernels: self.choices.kernels()?,
            kv_type: self.choices.kv,
            memory: self.choices.memory,
        };
        let path = packed(&self.model)?;
        let start = Instant::now();
        let model = Model::open(&path, options)?;
        detail!(
            "{}: family {}, packing {}, kernels {}, {} threads, {} cache; opened in {:.0?}",
            path.display(),
            model.config().family.name,
            model.file().packing.name(),
            model.kernels().name,
            model.threads(),
            self.choices.kv.name(),
            start.elapsed(),
        );
        Ok(model)
    }
}

impl Choices {
    pub fn kernels(&self) -> Result<Option<&'static Kernels>, Usage> {
        self.kernels.as_deref().map(find_kernels).transpose()
    }
}

/// Most threads: no machine has more, and the lists of many more would not fit into memory.
const MOST_THREADS: usize = 4096;

pub fn check_threads(threads: usize) -> Result<usize, Usage> {
    match (1..=MOST_THREADS).contains(&threads) {
        true => Ok(threads),
        false => Err(Usage(format!(
            "--threads is {threads}, expected 1 to {MOST_THREADS}"
        ))),
    }
}

pub fn find_kernels(name: &str) -> Result<&'static Kernels, Usage> {
    let known: Vec<&str> = Kernels::available().iter().map(|k| k.name).collect();
    let why = || {
        Usage(format!(
            "--kernels {name}: this CPU runs {}",
            known.join(", ")
        ))
    };
    Kernels::find(name).ok_or_else(why)
}
