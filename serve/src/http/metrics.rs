//! `/metrics`: the numbers of the engines in the text form of Prometheus, under our names and under
//! those of vLLM, which routers know.

use std::fmt::Write;

use axum::http::StatusCode;
use axum::response::Response;
use sterna_runtime::KvPage;

use super::app::App;
use super::error::{ApiError, ApiResult};
use super::reply;
use super::served::Served;
use crate::metrics::{BOUNDS, Counter, Histogram, Metrics};

const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Numbers that only grow: name, meaning, where they are.
type Count = (&'static str, &'static str, fn(&Metrics) -> &Counter);
const COUNTERS: [Count; 12] = [
    ("sterna_steps_total", "Passes over the weights", |m| {
        &m.steps
    }),
    (
        "sterna_prompt_tokens_total",
        "Tokens of prompts that were computed",
        |m| &m.prompt_tokens,
    ),
    (
        "sterna_cached_tokens_total",
        "Tokens of prompts found in the cache",
        |m| &m.cached_tokens,
    ),
    ("sterna_generation_tokens_total", "Tokens of answers", |m| {
        &m.generated_tokens
    }),
    (
        "sterna_drafts_total",
        "Steps of answers with guessed tokens",
        |m| &m.drafts,
    ),
    (
        "sterna_draft_errors_total",
        "Answers whose draft model failed",
        |m| &m.draft_errors,
    ),
    (
        "sterna_drafted_tokens_total",
        "Tokens that were guessed and computed",
        |m| &m.drafted_tokens,
    ),
    ("sterna_finished_total", "Answers that ended", |m| {
        &m.finished
    }),
    (
        "sterna_cancelled_total",
        "Requests whose client left",
        |m| &m.cancelled,
    ),
    ("sterna_failed_total", "Requests that failed", |m| &m.failed),
    (
        "sterna_preemptions_total",
        "Answers that were computed again",
        |m| &m.preemptions,
    ),
    (
        "sterna_evictions_total",
        "Pages that the prefix tree gave up",
        |m| &m.evictions,
    ),
];

/// Numbers of vLLM that only grow.
const VLLM_COUNTERS: [Count; 5] = [
    (
        "vllm:prompt_tokens_total",
        "Tokens of prompts that were computed",
        |m| &m.prompt_tokens,
    ),
    ("vllm:generation_tokens_total", "Tokens of answers", |m| {
        &m.generated_tokens
    }),
    (
        "vllm:spec_decode_num_drafts_total",
        "Steps of answers with guessed tokens",
        |m| &m.drafts,
    ),
    (
        "vllm:spec_decode_num_draft_tokens_total",
        "Tokens that were guessed and computed",
        |m| &m.drafted_tokens,
    ),
    (
        "vllm:num_preemptions_total",
        "Answers that were computed again",
        |m| &m.preemptions,
    ),
];

/// Numbers of the moment.
type Gauge = (&'static str, &'static str, fn(&Served) -> f64);
const GAUGES: [Gauge; 9] = [
    (
        "sterna_requests_running",
        "Answers that are computed",
        running,
    ),
    ("sterna_requests_waiting", "Answers that wait", waiting),
    (
        "sterna_waiting_tokens",
        "Tokens of prompts that wait",
        |served| served.engine.load().waiting().tokens as f64,
    ),
    ("sterna_kv_pages", "Pages of keys and values", |served| {
        served.limits.pages as f64
    }),
    ("sterna_kv_pages_used", "Pages in use", |served| {
        served.engine.metrics().pages.get() as f64
    }),
    (
        "sterna_kv_pages_cached",
        "Pages that only the prefix tree has",
        |served| served.engine.metrics().tree_pages.get() as f64,
    ),
    (
        "vllm:num_requests_running",
        "Answers that are computed",
        running,
    ),
    ("vllm:num_requests_waiting", "Answers that wait", waiting),
    (
        "vllm:kv_cache_usage_perc",
        "Share of the pages that requests use, 0 to 1",
        |served| {
            let metrics = served.engine.metrics();
            let used = metrics.pages.get().saturating_sub(metrics.tree_pages.get());
            used as f64 / served.limits.pages as f64
        },
    ),
];

/// Distributions of times.
type Times = (&'static str, &'static str, fn(&Metrics) -> &Histogram);
const HISTOGRAMS: [Times; 9] = [
    ("sterna_step_seconds", "Times of steps", |m| &m.step),
    (
        "sterna_queue_seconds",
        "Times until requests were begun",
        |m| &m.queue,
    ),
    ("sterna_ttft_seconds", "Times until the first token", |m| {
        &m.first_token
    }),
    ("sterna_inter_token_seconds", "Times between tokens", |m| {
        &m.next_token
    }),
    ("sterna_e2e_seconds", "Times of whole requests", |m| {
        &m.request
    }),
    (
        "vllm:request_queue_time_seconds",
        "Times until requests were begun",
        |m| &m.queue,
    ),
    (
        "vllm:time_to_first_token_seconds",
        "Times until the first token",
        |m| &m.first_token,
    ),
    (
        "vllm:inter_token_latency_seconds",
        "Times between tokens",
        |m| &m.next_token,
    ),
    (
        "vllm:e2e_request_latency_seconds",
        "Times of whole requests",
        |m| &m.request,
    ),
];

fn running(served: &Served) -> f64 {
    served.engine.load().running() as f64
}

fn waiting(served: &Served) -> f64 {
    served.engine.load().waiting().choices as f64
}

/// All numbers.
///
/// # Errors
/// 404 where the operator wants none, 503 while the model is loaded.
pub fn text(app: &App) -> ApiResult<Response> {
    if !app.settings.has_metrics {
        return Err(ApiError::route("/metrics"));
    }
    let mut text = Text(String::new());
    text.of_server(app);
    text.of_models(app.models()?.iter().map(|served| &**served).collect());
    Ok(reply::of_type(StatusCode::OK, MEDIA, text.0))
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments) {
        writeln!(self.0, "{line}").expect("a string grows");
    }

    fn of_server(&mut self, app: &App) {
        self.head(
            "sterna_replies_total",
            "counter",
            "Replies by route and status",
        );
        for ((route, status), count) in app.replies() {
            let (route, name) = (escaped(route), "sterna_replies_total");
            self.line(format_args!(
                "{name}{{route=\"{route}\",code=\"{status}\"}} {count}"
            ));
        }
        self.head(
            "sterna_requests_open",
            "gauge",
            "Requests that are being answered",
        );
        self.line(format_args!("sterna_requests_open {}", app.in_flight()));
    }

    fn of_models(&mut self, models: Vec<&Served>) {
        self.head("sterna_build_info", "gauge", "What computes");
        for served in &models {
            let model = &served.model;
            self.line(format_args!(
                "sterna_build_info{{version=\"{}\",{},fingerprint=\"{}\",kernels=\"{}\",\
                 packing=\"{}\"}} 1",
                env!("CARGO_PKG_VERSION"),
                label(served),
                served.fingerprint,
                escaped(model.kernels().name),
                escaped(model.file().packing.name()),
            ));
        }
        self.head(
            "vllm:cache_config_info",
            "gauge",
            "The cache of keys and values",
        );
        for served in &models {
            self.line(format_args!(
                "vllm:cache_config_info{{{},block_size=\"{}\",num_gpu_blocks=\"{}\"}} 1",
                label(served),
                KvPage::TOKENS,
                served.limits.pages,
            ));
        }
        for (name, help, value) in GAUGES {
            self.head(name, "gauge", help);
            for served in &models {
                self.line(format_args!(
                    "{name}{{{}}} {}",
                    label(served),
                    value(served)
                ));
            }
        }
        for (name, help, counter) in COUNTERS.iter().chain(&VLLM_COUNTERS) {
            self.head(name, "counter", help);
            for served in &models {
                let count = counter(served.engine.metrics()).get();
                self.line(format_args!("{name}{{{}}} {count}", label(served)));
            }
        }
        self.accepted(&models);
        for (name, help, histogram) in HISTOGRAMS {
            self.head(name, "histogram", help);
            for served in &models {
                let histogram = histogram(served.engine.metrics());
                self.histogram(name, &label(served), histogram);
            }
        }
    }

    /// Guesses that were right, by their place, and all together under vLLM's name.
    fn accepted(&mut self, models: &[&Served]) {
        const ALL: &str = "vllm:spec_decode_num_accepted_tokens_total";
        let accepted = |served: &Served| {
            let counters = &served.engine.metrics().accepted_tokens;
            counters.each_ref().map(Counter::get)
        };
        let help = "Guessed tokens that became tokens of answers";
        for name in [
            "sterna_accepted_tokens_total",
            "vllm:spec_decode_num_accepted_tokens_per_pos_total",
        ] {
            self.head(name, "counter", help);
            for served in models {
                let label = label(served);
                for (place, count) in accepted(served).into_iter().enumerate() {
                    self.line(format_args!(
                        "{name}{{{label},position=\"{place}\"}} {count}"
                    ));
                }
            }
        }
        self.head(ALL, "counter", help);
        for served in models {
            let count: u64 = accepted(served).into_iter().sum();
            self.line(format_args!("{ALL}{{{}}} {count}", label(served)));
        }
    }

    fn histogram(&mut self, name: &str, label: &str, histogram: &Histogram) {
        let counts = histogram.cumulative();
        for (bound, count) in BOUNDS.iter().zip(counts) {
            self.line(format_args!(
                "{name}_bucket{{{label},le=\"{bound}\"}} {count}"
            ));
        }
        let all = counts[BOUNDS.len()];
        self.line(format_args!("{name}_bucket{{{label},le=\"+Inf\"}} {all}"));
        self.line(format_args!("{name}_sum{{{label}}} {}", histogram.sum()));
        self.line(format_args!("{name}_count{{{label}}} {all}"));
    }
}

fn label(served: &Served) -> String {
    format!("model_name=\"{}\"", escaped(&served.name))
}

/// A value of a label.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}
