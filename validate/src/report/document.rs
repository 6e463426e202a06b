//! The report as sections of tables and plots, from which the page and the text are written.

use super::answer::{bytes, figures, named};
use super::plots::{self, Plot};
use super::{Accuracy, ModelReport, Report};
use crate::accuracy::{AccuracyVerdict, Divergence, Effect, GAIN, SIGNIFICANT};
use crate::statistics::Estimate;
use crate::tasks::{PairedTest, TaskSummary};

/// What is written. Names in texts are between backticks.
pub struct ReportDocument {
    pub title: String,
    pub answer: Vec<String>,
    pub notes: Vec<String>,
    pub sections: Vec<Section>,
    pub plots: Vec<Plot>,
}

/// A heading, the text below it, its table and its plots.
pub struct Section {
    pub title: &'static str,
    pub intro: String,
    pub table: ReportTable,
    /// Texts to be shown as they are, with the lines above them.
    pub texts: Vec<(String, String)>,
    /// Names of plots.
    pub plots: Vec<&'static str>,
}

/// Rows of cells; the first cell of a row names it.
#[derive(serde::Serialize)]
pub struct ReportTable {
    /// Empty if a table needs no head.
    pub head: Vec<ReportColumn>,
    pub rows: Vec<Vec<String>>,
}

/// A column of a table that has a head.
#[derive(serde::Serialize)]
pub struct ReportColumn {
    pub name: String,
    /// Numbers are aligned on the right.
    pub is_number: bool,
}

pub fn of(report: &Report) -> ReportDocument {
    let sections = [
        gates(report),
        short(report),
        accuracy(report),
        divergence(report),
        tasks(report),
        questions(report),
        speed(report),
        setting(report),
    ];
    let mut sections: Vec<Section> = sections.into_iter().flatten().collect();
    let plots = plots::of(report);
    let is_drawn = |name: &&'static str| plots.iter().any(|plot| plot.name == *name);
    sections.iter_mut().for_each(|s| s.plots.retain(is_drawn));
    let names: Vec<String> = report.models.iter().map(|m| named(&m.name)).collect();
    ReportDocument {
        title: format!("Accuracy and speed of {}", names.join(", ")),
        answer: report.answer.clone(),
        notes: report.notes.clone(),
        sections,
        plots,
    }
}

fn row(cells: &[String]) -> Vec<String> {
    cells.to_vec()
}

/// The columns of words, then those of numbers.
fn head(words: &[&str], numbers: &[&str]) -> Vec<ReportColumn> {
    let column = |is_number| {
        move |name: &&str| ReportColumn {
            name: (*name).to_owned(),
            is_number,
        }
    };
    let words = words.iter().map(column(false));
    words.chain(numbers.iter().map(column(true))).collect()
}

fn gates(report: &Report) -> Option<Section> {
    let rows = report.gates.iter().map(|gate| {
        let value = gate.value.map_or("not measured".into(), figures);
        let verdict = if gate.holds { "holds" } else { "FAILS" };
        row(&[
            gate.model.clone(),
            gate.condition.clone(),
            verdict.into(),
            value,
        ])
    });
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| Section {
        title: "Conditions",
        intro: "What was asked for with --gate.".into(),
        table: ReportTable {
            head: head(&["model", "condition", "verdict"], &["found"]),
            rows,
        },
        texts: Vec::new(),
        plots: Vec::new(),
    })
}

fn short(report: &Report) -> Option<Section> {
    let rows = report.models.iter().enumerate().map(|(i, m)| {
        let speed = m.speed.as_ref().and_then(|s| s.main());
        let rate = |f: fn(&crate::speed::WithThreads) -> f64| {
            speed.map_or("–".to_owned(), |s| figures(f(s)))
        };
        let (verdict, difference) = match (i, m.divergence()) {
            (0, _) if report.models.len() == 1 => ("–", "–".into()),
            (0, _) => ("reference", "–".into()),
            (_, None) => ("other tokens", "–".into()),
            (_, Some(d)) => (short_verdict(d.verdict), difference(d)),
        };
        row(&[
            m.name.clone(),
            verdict.into(),
            difference,
            m.main()
                .map_or("–".into(), |a| estimate(&a.perplexity.perplexity, 4)),
            bytes(m.bytes),
            rate(|s| s.generate.tokens_per_second),
            rate(|s| s.prompt.tokens_per_second),
            speed.and_then(|s| s.peak_bytes).map_or("n/a".into(), bytes),
        ])
    });
    Some(Section {
        title: "In short",
        intro: format!(
            "Perplexity says how well a model predicts a text: lower is better, 1 would be \
             perfect. ± is the standard error. A difference has two words: whether it is more than \
             chance explains, and how large it is. Below {} nats per token it is negligible \
             (--negligible), up to ten times that it is small, up to a hundred times that it is \
             clear. Speeds are in tokens per second; a token is a word or a part of one.",
            report.setting.negligible
        ),
        table: ReportTable {
            head: head(
                &["model", "verdict", "difference"],
                &[
                    "perplexity",
                    "file",
                    "writes, tokens/s",
                    "reads, tokens/s",
                    "memory",
                ],
            ),
            rows: rows.collect(),
        },
        texts: Vec::new(),
        plots: vec!["accuracy-speed", "accuracy-size"],
    })
}

fn short_verdict(verdict: AccuracyVerdict) -> &'static str {
    match verdict {
        AccuracyVerdict::Identical => "identical",
        AccuracyVerdict::NoPracticalDifference => "no practical difference",
        AccuracyVerdict::NotSignificant => "not measurably worse",
        AccuracyVerdict::Worse => "worse",
        AccuracyVerdict::WorseByKl => "worse, by KL only",
        AccuracyVerdict::Different => "as good, but different",
        AccuracyVerdict::Better => "better",
        AccuracyVerdict::Unknown => "too little text",
    }
}

/// Significance and size.
fn difference(d: &Divergence) -> String {
    match d.effect {
        Effect::None => Effect::None.name().to_owned(),
        effect => format!("{}, {}", d.significance.name(), effect.name()),
    }
}

fn accuracy(report: &Report) -> Option<Section> {
    let mut rows = Vec::new();
    let mut meanings = Vec::new();
    for (model, accuracy) in pairs(report) {
        let p = &accuracy.perplexity;
        let lengths = p.by_length.as_ref();
        rows.push(row(&[
            model.name.clone(),
            accuracy.convention.name().into(),
            p.tokens.to_string(),
            estimate(&p.perplexity, 4),
            estimate(&p.loss, 5),
            lengths.map_or("–".into(), |l| estimate(&l.bits_per_byte, 5)),
            lengths.map_or("–".into(), |l| format!("{:.4}", l.word_perplexity)),
            lengths.map_or("–".into(), |l| format!("{:.4}", l.byte_perplexity)),
        ]));
        let meaning = format!("{}: {}.", accuracy.convention.name(), accuracy.meaning);
        if !meanings.contains(&meaning) {
            meanings.push(meaning);
        }
    }
    (!rows.is_empty()).then(|| Section {
        title: "Perplexity",
        intro: format!(
            "Compare only figures of the same convention. {} Bits per byte do not depend on how a \
             model cuts text into tokens.",
            meanings.join(" ")
        ),
        table: ReportTable {
            head: head(
                &["model", "convention"],
                &[
                    "tokens",
                    "perplexity",
                    "nats per token",
                    "bits per byte",
                    "per word",
                    "per byte",
                ],
            ),
            rows,
        },
        texts: Vec::new(),
        plots: vec!["loss-by-position"],
    })
}

fn divergence(report: &Report) -> Option<Section> {
    let first = &report.models.first()?.name;
    let mut rows = Vec::new();
    for (model, accuracy) in pairs(report) {
        let Some(d) = &accuracy.divergence else {
            continue;
        };
        let range = d.ratio_range.map_or(String::new(), |(low, high)| {
            format!(" ({low:.5} to {high:.5})")
        });
        let percentile = |wanted: f64| {
            let found = d.delta_p.iter().find(|(percent, _)| *percent == wanted);
            found.map_or("–".into(), |(_, change)| {
                format!("{:+.2} %", 100.0 * change)
            })
        };
        rows.push(row(&[
            model.name.clone(),
            accuracy.convention.name().into(),
            format!("{:.5}{range}", d.perplexity_ratio),
            d.p_value.map_or("–".into(), p_value),
            nats(&d.kl),
            d.kl_p_value.map_or("–".into(), p_value),
            figures(d.kl_median),
            [d.kl_p90, d.kl_p99, d.kl_p999].map(figures).join(" / "),
            percent(&d.top1),
            percent(&d.top5),
            format!(
                "{} / {} / {}",
                percentile(1.0),
                percentile(50.0),
                percentile(99.0)
            ),
        ]));
    }
    (!rows.is_empty()).then(|| Section {
        title: "Beside the reference",
        intro: format!(
            "Both models predict the same tokens, and {first} is the reference. The ratio of \
             perplexities is above 1 where a model is worse; its 95 % confidence interval is in \
             brackets. p is the probability that chance alone causes such a difference: the losses \
             of both are subtracted block by block (documents, or stretches of 128 tokens if there \
             are fewer than 30 documents), and their mean is compared with its standard error (a \
             paired t test). A p below {SIGNIFICANT} counts as significant. KL divergence measures \
             how far the predicted probabilities are apart: 0 is equal, 0.01 is hardly noticed, 1 \
             is another model. It is also the loss that a model would add on text that the \
             reference writes; “worse, by KL only” means that it is significantly above zero and \
             not negligible, while the loss on this text is not significantly higher. A lower loss \
             counts as better only from {GAIN} nats per token, since small damage moves the loss \
             by less than that in either direction. “As good, but different” is a model with a KL \
             divergence of {GAIN} or more, and a loss on this text that is higher by less than \
             half of that: it was trained differently, not damaged. Same first choice: how often \
             both find the same next token most probable. Change of the right token: the change of \
             its probability in the worst of 100 places, in the middle, and in the best of 100.",
            first = named(first)
        ),
        table: ReportTable {
            head: head(
                &["model", "convention"],
                &[
                    "perplexity ratio",
                    "p",
                    "KL, mean",
                    "p of KL",
                    "KL, median",
                    "KL, worst 10 / 1 / 0.1 %",
                    "same first choice",
                    "same five",
                    "change of the right token",
                ],
            ),
            rows,
        },
        texts: Vec::new(),
        plots: vec!["kl-histogram"],
    })
}

fn tasks(report: &Report) -> Option<Section> {
    let mut rows = Vec::new();
    for model in &report.models {
        for exam in &model.tasks {
            for score in &exam.scores {
                let test = exam.beside_first.filter(|_| score.metric == exam.metric);
                let items = match test {
                    Some(PairedTest::Right(test)) => Some(test),
                    _ => None,
                };
                let count = |n: Option<usize>| n.map_or("–".to_owned(), |n| n.to_string());
                rows.push(row(&[
                    model.name.clone(),
                    exam.task.clone(),
                    score.metric.clone(),
                    match score.stderr {
                        Some(error) if score.value < 1e3 => {
                            format!("{:.4} ± {error:.4}", score.value)
                        }
                        Some(error) => format!("{:.3e} ± {error:.1e}", score.value),
                        None => format!("{:.4}", score.value),
                    },
                    score.items.to_string(),
                    count(items.map(|t| t.only_first)),
                    count(items.map(|t| t.only_second)),
                    test.and_then(|t| t.p()).map_or("–".into(), p_value),
                ]));
            }
        }
    }
    (!rows.is_empty()).then(|| Section {
        title: "Tasks",
        intro: format!(
            "Shares of right items, computed as lm-evaluation-harness does: acc takes the \
             likeliest answer, acc_norm the likeliest for its length. p compares a model with the \
             reference by the items that only one of the two has right (McNemar's test), or by the \
             difference of each item where items are right in part (a paired t test); below \
             {SIGNIFICANT} it counts as significant."
        ),
        table: ReportTable {
            head: head(
                &["model", "task", "figure"],
                &[
                    "value",
                    "items",
                    "only the reference right",
                    "only this right",
                    "p",
                ],
            ),
            rows,
        },
        texts: Vec::new(),
        plots: Vec::new(),
    })
}

/// What each task asks, so that a reader sees whether it is the task that was meant.
fn questions(report: &Report) -> Option<Section> {
    let exams = &report.models.first()?.tasks;
    let rows = exams.iter().map(|exam| {
        let TaskSummary {
            layout,
            items,
            examples,
            metrics,
            notes,
            ..
        } = &exam.summary;
        row(&[
            exam.task.clone(),
            layout.clone(),
            metrics.join(", "),
            match notes.is_empty() {
                true => "–".to_owned(),
                false => notes.join("; "),
            },
            items.to_string(),
            examples.to_string(),
        ])
    });
    let texts = exams.iter().map(|exam| {
        let title = format!("The first item of {}", named(&exam.task));
        (title, exam.summary.first_item(FIRST_ITEM))
    });
    (!exams.is_empty()).then(|| Section {
        title: "What the tasks ask",
        intro: "The layout says how records become questions: each is one of \
                lm-evaluation-harness, with its prompts."
            .into(),
        table: ReportTable {
            head: head(
                &["task", "layout", "figures", "notes"],
                &["items", "examples"],
            ),
            rows: rows.collect(),
        },
        texts: texts.collect(),
        plots: Vec::new(),
    })
}

/// Characters that are shown of the text before the first answer.
const FIRST_ITEM: usize = 2000;

fn speed(report: &Report) -> Option<Section> {
    let mut rows = Vec::new();
    for model in &report.models {
        let Some(speed) = &model.speed else { continue };
        for with in &speed.by_threads {
            let is_main = with.threads == speed.main()?.threads;
            let waits = |seconds: f64| match is_main {
                true => format!("{} ms", figures(1e3 * seconds)),
                false => "–".into(),
            };
            let (half, most, nearly_all) = speed.token_seconds;
            let rate = |r: &crate::speed::Rate| {
                let (low, high) = (figures(r.range.0), figures(r.range.1));
                format!("{} ({low} to {high})", figures(r.tokens_per_second))
            };
            rows.push(row(&[
                model.name.clone(),
                with.threads.to_string(),
                rate(&with.prompt),
                rate(&with.generate),
                match with.generate.limit_fraction {
                    Some(share) => format!("{:.0} % of {}", 100.0 * share, with.generate.limit),
                    None => "fits the cache".to_owned(),
                },
                waits(speed.first_token_seconds),
                match is_main {
                    true => {
                        [half, most, nearly_all]
                            .map(|s| figures(1e3 * s))
                            .join(" / ")
                            + " ms"
                    }
                    false => "–".into(),
                },
                with.peak_bytes.map_or("n/a".into(), bytes),
                with.joules_per_token.map_or("n/a".into(), figures),
            ]));
        }
    }
    let (prompt, generate) = report.setting.speed_tokens;
    (!rows.is_empty()).then(|| Section {
        title: "Speed and memory",
        intro: format!(
            "A prompt of {prompt} tokens is read, then {generate} tokens are written one by one. \
             Speeds are medians; the slowest and the fastest round are in brackets. “Of the limit” \
             is the share of what memory or arithmetic of this machine allow, measured at the same \
             time; a model that may fit the processor's caches has no such limit. The wait for a \
             token: half, 90 and 99 of 100 tokens take less."
        ),
        table: ReportTable {
            head: head(
                &["model"],
                &[
                    "threads",
                    "reads, tokens/s",
                    "writes, tokens/s",
                    "of the limit",
                    "first token after",
                    "wait for a token",
                    "memory",
                    "joules per token",
                ],
            ),
            rows,
        },
        texts: Vec::new(),
        plots: vec!["speed-by-threads", "speed-by-batch"],
    })
}

fn setting(report: &Report) -> Option<Section> {
    let s = &report.setting;
    let mut rows = vec![
        row(&["command".into(), named(&s.command)]),
        row(&["program".into(), format!("sterna {}", s.version)]),
        row(&[
            "processor".into(),
            format!("{}, {} cores, {} threads used", s.cpu, s.cores, s.threads),
        ]),
        row(&["kernels".into(), s.kernels.clone()]),
        row(&["KV cache".into(), s.kv_type.clone()]),
        row(&["energy".into(), s.energy.clone()]),
        row(&[
            "text".into(),
            format!(
                "{}: {} document{}, {}, sha256 {}",
                s.text.name,
                s.text.documents,
                if s.text.documents == 1 { "" } else { "s" },
                bytes(s.text.bytes as u64),
                s.text.sha256
            ),
        ]),
    ];
    let exams = report.models.first().map_or(&[][..], |m| &m.tasks);
    rows.extend(
        exams
            .iter()
            .map(|e| row(&[e.task.clone(), format!("items with sha256 {}", e.sha256)])),
    );
    rows.extend(report.models.iter().map(|m| {
        let facts = format!(
            "{}: {} weights, packing {}, {:.2} bits per weight ({:.2} in the layers), sha256 {}",
            named(&m.path),
            m.parameters,
            m.packing,
            m.bits_per_weight,
            m.bits_per_layer_weight,
            m.sha256
        );
        row(&[m.name.clone(), facts])
    }));
    Some(Section {
        title: "How this was measured",
        intro: "With the same files this command gives the same figures of accuracy, to the last \
                digit, on any machine."
            .into(),
        table: ReportTable {
            head: Vec::new(),
            rows,
        },
        texts: Vec::new(),
        plots: Vec::new(),
    })
}

fn pairs(report: &Report) -> impl Iterator<Item = (&ModelReport, &Accuracy)> {
    let models = report.models.iter();
    models.flat_map(|m| m.accuracy.iter().map(move |accuracy| (m, accuracy)))
}

fn estimate(of: &Estimate, decimals: usize) -> String {
    match of.error {
        Some(error) => format!("{:.decimals$} ± {error:.decimals$}", of.mean),
        None => format!("{:.decimals$}", of.mean),
    }
}

/// A small number of nats with its error.
fn nats(of: &Estimate) -> String {
    let error = of.error.map(|error| format!(" ± {}", figures(error)));
    figures(of.mean) + &error.unwrap_or_default()
}

fn p_value(p: f64) -> String {
    match p {
        p if p < 1e-4 => "< 0.0001".to_owned(),
        p => format!("{p:.4}"),
    }
}

fn percent(of: &Estimate) -> String {
    format!("{:.2} %", 100.0 * of.mean)
}
