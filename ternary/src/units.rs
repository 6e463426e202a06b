//! Sizes and times as people read them. `indicatif` formats them too, but it draws progress bars,
//! and a library should not depend on it.

/// 1234567 bytes as `1.23 MB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let power = (0..units.len() - 1)
        .take_while(|i| n as f64 / 1e3f64.powi(*i as i32) >= 1e3)
        .count();
    match power {
        0 => format!("{n} B"),
        _ => format!(
            "{:.2} {}",
            n as f64 / 1e3f64.powi(power as i32),
            units[power]
        ),
    }
}

/// Bytes of a size like `512MiB`, `2GB` or `1000000`; `k`, `m` and `g` are binary.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some((number * factor as f64) as u64)
}

/// Seconds as `45 s`, `12 min`, `3.5 h` or `2.1 days`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!([999, 1_234_567].map(bytes), ["999 B", "1.23 MB"]);
        let durations = [45.0, 600.0, 9000.0, 4e5].map(duration);
        assert_eq!(durations, ["45 s", "10 min", "2.5 h", "4.6 days"]);
    }
    #[test]
    fn sizes_are_read() {
        let read = [
            "1000", "2GiB", "1.5 GB", "512m", "7kB", "x", "2TB", "", "-1",
        ]
        .map(parse_bytes);
        let expected = [
            Some(1000),
            Some(2 << 30),
            Some(1_500_000_000),
            Some(512 << 20),
            Some(7000),
            None,
            None,
            None,
            None,
        ];
        assert_eq!(read, expected);
    }
}
