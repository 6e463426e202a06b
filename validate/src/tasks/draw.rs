//! Few-shot examples, drawn as lm-evaluation-harness draws them.

use std::collections::BTreeMap;

use super::error::{Error, Result};
use super::random::Random;
use super::sample::Sample;

/// How examples are chosen.
pub(super) struct Draw {
    pub(super) count: usize,
    pub(super) first: bool,
    /// Draw one more than are shown.
    pub(super) has_spare: bool,
    pub(super) seed: u32,
}

impl Draw {
    /// For each sample the numbers of its examples in the pool, or among the samples if there is
    /// none. Samples share examples only with those of their description, such as a subject of
    /// MMLU.
    pub(super) fn examples(
        &self,
        name: &str,
        samples: &[Sample],
        pool: Option<&[Sample]>,
    ) -> Result<Vec<Vec<usize>>> {
        if self.count == 0 {
            return Ok(vec![Vec::new(); samples.len()]);
        }
        if let Some(index) = pool
            .unwrap_or(samples)
            .iter()
            .position(|sample| sample.example.is_none())
        {
            return Err(Error::NoExample {
                name: name.to_owned(),
                record: index + 1,
            });
        }
        let mut groups: BTreeMap<&str, (Random, Vec<usize>)> = BTreeMap::new();
        for (i, sample) in pool.unwrap_or(samples).iter().enumerate() {
            let new = || (Random::new(self.seed), Vec::new());
            groups
                .entry(&sample.description)
                .or_insert_with(new)
                .1
                .push(i);
        }
        let mut none = (Random::new(self.seed), Vec::new());
        let examples = |(item, sample): (usize, &Sample)| {
            let (random, group) = groups.get_mut(&*sample.description).unwrap_or(&mut none);
            let item = pool.is_none().then_some(item);
            let found = group.len() - usize::from(item.is_some());
            let spare = usize::from(item.is_some() || self.has_spare);
            if found < self.count {
                return Err(Error::TooFewExamples {
                    name: name.to_owned(),
                    found,
                    expected: self.count,
                });
            }
            let order = match self.first {
                true => (0..group.len()).collect(),
                false => random.sample(group.len(), group.len().min(self.count + spare)),
            };
            let numbers = order.into_iter().map(|i| group[i]);
            Ok(numbers
                .filter(|i| Some(*i) != item)
                .take(self.count)
                .collect())
        };
        samples.iter().enumerate().map(examples).collect()
    }
}
