//! The report as one page that needs nothing else: no script, no font, no other file. The page is
//! `page.html`, a template that escapes every text; only the plots, which are SVG, are put in as
//! they are.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value};
use serde::Serialize;

use super::document::{ReportDocument, ReportTable, Section};

/// What the template is given.
#[derive(Serialize)]
struct HtmlPage<'a> {
    title: &'a str,
    answer: &'a [String],
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
        sections: document
            .sections
            .iter()
            .map(|s| section(document, s))
            .collect(),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // A line that holds nothing but a tag leaves no line in the page.
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    syntax.keep_trailing_newline(true);
    environment.set_syntax(syntax.build().expect("the delimiters are Jinja's own"));
    environment
        .render_str(include_str!("page.html"), Value::from(Serde(page)))
        .expect("the template asks for what a page has")
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

    /// The whole page but its style: every text is escaped, and no line is empty.
    #[test]
    fn a_page_has_its_tables_and_no_markup_of_others() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let document = ReportDocument {
            title: "a <b> & c".into(),
            answer: vec!["\"d\" > e".into()],
            sections: vec![
                Section {
                    title: "F",
                    intro: "g".into(),
                    table: ReportTable {
                        head: row(["h", "i<"]),
                        rows: vec![row(["<script>", "1"]), row(["k", "2"])],
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
<h1>a &lt;b&gt; &amp; c</h1>
<p class=\"answer\">&quot;d&quot; &gt; e</p>
<section>
<h2>F</h2>
<p class=\"intro\">g</p>
<div class=\"wide\"><table>
<thead><tr><th scope=\"col\">h</th><th scope=\"col\">i&lt;</th></tr></thead>
<tbody>
<tr><th scope=\"row\">&lt;script&gt;</th><td>1</td></tr>
<tr><th scope=\"row\">k</th><td>2</td></tr>
</tbody></table></div>
<h3>p&lt;</h3>
<pre>q
 r&amp;</pre>
</section>
<section>
<h2>L</h2>
<p class=\"intro\">m</p>
<div class=\"wide\"><table class=\"facts\">
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
