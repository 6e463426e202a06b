//! The report as one page that needs nothing else: no script, no font, no other file.

use super::document::{Document, Section, Table};
use super::plots::Plot;

const STYLE: &str = "\
:root{color-scheme:light}*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:64rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.answer{font-size:1.1rem;border-left:.3rem solid #0072b2;padding:.1rem 0 .1rem 1rem;margin:1rem 0}
.intro{color:#555;max-width:46rem}
.wide{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
thead th{font-weight:600;border-bottom:2px solid #999;vertical-align:bottom}
tbody th{font-weight:600}.facts td{overflow-wrap:anywhere}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem;margin:1rem 0}
figure{margin:0;break-inside:avoid}figure svg{width:100%;max-width:32rem;height:auto;display:block}
figcaption{font-size:.85rem;color:#555}
@media(max-width:40rem){th,td{white-space:nowrap}.facts td{white-space:normal}
tbody th{white-space:normal;overflow-wrap:anywhere;min-width:6rem;max-width:9rem}}
@media print{body{font-size:10pt;max-width:none;padding:0}.wide{overflow:visible}table{font-size:7pt}
th,td{padding-right:.5rem}.plots{grid-template-columns:1fr 1fr}h2{break-after:avoid}tr{break-inside:avoid}}
@page{margin:15mm}";

pub fn of(document: &Document) -> String {
    let title = escaped(&document.title);
    let answer = document
        .answer
        .iter()
        .map(|a| format!("<p class=\"answer\">{}</p>\n", escaped(a)));
    let sections = document
        .sections
        .iter()
        .map(|s| section(s, &document.plots));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}{}</body>\n</html>\n",
        answer.collect::<String>(),
        sections.collect::<String>()
    )
}

fn section(section: &Section, plots: &[Plot]) -> String {
    let named = |name: &&str| plots.iter().find(|plot| plot.name == *name);
    let figures = section.plots.iter().filter_map(named).map(|plot| {
        let (svg, caption) = (plot.picture.svg(), escaped(plot.caption));
        format!("<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>\n")
    });
    let figures: String = figures.collect();
    let figures = match figures.is_empty() {
        true => figures,
        false => format!("<div class=\"plots\">\n{figures}</div>\n"),
    };
    format!(
        "<section>\n<h2>{}</h2>\n<p class=\"intro\">{}</p>\n{}{figures}</section>\n",
        section.title,
        escaped(&section.intro),
        table(&section.table)
    )
}

fn table(table: &Table) -> String {
    let cells = |row: &[String]| -> String {
        let cells = row.iter().enumerate();
        let cell = |(i, cell): (usize, &String)| match i {
            0 => format!("<th scope=\"row\">{}</th>", escaped(cell)),
            _ => format!("<td>{}</td>", escaped(cell)),
        };
        format!("<tr>{}</tr>\n", cells.map(cell).collect::<String>())
    };
    let rows: String = table.rows.iter().map(|row| cells(row)).collect();
    let (class, head) = match table.head.is_empty() {
        true => (" class=\"facts\"", String::new()),
        false => {
            let cells = table
                .head
                .iter()
                .map(|c| format!("<th scope=\"col\">{}</th>", escaped(c)));
            (
                "",
                format!("<thead><tr>{}</tr></thead>\n", cells.collect::<String>()),
            )
        }
    };
    format!("<div class=\"wide\"><table{class}>\n{head}<tbody>\n{rows}</tbody></table></div>\n")
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
