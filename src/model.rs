//! The arguments that every verb shares that runs a model.

use std::path::PathBuf;

use clap::ValueEnum;
use sterna_runtime::{Kernels, KvType, Model, Options};

use sterna_ternary::Memory;

use crate::exit::Usage;
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

/// What does not depend on the model.
#[derive(clap::Args)]
pub struct Choices {
    /// Kernel table by name [default: the fastest]; results are the same
    #[arg(long, value_name = "NAME", help_heading = "Memory and kernels")]
    kernels: Option<String>,
    /// Element type of the KV cache; results depend on it
    #[arg(
        long,
        value_enum,
        default_value = "f16",
        help_heading = "Memory and kernels"
    )]
    kv: Kv,
    /// How the model comes into memory
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        help_heading = "Memory and kernels"
    )]
    memory: MemoryName,
}

#[derive(Clone, Copy, ValueEnum)]
enum MemoryName {
    /// Map the file, or copy it where that gives huge pages and memory is free
    Auto,
    /// Map the file: opens at once, shared between processes
    Map,
    /// Copy the file
    Copy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kv {
    F32,
    F16,
    Q8,
}

impl Args {
    pub fn open(&self) -> anyhow::Result<Model> {
        let options = Options {
            threads: self.threads.map(check_threads).transpose()?,
            kernels: self.choices.kernels()?,
            kv_type: self.choices.kv_type(),
            memory: self.choices.memory(),
        };
        Ok(Model::open(&packed(&self.model)?, options)?)
    }
}

impl Choices {
    pub fn kernels(&self) -> Result<Option<&'static Kernels>, Usage> {
        self.kernels.as_deref().map(find).transpose()
    }

    pub fn memory(&self) -> Memory {
        match self.memory {
            MemoryName::Auto => Memory::Auto,
            MemoryName::Map => Memory::Map,
            MemoryName::Copy => Memory::Copy,
        }
    }

    pub fn kv_type(&self) -> KvType {
        match self.kv {
            Kv::F32 => KvType::F32,
            Kv::F16 => KvType::F16,
            Kv::Q8 => KvType::Q8,
        }
    }
}

pub fn check_threads(threads: usize) -> Result<usize, Usage> {
    match threads {
        0 => Err(Usage("--threads is 0, expected at least 1".into())),
        threads => Ok(threads),
    }
}

fn find(name: &str) -> Result<&'static Kernels, Usage> {
    let known: Vec<&str> = Kernels::available().iter().map(|k| k.name).collect();
    let why = || {
        Usage(format!(
            "--kernels {name}: this CPU runs {}",
            known.join(", ")
        ))
    };
    Kernels::find(name).ok_or_else(why)
}
