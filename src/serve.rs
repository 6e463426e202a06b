//! `sterna serve`: models over HTTP.

mod options;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sterna_runtime::{Model, Tokenizer};
use sterna_serve::engine::{Guesses, Limits};
use sterna_serve::http::{Keys, LocalPage, RequestLog, Served, Server, Settings, curl, names};
use sterna_serve::memory;
use sterna_ternary::units;

use self::options::Options;
use crate::exit::{BadInput, Usage};
use crate::model::{check_threads, find_kernels};
use crate::output::{detail, note, outln, warning};
use crate::packed::packed;
use crate::terminal::Stoppable;

/// Answer programs over HTTP, with OpenAI's API.
///
/// The same fingerprint and the same request give the same bytes, on any machine and under any
/// load. Ctrl-C or SIGTERM refuses new requests and waits for answers in progress; a second one
/// ends the server at once.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// A TOML file with these options as keys; flags are stronger.
    ///
    /// Keys are the names of the flags without dashes in front; `models` and `names` are lists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where `sterna quickstart` puts its model.
const QUICKSTART: &str = "runs/quickstart";
/// Seconds that answers in progress have when the server is told to end.
const DRAIN: u64 = 30;

pub fn run(args: &Args) -> anyhow::Result<()> {
    let options = args.all()?;
    let settings = settings(&options)?;
    let keys = settings.keys.len();
    let server = Server::start(settings)?;
    let drain = server.drain();
    let draining = Stoppable::serving(move || drain.begin());
    let models = open(&options, keys)?;
    let address = server.address();
    let mut lines = format!("http://{address}\n");
    for served in &models {
        lines += &format!("  {}\n", served.describe());
        if let Err(error) = &served.template {
            note!("{} cannot chat: {error}", served.name);
        }
    }
    if options.local.is_some() {
        lines += &format!("  in the browser: http://{address}/local\n");
    }
    lines += &curl(address, &models[0], keys > 0);
    server.serve(models);
    // Clients do not depend on who reads the lines: a launcher may close them after the first one.
    if let Err(error) = outln!("{lines}") {
        warning!("{error}; the server answers at http://{address}");
    }
    let cut = server.wait();
    drop(draining);
    if cut > 0 {
        let drain = options.drain.unwrap_or(DRAIN);
        anyhow::bail!("requests that were cut off, not finished in {drain} s (--drain): {cut}");
    }
    note!("all requests were answered");
    Ok(())
}

/// Starts a server that answers, and returns it with the names of its models.
pub fn start(args: &Args) -> anyhow::Result<(Server, Vec<String>)> {
    let options = args.all()?;
    let settings = settings(&options)?;
    let keys = settings.keys.len();
    let server = Server::start(settings)?;
    let models = open(&options, keys)?;
    let names = models.iter().map(|served| served.name.clone()).collect();
    server.serve(models);
    Ok((server, names))
}

impl Args {
    /// The options with those of the file.
    fn all(&self) -> anyhow::Result<Options> {
        let mut options = match &self.config {
            Some(path) => self.options.over_file(path)?,
            None => self.options.clone(),
        };
        if options.models.is_empty() {
            options.models.push(quickstart()?);
        }
        Ok(options)
    }
}

/// The model that `sterna quickstart` made here.
fn quickstart() -> Result<PathBuf, Usage> {
    let run = Path::new(QUICKSTART);
    match run.join("model.sterna").exists() {
        true => Ok(run.join("model.sterna")),
        false => Err(Usage(format!(
            "no model is given, and {QUICKSTART} has none: run `sterna serve MODEL`, or first \
             `sterna quickstart`"
        ))),
    }
}

fn settings(options: &Options) -> anyhow::Result<Settings> {
    let host = options.host.unwrap_or([127, 0, 0, 1].into());
    let mut settings = Settings::new(SocketAddr::new(host, options.port.unwrap_or(8080)));
    settings.keys = keys(options)?;
    settings.is_open = options.no_key;
    settings.hosts.clone_from(&options.allow_hosts);
    settings.origins.clone_from(&options.cors_origins);
    settings.is_strict = options.strict;
    settings.any_model = options.any_model;
    settings.has_metrics = !options.no_metrics;
    if let Some(folder) = &options.local {
        let page = LocalPage::read(folder);
        settings.local = Some(page.map_err(|error| BadInput(error.to_string()))?);
    }
    settings.drain = Duration::from_secs(options.drain.unwrap_or(DRAIN));
    if let Some(path) = &options.log_requests {
        let log = RequestLog::open(path);
        let log = log.map_err(|e| BadInput(format!("{}: {e}", path.display())))?;
        settings.log = Some(Arc::new(log));
    }
    settings.on_reply = Some(Box::new(|reply| {
        let (method, path) = (&reply.method, sterna_ternary::json::shown(&reply.path));
        let millis = reply.time.as_millis();
        match reply.status {
            500 => warning!("{method} {path}: 500, request {}", reply.id),
            status => detail!(
                "{method} {path}: {status} in {millis} ms, request {}",
                reply.id
            ),
        }
    }));
    Ok(settings)
}

/// The keys of a file, then those of a variable.
fn keys(options: &Options) -> anyhow::Result<Keys> {
    let mut text = String::new();
    if let Some(path) = &options.api_key_file {
        let read = std::fs::read_to_string(path);
        text += &read.map_err(|e| BadInput(format!("{}: {e}", path.display())))?;
        text += "\n";
    }
    if let Some(name) = &options.api_key_env {
        let read = std::env::var(name);
        text += &read.map_err(|e| Usage(format!("--api-key-env {name}: {e}")))?;
    }
    let keys = Keys::parse(&text).map_err(|e| BadInput(e.to_string()))?;
    let is_asked = options.api_key_file.is_some() || options.api_key_env.is_some();
    if is_asked && keys.is_empty() {
        return Err(BadInput("there are no keys, expected at least one per line".into()).into());
    }
    Ok(keys)
}

/// Opens the models and starts their engines.
fn open(options: &Options, keys: usize) -> anyhow::Result<Vec<Served>> {
    let run = sterna_runtime::Options {
        threads: options.threads.map(check_threads).transpose()?,
        kernels: options.kernels.as_deref().map(find_kernels).transpose()?,
        kv_type: options.kv.unwrap_or_default(),
        memory: options.memory.unwrap_or_default(),
    };
    let names = names(&options.names, &options.models);
    let names = names.map_err(|error| Usage(error.to_string()))?;
    let open = |path: &PathBuf| anyhow::Ok(Model::open_with_tokenizer(&packed(path)?, run)?);
    let models = options.models.iter().map(open);
    let models: Vec<(Model, Tokenizer)> = models.collect::<anyhow::Result<_>>()?;
    let given = options.kv_memory.as_deref().map(|text| {
        units::parse_bytes(text).ok_or_else(|| {
            Usage(format!(
                "--kv-memory is {text:?}, expected a size like 2GiB or 500MB"
            ))
        })
    });
    if options.draft.is_some() && options.no_lookup {
        let why = "no-lookup computes no guesses, and draft makes some: leave one of them out";
        return Err(Usage(why.into()).into());
    }
    if options.draft.is_some() && models.len() > 1 {
        let models = models.len();
        let why = format!("--draft guesses for one model, and {models} are served");
        return Err(Usage(why).into());
    }
    let draft = options.draft.as_ref();
    let draft = draft.map(|path| anyhow::Ok(Arc::new(Model::open(&packed(path)?, run)?)));
    let draft = draft.transpose()?;
    let all: Vec<&Model> = models.iter().map(|(model, _)| model).collect();
    let pages = memory::pages(&all, draft.as_deref(), given.transpose()?, options.context);
    let pages = pages.map_err(|error| Usage(error.to_string()))?;
    let mut served = Vec::new();
    for (((model, tokenizer), name), pages) in models.into_iter().zip(names).zip(pages) {
        let options = sterna_serve::http::Options {
            name,
            context: options.context,
            limits: limits(options, keys, pages)?,
            draft: draft.clone(),
        };
        served.push(Served::start_with(Arc::new(model), tokenizer, options)?);
    }
    Ok(served)
}

fn limits(options: &Options, keys: usize, pages: usize) -> Result<Limits, Usage> {
    let usual = Limits::usual(pages, keys);
    let seconds = |given: Option<u64>| given.map(Duration::from_secs);
    let limits = Limits {
        parallel: options.parallel.unwrap_or(usual.parallel),
        step: options.step.map(Duration::from_millis),
        pages,
        queue: options.queue.unwrap_or(usual.queue),
        queue_tokens: options.queue_tokens.unwrap_or(usual.queue_tokens),
        queue_timeout: seconds(options.queue_timeout).unwrap_or(usual.queue_timeout),
        timeout: seconds(options.timeout).unwrap_or(usual.timeout),
        weights: match options.key_weights.is_empty() {
            true => usual.weights,
            false => options.key_weights.clone(),
        },
        guesses: match options.no_lookup {
            true => Guesses::No,
            false => Guesses::Worth,
        },
    };
    let checked = limits.check(keys);
    checked.map_err(|error| Usage(error.to_string()))?;
    Ok(limits)
}
