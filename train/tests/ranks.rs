//! Several ranks take the same steps as one. They are threads of this process that communicate
//! through channels.

use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;
use sterna_ternary::Config;
use sterna_train::optimizer::{Method, Optimizer};
use sterna_train::ranks::{Collective, Ranks, Reduction};
use sterna_train::{
    Control, Error, Model, Opened, Origins, Outcome, Place, Precision, Processor, Recipe, Result,
    Run, Trainer,
};

const CONTEXT: usize = 64;
const VOCABULARY: usize = 50;

/// A rank with one channel to and one from each other rank.
struct Thread {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl Thread {
    fn all(size: usize) -> Vec<Thread> {
        let mut ranks: Vec<Thread> = (0..size)
            .map(|rank| Thread {
                rank,
                to: Vec::new(),
                from: Vec::new(),
            })
            .collect();
        for a in 0..size {
            for b in 0..size {
                let (sender, receiver) = channel();
                ranks[a].to.push(sender);
                ranks[b].from.push(receiver);
            }
        }
        ranks
    }
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        let sent = self.to[to].send(bytes.to_vec());
        sent.map_err(|_| Error::Collective(format!("rank {to} is gone")))
    }

    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()> {
        let message = self.from[from].recv();
        let message = message.map_err(|_| Error::Collective(format!("rank {from} is gone")))?;
        bytes.copy_from_slice(&message);
        Ok(())
    }

    /// Adds in the reverse order of the ranks, which differs from the fixed tree.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        if self.rank > 0 {
            self.send(bytemuck::cast_slice(values), 0)?;
        } else {
            let mut other = vec![0f32; values.len()];
            for rank in (1..self.size()).rev() {
                self.receive(bytemuck::cast_slice_mut(&mut other), rank)?;
                values.iter_mut().zip(&other).for_each(|(x, y)| *x += y);
            }
        }
        self.broadcast(bytemuck::cast_slice_mut(values))
    }

    fn barrier(&self) -> Result<()> {
        self.all_reduce(&mut [])
    }

    fn abort(&self, code: u8) -> ! {
        panic!("aborted with {code}")
    }
}

/// The results of `of_one` on each rank.
fn on_ranks<R: Send>(
    size: usize,
    reduction: Reduction,
    of_one: impl Fn(Ranks) -> R + Sync,
) -> Vec<R> {
    let of_one = &of_one;
    std::thread::scope(|scope| {
        let threads = Thread::all(size).into_iter();
        let threads: Vec<_> = threads
            .map(|thread| scope.spawn(move || of_one(Ranks::new(Rc::new(thread), reduction))))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn trainer(ranks: Ranks, accumulate: usize) -> Trainer {
    let config = Config::from_json(&json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 100.0, "tie_word_embeddings": true,
    }));
    let model = Model::new(config.unwrap(), Precision::Ternary, CONTEXT, 0.1, 1).unwrap();
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas: (0.9, 0.95),
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let mut trainer = Trainer::new(model, optimizer, 1.0);
    (trainer.ranks, trainer.accumulate) = (ranks, accumulate);
    trainer
}

fn rows(sequences: usize) -> Vec<u32> {
    let ids = 0..(sequences * (CONTEXT + 1)) as u32;
    ids.map(|i| (i * i * 11 + i / 7) % VOCABULARY as u32)
        .collect()
}

/// The losses of two steps and of an evaluation, and the weights after them.
fn trained(ranks: Ranks, sequences: usize, accumulate: usize) -> (Vec<f64>, Vec<Vec<f32>>) {
    let (mut trainer, rows) = (trainer(ranks, accumulate), rows(sequences));
    let mut losses: Vec<f64> = (0..2)
        .map(|_| trainer.step(&rows, CONTEXT, 1e-2).unwrap().loss)
        .collect();
    losses.push(
        trainer
            .evaluate(&rows[..7 * (CONTEXT + 1)], CONTEXT)
            .unwrap(),
    );
    (losses, trainer.parameters().unwrap())
}

#[test]
fn any_number_of_ranks_takes_the_very_steps_of_one() {
    // 32 sequences make four shards, 33 in three parts make three of one shard each, and 8 make
    // one: fewer than ranks.
    for (sequences, accumulate) in [(32, 1), (32, 2), (33, 3), (8, 1)] {
        let one = trained(Ranks::default(), sequences, accumulate);
        for size in [2, 3, 4, 5] {
            let run = |ranks| trained(ranks, sequences, accumulate);
            for (rank, other) in on_ranks(size, Reduction::Fixed, run).iter().enumerate() {
                assert!(
                    *other == one,
                    "rank {rank} of {size}, {sequences} sequences"
                );
            }
        }
    }
}

#[test]
fn the_fast_reduction_is_the_same_on_all_ranks_and_near_that_of_one() {
    let gradients = |ranks| trainer(ranks, 2).gradients(&rows(32), CONTEXT).unwrap();
    let (loss, one) = gradients(Ranks::default());
    let all = on_ranks(3, Reduction::Fast, gradients);
    assert!(all.iter().all(|of_rank| *of_rank == all[0]));
    assert!((all[0].0 - loss).abs() < 1e-6, "{} {loss}", all[0].0);
    let largest = one.iter().fold(0f32, |max, g| max.max(g.abs()));
    let apart = all[0].1.iter().zip(&one).map(|(a, b)| (a - b).abs());
    let apart = apart.fold(0f32, f32::max);
    assert!(apart < 1e-6 * largest, "{apart} of {largest}");
    assert!(
        all[0].1 != one,
        "another order gives other bits, or this test shows nothing"
    );
}

#[test]
fn ranks_find_out_that_they_differ_and_what_any_of_them_says() {
    let all = on_ranks(3, Reduction::Fixed, |ranks| {
        let is_second = !ranks.is_first() && ranks.size() == 3;
        let asked = (ranks.any(is_second).unwrap(), ranks.any(false).unwrap());
        ranks.barrier().unwrap();
        ranks.agree("recipe", b"the same").unwrap();
        let own = if ranks.is_first() { "0" } else { "1" };
        let differ = ranks.agree("recipe", own.as_bytes());
        (asked, differ.map_err(|e| e.to_string()))
    });
    assert!(all.iter().all(|(asked, _)| *asked == (true, false)));
    assert!(all[0].1.is_ok());
    for (_, differ) in &all[1..] {
        let message = differ.as_ref().unwrap_err();
        assert!(message.contains("another recipe than rank 0"), "{message}");
    }
}

#[test]
fn the_parts_of_a_step_are_counted() {
    for (sequences, accumulate, shards) in [(32, 1, 4), (32, 2, 4), (33, 3, 3), (8, 1, 1)] {
        let trainer = trainer(Ranks::default(), accumulate);
        assert_eq!(trainer.shards(sequences, CONTEXT), shards, "{sequences}");
    }
}

const RECIPE: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    mix = 'addition2=1'
    documents = 400
    vocab_size = 300
    [train]
    optimizer = 'muon'
    batch = 8
    context = 128
    learning_rate = 4e-3
    warmup = 2
    evaluate_every = 4
    checkpoint_every = 2
    sample_tokens = 4
    steps = 4
";

/// Trains the recipe with this seed in `folder`, on one rank.
fn run_of(seed: u64, folder: &Path, ranks: Ranks) -> Result<Outcome> {
    let mut recipe = Recipe::parse(RECIPE, Path::new("recipe.toml"))?;
    recipe.train.seed = seed;
    let run = Run::new(recipe, Origins::default(), Opened::default())?;
    let place = Place::new(ranks, Processor::Cpu)?;
    sterna_train::train(&run, folder, &place, |_| Control::Continue)
}

#[test]
fn several_ranks_write_the_files_of_one_and_go_on_where_they_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, size: usize| {
        let out = folder.path().join(name);
        std::fs::create_dir_all(&out).unwrap();
        let outcomes = on_ranks(size, Reduction::Fixed, |ranks| run_of(1, &out, ranks));
        assert!(
            outcomes.iter().all(|outcome| outcome.is_ok()),
            "{outcomes:?}"
        );
        out
    };
    let (one, three) = (train("one", 1), train("three", 3));
    let last = "checkpoints/step-00000004.safetensors";
    let check = |what: &str| {
        for name in ["metrics.jsonl", "model/model.safetensors", last] {
            let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
            assert!(read(&one) == read(&three), "{name} {what}");
        }
    };
    check("at once");
    std::fs::remove_file(three.join(last)).unwrap();
    train("three", 2);
    check("resumed by two ranks");
}

#[test]
fn a_rank_that_fails_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let outcomes = on_ranks(3, Reduction::Fixed, |ranks| {
        let seed = if ranks.rank() == 1 { 2 } else { 1 };
        run_of(seed, folder.path(), ranks)
    });
    let message = |rank: usize| outcomes[rank].as_ref().unwrap_err().to_string();
    assert!(
        message(1).contains("another recipe than rank 0"),
        "{}",
        message(1)
    );
    assert!(message(0).contains("is gone"), "{}", message(0));
    assert!(message(2).contains("is gone"), "{}", message(2));
}

#[test]
fn tensors_are_summed_like_vectors() {
    let plain = |ranks| {
        let mut trainer = trainer(ranks, 2);
        trainer.model = trainer.model.with_reference_operations();
        trainer.gradients(&rows(8), CONTEXT).unwrap()
    };
    let (loss, one) = plain(Ranks::default());
    let largest = one.iter().fold(0f32, |max, g| max.max(g.abs()));
    for reduction in [Reduction::Fixed, Reduction::Fast] {
        let all = on_ranks(3, reduction, plain);
        assert!(all.iter().all(|of_rank| *of_rank == all[0]));
        assert!((all[0].0 - loss).abs() < 1e-5, "{} {loss}", all[0].0);
        let apart = all[0].1.iter().zip(&one).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0f32, f32::max);
        assert!(
            apart < 1e-5 * largest,
            "{reduction:?}: {apart} of {largest}"
        );
    }
}
