//! `sterna train --profile`: where the time of a step goes, beside the limits of the machine.

use serde_json::json;
use sterna_runtime::Kernels;
use sterna_runtime::threads::Pool;
use sterna_train::Run;
use sterna_train::run::profile::{self, Limit, PartTime, Profile, TIMED_STEPS};
use sterna_validate::speed::{MachineLimits, Meter};

use crate::output::outln;

/// Takes some steps and prints the time of each part of the fastest, and its share of its limit.
pub fn print(run: &Run, as_json: bool) -> anyhow::Result<()> {
    let of = profile::measure(run)?;
    let pools = [Pool::new(Some(of.threads))?];
    let meter = Meter::new(&pools)?;
    let (first, second) = (
        meter.measure(&pools[0], Kernels::best()),
        meter.measure(&pools[0], Kernels::best()),
    );
    let limits = first.or_better(&second);
    if as_json {
        return Ok(outln!("{}", in_json(&of, &limits))?);
    }
    let titles = ["part", "ms", "share", "work", "rate", "of limit"];
    outln!("{}", row(titles.map(String::from)))?;
    let line = |name: &str, seconds: f64, rates: [String; 3]| {
        let (ms, share) = (1e3 * seconds, 100.0 * seconds / of.seconds);
        let [work, rate, of_limit] = rates;
        let (ms, share) = (format!("{ms:.1}"), format!("{share:.1} %"));
        outln!("{}", row([name.into(), ms, share, work, rate, of_limit]))
    };
    for PartTime {
        part,
        seconds,
        work,
    } in &of.parts
    {
        let rates = part.limit().map(|limit| {
            let (unit, rate) = (unit(limit), work / seconds);
            [
                format!("{:.2} {unit}", work / 1e9),
                format!("{:.1} {unit}/s", rate / 1e9),
                format!("{:.0} %", 100.0 * rate / most(limit, &limits)),
            ]
        });
        line(part.name(), *seconds, rates.unwrap_or_default())?;
    }
    line(REST, of.rest(), Default::default())?;
    line("step", of.seconds, Default::default())?;
    outln!(
        "{:.0} tokens/s, the fastest of {TIMED_STEPS} steps on {} threads\n\
         limits: int8 {:.0} GOP/s, f32 {:.0} GFLOP/s, reading memory {:.1} GB/s",
        of.tokens as f64 / of.seconds,
        of.threads,
        most(Limit::Int8, &limits) / 1e9,
        most(Limit::Float, &limits) / 1e9,
        most(Limit::Memory, &limits) / 1e9,
    )?;
    Ok(())
}

fn row([part, ms, share, work, rate, of_limit]: [String; 6]) -> String {
    let row = format!("{part:<32}{ms:>9}{share:>8}{work:>14}{rate:>15}{of_limit:>10}");
    row.trim_end().into()
}

/// The name of what no part counts.
const REST: &str = "waiting and the rest";

fn unit(limit: Limit) -> &'static str {
    match limit {
        Limit::Int8 => "GOP",
        Limit::Float => "GFLOP",
        Limit::Memory => "GB",
    }
}

/// The most operations or bytes per second; a multiply-add is two operations.
fn most(limit: Limit, limits: &MachineLimits) -> f64 {
    match limit {
        Limit::Int8 => 2.0 * limits.int8_macs_per_second,
        Limit::Float => 2.0 * limits.float_macs_per_second(),
        Limit::Memory => limits.bytes_per_second,
    }
}

fn in_json(of: &Profile, limits: &MachineLimits) -> serde_json::Value {
    let part = |part: &PartTime| {
        let rate = part.work / part.seconds;
        let limit = part.part.limit();
        json!({"part": part.part.name(), "seconds": part.seconds,
            "share": part.seconds / of.seconds,
            "work": limit.map(|_| part.work), "unit": limit.map(unit),
            "rate": limit.map(|_| rate),
            "share_of_limit": limit.map(|limit| rate / most(limit, limits))})
    };
    let mut parts: Vec<_> = of.parts.iter().map(part).collect();
    parts.push(json!({"part": REST, "seconds": of.rest(), "share": of.rest() / of.seconds}));
    json!({"seconds": of.seconds, "tokens_per_second": of.tokens as f64 / of.seconds,
        "threads": of.threads, "parts": parts,
        "limits": {"int8": most(Limit::Int8, limits), "f32": most(Limit::Float, limits),
            "memory": most(Limit::Memory, limits)}})
}
