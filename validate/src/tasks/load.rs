//! A task: its items, the few-shot examples before them, and how they are scored.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_datasets::{Split, generate, records};
use sterna_runtime::{Model, Tokenizer};
use sterna_ternary::sha256::{Digest, Sha256, hex};

use super::definition::{CheckedTask, Definition, Maker};
use super::draw::Draw;
use super::error::{Error, Result};
use super::generation::Writing;
use super::layout::{Examples, TaskLayout};
use super::likelihood::Scorer;
use super::outcome::outcome;
use super::sample::{Delimiters, Item, Query, Sample};
use super::score::{ItemOutcome, PERPLEXITY};
use super::splits::{scored, shown};
use super::summary::TaskSummary;

/// What can be chosen about a task.
#[derive(Clone, Debug, Default)]
pub struct TaskOptions {
    /// Few-shot examples before each item; by default what the task file says, or none.
    pub fewshot: Option<usize>,
    /// Where examples come from; by default what the task file says, the split `train`,
    /// `validation` or `dev` of a folder, or else the other items.
    pub fewshot_from: Option<PathBuf>,
    /// Take the first examples instead of drawing them; by default MMLU and MMLU-Pro do.
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
    origin: Origin,
    samples: Vec<Sample>,
    /// Examples that were asked for; a layout may take none.
    asked_examples: usize,
    /// What examples are taken from, unless from `samples`.
    pool: Option<Vec<Sample>>,
    /// For each item the numbers of its examples.
    examples: Vec<Vec<usize>>,
    delimiters: Delimiters,
    writing: Writing,
    batch: usize,
    max_length: Option<usize>,
}

/// What says how the records of a task are read.
enum Origin {
    /// Recognized by the fields of the records.
    Recognized(TaskLayout),
    /// Named by the user; fields that the layout has no use for.
    Named(TaskLayout, Vec<String>),
    /// The templates of a task file.
    TaskFile,
    Generated,
}

impl Origin {
    fn layout(&self) -> Option<TaskLayout> {
        match self {
            Self::Recognized(layout) | Self::Named(layout, _) => Some(*layout),
            Self::TaskFile | Self::Generated => None,
        }
    }
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
        let texts = generate::Task::ALL.iter().filter(|t| !t.is_conversation());
        let generated = texts.map(|task| task.name()).collect::<Vec<_>>().join(", ");
        match name.parse::<generate::Task>() {
            Ok(task) if task.is_conversation() => Err(Error::Conversations {
                found: name.to_owned(),
                generated,
            }),
            Ok(task) => Self::generated(task, options),
            Err(_) => Err(Error::Unknown {
                found: name.to_owned(),
                layouts: layouts(),
                generated,
            }),
        }
    }

    /// Reads several tasks. Where files have one name, the tasks get the names of their layouts.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), and [`Error::SameName`].
    pub fn load_all(names: &[String], options: &TaskOptions) -> Result<Vec<Self>> {
        let tasks = names.iter().map(|name| Self::load(name, options));
        let mut tasks: Vec<Self> = tasks.collect::<Result<_>>()?;
        let given: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
        for task in &mut tasks {
            let is_shared = given.iter().filter(|name| **name == task.name).count() > 1;
            if let Some(layout) = task.origin.layout().filter(|_| is_shared) {
                task.name = layout.name().to_owned();
            }
        }
        for (i, task) in tasks.iter().enumerate() {
            if tasks[..i].iter().any(|other| other.name == task.name) {
                return Err(Error::SameName {
                    name: task.name.clone(),
                });
            }
        }
        Ok(tasks)
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
        self.metrics().pop().unwrap_or_default()
    }

    /// The names of its figures; the last one is the main metric.
    fn metrics(&self) -> Vec<String> {
        let names: &[&str] = match self.samples.first().map(|sample| &sample.query) {
            Some(Query::Generation { .. }) => return self.writing.metrics(),
            Some(Query::Choices {
                normalized: true, ..
            }) => &["acc", "acc_norm"],
            Some(Query::Continuation { .. }) => &[PERPLEXITY, "acc"],
            _ => &["acc"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// How it asks.
    pub fn summary(&self) -> TaskSummary {
        let notes = match &self.origin {
            Origin::Named(_, unread) if !unread.is_empty() => {
                vec![format!("fields that are not read: {}", unread.join(", "))]
            }
            _ => Vec::new(),
        };
        let layout = match &self.origin {
            Origin::Recognized(layout) | Origin::Named(layout, _) => layout.name(),
            Origin::TaskFile => "task file",
            Origin::Generated => "generated",
        };
        let mut summary = TaskSummary {
            layout: layout.to_owned(),
            items: self.len(),
            examples: self.examples.first().map_or(0, Vec::len),
            metrics: self.metrics(),
            first: self.item(0).requests,
            notes,
        };
        if let Some(layout) = self.origin.layout() {
            let (usual, found) = (layout.usual_examples(), summary.examples);
            if layout.examples() == Examples::None && self.asked_examples > 0 {
                let why = "examples are not added: lm-evaluation-harness adds none to this task";
                summary.notes.push(why.into());
            } else if usual != found {
                summary.notes.push(format!(
                    "{found} examples, where lm-evaluation-harness takes {usual} by default"
                ));
            }
        }
        summary
    }

    /// SHA-256 of all that decides what comes of an answer: the items as models see them, what is
    /// right, and how written text is judged.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n", self.writing));
        for (index, sample) in self.samples.iter().enumerate() {
            hash.update(format!("{:?} {:?}\n", self.item(index), sample.query));
        }
        hex(&hash.finalize())
    }

    /// Refuses a model whose context has no room for the text that it is to write.
    ///
    /// # Errors
    /// [`Error::Room`].
    pub fn check_room(&self, max_position_embeddings: usize) -> Result<()> {
        let is_written = |sample: &Sample| matches!(sample.query, Query::Generation { .. });
        match self.samples.iter().any(is_written) {
            true => self
                .writing
                .room(self.max_length.unwrap_or(max_position_embeddings))
                .map(drop),
            false => Ok(()),
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
            if let Query::Generation { reference } = &self.samples[next].query {
                let item = self.item(next);
                let [request] = &item.requests[..] else {
                    unreachable!("generation has one request");
                };
                let text = self.writing.write(model, tokenizer, &mut scorer, request)?;
                let goes_on = each(ItemOutcome {
                    item: next,
                    log_likelihoods: Vec::new(),
                    metrics: self.writing.judge(&text, reference),
                    text: Some(text),
                });
                if !goes_on {
                    return Ok(());
                }
                next += 1;
                continue;
            }
            let end = (next..self.len().min(next + scorer.batch()))
                .find(|i| matches!(self.samples[*i].query, Query::Generation { .. }))
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
        let origin = match checked.maker {
            Maker::Layout(layout) => named(layout, &data)?,
            Maker::Templates(_) => Origin::TaskFile,
        };
        let name = checked.name;
        let mut task = Self::of(name, &data, origin, &checked.maker, &options)?;
        task.delimiters = checked.delimiters;
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
        let (origin, layout) = match layout {
            Some(layout) => (named(layout, path)?, layout),
            None => {
                let layout = recognized(path)?;
                (Origin::Recognized(layout), layout)
            }
        };
        Self::of(name, path, origin, &Maker::Layout(layout), options)
    }

    fn of(
        name: String,
        path: &Path,
        origin: Origin,
        maker: &Maker,
        options: &TaskOptions,
    ) -> Result<Self> {
        let layout = origin.layout();
        let recognized = match &origin {
            Origin::Recognized(layout) => Some(*layout),
            _ => None,
        };
        let scored = scored(path, layout)?;
        let samples = samples(&scored, maker, recognized, options.limit)?;
        if samples.is_empty() {
            return Err(Error::Empty {
                path: path.to_owned(),
            });
        }
        let examples = layout.map_or(Examples::Drawn, TaskLayout::examples);
        let asked_examples = options.fewshot.unwrap_or(0);
        let count = match examples {
            Examples::None => 0,
            _ => asked_examples,
        };
        let from = match (&options.fewshot_from, count) {
            (_, 0) => None,
            (Some(from), _) => Some(vec![from.clone()]),
            (None, _) => shown(path, layout)?,
        };
        let pool = from
            .map(|from| self::samples(&from, maker, recognized, None))
            .transpose()?;
        let draw = Draw {
            count,
            first: options.fewshot_first.unwrap_or(examples == Examples::First),
            has_spare: layout.is_some_and(TaskLayout::draws_a_spare_example),
            seed: options.seed.unwrap_or(SEED),
        };
        Ok(Self {
            examples: draw.examples(&name, &samples, pool.as_deref())?,
            name,
            origin,
            asked_examples,
            samples,
            pool,
            delimiters: Delimiters::default(),
            writing: layout.and_then(TaskLayout::writing).unwrap_or_default(),
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
                example: Some(problem.answer.clone()),
                description: String::new(),
                query: Query::Continuation {
                    text: problem.answer,
                },
            }
        };
        let samples: Vec<Sample> = (0..count as u64).map(sample).collect();
        let draw = Draw {
            count: options.fewshot.unwrap_or(0),
            first: options.fewshot_first.unwrap_or(false),
            has_spare: false,
            seed: options.seed.unwrap_or(SEED),
        };
        Ok(Self {
            examples: draw.examples(task.name(), &samples, None)?,
            name: task.name().to_owned(),
            origin: Origin::Generated,
            asked_examples: draw.count,
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

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().into_owned()
}

fn layouts() -> String {
    TaskLayout::names().collect::<Vec<_>>().join(", ")
}

/// The layout of the first record.
fn recognized(path: &Path) -> Result<TaskLayout> {
    let first = first_record(path, None)?;
    let refused = |reason: String| Error::UnknownLayout {
        path: path.to_owned(),
        reason,
        layouts: layouts(),
    };
    match TaskLayout::of(&first).map_err(refused)?[..] {
        [layout] => Ok(layout),
        ref several => Err(Error::SeveralLayouts {
            path: path.to_owned(),
            layouts: several.iter().map(|layout| layout.name()).collect(),
        }),
    }
}

/// A layout that the user named, with the fields that it does not read.
fn named(layout: TaskLayout, path: &Path) -> Result<Origin> {
    let unread = layout.unread(&first_record(path, Some(layout))?);
    Ok(Origin::Named(layout, unread))
}

fn first_record(path: &Path, layout: Option<TaskLayout>) -> Result<Value> {
    let first = records::records(&scored(path, layout)?)?.next();
    let first = first.ok_or_else(|| Error::Empty {
        path: path.to_owned(),
    })?;
    Ok(first?)
}

/// The samples of records, the first `limit` of them. Each record must be in the layout that was
/// recognized by the first one.
fn samples(
    paths: &[PathBuf],
    maker: &Maker,
    recognized: Option<TaskLayout>,
    limit: Option<usize>,
) -> Result<Vec<Sample>> {
    let mut records = records::records(paths)?;
    let mut samples = Vec::new();
    while samples.len() < limit.unwrap_or(usize::MAX)
        && let Some(record) = records.next()
    {
        let record = record?;
        let made = match recognized {
            Some(layout) => layout.check(&record).and_then(|()| maker.sample(&record)),
            None => maker.sample(&record),
        };
        let sample = made.map_err(|reason| Error::Record {
            path: records.path().to_owned(),
            record: records.line(),
            reason,
        })?;
        samples.push(sample);
    }
    Ok(samples)
}
