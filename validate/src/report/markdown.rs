//! The report as Markdown, and as text for a terminal. Columns are aligned here: a crate for tables
//! would be more code to call than the ten lines of `columns`.

use super::document::{ReportDocument, ReportTable};

/// As Markdown; plots are links to the SVG files beside it.
pub fn of(document: &ReportDocument) -> String {
    let mut text = format!("# {}\n\n", document.title);
    for answer in &document.answer {
        text += &format!("**{}**\n\n", escaped(answer));
    }
    for section in &document.sections {
        text += &format!(
            "## {}\n\n{}\n\n{}\n",
            section.title,
            section.intro,
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
    let mut head = table.head.clone();
    head.resize(columns, String::new());
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| escaped(cell).replace('|', "\\|"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(columns));
    let rows: String = table.rows.iter().map(|row| line(row)).collect();
    line(&head) + &rule + &rows
}

/// As a block of code, which no text can end.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}\n"));
    lines.collect()
}

/// What would be markup.
fn escaped(text: &str) -> String {
    text.replace('*', "\\*")
        .replace('<', "&lt;")
        .replace('_', "\\_")
}

/// The answer and the tables, in columns.
pub fn terminal(document: &ReportDocument) -> String {
    let mut text = String::new();
    for answer in &document.answer {
        text += &format!("{answer}\n");
    }
    for section in &document.sections {
        text += &format!("\n{}\n", section.title);
        text += &columns(&section.table);
    }
    text
}

fn columns(table: &ReportTable) -> String {
    let all: Vec<&Vec<String>> = std::iter::once(&table.head).chain(&table.rows).collect();
    let width = |i: usize| {
        let cells = all.iter().filter_map(|row| row.get(i));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in all.iter().filter(|row| !row.is_empty()) {
        let cells = row.iter().enumerate();
        let line: Vec<String> = cells
            .map(|(i, cell)| format!("{cell:<0$}", width(i)))
            .collect();
        text += &format!("  {}\n", line.join("  ").trim_end());
    }
    text
}
