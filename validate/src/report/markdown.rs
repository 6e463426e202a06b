//! The report as Markdown, and as text for a terminal. Columns are aligned here: a crate for tables
//! would be more code to call than the ten lines of `columns`.

use super::document::{ReportDocument, ReportTable};

/// As Markdown; plots are links to the SVG files beside it.
pub fn of(document: &ReportDocument) -> String {
    let mut text = format!("# {}\n\n", escaped(&document.title));
    for answer in &document.answer {
        let (verdict, more) = answer.split_once('\n').unwrap_or((answer, ""));
        let answer = format!("**{}** {}", escaped(verdict), escaped(more));
        text += &format!("{}\n\n", answer.trim_end());
    }
    for note in &document.notes {
        text += &format!("Note: {}\n\n", escaped(note));
    }
    for section in &document.sections {
        text += &format!(
            "## {}\n\n{}\n\n{}\n",
            section.title,
            escaped(&section.intro),
            table(&section.table)
        );
        for (title, shown) in &section.texts {
            text += &format!("### {}\n\n{}\n", escaped(title), indented(shown));
        }
        for name in &section.plots {
            let plot = document.plots.iter().find(|plot| plot.name == *name);
            let caption = plot.map_or("", |plot| plot.caption);
            text += &format!("![{caption}]({name}.svg)\n\n{caption}\n\n");
        }
    }
    text
}

fn table(table: &ReportTable) -> String {
    let columns = table.rows.first().map_or(0, Vec::len);
    let mut head: Vec<String> = table.head.iter().map(|c| c.name.clone()).collect();
    head.resize(columns, String::new());
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| escaped(cell).replace('|', "\\|"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = |i| match is_number(table, i) {
        true => "---:|",
        false => "---|",
    };
    let rule: String = (0..columns).map(rule).collect();
    let rows: String = table.rows.iter().map(|row| line(row)).collect();
    line(&head) + &format!("|{rule}\n") + &rows
}

fn is_number(table: &ReportTable, column: usize) -> bool {
    table.head.get(column).is_some_and(|c| c.is_number)
}

/// As a block of code, which no text can end.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}\n"));
    lines.collect()
}

/// Text whose characters are no markup, except the backticks around names.
fn escaped(text: &str) -> String {
    let part = |(i, part): (usize, &str)| match i % 2 {
        1 => format!("`{part}`"),
        _ => without_markup(part),
    };
    text.split('`').enumerate().map(part).collect()
}

fn without_markup(text: &str) -> String {
    let text = text.replace('*', "\\*").replace('_', "\\_");
    // Only what looks like a tag is one: `p < 0.0001` stays as it is.
    let mut parts = text.split('<');
    let mut escaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_tag = part.starts_with(|c: char| c.is_alphabetic() || "/!?".contains(c));
        escaped += if is_tag { "&lt;" } else { "<" };
        escaped += part;
    }
    escaped
}

/// The answer and the tables, in columns.
pub fn terminal(document: &ReportDocument) -> String {
    let mut text = String::new();
    for answer in &document.answer {
        text += &format!("{answer}\n");
    }
    for note in &document.notes {
        text += &format!("note: {note}\n");
    }
    for section in &document.sections {
        text += &format!("\n{}\n", section.title);
        text += &columns(&section.table);
    }
    text
}

fn columns(table: &ReportTable) -> String {
    let names: Vec<String> = table.head.iter().map(|c| c.name.clone()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&names).chain(&table.rows).collect();
    let width = |i: usize| {
        let cells = all.iter().filter_map(|row| row.get(i));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in all.iter().filter(|row| !row.is_empty()) {
        let cells = row.iter().enumerate();
        let line: Vec<String> = cells
            .map(|(i, cell)| match is_number(table, i) {
                true => format!("{cell:>0$}", width(i)),
                false => format!("{cell:<0$}", width(i)),
            })
            .collect();
        text += &format!("  {}\n", line.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_what_looks_like_a_tag_are_markup() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("p < 0.0001", "p < 0.0001");
        check("<b> a_b * <", "&lt;b> a\\_b \\* <");
        check("of `a_b<c>`: *", "of `a_b<c>`: \\*");
    }
}
