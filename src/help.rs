//! What clap does not do for help texts: verbs in groups, and examples at the end of each verb's page.

use std::fmt::Write;

use clap::builder::Styles;
use clap::{Command, Subcommand};

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
    ("Run a model", &["generate", "chat", "embed", "logits"]),
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
        // Without the feature `hub` its verbs are absent.
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

/// A verb and the verbs in it, each with its examples at the end of `--help`.
pub fn with_examples(verb: Command) -> Command {
    add_examples(verb, "")
}

fn add_examples(verb: Command, parent: &str) -> Command {
    let path = format!("{parent}{}", verb.get_name());
    let own = EXAMPLES.lines().skip_while(|line| *line != path).skip(1);
    let own: Vec<&str> = own.take_while(|line| line.starts_with(' ')).collect();
    let below = format!("{path} ");
    verb.after_long_help(format!("Examples:\n{}", own.join("\n")))
        .mut_subcommands(|verb| add_examples(verb, &below))
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

    #[test]
    fn first_lines_are_short_and_long_lists_of_flags_have_headings() {
        let command = Cli::command();
        for (path, verb) in verbs(&command, "") {
            let about = verb
                .get_about()
                .unwrap_or_else(|| panic!("{path} has no help"))
                .to_string();
            assert!(about.chars().count() <= 70, "{path}: {about}");
            for flag in verb.get_arguments() {
                let help = flag
                    .get_help()
                    .unwrap_or_else(|| panic!("{path} {} has no help", flag.get_id()));
                let help = help.to_string();
                assert!(
                    help.chars().count() <= 70 && !help.contains('\n'),
                    "{path} {}: {help}",
                    flag.get_id()
                );
            }
            let flags = || verb.get_opts();
            let headed = flags()
                .filter(|flag| flag.get_help_heading().is_some())
                .count();
            assert!(
                flags().count() <= 7 || headed >= flags().count() / 2,
                "{path} needs headings"
            );
        }
    }
}
