//! Tables of docs/serve.md, which tests compare with those of the server.

use std::collections::BTreeSet;
use std::path::Path;

/// The page.
pub fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("../docs/serve.md")).unwrap()
}

/// What stands between backticks in a cell.
pub fn quoted(cell: &str) -> BTreeSet<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// The rows of the table with this head.
pub fn table<'p>(page: &'p str, head: &str) -> Vec<Vec<&'p str>> {
    let start = page.find(head).unwrap_or_else(|| panic!("no table {head}"));
    let lines = page[start..].lines().skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").collect())
        .collect()
}
