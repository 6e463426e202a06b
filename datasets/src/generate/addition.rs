//! Sums, one per line, in columns of fixed width: `12+39=150` says 12 + 39 = 51.
//!
//! Operands are zero-padded. The sum has one digit more and is written lowest digit first, because
//! a model that writes left to right can then add as people do, carrying from one column to the
//! next; written highest first, a small model must foresee every carry and needs several times the
//! steps.
//!
//! Held-out pairs are chosen by a hash. A linear rule such as (3a + 7b) mod 10 would hold out every
//! sum that ends in a certain digit, and that digit would never be learned.

use std::sync::OnceLock;

use super::{Page, Split};
use crate::random::mix64;

/// The number of lines in a document, by the digits of an operand; both give about as many tokens.
fn lines(digits: usize) -> std::ops::RangeInclusive<usize> {
    if digits == 2 { 8..=12 } else { 6..=9 }
}

/// Writes a document of sums of two numbers of `digits` digits; each ends with a newline.
pub(super) fn write(page: &mut Page, digits: usize, split: Split) {
    let (low, high) = lines(digits).into_inner();
    let count = low + page.draws.below(high - low + 1);
    for _ in 0..count {
        let (a, b) = operands(page, digits, split);
        page.put(&format!("{a:0digits$}+{b:0digits$}="));
        page.answer(&reversed(a + b, digits + 1));
        page.put("\n");
    }
}

/// Two operands, uniform among the pairs of a side.
pub(super) fn operands(page: &mut Page, digits: usize, split: Split) -> (usize, usize) {
    let numbers = 10usize.pow(digits as u32);
    page.draws.add_entropy(pairs(digits, split));
    loop {
        let pair = page.draws.uncounted(numbers * numbers);
        let (a, b) = (pair / numbers, pair % numbers);
        if side(digits, a, b) == split {
            return (a, b);
        }
    }
}

/// What numbers a conversation adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 0 to 9.
    BelowTen,
    /// 10, 20 and so on.
    Tens,
    /// All other numbers.
    Other,
}

impl Kind {
    fn of(number: usize) -> Self {
        match number {
            0..10 => Kind::BelowTen,
            _ if number.is_multiple_of(10) => Kind::Tens,
            _ => Kind::Other,
        }
    }
}

/// Two operands, uniform among the pairs of a side that are of these kinds.
pub(super) fn operands_of(
    page: &mut Page,
    digits: usize,
    split: Split,
    kinds: [Kind; 2],
) -> (usize, usize) {
    let numbers = 10usize.pow(digits as u32);
    let of = |kind| (0..numbers).filter(move |n| Kind::of(*n) == kind);
    let pairs = of(kinds[0]).flat_map(|a| of(kinds[1]).map(move |b| (a, b)));
    let pairs: Vec<_> = pairs
        .filter(|(a, b)| side(digits, *a, *b) == split)
        .collect();
    page.draws.pick(&pairs)
}

/// Which side the sum of `a` and `b` is on; about one pair in ten is held out.
pub(super) fn side(digits: usize, a: usize, b: usize) -> Split {
    let pair = (digits << 40 | a.min(b) << 20 | a.max(b)) as u64;
    if mix64(pair) < u64::MAX / 10 {
        Split::HeldOut
    } else {
        Split::Train
    }
}

/// How many ordered pairs of operands are on a side.
pub(super) fn pairs(digits: usize, split: Split) -> usize {
    static HELD_OUT: [OnceLock<usize>; 2] = [OnceLock::new(), OnceLock::new()];
    let numbers = 10usize.pow(digits as u32);
    let held_out = *HELD_OUT[digits - 2].get_or_init(|| {
        let all = (0..numbers).flat_map(|a| (0..numbers).map(move |b| (a, b)));
        all.filter(|&(a, b)| side(digits, a, b) == Split::HeldOut)
            .count()
    });
    match split {
        Split::HeldOut => held_out,
        Split::Train => numbers * numbers - held_out,
    }
}

/// `width` decimal digits of `number`, lowest first.
pub(super) fn reversed(number: usize, width: usize) -> String {
    format!("{number:0width$}").chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::{Task, document, problem};
    use super::*;

    /// Reads `12+39=150` back, with the sum as a number.
    fn parse(line: &str) -> (usize, usize, usize) {
        let (a, rest) = line.split_once('+').unwrap();
        let (b, sum) = rest.split_once('=').unwrap();
        let sum: String = sum.chars().rev().collect();
        (a.parse().unwrap(), b.parse().unwrap(), sum.parse().unwrap())
    }

    #[test]
    fn every_line_is_a_right_sum_of_its_own_side() {
        for (task, digits) in [(Task::Addition2, 2), (Task::Addition3, 3)] {
            for split in [Split::Train, Split::HeldOut] {
                for index in 0..300 {
                    let document = document(task, 1, index, split);
                    for line in document.text.lines() {
                        let (a, b, sum) = parse(line);
                        assert_eq!(line.len(), 3 * digits + 3);
                        assert_eq!(a + b, sum);
                        assert_eq!(side(digits, a, b), split);
                        assert_eq!(side(digits, b, a), split);
                    }
                }
            }
        }
    }

    #[test]
    fn entropy_is_minus_log_p_by_enumeration() {
        for (task, digits) in [(Task::Addition2, 2), (Task::Addition3, 3)] {
            for split in [Split::Train, Split::HeldOut] {
                let numbers = 10usize.pow(digits as u32);
                let mut allowed = 0;
                for a in 0..numbers {
                    allowed += (0..numbers)
                        .filter(|&b| side(digits, a, b) == split)
                        .count();
                }
                let document = document(task, 9, 4, split);
                let count = document.text.lines().count() as f64;
                let (low, high) = lines(digits).into_inner();
                let expected = ((high - low + 1) as f64).ln() + count * (allowed as f64).ln();
                assert!((document.entropy - expected).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn pairs_are_drawn_uniformly() {
        let mut seen = HashMap::new();
        for index in 0..10_000 {
            for line in document(Task::Addition2, 2, index, Split::Train)
                .text
                .lines()
            {
                *seen.entry(parse(line)).or_insert(0) += 1;
            }
        }
        assert_eq!(
            seen.len(),
            pairs(2, Split::Train),
            "all training pairs occur"
        );
        let most = seen.values().max().copied().unwrap();
        assert!(most < 30, "mean 11, most {most}");
    }

    #[test]
    fn a_tenth_is_held_out_and_no_digit_or_carry_is_lost() {
        for digits in [2, 3] {
            let share = pairs(digits, Split::HeldOut) as f64 / 100f64.powi(digits as i32);
            assert!((0.08..0.12).contains(&share), "{share}");
        }
        for split in [Split::Train, Split::HeldOut] {
            let mut cases = HashSet::new();
            for index in 0..1000 {
                for line in document(Task::Addition2, 0, index, split).text.lines() {
                    let (a, b, _) = parse(line);
                    cases.insert((a % 10, b % 10));
                }
            }
            assert_eq!(cases.len(), 100, "every pair of lowest digits");
        }
    }

    #[test]
    fn problems_are_single_sums() {
        let problem = problem(Task::Addition2, 1, 0, Split::HeldOut);
        assert_eq!((problem.prompt.len(), problem.answer.len()), (6, 3));
        let (a, b, sum) = parse(&(problem.prompt + &problem.answer));
        assert_eq!(a + b, sum);
        assert_eq!(reversed(51, 3), "150");
    }
}
