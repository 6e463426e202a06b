//! The values of keys that a recipe leaves out.

use crate::Precision;
use crate::optimizer::Method;
use crate::schedule::RateShape;

pub fn rope_theta() -> f64 {
    10_000.0
}
pub fn rms_norm_eps() -> f64 {
    1e-5
}
pub fn initializer_range() -> f64 {
    0.02
}
pub fn yes() -> bool {
    true
}
pub fn documents() -> u64 {
    50_000
}
pub fn held_out() -> f64 {
    0.01
}
pub fn seed() -> u64 {
    1
}
pub fn precision() -> Precision {
    Precision::Ternary
}
pub fn optimizer() -> Method {
    Method::AdamW
}
pub fn schedule() -> RateShape {
    RateShape::Linear
}
pub fn weight_decay() -> f64 {
    0.1
}
pub fn betas() -> (f64, f64) {
    (0.9, 0.95)
}
pub fn clip() -> f64 {
    1.0
}
pub fn half() -> f64 {
    0.5
}
pub fn unit() -> f64 {
    1.0
}
pub fn one() -> usize {
    1
}
pub fn spike_window() -> usize {
    128
}
pub fn keep_last() -> usize {
    2
}
pub fn sample_tokens() -> usize {
    48
}
pub fn every() -> u64 {
    500
}
