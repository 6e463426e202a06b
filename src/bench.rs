//! `sterna bench`: speed, and its distance to the limit of the machine.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use sterna_runtime::{Kernels, threads};
use sterna_ternary::{Output, PackedFile, TemporaryFolder};
use sterna_validate::speed::bench::{self, Benchmark};
use sterna_validate::speed::{ChosenTests, Head, Listing, Subject};

use crate::exit::Usage;
use crate::output::{note, out, outln};
use crate::packed::packed;
use crate::{model, terminal};

/// Measure speed, and how close it comes to the limit of this machine.
///
/// Tests are interleaved in rounds; a first round warms up and is dropped. Each line shows the
/// median, the smallest and the largest speed, and the median's share of the limit. The limit is
/// the time to read the necessary bytes at the bandwidth measured in the same run, or the time of
/// the multiply-adds at the peak rates of int8 and f32, whichever is longer. A model that the
/// caches hold has no limit by memory.
#[derive(clap::Args)]
pub struct Args {
    /// A model, as for `sterna generate`, or what `sterna synthesize` writes.
    #[arg(required_unless_present = "compare")]
    model: Option<PathBuf>,
    /// Measure two models in turn and print the ratio of their speeds.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["model", "packing"])]
    #[arg(help_heading = "Models")]
    compare: Vec<PathBuf>,
    /// Measure every packing and name the fastest.
    ///
    /// The model is repacked into temporary files.
    #[arg(long, value_enum, help_heading = "Models")]
    packing: Option<Packings>,
    /// Prompt lengths, 0 for none [default: 128,512]
    ///
    /// The default is cut to what the context of the model has room for.
    #[arg(long, value_delimiter = ',', help_heading = "Tests")]
    pp: Vec<usize>,
    /// Numbers of tokens to generate, 0 for none [default: 64]
    ///
    /// The default is cut to what the context of the model has room for.
    #[arg(long, value_delimiter = ',', help_heading = "Tests")]
    tg: Vec<usize>,
    /// Generate with several sequences at once, like 1,2,4,8,16,32.
    ///
    /// Each number of sequences is measured with the logits that greedy sampling needs (screened)
    /// and with all logits (full). --tg is then the number of tokens of each sequence [default:
    /// 16]. Speeds count the tokens of all sequences, and `x one` compares them with those of one.
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        conflicts_with_all = ["pp", "packing", "full_head"],
        help_heading = "Tests"
    )]
    batch: Vec<usize>,
    /// Tokens in the cache before each test.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Tests")]
    depth: usize,
    /// Rounds that count.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Tests")]
    repetitions: usize,
    /// Compute every logit of a generated token.
    ///
    /// Sampling without top-k and min-p must do so.
    #[arg(long, help_heading = "Tests")]
    full_head: bool,
    /// Numbers of threads, like 1,2 [default: one per physical core]
    ///
    /// The cores are those that this process may use.
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        help_heading = "Machine"
    )]
    threads: Vec<usize>,
    #[command(flatten)]
    choices: model::Choices,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "csv", help_heading = "Output")]
    json: bool,
    /// Print one line of comma-separated values per result.
    #[arg(long, help_heading = "Output")]
    csv: bool,
    /// Draw the speed of prompts over their lengths; --pp must have several.
    #[arg(
        long,
        value_name = "FILE.svg",
        conflicts_with = "batch",
        help_heading = "Output"
    )]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Packings {
    All,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut plan = plan(args)?;
    let plot = args.plot.as_ref().map(|path| plot(path, &plan));
    let plot = plot.transpose()?;
    let given = args.model.iter().chain(&args.compare);
    let mut paths: Vec<PathBuf> = given
        .map(|path| packed(path))
        .collect::<anyhow::Result<_>>()?;
    let repacked = args
        .packing
        .is_some()
        .then(|| repack(&paths[0]))
        .transpose()?;
    if let Some((_, others)) = &repacked {
        paths.extend_from_slice(others);
    }
    let room = room(&paths, plan.depth)?;
    if chosen_tests(args).fit(&mut plan.tests, room) {
        note!("the context has room for {room} tokens, so no default test has more");
    }
    let bar = terminal::bar(0, "  measuring {wide_bar} {pos}/{len}");
    let borrowed: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let report = bench::measure(&borrowed, &plan, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        true
    })?;
    let report = report.expect("nothing stops it");
    bar.finish_and_clear();
    let name = |i: usize| {
        paths[if repacked.is_some() { 0 } else { i }]
            .display()
            .to_string()
    };
    let shown = Listing {
        kernels: plan.kernels.unwrap_or_else(Kernels::best).name,
        names: (0..paths.len()).map(name).collect(),
        depth: plan.depth,
        report: &report,
        subject: match (&repacked, &args.batch[..]) {
            (Some(_), _) => Subject::Packings,
            (None, []) => Subject::Models,
            (None, _) => Subject::Batches,
        },
    };
    match (args.json, args.csv) {
        (true, _) => outln!("{}", shown.json())?,
        (_, true) => out!("{}", shown.csv())?,
        _ => out!("{}", shown.text())?,
    }
    if let Some(plot) = plot {
        let chart = shown.chart().expect("prompts have several lengths");
        let svg = chart.draw().svg();
        plot.write(|file| file.write_all(svg.as_bytes()).map_err(anyhow::Error::from))?;
    }
    Ok(())
}

/// The file of the plot, checked before anything is measured.
fn plot(path: &Path, plan: &Benchmark) -> anyhow::Result<Output> {
    if path.extension().is_none_or(|extension| extension != "svg") {
        let why = format!("--plot {}: expected a .svg file", path.display());
        return Err(Usage(why).into());
    }
    if plan.prompt_lengths().len() < 2 {
        let why = "--plot: one length of prompts is not a curve; expected --pp with several";
        return Err(Usage(why.into()).into());
    }
    Ok(Output::new(path)?)
}

fn plan(args: &Args) -> anyhow::Result<Benchmark> {
    if args.batch.contains(&0) {
        return Err(Usage("--batch 0: expected numbers of at least 1".into()).into());
    }
    let tests = chosen_tests(args).tests();
    if tests.is_empty() || args.repetitions == 0 {
        let why =
            "nothing to measure: expected a --pp or --tg above 0 and --repetitions of at least 1";
        return Err(Usage(why.into()).into());
    }
    let mut threads: Vec<usize> = args
        .threads
        .iter()
        .map(|n| model::check_threads(*n))
        .collect::<Result<_, _>>()?;
    if threads.is_empty() {
        threads.push(threads::physical_cores());
    }
    Ok(Benchmark {
        tests,
        threads,
        depth: args.depth,
        repetitions: args.repetitions,
        kernels: args.choices.kernels()?,
        kv_type: args.choices.kv,
        memory: args.choices.memory,
    })
}

fn chosen_tests(args: &Args) -> ChosenTests<'_> {
    ChosenTests {
        prompts: &args.pp,
        generations: &args.tg,
        batches: &args.batch,
        head: match args.full_head {
            true => Head::Full,
            false => Head::Screened,
        },
    }
}

/// Tokens that fit into the context of every model after `depth` tokens.
fn room(paths: &[PathBuf], depth: usize) -> anyhow::Result<usize> {
    let mut context = usize::MAX;
    for path in paths {
        context = context.min(PackedFile::open(path)?.config.max_position_embeddings);
    }
    Ok(context.saturating_sub(depth))
}

/// The model in all other packings, in a folder that is removed when it is dropped.
fn repack(path: &Path) -> anyhow::Result<(TemporaryFolder, Vec<PathBuf>)> {
    let folder = TemporaryFolder::new().context("a temporary folder cannot be made")?;
    let paths = sterna_convert::repack_others(path, folder.path())?;
    Ok((folder, paths))
}
