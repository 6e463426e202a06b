use super::*;

fn counts(sampling: Sampling, logits: &[f32]) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..4000 {
        counts[sampler.sample(&mut logits.to_vec(), &[]).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn very_small_divisors_choose_the_most_probable_token() {
    for (logits, expected) in [([3.0, 7.0, -2.0], 1), ([-3.0, -7.0, -2.0], 2)] {
        for temperature in [1e-45, 1e-40, 1e-38, f32::MIN_POSITIVE] {
            for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (2, 0.9, 0.1), (0, 0.5, 1.0)] {
                let sampling = Sampling {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    ..WARM
                };
                let mut sampler = Sampler::new(sampling).unwrap();
                assert_eq!(sampler.sample(&mut logits.to_vec(), &[]).unwrap(), expected);
            }
        }
    }
    let sampling = Sampling {
        repetition_penalty: 1e-45,
        ..WARM
    };
    let mut sampler = Sampler::new(sampling).unwrap();
    assert_eq!(sampler.sample(&mut [3.0, 7.0, -2.0], &[0]).unwrap(), 0);
}

const WARM: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    seed: 7,
    stream: 0,
};

#[test]
fn greedy_takes_the_lowest_of_equals() {
    assert_eq!(greedy(&[1.0, 3.0, 3.0, 2.0]), 1);
    let mut sampler = Sampler::new(Sampling::default()).unwrap();
    assert_eq!(sampler.sample(&mut [-1.0, -1.0], &[]).unwrap(), 0);
}

#[test]
fn draws_follow_the_probabilities_and_the_seed() {
    // Probabilities 1/2, 1/4, 1/4.
    let logits = [2f32.ln(), 0.0, 0.0];
    let found = counts(WARM, &logits);
    assert!((found[0] as i32 - 2000).abs() < 150 && (found[1] as i32 - 1000).abs() < 150);
    assert_eq!(counts(WARM, &logits), found);
    assert_ne!(counts(Sampling { seed: 8, ..WARM }, &logits), found);
    let cold = counts(
        Sampling {
            temperature: 0.1,
            ..WARM
        },
        &logits,
    );
    assert!(cold[0] > 3950, "{cold:?}");
}

#[test]
fn filters_remove_what_they_say() {
    // Probabilities 0.5, 0.25, 0.125, 0.125.
    let logits = [4f32, 2.0, 1.0, 1.0].map(f32::ln);
    let kept = |sampling| {
        counts(sampling, &logits)
            .iter()
            .map(|n| *n > 0)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(WARM), [true; 4]);
    assert_eq!(
        kept(Sampling { top_k: 3, ..WARM }),
        [true, true, true, false]
    );
    assert_eq!(
        kept(Sampling { top_p: 0.6, ..WARM }),
        [true, true, false, false]
    );
    assert_eq!(
        kept(Sampling { top_p: 0.4, ..WARM }),
        [true, false, false, false]
    );
    assert_eq!(
        kept(Sampling { min_p: 0.4, ..WARM }),
        [true, true, false, false]
    );
}

#[test]
fn a_wide_nucleus_is_found() {
    let logits: Vec<f32> = vec![0.0; 3000];
    let mut candidates: Vec<_> = logits
        .iter()
        .zip(0..)
        .map(|(value, id)| Candidate { id, value: *value })
        .collect();
    weigh(&mut candidates);
    nucleus(&mut candidates, 0.5);
    assert!(
        (1500..=1501).contains(&candidates.len()),
        "{}",
        candidates.len()
    );
    assert!(candidates.iter().zip(0..).all(|(c, id)| c.id == id));
}

#[test]
fn logits_outside_of_the_screen_change_nothing() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut uniform = move || unit(random.next_u64()) as f32;
    let mut screened = 0;
    for seed in 0..3000 {
        let logits: Vec<f32> = (0..60).map(|_| 6.0 * uniform() * uniform()).collect();
        let one_of = |values: &[f32], x: f32| values[(x * values.len() as f32) as usize];
        let sampling = Sampling {
            temperature: one_of(&[0.3, 0.8, 1.5], uniform()),
            top_k: one_of(&[0.0, 1.0, 5.0, 40.0], uniform()) as usize,
            top_p: one_of(&[0.3, 0.9, 1.0], uniform()),
            min_p: one_of(&[0.0, 0.05, 0.3, 1.0], uniform()),
            seed,
            ..WARM
        };
        let Some(screen) = sampling.screen(&[]) else {
            continue;
        };
        screened += 1;
        let mut order = logits.clone();
        order.sort_by(|a, b| b.total_cmp(a));
        let last = order[screen.top.clamp(1, order.len()) - 1];
        let least = match screen.top {
            0 => order[0] - screen.within,
            _ => last.max(order[0] - screen.within),
        };
        let seen = |logit: &f32| {
            if *logit < least {
                f32::NEG_INFINITY
            } else {
                *logit
            }
        };
        let mut some: Vec<f32> = logits.iter().map(seen).collect();
        let choose = |logits: &mut [f32]| Sampler::new(sampling).unwrap().sample(logits, &[]);
        let expected = choose(&mut logits.clone()).unwrap();
        assert_eq!(choose(&mut some).unwrap(), expected, "{sampling:?}");
    }
    assert!(screened > 2000, "{screened}");
}

#[test]
fn repetition_is_penalized_once_a_token() {
    let mut logits = [4.0, -4.0, 1.0];
    penalize(&mut logits, &[0, 1, 0, 0], 2.0);
    assert_eq!(logits, [2.0, -8.0, 1.0]);
}

#[test]
fn frequency_and_presence_count_in_the_answer() {
    let sampling = Sampling {
        frequency_penalty: 0.5,
        presence_penalty: 1.0,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(sampling).unwrap().with_answer_after(2);
    // Token 0 is in the prompt alone; token 1 is twice in the answer and loses 2.
    let tokens = [0, 0, 1, 1];
    assert_eq!(sampler.screen(&tokens).unwrap().exact, [1, 1]);
    assert_eq!(sampler.sample(&mut [1.0, 3.1], &tokens).unwrap(), 1);
    assert_eq!(sampler.sample(&mut [1.0, 2.9], &tokens).unwrap(), 0);
}

#[test]
fn bias_comes_first() {
    let bias = vec![(0, 2.0), (2, f32::NEG_INFINITY)];
    let penalized = Sampling {
        repetition_penalty: 2.0,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(penalized).unwrap().with_bias(bias);
    // (1 + 2) / 2 is above 1.4 and below 1.6; token 2 is forbidden.
    assert_eq!(sampler.sample(&mut [1.0, 1.4, 9.0], &[0]).unwrap(), 0);
    assert_eq!(sampler.sample(&mut [1.0, 1.6, 9.0], &[0]).unwrap(), 1);
    assert_eq!(sampler.screen(&[5]).unwrap().exact, [5, 0, 2]);
}

#[test]
fn streams_of_a_seed_are_independent() {
    let logits = [0.0; 50];
    let draws = |stream| {
        let mut sampler = Sampler::new(Sampling { stream, ..WARM }).unwrap();
        let draw = |_| sampler.sample(&mut logits.clone(), &[]).unwrap();
        (0..20).map(draw).collect::<Vec<u32>>()
    };
    assert_eq!(draws(0), draws(0));
    assert_ne!(draws(0), draws(1));
}

#[test]
fn parameters_out_of_range_are_named() {
    for (sampling, name) in [
        (
            Sampling {
                temperature: -1.0,
                ..WARM
            },
            "temperature",
        ),
        (
            Sampling {
                temperature: f32::NAN,
                ..WARM
            },
            "temperature",
        ),
        (Sampling { top_p: 0.0, ..WARM }, "top_p"),
        (Sampling { min_p: 1.5, ..WARM }, "min_p"),
        (
            Sampling {
                repetition_penalty: 0.0,
                ..WARM
            },
            "repetition_penalty",
        ),
    ] {
        let error = Sampler::new(sampling).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn log_probabilities_sum_to_one_whatever_the_offset() {
    for offset in [0.0, 1e4, -1e4] {
        let logits = [1.0, 2.0, f32::NEG_INFINITY, 4.0].map(|x| x + offset);
        let sum = log_sum_exp(&logits);
        let total: f64 = logits.iter().map(|x| (f64::from(*x) - sum).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12, "{offset}: {total}");
    }
    // ln(e^1 + e^2 + e^4), by Python's math.log and math.exp
    let expected = 4.169846019556285;
    assert!((log_sum_exp(&[1.0, 2.0, 4.0]) - expected).abs() < 1e-15);
}
