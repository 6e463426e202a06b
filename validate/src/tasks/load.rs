//! A task: its items, the few-shot examples before them, and how they are scored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_datasets::{Split, generate, records};
use sterna_runtime::{Model, Tokenizer};

use super::definition::{CheckedTask, Definition, Maker};
use super::error::{Error, Result};
use super::generation::Writing;
use super::layout::TaskLayout;
use super::likelihood::{Likelihood, Scorer};
use super::random::Random;
use super::sample::{Delimiters, Item, Query, Sample};
use super::score::{ItemOutcome, PERPLEXITY};

/// What can be chosen about a task.
#[derive(Clone, Debug, Default)]
pub struct TaskOptions {
    /// Few-shot examples before each item; by default what the task file says, or none.
    pub fewshot: Option<usize>,
    /// Where examples come from; by default what the task file says, the split `train`,
    /// `validation` or `dev` of a folder, or else the other items.
    pub fewshot_from: Option<PathBuf>,
    /// Take the first examples instead of drawing them; by default only MMLU does.
    pub fewshot_first: Option<bool>,
    /// Draws examples, as Python would; by default 1234, as lm-evaluation-harness has it.
    pub seed: Option<u32>,
    /// Items at most, from the first.
    pub limit: Option<usize>,
    /// Items that are computed together, by default 8. Results do not depend on it.
    pub batch: Option<usize>,
    /// A context that is shorter than the model's.
    pub max_length: Option<usize>,
}

/// A task that is ready to be scored.
pub struct AccuracyTask {
    name: String,
    samples: Vec<Sample>,
    /// What examples are taken from, unless from `samples`.
    pool: Option<Vec<Sample>>,
    /// For each item the numbers of its examples.
    examples: Vec<Vec<usize>>,
    delimiters: Delimiters,
    writing: Writing,
    batch: usize,
    max_length: Option<usize>,
}

impl std::fmt::Debug for AccuracyTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccuracyTask")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The seed of few-shot examples in lm-evaluation-harness.
const SEED: u32 = 1234;

const BATCH: usize = 8;

/// Items of a generated task, unless a limit says how many.
const GENERATED: usize = 200;

/// The seed of generated items: not one that training would be given by chance.
const GENERATED_SEED: u64 = 0x7461_736b;

/// Splits of a data set that are scored, and that examples come from, the best first.
const SCORED: [&str; 3] = ["test", "validation", "val"];
const SHOWN: [&str; 3] = ["train", "validation", "dev"];

impl AccuracyTask {
    /// Reads a task by what the user named: a file or folder of records, `LAYOUT=PATH`, a task file
    /// `.toml`, or a generated task.
    ///
    /// # Errors
    /// Names of nothing, files that cannot be read, records that do not fit their layout, and too
    /// few examples. They name the file and the record.
    pub fn load(name: &str, options: &TaskOptions) -> Result<Self> {
        let path = Path::new(name);
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            return Self::defined(Definition::read(path)?, path, options);
        }
        if path.exists() {
            return Self::recorded(stem(path), path, None, options);
        }
        if let Some((layout, path)) = name.split_once('=')
            && let Some(layout) = TaskLayout::named(layout)
        {
            return Self::recorded(stem(path.as_ref()), path.as_ref(), Some(layout), options);
        }
        match name.parse() {
            Ok(task) => Self::generated(task, options),
            Err(_) => Err(Error::Unknown {
                found: name.to_owned(),
                layouts: layouts(),
                generated: generate::Task::ALL.map(generate::Task::name).join(", "),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether it has no item; a task that was loaded has some.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The metric that two models are compared by, for [`compare`](super::compare).
    pub fn main_metric(&self) -> String {
        match self.samples.first().map(|sample| &sample.query) {
            Some(Query::Choices {
                normalized: true, ..
            }) => "acc_norm".to_owned(),
            Some(Query::Generation) => {
                let filter = self.writing.filters.last();
                filter.map_or_else(String::new, |filter| self.writing.metric(filter))
            }
            _ => "acc".to_owned(),
        }
    }

    /// An item as a model sees it.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn item(&self, index: usize) -> Item {
        let pool = self.pool.as_ref().unwrap_or(&self.samples);
        let examples: Vec<&Sample> = self.examples[index].iter().map(|i| &pool[*i]).collect();
        self.samples[index].item(index, &examples, &self.delimiters)
    }

    /// Scores the items from number `from` on, in order; `each` gets what came of each and says
    /// whether to go on.
    ///
    /// # Errors
    /// Those of the runtime; continuations that are empty or longer than the context.
    pub fn score(
        &self,
        model: &Model,
        tokenizer: &Tokenizer,
        from: usize,
        each: &mut dyn FnMut(ItemOutcome) -> bool,
    ) -> Result<()> {
        let mut scorer = Scorer::new(model, tokenizer, self.batch, self.max_length)?;
        let mut next = from;
        while next < self.len() {
            if self.samples[next].query == Query::Generation {
                let item = self.item(next);
                let [request] = &item.requests[..] else {
                    unreachable!("generation has one request");
                };
                let text = self.writing.write(model, tokenizer, &mut scorer, request)?;
                let goes_on = each(ItemOutcome {
                    item: next,
                    log_likelihoods: Vec::new(),
                    metrics: self.writing.judge(&text, &request.continuation),
                    text: Some(text),
                });
                if !goes_on {
                    return Ok(());
                }
                next += 1;
                continue;
            }
            let end = (next..self.len().min(next + scorer.batch()))
                .find(|i| self.samples[*i].query == Query::Generation)
                .unwrap_or(self.len().min(next + scorer.batch()));
            let items: Vec<Item> = (next..end).map(|index| self.item(index)).collect();
            let requests: Vec<_> = items.iter().map(|item| &item.requests[..]).collect();
            for (index, found) in (next..end).zip(scorer.score(&requests)?) {
                if !each(outcome(index, &self.samples[index].query, &found)) {
                    return Ok(());
                }
            }
            next = end;
        }
        Ok(())
    }

    fn defined(checked: CheckedTask, file: &Path, options: &TaskOptions) -> Result<Self> {
        let data = checked.data.ok_or_else(|| Error::Definition {
            path: file.to_owned(),
            reason: "there is no `data`, a file or folder of records".into(),
        })?;
        let options = TaskOptions {
            fewshot: options.fewshot.or(checked.fewshot),
            fewshot_from: options.fewshot_from.clone().or(checked.fewshot_from),
            fewshot_first: options.fewshot_first.or(checked.first),
            ..options.clone()
        };
        let mut task = Self::of(
            checked.name,
            &data,
            &checked.maker,
            &options,
            &checked.delimiters,
        )?;
        if let Some(writing) = checked.writing {
            task.writing = writing;
        }
        Ok(task)
    }

    fn recorded(
        name: String,
        path: &Path,
        layout: Option<TaskLayout>,
        options: &TaskOptions,
    ) -> Result<Self> {
        let layout = match layout {
            Some(layout) => layout,
            None => recognized(path)?,
        };
        let maker = Maker::Layout(layout);
        Self::of(name, path, &maker, options, &Delimiters::default())
    }

    fn of(
        name: String,
        path: &Path,
        maker: &Maker,
        options: &TaskOptions,
        delimiters: &Delimiters,
    ) -> Result<Self> {
        let samples = samples(&scored(path)?, maker, options.limit)?;
        if samples.is_empty() {
            return Err(Error::Empty {
                path: path.to_owned(),
            });
        }
        let count = options.fewshot.unwrap_or(0);
        let from = match (&options.fewshot_from, count) {
            (_, 0) => None,
            (Some(from), _) => Some(vec![from.clone()]),
            (None, _) => shown(path)?,
        };
        let pool = from
            .map(|from| self::samples(&from, maker, None))
            .transpose()?;
        let mmlu = matches!(maker, Maker::Layout(TaskLayout::Mmlu));
        let draw = Draw {
            count,
            first: options.fewshot_first.unwrap_or(mmlu),
            seed: options.seed.unwrap_or(SEED),
        };
        Ok(Self {
            examples: draw.examples(&name, &samples, pool.as_deref())?,
            name,
            samples,
            pool,
            delimiters: delimiters.clone(),
            writing: match maker {
                Maker::Layout(TaskLayout::Gsm8k) => Writing::gsm8k(),
                _ => Writing::default(),
            },
            batch: options.batch.unwrap_or(BATCH),
            max_length: options.max_length,
        })
    }

    /// The task's problems that no training text has. Prompts hold examples already, so none are
    /// added.
    fn generated(task: generate::Task, options: &TaskOptions) -> Result<Self> {
        let count = options.limit.unwrap_or(GENERATED);
        let sample = |index| {
            let problem = generate::problem(task, GENERATED_SEED, index, Split::HeldOut);
            Sample {
                text: problem.prompt,
                answer: problem.answer,
                description: String::new(),
                query: Query::Continuation,
            }
        };
        let samples: Vec<Sample> = (0..count as u64).map(sample).collect();
        let draw = Draw {
            count: options.fewshot.unwrap_or(0),
            first: options.fewshot_first.unwrap_or(false),
            seed: options.seed.unwrap_or(SEED),
        };
        Ok(Self {
            examples: draw.examples(task.name(), &samples, None)?,
            name: task.name().to_owned(),
            samples,
            pool: None,
            delimiters: Delimiters {
                target: String::new(),
                example: "\n".into(),
            },
            writing: Writing::default(),
            batch: options.batch.unwrap_or(BATCH),
            max_length: options.max_length,
        })
    }
}

/// The figures of an item whose requests have been scored.
fn outcome(item: usize, query: &Query, found: &[Likelihood]) -> ItemOutcome {
    let logs: Vec<f64> = found.iter().map(|likelihood| likelihood.log).collect();
    let flag = |is_right: bool| f64::from(u8::from(is_right));
    let mut metrics = BTreeMap::new();
    match query {
        Query::Choices {
            choices,
            gold,
            normalized,
        } => {
            metrics.insert("acc".to_owned(), flag(best(&logs) == *gold));
            if *normalized {
                let lengths = choices.iter().map(|choice| choice.chars().count() as f64);
                let logs: Vec<f64> = logs.iter().zip(lengths).map(|(log, n)| log / n).collect();
                metrics.insert("acc_norm".to_owned(), flag(best(&logs) == *gold));
            }
        }
        Query::Contexts { gold, .. } => {
            metrics.insert("acc".to_owned(), flag(best(&logs) == *gold));
        }
        Query::Continuation | Query::Generation => {
            metrics.insert(PERPLEXITY.to_owned(), kept(logs.iter().sum()));
            metrics.insert(
                "acc".to_owned(),
                flag(found.iter().all(|found| found.is_greedy)),
            );
        }
    }
    ItemOutcome {
        item,
        log_likelihoods: logs.into_iter().map(kept).collect(),
        text: None,
        metrics,
    }
}

/// To nine decimals, which JSON gives back bit for bit, so that work that was interrupted ends in
/// the same figures.
fn kept(log_likelihood: f64) -> f64 {
    (log_likelihood * 1e9).round() / 1e9
}

/// The first of the largest.
fn best(values: &[f64]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

/// How examples are chosen.
struct Draw {
    count: usize,
    first: bool,
    seed: u32,
}

impl Draw {
    /// For each sample the numbers of its examples in the pool, or among the samples if there is
    /// none. Samples share examples only with those of their description, such as a subject of
    /// MMLU.
    fn examples(
        &self,
        name: &str,
        samples: &[Sample],
        pool: Option<&[Sample]>,
    ) -> Result<Vec<Vec<usize>>> {
        if self.count == 0 {
            return Ok(vec![Vec::new(); samples.len()]);
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
            if found < self.count {
                return Err(Error::TooFewExamples {
                    name: name.to_owned(),
                    found,
                    expected: self.count,
                });
            }
            let order = match self.first {
                true => (0..group.len()).collect(),
                false => random.sample(group.len(), self.count + usize::from(item.is_some())),
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

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().into_owned()
}

fn layouts() -> String {
    TaskLayout::names().collect::<Vec<_>>().join(", ")
}

/// The layout of the first record.
fn recognized(path: &Path) -> Result<TaskLayout> {
    let first = records::records(&scored(path)?)?.next();
    let first = first.ok_or_else(|| Error::Empty {
        path: path.to_owned(),
    })??;
    TaskLayout::of(&first).ok_or_else(|| {
        let fields = match &first {
            Value::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(", "),
            _ => "none, it is not an object".to_owned(),
        };
        Error::UnknownLayout {
            path: path.to_owned(),
            fields,
            layouts: layouts(),
        }
    })
}

fn samples(paths: &[PathBuf], maker: &Maker, limit: Option<usize>) -> Result<Vec<Sample>> {
    let mut records = records::records(paths)?;
    let mut samples = Vec::new();
    while samples.len() < limit.unwrap_or(usize::MAX)
        && let Some(record) = records.next()
    {
        let sample = maker.sample(&record?).map_err(|reason| Error::Record {
            path: records.path().to_owned(),
            record: records.line(),
            reason,
        })?;
        samples.push(sample);
    }
    Ok(samples)
}

/// The files that are scored: those of a split if the path is a folder of splits, else the path
/// itself.
fn scored(path: &Path) -> Result<Vec<PathBuf>> {
    let split = SCORED
        .iter()
        .find_map(|split| of_split(path, split).transpose());
    Ok(split.transpose()?.unwrap_or_else(|| vec![path.to_owned()]))
}

/// The files that examples come from, if the path is a folder with another split for them.
fn shown(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let scored = scored(path)?;
    for split in SHOWN {
        match of_split(path, split)? {
            Some(files) if files != scored => return Ok(Some(files)),
            _ => {}
        }
    }
    Ok(None)
}

/// The files of a folder that are named after a split, as `test-00000-of-00001.parquet` is.
fn of_split(folder: &Path, split: &str) -> Result<Option<Vec<PathBuf>>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let io = |source| Error::Io {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_record = [".jsonl", ".json", ".parquet"]
            .iter()
            .any(|end| name.ends_with(end));
        let rest = name.strip_prefix(split);
        if is_record && rest.is_some_and(|rest| rest.starts_with(['-', '.', '_'])) {
            files.push(path);
        }
    }
    files.sort();
    Ok((!files.is_empty()).then_some(files))
}
