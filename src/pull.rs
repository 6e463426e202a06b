//! `sterna pull`: a model or data set from the hub into the cache.

use serde_json::json;

use sterna_hub::{Hub, HubSettings, Name, RepoKind, Want};
use sterna_ternary::units;

use crate::output::{note, outln};
use crate::terminal::Download;

/// Fetch a model or data set from the hub and print its path.
///
/// Files go into the cache of the Hugging Face hub. Only what Sterna uses is fetched: config,
/// tokenizer, chat template and safetensors, or the one .gguf or .sterna file; of a data set .txt,
/// .jsonl and .parquet. An interrupted download goes on where it stopped, and every file is checked
/// against the hub's checksum. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE have
/// their usual meaning.
#[derive(clap::Args)]
pub struct Args {
    /// org/name of a model, hf:org/name of a data set.
    ///
    /// Also with a revision, org/name@revision, and of a model with a file, org/name:file.gguf.
    name: String,
    /// Print one JSON object with path, commit and files.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let name = Name::parse(&args.name)?;
    let want = match name.kind {
        RepoKind::Model => Want::Either,
        RepoKind::Dataset => Want::Texts,
    };
    let download = Download::new();
    let fetched = Hub::open(HubSettings::from_env()?, &download).fetch(&name, want);
    download.finish();
    let fetched = fetched?;
    let bytes: u64 = fetched.files.iter().map(|(_, size)| size).sum();
    if args.json {
        let file = |(name, bytes): &(String, u64)| json!({"name": name, "bytes": bytes});
        let files: Vec<_> = fetched.files.iter().map(file).collect();
        outln!(
            "{}",
            json!({
                "name": name.to_string(),
                "commit": fetched.commit,
                "path": fetched.path,
                "bytes": bytes,
                "downloaded_bytes": fetched.downloaded,
                "files": files,
            })
        )?;
    } else {
        note!(
            "{name} at commit {}: {} files, {}, of which {} were downloaded now",
            fetched.commit,
            fetched.files.len(),
            units::bytes(bytes),
            units::bytes(fetched.downloaded)
        );
        outln!("{}", fetched.path.display())?;
    }
    Ok(())
}
