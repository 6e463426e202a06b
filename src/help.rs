//! What clap does not do for help texts: verbs in groups, flags of one line each in `-h`, and
//! examples at the end of each verb's page.

use std::fmt::Write;

use clap::builder::Styles;
use clap::{Arg, Command, Subcommand};

/// Verbs by what people want. The help takes their descriptions from the verbs themselves.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Make a model",
        &[
            "quickstart",
            "data",
            "tokenizer",
            "train",
            "plot",
            "synthesize",
        ],
    ),
    (
        "Get and convert models",
        &["pull", "models", "convert", "verify"],
    ),
    (
        "Run a model",
        &[
            "generate", "chat", "serve", "ready", "replay", "embed", "logits",
        ],
    ),
    ("Judge a model", &["inspect", "doctor", "bench", "validate"]),
    ("This machine", &["cpu", "completions", "man"]),
];

/// Command lines by verb: a line with the verb's name, then indented lines.
const EXAMPLES: &str = include_str!("examples.txt");

/// The layout of the program's own help: all verbs, in their groups.
pub fn template() -> String {
    let verbs = crate::Verb::augment_subcommands(Command::new("sterna"));
    let styles = Styles::default();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n\n");
    for (heading, names) in GROUPS {
        writeln!(text, "{header}{heading}:{header:#}").expect("a string grows");
        // Without the features `hub` and `serve` their verbs are absent.
        for verb in names.iter().filter_map(|name| verbs.find_subcommand(name)) {
            let (name, about) = (
                verb.get_name(),
                verb.get_about().expect("a test walks all verbs"),
            );
            writeln!(text, "  {literal}{name:<12}{literal:#} {about}").expect("a string grows");
        }
        text += "\n";
    }
    text + &format!("{header}Options:{header:#}\n{{options}}{{after-help}}")
}

/// A verb and the verbs in it, as their pages are shown.
pub fn page(verb: Command) -> Command {
    page_below(verb, "")
}

fn page_below(verb: Command, parent: &str) -> Command {
    let path = format!("{parent}{}", verb.get_name());
    let own = EXAMPLES.lines().skip_while(|line| *line != path).skip(1);
    let own: Vec<&str> = own.take_while(|line| line.starts_with(' ')).collect();
    let below = format!("{path} ");
    one_line_per_flag(verb)
        .after_long_help(format!("Examples:\n{}", own.join("\n")))
        .mut_subcommands(|verb| page_below(verb, &below))
}

/// Columns of a page; clap wraps what is longer.
pub const WIDTH: usize = 100;

/// Leaves the values of a flag out of `-h` where its line would be too long, and lists them in
/// `--help`.
fn one_line_per_flag(verb: Command) -> Command {
    let flags: Vec<Arg> = verb.get_opts().cloned().collect();
    verb.mut_args(|flag| {
        let values = flag.get_possible_values();
        let has_values = flag.get_action().takes_values() && !values.is_empty();
        let Some(help) = flag.get_help().filter(|_| has_values) else {
            return flag;
        };
        let names: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
        let mut text = format!("{help} [possible values: {}]", names.join(", "));
        for default in flag.get_default_values() {
            text += &format!(" [default: {}]", default.display());
        }
        if text_column(&flags, flag.get_help_heading()) + text.len() <= WIDTH {
            return flag;
        }
        let list = values.iter().map(|value| match value.get_help() {
            Some(help) => format!("\n- {}: {help}", value.get_name()),
            None => format!("\n- {}", value.get_name()),
        });
        let long = flag.get_long_help().unwrap_or(help);
        let long = format!("{long}\n\nPossible values:{}", list.collect::<String>());
        flag.hide_possible_values(true).long_help(long)
    })
}

/// The column in which the texts of a section begin, as in `  -o, --out <DIR>  The file`.
fn text_column(flags: &[Arg], heading: Option<&str>) -> usize {
    let width = |flag: &Arg| {
        let names = flag.get_value_names().unwrap_or_default().iter();
        let values: usize = match flag.get_action().takes_values() {
            true => names.map(|name| " <>".len() + name.len()).sum(),
            false => 0,
        };
        "--".len() + flag.get_long().map_or(0, str::len) + values
    };
    let section = flags.iter().filter(|f| f.get_help_heading() == heading);
    "  -o, ".len() + section.map(width).max().unwrap_or(0) + "  ".len()
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use crate::Cli;

    /// The verbs, nested ones too, each with its path, like `data generate`.
    fn verbs(of: &Command, parent: &str) -> Vec<(String, Command)> {
        let verbs = of.get_subcommands().flat_map(|verb| {
            let path = format!("{parent}{}", verb.get_name());
            let below = verbs(verb, &format!("{path} "));
            std::iter::once((path, verb.clone())).chain(below)
        });
        verbs.collect()
    }

    #[test]
    fn each_verb_is_in_one_group() {
        for verb in Cli::command().get_subcommands() {
            let groups = super::GROUPS.iter().flat_map(|(_, names)| *names);
            assert_eq!(
                groups.filter(|name| **name == verb.get_name()).count(),
                1,
                "{verb}"
            );
        }
    }

    #[test]
    fn each_verb_has_examples_that_it_accepts() {
        let command = Cli::command();
        for (path, verb) in verbs(&command, "") {
            let help = verb.get_after_long_help().unwrap().to_string();
            let lines = help
                .strip_prefix("Examples:\n")
                .unwrap()
                .lines()
                .map(str::trim);
            let lines: Vec<&str> = lines.filter(|line| line.starts_with("sterna ")).collect();
            assert!(!lines.is_empty(), "{path} has no example");
            for line in lines {
                // No example has a quote inside an argument.
                let words = line
                    .split(['"', '\''])
                    .enumerate()
                    .flat_map(|(i, part)| match i % 2 {
                        0 => part.split_whitespace().collect(),
                        _ => vec![part],
                    });
                let words = words.take_while(|word| !word.starts_with(['#', '>', '|']));
                assert!(line.starts_with(&format!("sterna {path}")), "{line}");
                command
                    .clone()
                    .try_get_matches_from(words)
                    .unwrap_or_else(|e| panic!("{line}: {e}"));
            }
        }
    }
}
