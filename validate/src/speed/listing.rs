//! The results of a benchmark as text, JSON and CSV.

use serde_json::{Value, json};
use sterna_ternary::{LinearType, Packing, units};

use super::bench::{Measurement, Results};
use super::machine::Machine;
use super::spread::Spread;
use super::work::{Generation, Head, Test};
use crate::plot::{Chart, Curve, LARGE, Reach, Scale};

/// Results of [`bench::measure`](super::bench::measure) and how to name what is in them.
pub struct Listing<'a> {
    /// Name of the kernel table.
    pub kernels: &'static str,
    /// Name per model.
    pub names: Vec<String>,
    /// Tokens in the cache before each test.
    pub depth: usize,
    /// The results.
    pub report: &'a Results,
    /// What is to be seen.
    pub subject: Subject,
}

/// What a [`Listing`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Models.
    Models,
    /// The packings of one model.
    Packings,
    /// Numbers of sequences.
    Batches,
}

/// The same test of the first model and of another one, and how many times as fast the first was.
struct Comparison<'a> {
    first: &'a Measurement,
    other: &'a Measurement,
    ratio: Spread,
}

impl Listing<'_> {
    /// One object: machine, limits, kernels, results, comparisons.
    pub fn json(&self) -> Value {
        let report = self.report;
        let mut machine = Machine::detect().json();
        machine["energy"] = match &report.energy {
            Ok(source) => json!({ "source": source }),
            Err(why) => json!({ "unavailable": why }),
        };
        let limits = report.limits.iter().map(|l| {
            json!({
                "threads": l.threads,
                "read_bytes_per_second": l.bytes_per_second,
                "int8_macs_per_second": l.int8_macs_per_second,
                "int8_instruction": l.instruction,
                "f32_macs_per_second": l.f32_macs_per_second,
                "fma_macs_per_second": l.fma_macs_per_second,
            })
        });
        machine["limits"] = limits.collect();
        let results = report.results.iter().map(|r| self.result(r));
        let mut json = json!({
            "machine": machine,
            "kernels": self.kernels,
            "results": results.collect::<Value>(),
        });
        if self.names.len() > 1 {
            let comparisons = self.comparisons().into_iter().map(|c| {
                json!({
                    "test": self.test(c.first.test),
                    "head": head(c.first.test),
                    "threads": c.first.threads,
                    "first": self.label(c.first),
                    "other": self.label(c.other),
                    "ratio": c.ratio.median,
                    "spread": [c.ratio.min, c.ratio.max],
                })
            });
            json["comparisons"] = comparisons.collect();
        }
        for (kind, packing) in self.fastest() {
            json["fastest"][kind] = packing.name().into();
        }
        json
    }

    fn result(&self, r: &Measurement) -> Value {
        let speed = r.speed();
        json!({
            "model": self.names[r.model],
            "packing": r.packing.name(),
            "test": self.test(r.test),
            "sequences": r.test.sequences(),
            "head": head(r.test),
            "threads": r.threads,
            "tokens_per_second": speed.median,
            "spread": [speed.min, speed.max],
            "times_one_sequence": self.times_one(r).map(|ratio| ratio.median),
            "limit_tokens_per_second": r.limit,
            "limit_fraction": r.limit_fraction(),
            "limit": r.bound.name(),
            "peak_bytes": r.peak_bytes,
            "joules_per_token": r.joules_per_token(),
        })
    }

    /// One line per result after a line of names, which are those of the JSON.
    pub fn csv(&self) -> String {
        let results = self.report.results.iter().map(|r| self.result(r));
        let mut text = String::new();
        for result in results {
            let fields = result.as_object().expect("a result is an object");
            if text.is_empty() {
                let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                text = names.join(",").replace("spread", "min,max") + "\n";
            }
            let cells: Vec<String> = fields.values().map(cell).collect();
            text += &(cells.join(",") + "\n");
        }
        text
    }

    /// The speed of prompts over their lengths, one curve for each model and number of threads.
    /// `None` unless prompts of two lengths were measured.
    pub fn chart(&self) -> Option<Chart> {
        let results = &self.report.results;
        let runs = results.chunk_by(|a, b| (a.model, a.threads) == (b.model, b.threads));
        let curve = |run: &[Measurement]| {
            let point = |r: &Measurement| match r.test {
                Test::Prompt(n) => Some((n as f64, r.speed().median)),
                Test::Generate(_) => None,
            };
            let mut dots: Vec<_> = run.iter().filter_map(point).collect();
            dots.sort_by(|a, b| a.0.total_cmp(&b.0));
            Curve {
                name: format!("{}, threads: {}", self.label(&run[0]), run[0].threads),
                dots,
                ..Curve::default()
            }
        };
        let curves: Vec<Curve> = runs.map(curve).collect();
        let is_curve = curves.first()?.dots.len() > 1;
        is_curve.then(|| Chart {
            size: LARGE,
            curves,
            x: Scale::log("tokens of the prompt"),
            y: Scale::linear("tokens per second", Reach::Zero),
        })
    }

    /// A table per model, comparisons with the first model, and the fastest packing.
    pub fn text(&self) -> String {
        let report = self.report;
        let mut text = Machine::detect().describe();
        for l in &report.limits {
            text += &format!(
                "limits       threads {}: reads {:.1} GB/s; GMAC/s: {:.0} int8 ({}), {:.0} f32, \
                 {:.0} f32 fused\n",
                l.threads,
                l.bytes_per_second / 1e9,
                l.int8_macs_per_second / 1e9,
                l.instruction,
                l.f32_macs_per_second / 1e9,
                l.fma_macs_per_second / 1e9,
            );
        }
        text += &format!("kernels      {}\n", self.kernels);
        text += &match &report.energy {
            Ok(source) => format!("energy       {source}\n"),
            Err(why) => format!("energy       n/a: {why}\n"),
        };
        let mut model = None;
        for r in &report.results {
            if model.replace(r.model) != Some(r.model) {
                text += &format!(
                    "\n{}, packing {}\n{}",
                    self.names[r.model],
                    r.packing.name(),
                    match self.subject {
                        Subject::Batches => BATCH_HEADINGS,
                        _ => HEADINGS,
                    }
                );
            }
            text += &match self.subject {
                Subject::Batches => self.batch_line(r),
                _ => self.line(r),
            };
        }
        if self.names.len() > 1 {
            text += "\n";
        }
        for c in self.comparisons() {
            text += &format!(
                "{}{}, threads {}: {} is {:.2} ({:.2}..{:.2}) times as fast as {}\n",
                self.test(c.first.test),
                match (self.subject, head(c.first.test)) {
                    (Subject::Batches, Some(head)) => format!(", {head} head"),
                    _ => String::new(),
                },
                c.first.threads,
                self.label(c.first),
                c.ratio.median,
                c.ratio.min,
                c.ratio.max,
                self.label(c.other)
            );
        }
        for (kind, packing) in self.fastest() {
            text += &format!("fastest packing here for {kind}: {}\n", packing.name());
        }
        text
    }

    fn line(&self, r: &Measurement) -> String {
        let speed = r.speed();
        format!(
            "{:<12} {:>7} {:>10.2} {:>21} {:>10} {:<10} {:>10} {:>8}\n",
            self.test(r.test),
            r.threads,
            speed.median,
            format!("{:.2}..{:.2}", speed.min, speed.max),
            share(r),
            r.bound.name(),
            r.peak_bytes.map_or("n/a".into(), units::bytes),
            r.joules_per_token()
                .map_or("n/a".into(), |j| format!("{j:.3}")),
        )
    }

    fn batch_line(&self, r: &Measurement) -> String {
        let speed = r.speed();
        let times = self.times_one(r);
        format!(
            "{:<12} {:<8} {:>7} {:>10.2} {:>21} {:>6} {:>9} {:>9} {}\n",
            self.test(r.test),
            head(r.test).unwrap_or_default(),
            r.threads,
            speed.median,
            format!("{:.2}..{:.2}", speed.min, speed.max),
            times.map_or("n/a".into(), |times| format!("{:.2}", times.median)),
            r.limit.map_or("n/a".into(), |limit| format!("{limit:.2}")),
            share(r),
            r.bound.name(),
        )
    }

    /// How many times as many tokens a second as the same test with one sequence; none where that
    /// was not measured or is no other.
    fn times_one(&self, r: &Measurement) -> Option<Spread> {
        let Test::Generate(generation) = r.test else {
            return None;
        };
        let alone = Test::Generate(Generation {
            sequences: 1,
            ..generation
        });
        let key = |r: &Measurement| (r.model, r.threads);
        let mut results = self.report.results.iter();
        let alone = results.find(|other| key(other) == key(r) && other.test == alone)?;
        Some(r.ratio(alone))
    }

    fn test(&self, test: Test) -> String {
        let name = match test {
            Test::Prompt(n) => format!("pp{n}"),
            Test::Generate(generation) => match generation.sequences {
                1 => format!("tg{}", generation.tokens),
                sequences => format!("tg{}x{sequences}", generation.tokens),
            },
        };
        match self.depth {
            0 => name,
            depth => format!("{name}@{depth}"),
        }
    }

    fn label(&self, r: &Measurement) -> String {
        match self.subject {
            Subject::Packings => r.packing.name().into(),
            _ => self.names[r.model].clone(),
        }
    }

    fn comparisons(&self) -> Vec<Comparison<'_>> {
        let results = &self.report.results;
        let (first, others): (Vec<_>, Vec<_>) = results.iter().partition(|r| r.model == 0);
        let pairs = others.into_iter().filter_map(|other| {
            let same = |r: &&&Measurement| (r.test, r.threads) == (other.test, other.threads);
            let first = first.iter().find(same)?;
            Some(Comparison {
                first,
                other,
                ratio: first.ratio(other),
            })
        });
        pairs.collect()
    }

    /// The packing with the highest speeds, in the geometric mean over lengths and threads.
    fn fastest(&self) -> Vec<(&'static str, Packing)> {
        if self.subject != Subject::Packings {
            return Vec::new();
        }
        let results = &self.report.results;
        let best = |is_kind: fn(Test) -> bool| {
            let score = |packing: Packing| -> f64 {
                let of = results
                    .iter()
                    .filter(|r| r.packing == LinearType::Ternary(packing) && is_kind(r.test));
                of.map(|r| r.speed().median.ln()).sum()
            };
            let is_measured = results.iter().any(|r| is_kind(r.test));
            let order = |a: &Packing, b: &Packing| score(*a).total_cmp(&score(*b));
            is_measured
                .then(|| Packing::ALL.into_iter().max_by(order))
                .flatten()
        };
        let prompts = best(|test| matches!(test, Test::Prompt(_)));
        let generation = best(|test| matches!(test, Test::Generate(_)));
        let kinds = [("prompts", prompts), ("generation", generation)];
        kinds
            .into_iter()
            .filter_map(|(kind, packing)| Some((kind, packing?)))
            .collect()
    }
}

const HEADINGS: &str = "test         threads   tokens/s              min..max   \
                        of the limit of      memory  J/token\n";
const BATCH_HEADINGS: &str = "test         head     threads   tokens/s              min..max  \
                              x one     limit    of the limit of\n";

/// The median as a share of the limit.
fn share(r: &Measurement) -> String {
    let share = r.limit_fraction();
    share.map_or("n/a".into(), |share| format!("{:.0} %", 100.0 * share))
}

/// Which logits a test computes of each token, if it generates.
fn head(test: Test) -> Option<&'static str> {
    match test {
        Test::Prompt(_) => None,
        Test::Generate(generation) => Some(Head::name(generation.head)),
    }
}

/// A value in a line of CSV: a list is several cells, null an empty one.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}
