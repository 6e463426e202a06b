//! Skips the updates of batches whose loss is far above that of the batches before.
//!
//! A batch of broken text has a gradient that disturbs weights and moments for hundreds of steps.
//! The loss of each batch is compared with the mean and the deviation of a window of earlier
//! losses; above `threshold` deviations the update is skipped. Skipped losses enter the window too.
//! So where the loss stays higher, as after a switch to ternary weights, at most window /
//! (threshold² + 1) consecutive steps are skipped.

use std::collections::VecDeque;

/// The last losses, and the threshold of a spike.
#[derive(Debug, Clone, PartialEq)]
pub struct Spikes {
    /// Deviations above the mean from which a loss is a spike; 0 skips nothing.
    pub threshold: f64,
    /// Number of losses that are remembered. Nothing is skipped before the window is full.
    pub window: usize,
    /// The remembered losses, the oldest first.
    pub losses: VecDeque<f64>,
}

impl Spikes {
    /// An empty window.
    pub fn new(threshold: f64, window: usize) -> Spikes {
        Spikes {
            threshold,
            window,
            losses: VecDeque::new(),
        }
    }

    /// Whether the loss of a batch is a spike; remembers it.
    pub fn is_spike(&mut self, loss: f64) -> bool {
        if self.threshold == 0.0 {
            return false;
        }
        let is_full = self.losses.len() == self.window;
        let is_spike = is_full && self.z_score(loss) > self.threshold;
        if is_full {
            self.losses.pop_front();
        }
        self.losses.push_back(loss);
        is_spike
    }

    /// The distance of a loss from the mean of the window, in standard deviations.
    fn z_score(&self, loss: f64) -> f64 {
        let count = self.losses.len() as f64;
        let mean = self.losses.iter().sum::<f64>() / count;
        let squares = self.losses.iter().map(|x| (x - mean) * (x - mean));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        (loss - mean) / deviation.max(1e-12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_is_far_above_a_full_window() {
        let mut spikes = Spikes::new(4.0, 8);
        assert!(!spikes.is_spike(9.0), "nothing to compare with yet");
        for i in 0..8 {
            assert!(!spikes.is_spike(3.0 + 0.1 * f64::from(i % 2)));
        }
        assert!(!spikes.is_spike(3.2) && !spikes.is_spike(1.0));
        let mut off = Spikes::new(0.0, 1);
        assert!(!off.is_spike(1.0) && !off.is_spike(1e9));
    }

    #[test]
    fn a_loss_that_stays_higher_is_soon_taken_for_normal() {
        let mut spikes = Spikes::new(4.0, 128);
        for i in 0..128 {
            assert!(!spikes.is_spike(3.0 + 0.01 * f64::from(i % 3)));
        }
        let skipped = (0..128).filter(|_| spikes.is_spike(5.0)).count();
        assert!((1..=8).contains(&skipped), "{skipped}");
    }
}
