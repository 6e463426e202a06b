//! The scheduler against answers that are computed alone: random schedules, storms, limits.
//!
//! The clock is one that tests hold: it goes on by a random time with each look at it.

mod bench;
#[path = "../../../runtime/tests/random_model/mod.rs"]
mod random_model;
#[path = "../requests/mod.rs"]
mod requests;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bench::{Bench, Ear, Held, below, limits, open};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use requests::{Outcome, expected, pool};
use sterna_runtime::{KvPage, StopReason};
use sterna_serve::engine::{
    Clock, Event, Failure, Generate, Guesses, Limits, Load, Reader, Request, Sink, Work,
};
use sterna_serve::metrics::BOUNDS;

/// Random schedules; STERNA_SCHEDULES asks for more.
const SCHEDULES: u64 = 2000;

#[test]
fn random_schedules_give_the_bits_of_serial_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = requests::model(folder.path());
    let models = [1, 2, 3, 4].map(|threads| open(&path, threads));
    let (model, tokenizer) = &models[0];
    // It guesses for itself: that is often right where answers are greedy.
    let draft = Arc::new(open(&path, 1).0);
    let requests = pool(60);
    let expected: Vec<Outcome> = requests
        .iter()
        .map(|request| expected(model, tokenizer, request))
        .collect();
    let schedules = std::env::var("STERNA_SCHEDULES").map_or(SCHEDULES, |n| n.parse().unwrap());
    let mut totals = [0; 5];
    for seed in 0..schedules {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (model, tokenizer) = &models[below(&mut random, models.len())];
        let clock = Held::new(
            seed,
            Duration::from_millis(below(&mut random, 60) as u64 + 1),
        );
        let guesses = [Guesses::No, Guesses::Worth, Guesses::All, Guesses::All];
        let limits = Limits {
            guesses: guesses[below(&mut random, 4)],
            ..limits(3 + below(&mut random, 5), 5 + below(&mut random, 12))
        };
        let mut bench = Bench::new(model, tokenizer, &clock, &limits);
        let has_draft = below(&mut random, 3) == 0;
        bench.engine = bench
            .engine
            .with_draft(has_draft.then(|| Arc::clone(&draft)));
        let mut ears = Vec::new();
        for _ in 0..2 + below(&mut random, 6) {
            let index = below(&mut random, requests.len());
            let request = Request {
                key: below(&mut random, 2),
                reads_cache: below(&mut random, 6) > 0,
                ..requests[index].clone()
            };
            ears.push((index, bench.submit(&request)));
            for _ in 0..below(&mut random, 12) {
                // Now and then a client stops to read, reads again or leaves.
                let (_, ear) = &ears[below(&mut random, ears.len())];
                match below(&mut random, 30) {
                    0 if ear.reader() == Reader::Ready => ear.set(Reader::Slow),
                    1 => ear.set(Reader::Gone),
                    _ => {}
                }
                bench.engine.step();
                assert!(
                    model.pages() <= limits.pages,
                    "seed {seed}: more pages than allowed"
                );
            }
            for (_, ear) in &ears {
                if ear.reader() == Reader::Slow {
                    ear.set(Reader::Ready);
                }
            }
        }
        bench.finish();
        for (index, ear) in &ears {
            let outcome = Outcome::of(&ear.events());
            match ear.reader() {
                Reader::Gone => outcome.assert_begins(&expected[*index], seed),
                _ => outcome.assert_equal(&expected[*index], &requests[*index], seed),
            }
        }
        assert_eq!(bench.load.waiting(), Default::default(), "seed {seed}");
        totals[0] += bench.metrics.preemptions.get();
        totals[1] += bench.metrics.evictions.get();
        totals[2] += bench.metrics.cached_tokens.get();
        let accepted = bench
            .metrics
            .accepted_tokens
            .iter()
            .map(|count| count.get());
        let accepted: u64 = accepted.sum();
        totals[3] += accepted;
        totals[4] += bench.metrics.drafted_tokens.get() - accepted;
        drop(bench);
        assert_eq!(model.pages(), 0, "seed {seed}: pages that nobody has");
    }
    // The schedules have seen what they are for.
    assert!(totals.iter().all(|total| *total > 20), "{totals:?}");
}

#[test]
fn a_storm_of_preemptions_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 2);
    let clock = Held::new(1, Duration::from_millis(20));
    // 40 sequences that grow from 1 page to 5 have 9 pages.
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(12, 9));
    let requests: Vec<Request> = (0..40).map(|i| requests::growing(i, 60, 500)).collect();
    let ears: Vec<Ear> = requests
        .iter()
        .map(|request| bench.submit(request))
        .collect();
    bench.finish();
    assert!(
        bench.metrics.preemptions.get() > 12,
        "{}",
        bench.metrics.preemptions.get()
    );
    for (request, ear) in requests.iter().zip(&ears) {
        let expected = expected(&model, &tokenizer, request);
        Outcome::of(&ear.events()).assert_equal(&expected, request, 0);
    }
}

#[test]
fn a_common_beginning_is_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 2);
    let clock = Held::new(1, Duration::from_millis(20));
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(16, 200));
    // All of them come at once: a system prompt of 300 tokens, a question of 10.
    let requests: Vec<Request> = (0..16)
        .map(|i| requests::after_system(300, i, 10))
        .collect();
    let ears: Vec<Ear> = requests
        .iter()
        .map(|request| bench.submit(request))
        .collect();
    bench.finish();
    let computed = bench.metrics.prompt_tokens.get();
    assert!(
        computed <= (300 + 16 * 10) * 105 / 100,
        "{computed} tokens were computed"
    );
    for (request, ear) in requests.iter().zip(&ears) {
        let expected = expected(&model, &tokenizer, request);
        Outcome::of(&ear.events()).assert_equal(&expected, request, 0);
    }
    // The next turn of a conversation computes its own tokens, and the last one of the answer.
    let first = Outcome::of(&ears[0].events());
    let mut next = requests[0].clone();
    next.prompt.extend(first.ids(0));
    next.prompt.extend([70, 71, 72, 73]);
    let before = bench.metrics.prompt_tokens.get();
    bench.submit(&next);
    bench.finish();
    assert_eq!(bench.metrics.prompt_tokens.get() - before, 5);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Steady(Cell::default());
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(8, 100));
    // The engine learns how long a token takes: more than 8 do not fit into a step.
    bench.submit(&requests::growing(0, 20, 2));
    bench.finish();
    let long = bench.submit(&requests::growing(1, 550, 2));
    bench.engine.step();
    let metrics = Arc::clone(&bench.metrics);
    let first_tokens = || metrics.first_token.cumulative()[BOUNDS.len()];
    let (before, mut steps) = (first_tokens(), 0);
    bench.submit(&requests::growing(2, 20, 2));
    while first_tokens() == before {
        bench.engine.step();
        steps += 1;
    }
    // Its 20 tokens take three steps, and the long prompt has one between each two.
    assert!(steps <= 6, "{steps} steps until the first token");
    assert!(long.events().is_empty());
    bench.finish();
}

/// A clock that goes on by 100 ms at each look.
struct Steady(Cell<Duration>);

impl Clock for Steady {
    fn now(&self) -> Duration {
        self.0.set(self.0.get() + Duration::from_millis(100));
        self.0.get()
    }
}

#[test]
fn a_key_that_floods_the_queue_does_not_keep_others_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Held::new(1, Duration::from_millis(20));
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(4, 200));
    let flood: Vec<Request> = (0..60).map(|i| requests::growing(i, 40, 60)).collect();
    let ears: Vec<Ear> = flood.iter().map(|request| bench.submit(request)).collect();
    (0..10).for_each(|_| assert!(bench.engine.step()));
    let other = Request {
        key: 1,
        ..requests::growing(100, 30, 10)
    };
    let ear = bench.submit(&other);
    let mut steps = 0;
    while !ear
        .events()
        .iter()
        .any(|event| matches!(event, Event::End(_)))
    {
        bench.engine.step();
        steps += 1;
    }
    // Ten tokens, the prompt, and what the others have between.
    assert!(steps <= 20, "{steps} steps");
    bench.finish();
    for (request, ear) in flood.iter().zip(&ears).take(8) {
        let expected = expected(&model, &tokenizer, request);
        Outcome::of(&ear.events()).assert_equal(&expected, request, 0);
    }
}

#[test]
fn a_client_that_leaves_frees_its_place_within_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Held::new(1, Duration::from_millis(20));
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(1, 100));
    let gone = bench.submit(&requests::growing(1, 300, 100));
    let waiting = bench.submit(&requests::growing(2, 30, 5));
    let queued = bench.submit(&requests::growing(3, 30, 5));
    bench.engine.step();
    gone.set(Reader::Gone);
    queued.set(Reader::Gone);
    bench.engine.step();
    assert_eq!(bench.metrics.cancelled.get(), 2);
    assert_eq!(bench.load.waiting().choices, 0);
    bench.finish();
    let events = waiting.events();
    assert!(matches!(events.last(), Some(Event::End(_))));
    assert_eq!(queued.events(), []);
}

#[test]
fn others_keep_their_pace_when_many_clients_leave_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Steady(Cell::default());
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(24, 400));
    let stay: Vec<Request> = (0..4).map(|i| requests::growing(i, 8, 120)).collect();
    let ears: Vec<Ear> = stay.iter().map(|request| bench.submit(request)).collect();
    while bench.metrics.first_token.cumulative()[BOUNDS.len()] < 4 {
        bench.engine.step();
    }
    // Some of those that leave answer, some have long prompts, and some wait.
    let leave = |i| match i % 3 {
        0 => requests::growing(i, 500, 60),
        _ => requests::growing(i, 8, 400),
    };
    let leavers: Vec<Ear> = (10..60).map(|i| bench.submit(&leave(i))).collect();
    let metrics = Arc::clone(&bench.metrics);
    let mut step = || {
        let (tokens, start) = (metrics.generated_tokens.get(), clock.0.get());
        assert!(bench.engine.step());
        (
            metrics.generated_tokens.get() - tokens,
            clock.0.get() - start,
        )
    };
    let before: Vec<(u64, Duration)> = (0..40).map(|_| step()).collect();
    assert!(before.iter().all(|(tokens, _)| *tokens >= 4));
    assert!(before.last().unwrap().0 > 8);
    leavers.iter().for_each(|ear| ear.set(Reader::Gone));
    // The step that drops them is one of the others: a token for each, in the time of any step.
    let longest = before.iter().map(|(_, took)| *took).max().unwrap();
    for _ in 0..20 {
        let (tokens, took) = step();
        assert_eq!(tokens, 4);
        assert!(took <= longest, "{took:?} after {longest:?}");
    }
    assert_eq!(metrics.cancelled.get(), 50);
    assert_eq!(bench.load.waiting(), Default::default());
    bench.finish();
    for (request, ear) in stay.iter().zip(&ears) {
        let expected = expected(&model, &tokenizer, request);
        Outcome::of(&ear.events()).assert_equal(&expected, request, 0);
    }
}

#[test]
fn no_more_answers_run_at_once_than_may() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Held::new(1, Duration::from_millis(20));
    for parallel in [1, 2] {
        let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(parallel, 100));
        // One request for three answers, begun when nothing else runs, and one that comes later.
        let mut three = requests::growing(1, 150, 30);
        let Work::Generate(generate) = &mut three.work else {
            unreachable!("it generates");
        };
        generate.choices = 3;
        generate.sampling.temperature = 1.0;
        let requests = [three, requests::growing(2, 30, 5)];
        let ears = requests.each_ref().map(|request| bench.submit(request));
        let mut most = 0;
        while !bench.engine.is_idle() {
            bench.engine.step();
            most = most.max(bench.load.running());
        }
        assert_eq!(most, parallel as u64);
        assert_eq!(bench.metrics.preemptions.get(), 0);
        // The prompt was computed once; an answer that goes on later computes its own token again.
        assert!(bench.metrics.prompt_tokens.get() <= 150 + 30);
        for (request, ear) in requests.iter().zip(&ears) {
            let expected = expected(&model, &tokenizer, request);
            Outcome::of(&ear.events()).assert_equal(&expected, request, 0);
        }
    }
}

#[test]
fn a_slow_reader_is_parked_and_then_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Steady(Cell::default());
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(4, 100));
    let ear = bench.submit(&requests::growing(1, 30, 100));
    (0..3).for_each(|_| assert!(bench.engine.step()));
    ear.set(Reader::Slow);
    assert!(!bench.engine.step());
    let heard = ear.events().len();
    (0..5).for_each(|_| assert!(!bench.engine.step()));
    assert_eq!(ear.events().len(), heard);
    bench.finish();
    assert_eq!(
        ear.events().last(),
        Some(&Event::Failed(Failure::SlowReader(60)))
    );
}

#[test]
fn requests_that_wait_or_run_too_long_fail() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Steady(Cell::default());
    let limits = Limits {
        queue_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        ..limits(1, 100)
    };
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits);
    let running = bench.submit(&requests::growing(1, 30, 500));
    let waiting = bench.submit(&requests::growing(2, 30, 5));
    bench.finish();
    assert_eq!(
        running.events().last(),
        Some(&Event::Failed(Failure::Timeout(5)))
    );
    assert_eq!(waiting.events(), [Event::Failed(Failure::QueueTimeout(2))]);
}

#[test]
fn what_cannot_be_computed_is_refused_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Held::new(1, Duration::from_millis(20));
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(4, 3));
    let fine = bench.submit(&requests::growing(1, 30, 5));
    // Four pages, and there are three.
    let large = bench.submit(&requests::growing(2, 3 * KvPage::TOKENS, 5));
    let events = large.events();
    assert!(
        matches!(&events[..], [Event::Failed(Failure::Refused(_))]),
        "{events:?}"
    );
    // An id that the vocabulary does not have spoils its own request alone.
    let mut bad = requests::growing(3, 30, 5);
    bad.prompt[7] = 100_000;
    let bad = bench.submit(&bad);
    bench.finish();
    let events = bad.events();
    assert!(
        matches!(&events[..], [Event::Failed(Failure::Numeric(_))]),
        "{events:?}"
    );
    assert!(matches!(fine.events().last(), Some(Event::End(_))));
}

#[test]
fn the_queue_is_bounded_in_answers_and_in_tokens() {
    let limits = Limits {
        queue: 3,
        queue_tokens: 100,
        ..limits(1, 100)
    };
    let load = Load::new(&limits);
    let request = |tokens| requests::growing(1, tokens, 5);
    // A request that finds nobody waiting may be of any size.
    load.enter(&request(500)).unwrap();
    let full = load.enter(&request(1)).unwrap_err();
    assert_eq!((full.waiting.choices, full.waiting.tokens), (1, 500));
    assert!((1..=60).contains(&full.retry_after.as_secs()));
    let load = Load::new(&limits);
    let three = (0..3).map(|_| load.enter(&request(1)));
    assert!(three.into_iter().all(|entered| entered.is_ok()));
    assert!(load.enter(&request(1)).is_err());
}

#[test]
fn what_is_scored_from_a_place_on_begins_with_known_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Held::new(1, Duration::from_millis(20));
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(4, 100));
    let request = requests::growing(1, 400, 0);
    let Work::Generate(generate) = &request.work else {
        unreachable!("it generates");
    };
    let mut scored = |scored_from| {
        let work = Work::Generate(Box::new(Generate {
            prompt_logprobs: Some(1),
            scored_from,
            ..(**generate).clone()
        }));
        let ear = bench.submit(&Request {
            work,
            ..request.clone()
        });
        bench.finish();
        let events = ear.events();
        let cached = events.iter().find_map(|event| match event {
            Event::End(end) => Some(end.cached_tokens),
            _ => None,
        });
        (Outcome::of(&events).prompt, cached.unwrap())
    };
    // The first has no beginning that is known, and computes 299 tokens without scores.
    let (late, cached) = scored(300);
    assert_eq!((late.len(), cached), (100, 0));
    let (all, cached) = scored(1);
    assert_eq!((all.len(), cached), (399, 0));
    assert_eq!(all[299..], late);
    for from in [2, 128, 129, 300, 399, 400] {
        let (scores, cached) = scored(from);
        assert_eq!(scores, all[from - 1..], "from {from}");
        assert_eq!(cached, from.min(400) - 1, "from {from}");
    }
}

#[test]
fn a_prompt_that_is_only_scored_has_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = open(&requests::model(folder.path()), 1);
    let clock = Held::new(1, Duration::from_millis(20));
    let mut bench = Bench::new(&model, &tokenizer, &clock, &limits(4, 100));
    let request = requests::growing(1, 200, 0);
    let Work::Generate(generate) = &request.work else {
        unreachable!("it generates");
    };
    let work = Work::Generate(Box::new(Generate {
        prompt_logprobs: Some(2),
        ..(**generate).clone()
    }));
    let ear = bench.submit(&Request { work, ..request });
    bench.finish();
    let outcome = Outcome::of(&ear.events());
    assert_eq!(outcome.prompt.len(), 199);
    let end = outcome.ends[0].as_ref().unwrap();
    assert_eq!((end.reason, end.generated_tokens), (StopReason::Length, 0));
}
