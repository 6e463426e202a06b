//! Energy that the machine used, from the counters that Linux shows.
//!
//! In this order: RAPL packages (`powercap`, processor and its caches), hwmon energy counters of
//! sockets (AMD), and a battery that discharges (the whole machine, in coarse steps). The first
//! kind that can be read is used.

use std::fs;
use std::path::{Path, PathBuf};

/// Energy counters.
#[derive(Debug)]
pub struct Energy {
    source: String,
    counters: Vec<Counter>,
}

#[derive(Debug)]
struct Counter {
    path: PathBuf,
    joules_per_unit: f64,
    /// Joules after which it begins at zero again; infinite if it does not.
    range: f64,
    /// Whether it counts down.
    is_charge: bool,
}

/// Readings of all counters in joules.
#[derive(Debug, Clone)]
pub struct Reading(Vec<f64>);

impl Energy {
    /// The counters of this machine.
    ///
    /// # Errors
    /// In words, why there are none.
    pub fn open() -> Result<Energy, String> {
        Energy::open_in(Path::new("/sys/class"))
    }

    fn open_in(class: &Path) -> Result<Energy, String> {
        let mut reasons = Vec::new();
        for (kind, source, find) in KINDS {
            let counters = find(&class.join(kind));
            let unreadable = counters.iter().find_map(|c| {
                let error = fs::read_to_string(&c.path).err()?;
                Some(format!("{}: {error}", c.path.display()))
            });
            match unreadable {
                Some(why) => reasons.push(why),
                None if counters.is_empty() => reasons.push(format!("{kind} has no {source}")),
                None => {
                    let source = format!("{source} ({kind})");
                    return Ok(Energy { source, counters });
                }
            }
        }
        Err(reasons.join("; "))
    }

    /// What is counted.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The counters now; `None` if they have become unreadable.
    pub fn joules(&self) -> Option<Reading> {
        let read = |c: &Counter| Some(number(&c.path)? * c.joules_per_unit);
        self.counters
            .iter()
            .map(read)
            .collect::<Option<_>>()
            .map(Reading)
    }

    /// Joules since a reading; `None` where nothing was counted in between.
    pub fn since(&self, before: Reading) -> Option<f64> {
        let now = self.joules()?;
        let used = self.counters.iter().zip(now.0.iter().zip(&before.0));
        let used: f64 = used
            .map(|(counter, (now, before))| counter.used(*before, *now))
            .sum();
        (used > 0.0).then_some(used)
    }
}

impl Counter {
    fn used(&self, before: f64, now: f64) -> f64 {
        match now - before {
            used if self.is_charge => -used,
            used if used < 0.0 && self.range.is_finite() => used + self.range,
            used => used,
        }
    }
}

type Find = fn(&Path) -> Vec<Counter>;

const KINDS: [(&str, &str, Find); 3] = [
    ("powercap", "RAPL package", rapl),
    ("hwmon", "energy counter of a socket", hwmon),
    ("power_supply", "discharging battery", battery),
];

/// `intel-rapl:N` with the name `package-N`; AMD processors have them as well.
fn rapl(folder: &Path) -> Vec<Counter> {
    let zones = entries(folder).into_iter();
    let packages = zones.filter(|zone| text(&zone.join("name")).starts_with("package"));
    let counter = |zone: PathBuf| Counter {
        path: zone.join("energy_uj"),
        joules_per_unit: 1e-6,
        range: number(&zone.join("max_energy_range_uj")).map_or(f64::INFINITY, |r| r * 1e-6),
        is_charge: false,
    };
    packages.map(counter).collect()
}

/// `energyN_input` with the label `EsocketN`: those of cores are parts of it.
fn hwmon(folder: &Path) -> Vec<Counter> {
    let files = entries(folder).into_iter().flat_map(|chip| entries(&chip));
    let is_socket = |input: &PathBuf| {
        let name = input
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let stem = name
            .strip_suffix("_input")
            .filter(|n| n.starts_with("energy"));
        let label = stem.map(|stem| text(&input.with_file_name(format!("{stem}_label"))));
        label.is_some_and(|label| label.starts_with("Esocket"))
    };
    let counter = |path| Counter {
        path,
        joules_per_unit: 1e-6,
        range: f64::INFINITY,
        is_charge: false,
    };
    files.filter(is_socket).map(counter).collect()
}

/// `energy_now`, in microwatt hours.
fn battery(folder: &Path) -> Vec<Counter> {
    let supplies = entries(folder).into_iter();
    let counter = |supply: PathBuf| Counter {
        path: supply.join("energy_now"),
        joules_per_unit: 3600e-6,
        range: f64::INFINITY,
        is_charge: true,
    };
    supplies
        .filter(|supply| text(&supply.join("status")) == "Discharging")
        .map(counter)
        .filter(|counter| counter.path.exists())
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn number(path: &Path) -> Option<f64> {
    text(path).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, file: &str, content: &str) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn packages_are_counted_once_and_across_the_wrap() {
        let class = tempfile::tempdir().unwrap();
        let class = class.path();
        for (zone, name) in [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:1", "psys"),
        ] {
            put(class, &format!("powercap/{zone}/name"), name);
            put(class, &format!("powercap/{zone}/energy_uj"), "9000000\n");
            put(
                class,
                &format!("powercap/{zone}/max_energy_range_uj"),
                "10000000",
            );
        }
        let energy = Energy::open_in(class).unwrap();
        assert_eq!(energy.source(), "RAPL package (powercap)");
        let before = energy.joules().unwrap();
        put(class, "powercap/intel-rapl:0/energy_uj", "9500000");
        assert_eq!(energy.since(before.clone()), Some(0.5));
        put(class, "powercap/intel-rapl:0/energy_uj", "1000000");
        assert_eq!(energy.since(before), Some(2.0));
    }

    #[test]
    fn sockets_and_batteries() {
        let class = tempfile::tempdir().unwrap();
        let class = class.path();
        put(class, "power_supply/BAT0/status", "Discharging\n");
        put(class, "power_supply/BAT0/energy_now", "50000000");
        let energy = Energy::open_in(class).unwrap();
        let before = energy.joules().unwrap();
        put(class, "power_supply/BAT0/energy_now", "49990000");
        assert_eq!(energy.since(before), Some(36.0));

        put(class, "hwmon/hwmon0/energy1_input", "5000000");
        put(class, "hwmon/hwmon0/energy1_label", "Ecore000");
        put(class, "hwmon/hwmon0/energy2_input", "7000000");
        put(class, "hwmon/hwmon0/energy2_label", "Esocket0");
        let energy = Energy::open_in(class).unwrap();
        assert_eq!(energy.joules().unwrap().0, [7.0]);
    }

    #[test]
    fn a_machine_without_counters_says_so() {
        let class = tempfile::tempdir().unwrap();
        let why = Energy::open_in(class.path()).unwrap_err();
        assert!(why.contains("powercap has no RAPL package"), "{why}");
    }
}
