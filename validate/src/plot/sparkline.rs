//! Curves of block characters, for terminals.

/// A curve as one line of block characters, at most `width` of them.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let blocks = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let per = values.len().div_ceil(width.max(1)).max(1);
    let means = values
        .chunks(per)
        .map(|c| c.iter().sum::<f64>() / c.len() as f64);
    let means: Vec<f64> = means.collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |x: &f64| ((x - low) / (high - low).max(1e-9) * 7.0).round() as usize;
    means.iter().map(|x| blocks[level(x).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn curves() {
        assert_eq!(super::sparkline(&[7.0, 3.5, 0.0], 10), "█▅▁");
        assert_eq!(super::sparkline(&[], 10), "");
    }
}
