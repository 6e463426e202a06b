//! The report as one page that needs nothing else: no script, no font, no other file. The page is
//! `page.html`, a template that escapes every text; only the plots, which are SVG, are put in as
//! they are.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, HtmlEscape, Value};
use serde::Serialize;

use super::document::{ReportDocument, ReportTable, Section};

/// What the template is given.
#[derive(Serialize)]
struct HtmlPage<'a> {
    title: &'a str,
    answer: &'a [String],
    notes: &'a [String],
    sections: Vec<PageSection<'a>>,
}

#[derive(Serialize)]
struct PageSection<'a> {
    title: &'a str,
    intro: &'a str,
    table: &'a ReportTable,
    texts: &'a [(String, String)],
    figures: Vec<PageFigure<'a>>,
}

#[derive(Serialize)]
struct PageFigure<'a> {
    svg: String,
    caption: &'a str,
}

pub fn of(document: &ReportDocument) -> String {
    let page = HtmlPage {
        title: &document.title,
        answer: &document.answer,
        notes: &document.notes,
        sections: document
            .sections
            .iter()
            .map(|s| section(document, s))
            .collect(),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("with_names", |text: String| {
        Value::from_safe_string(with_names(&text))
    });
    environment.add_filter("number", |text: String| unbroken(&text));
    environment.add_filter("without_names", |text: String| text.replace('`', ""));
    // A line that holds nothing but a tag leaves no line in the page.
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    syntax.keep_trailing_newline(true);
    environment.set_syntax(syntax.build().expect("the delimiters are Jinja's own"));
    environment
        .render_str(include_str!("page.html"), Value::from(Serde(page)))
        .expect("the template asks for what a page has")
}

/// Text whose names, which are between backticks, are set in another face; all else is escaped.
fn with_names(text: &str) -> String {
    let part = |(i, part): (usize, &str)| match i % 2 {
        1 => format!("<code>{}</code>", HtmlEscape(part)),
        _ => HtmlEscape(part).to_string(),
    };
    text.split('`').enumerate().map(part).collect()
}

/// A number that stays in one line with its unit and its error.
fn unbroken(text: &str) -> String {
    let space = "\u{a0}";
    let text = text.replace(" %", &format!("{space}%"));
    let text = text.replace(" ± ", &format!("{space}±{space}"));
    text.replace("< ", &format!("<{space}"))
}

fn section<'a>(document: &'a ReportDocument, section: &'a Section) -> PageSection<'a> {
    PageSection {
        title: section.title,
        intro: &section.intro,
        table: &section.table,
        texts: &section.texts,
        figures: figures(document, section),
    }
}

/// The plots that a section names.
fn figures<'a>(document: &'a ReportDocument, section: &Section) -> Vec<PageFigure<'a>> {
    let named = |name: &&str| document.plots.iter().find(|plot| plot.name == *name);
    let plots = section.plots.iter().filter_map(named);
    let figure = |plot: &'a super::plots::Plot| PageFigure {
        svg: plot.picture.svg(),
        caption: plot.caption,
    };
    plots.map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::ReportColumn;

    /// The whole page but its style: every text is escaped, and no line is empty.
    #[test]
    fn a_page_has_its_tables_and_no_markup_of_others() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let column = |(name, is_number): (&str, bool)| ReportColumn {
            name: name.into(),
            is_number,
        };
        let document = ReportDocument {
            title: "a <b> & `c`".into(),
            answer: vec!["\"d\" > `e<`\n`t`".into()],
            notes: vec!["s".into()],
            sections: vec![
                Section {
                    title: "F",
                    intro: "g".into(),
                    table: ReportTable {
                        head: [("h", false), ("i<", true)].map(column).into(),
                        rows: vec![row(["<script>", "< 1 %"]), row(["k", "2 ± 1"])],
                    },
                    texts: vec![("p<".into(), "q\n r&".into())],
                    plots: Vec::new(),
                },
                Section {
                    title: "L",
                    intro: "m".into(),
                    table: ReportTable {
                        head: Vec::new(),
                        rows: vec![row(["n", "o"])],
                    },
                    texts: Vec::new(),
                    plots: Vec::new(),
                },
            ],
            plots: Vec::new(),
        };
        let page = of(&document);
        let (head, rest) = page.split_once("<style>\n").unwrap();
        assert!(head.starts_with("<!DOCTYPE html>\n"));
        assert!(head.ends_with("<title>a &lt;b&gt; &amp; c</title>\n"));
        let (_, body) = rest.split_once("</style>\n").unwrap();
        let expected = "\
</head>
<body>
<h1>a &lt;b&gt; &amp; <code>c</code></h1>
<p class=\"answer\"><strong>&quot;d&quot; &gt; <code>e&lt;</code></strong><br><code>t</code></p>
<p class=\"note\">s</p>
<section>
<h2>F</h2>
<p class=\"intro\">g</p>
<div class=\"wide\" tabindex=\"0\"><table>
<thead><tr><th scope=\"col\">h</th><th scope=\"col\" class=\"number\">i&lt;</th></tr></thead>
<tbody>
<tr><th scope=\"row\">&lt;script&gt;</th><td class=\"number\">&lt;\u{a0}1\u{a0}%</td></tr>
<tr><th scope=\"row\">k</th><td class=\"number\">2\u{a0}±\u{a0}1</td></tr>
</tbody></table></div>
<h3>p&lt;</h3>
<pre>q
 r&amp;</pre>
</section>
<section>
<h2>L</h2>
<p class=\"intro\">m</p>
<div class=\"wide\" tabindex=\"0\"><table class=\"facts\">
<tbody>
<tr><th scope=\"row\">n</th><td>o</td></tr>
</tbody></table></div>
</section>
</body>
</html>
";
        assert_eq!(body, expected);
    }
}
