//! `sterna train --profile`: where the time of a step goes, beside the limits of the machine.

use sterna_runtime::Kernels;
use sterna_runtime::threads::Pool;
use sterna_train::Run;
use sterna_train::run::profile::{self, Limits};
use sterna_validate::speed::Meter;

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
    let measured = first.or_better(&second);
    // A multiply-add is two operations.
    let limits = Limits {
        int8: 2.0 * measured.int8_macs_per_second,
        float: 2.0 * measured.float_macs_per_second(),
        memory: measured.bytes_per_second,
    };
    match as_json {
        true => outln!("{}", of.json(&limits))?,
        false => outln!("{}", of.describe(&limits))?,
    }
    Ok(())
}
