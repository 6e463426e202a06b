//! The machine, and the part of it that this process may use, as the system reports them. Limits of
//! containers are those of Linux.

use std::fs;

use serde_json::{Value, json};
use sterna_runtime::Kernels;
use sterna_runtime::threads::physical_cores;
pub use sterna_ternary::system::CpuCache;
use sterna_ternary::{system, units};

/// A machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Instruction set family, as Rust names it.
    pub architecture: &'static str,
    /// Hardware threads that are on.
    pub logical_cpus: Option<usize>,
    /// Hardware threads that affinity lets this process use, like `0-3`.
    pub affinity: Option<String>,
    /// Processors' worth of time that the container may use.
    pub cpu_quota: Option<f64>,
    /// Physical cores that this process may use: the default number of threads.
    pub usable_cores: usize,
    /// Caches of the first processor, those of instructions left out.
    pub caches: Vec<CpuCache>,
    /// Last-level caches of the processors that this process may use.
    pub last_level_caches: usize,
    /// Memory of the machine, or of the container where that is less.
    pub memory_bytes: Option<u64>,
    /// Instruction set extensions that matter here, and whether the processor has them.
    pub features: Vec<(&'static str, bool)>,
}

/// A kernel table and what it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTable {
    /// Name of the table.
    pub name: &'static str,
    /// Features that the processor lacks; none if the table can run.
    pub missing: Vec<&'static str>,
}

impl Machine {
    /// This machine.
    pub fn detect() -> Machine {
        let number = |path: &str| read(path)?.parse::<u64>().ok();
        let limit = number("/sys/fs/cgroup/memory.max");
        let total = system::machine_memory().map(|memory| memory.total);
        Machine {
            cpu: system::cpu_name().unwrap_or_else(|| "unknown".into()),
            architecture: std::env::consts::ARCH,
            logical_cpus: match read("/sys/devices/system/cpu/online") {
                Some(list) => cpus(&list).map(|cpus| cpus.len()),
                None => std::thread::available_parallelism().ok().map(Into::into),
            },
            affinity: system::affinity(),
            cpu_quota: read("/sys/fs/cgroup/cpu.max").and_then(|text| quota(&text)),
            usable_cores: physical_cores(),
            caches: system::caches(),
            last_level_caches: system::last_level_caches().unwrap_or(1),
            memory_bytes: limit.into_iter().chain(total).min(),
            features: features(),
        }
    }

    /// Bytes of the last-level caches that `threads` threads can use, at most one cache each; a
    /// guess where the system does not tell.
    pub fn cache_bytes(&self, threads: usize) -> u64 {
        const GUESS: u64 = 32 << 20;
        let last = self.caches.iter().max_by_key(|cache| cache.level);
        last.map_or(GUESS, |cache| cache.bytes) * self.last_level_caches.min(threads) as u64
    }

    /// Every kernel table of this architecture, the ones that run here first, slowest first.
    pub fn tables(&self) -> Vec<KernelTable> {
        let has = |feature: &&str| {
            self.features
                .iter()
                .any(|(name, has)| name == feature && *has)
        };
        let here = Kernels::available().iter().map(|table| KernelTable {
            name: table.name,
            missing: Vec::new(),
        });
        let absent = NEEDS
            .iter()
            .filter(|(name, _)| Kernels::find(name).is_none());
        let elsewhere = absent.map(|(name, needs)| KernelTable {
            name,
            missing: needs.iter().filter(|f| !has(f)).copied().collect(),
        });
        here.chain(elsewhere.filter(|table| !table.missing.is_empty()))
            .collect()
    }

    /// As one JSON object.
    pub fn json(&self) -> Value {
        let caches = self
            .caches
            .iter()
            .map(|c| json!({ "level": c.level, "bytes": c.bytes, "shared_by": c.shared_by }));
        let features = self.features.iter().filter(|(_, has)| *has);
        json!({
            "cpu": self.cpu,
            "architecture": self.architecture,
            "logical_cpus": self.logical_cpus,
            "affinity": self.affinity,
            "cpu_quota": self.cpu_quota,
            "usable_cores": self.usable_cores,
            "caches": caches.collect::<Value>(),
            "memory_bytes": self.memory_bytes,
            "features": features.map(|(name, _)| *name).collect::<Value>(),
        })
    }

    /// As lines of text, one per subject.
    pub fn describe(&self) -> String {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".into());
        let caches = self.caches.iter().map(|cache| {
            let size = match cache.bytes >> 20 {
                0 => format!("{} KiB", cache.bytes >> 10),
                mebibytes => format!("{mebibytes} MiB"),
            };
            format!("L{} {size} (cpus {})", cache.level, cache.shared_by)
        });
        let caches: Vec<String> = caches.collect();
        let features = self.features.iter().filter(|(_, has)| *has);
        let features: Vec<&str> = features.map(|(name, _)| *name).collect();
        let mut text = format!(
            "processor    {} ({})\n\
             cores        {} physical ones usable; {} hardware threads on, affinity {}\n",
            self.cpu,
            self.architecture,
            self.usable_cores,
            or_unknown(self.logical_cpus.map(|n| n.to_string())),
            or_unknown(self.affinity.clone()),
        );
        if let Some(quota) = self.cpu_quota {
            text += &format!("quota        {quota:.2} processors\n");
        }
        text += &format!(
            "caches       {}\n\
             memory       {}\n\
             features     {}\n",
            or_unknown((!caches.is_empty()).then(|| caches.join(", "))),
            or_unknown(self.memory_bytes.map(units::bytes)),
            features.join(" "),
        );
        text
    }

    /// As one JSON object, with all kernel tables and the one that is used.
    pub fn json_with_kernels(&self) -> Value {
        let tables = self.tables();
        let tables = tables.iter().map(|table| {
            json!({
                "name": table.name, "runs": table.missing.is_empty(), "missing": table.missing,
            })
        });
        json!({
            "machine": self.json(),
            "kernels": Kernels::best().name,
            "tables": tables.collect::<Value>(),
        })
    }

    /// The kernel tables, one per line.
    pub fn describe_kernels(&self) -> String {
        let mut text = String::new();
        for table in self.tables() {
            let why = match table.missing.as_slice() {
                [] if table.name == Kernels::best().name => "runs; chosen, the fastest".to_owned(),
                [] => "runs".to_owned(),
                missing => format!("does not run: no {}", missing.join(", ")),
            };
            text += &format!("kernels      {:<8} {why}\n", table.name);
        }
        text
    }
}

/// What the kernel tables need, to say why one cannot run; [`Kernels::available`] decides whether
/// it can.
const NEEDS: &[(&str, &[&str])] = if cfg!(target_arch = "x86_64") {
    &[
        ("ssse3", &["ssse3"]),
        ("avx2", &["avx2", "f16c"]),
        ("avx-vnni", &["avx2", "f16c", "avxvnni"]),
        (
            "avx512",
            &[
                "popcnt",
                "avx512f",
                "avx512bw",
                "avx512vl",
                "avx512dq",
                "avx512vnni",
            ],
        ),
        ("amx", &["avx512vnni", "amx-int8", "amx-permission"]),
    ]
} else if cfg!(target_arch = "aarch64") {
    &[
        ("neon", &["neon"]),
        ("neon-dotprod", &["neon", "dotprod"]),
        ("neon-i8mm", &["neon", "dotprod", "i8mm"]),
    ]
} else {
    &[]
};

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<(&'static str, bool)> {
    macro_rules! detect {
        ($($name:tt),*) => { vec![$(($name, is_x86_feature_detected!($name))),*] };
    }
    let mut features = detect!(
        "ssse3",
        "popcnt",
        "avx",
        "f16c",
        "fma",
        "avx2",
        "avxvnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512dq",
        "avx512vnni"
    );
    features.extend(sterna_runtime::kernels::amx_features());
    features
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<(&'static str, bool)> {
    macro_rules! detect {
        ($($name:tt),*) => { vec![$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    detect!("neon", "fp16", "dotprod", "i8mm", "sve", "sve2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// `max 100000` or `150000 100000`: microseconds of processor time in a period.
fn quota(text: &str) -> Option<f64> {
    let (time, period) = text.split_once(' ')?;
    Some(time.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// Processors in a list like `0-3,8`.
fn cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let [first, last] = [first, last].map(|cpu| cpu.parse::<usize>().ok());
        cpus.extend(first?..=last?);
    }
    Some(cpus)
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_quotas() {
        assert_eq!(cpus("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(cpus(""), None);
        assert_eq!(quota("max 100000"), None);
        assert_eq!(quota("150000 100000"), Some(1.5));
    }

    #[test]
    fn a_table_that_runs_lacks_nothing() {
        let tables = Machine::detect().tables();
        for kernels in Kernels::available() {
            let table = tables.iter().find(|t| t.name == kernels.name).unwrap();
            assert_eq!(table.missing, [""; 0], "{}", kernels.name);
        }
        let mut names: Vec<_> = tables.iter().map(|t| t.name).collect();
        names.dedup();
        assert_eq!(names.len(), tables.len());
    }
}
