//! The machine, and the part of it that this process may use, as Linux reports them; on other
//! systems only what Rust knows. The crate `sysinfo` knows neither caches nor the affinity of a
//! process.

use std::collections::HashSet;
use std::fs;

use serde_json::{Value, json};
use sterna_runtime::Kernels;
use sterna_runtime::threads::physical_cores;
use sterna_ternary::units;

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

/// A cache for data.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuCache {
    /// 1 is the nearest.
    pub level: u32,
    /// Its size.
    pub bytes: u64,
    /// The hardware threads that share it, like `0-3`.
    pub shared_by: String,
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
        let total = proc_value("/proc/meminfo", "MemTotal")
            .and_then(|kb| kb.strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kb| kb * 1024);
        Machine {
            cpu: cpu_name(),
            architecture: std::env::consts::ARCH,
            logical_cpus: read("/sys/devices/system/cpu/online")
                .and_then(|list| cpus(&list))
                .map(|cpus| cpus.len()),
            affinity: proc_value("/proc/self/status", "Cpus_allowed_list"),
            cpu_quota: read("/sys/fs/cgroup/cpu.max").and_then(|text| quota(&text)),
            usable_cores: physical_cores(),
            caches: caches(0),
            last_level_caches: last_level_caches(),
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
            &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"],
        ),
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
    detect!(
        "ssse3",
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
    )
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

fn cpu_name() -> String {
    let name = |key| proc_value("/proc/cpuinfo", key).filter(|name| !name.is_empty());
    // ARM kernels give numbers only.
    let arm = || {
        let (implementer, part) = (name("CPU implementer")?, name("CPU part")?);
        Some(format!("ARM implementer {implementer}, part {part}"))
    };
    name("model name")
        .or_else(arm)
        .unwrap_or_else(|| "unknown".into())
}

fn caches(cpu: usize) -> Vec<CpuCache> {
    let cache = |index| {
        let read = |file: &str| {
            read(&format!(
                "/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{file}"
            ))
        };
        let is_data = read("type")? != "Instruction";
        let cache = CpuCache {
            level: read("level")?.parse().ok()?,
            bytes: read("size")?.strip_suffix('K')?.parse::<u64>().ok()? * 1024,
            shared_by: read("shared_cpu_list")?,
        };
        Some(is_data.then_some(cache))
    };
    (0..).map_while(cache).flatten().collect()
}

/// How many there are among the processors that this process may use.
fn last_level_caches() -> usize {
    let allowed = proc_value("/proc/self/status", "Cpus_allowed_list");
    let allowed = allowed.and_then(|list| cpus(&list)).unwrap_or_default();
    let of_cpus = allowed.into_iter().filter_map(|cpu| {
        let last = caches(cpu).into_iter().max_by_key(|cache| cache.level)?;
        Some(last.shared_by)
    });
    of_cpus.collect::<HashSet<_>>().len().max(1)
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

/// The first value of a key in a file of lines `key : value`.
fn proc_value(path: &str, key: &str) -> Option<String> {
    let text = read(path)?;
    let value = |line: &str| {
        Some(
            line.strip_prefix(key)?
                .trim_start()
                .strip_prefix(':')?
                .trim()
                .to_owned(),
        )
    };
    text.lines().find_map(value)
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
