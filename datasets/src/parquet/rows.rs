//! Assembles rows from columns, as in Dremel (Melnik et al., 2010).
//!
//! Every column has an entry for each place of its value. The definition level says how much of the
//! path to the value exists, and so which node is `null` or an empty list; its repetition level
//! says which list it continues. A node asks the first column below it.

use serde_json::{Map, Value};

use super::column::{Column, Levels};
use super::schema::{Chunk, ColumnKind, Node};
use super::{Reason, Store};

/// The largest number of values in a row.
pub(super) const MAX_VALUES: usize = 1 << 24;

/// The rows of a row group.
pub(super) struct Group {
    columns: Vec<Column>,
    left: u64,
    /// Values of the row so far.
    values: usize,
}

impl Group {
    pub(super) fn open(file: &Store, chunks: &[Chunk], schema: &Node) -> Result<Self, Reason> {
        let columns: Vec<_> = chunks
            .iter()
            .map(|chunk| Column::new(file, chunk))
            .collect();
        if columns.len() != schema.end {
            return Err("a row group has other columns than the schema".into());
        }
        Ok(Self {
            columns,
            left: chunks.first().map_or(0, |chunk| chunk.rows),
            values: 0,
        })
    }

    /// The next row.
    pub(super) fn next_row(&mut self, schema: &Node) -> Result<Option<Value>, Reason> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.values = 0;
        self.inside(schema).map(Some)
    }

    /// The value of a node, which may be missing.
    fn node(&mut self, node: &Node) -> Result<Value, Reason> {
        if let Some(repetition) = node.repetition {
            return self.list(node, repetition);
        }
        match self.peek(node)? {
            Some(levels) if levels.definition >= node.definition => self.inside(node),
            Some(_) => self.skip(node).map(|()| Value::Null),
            None => Err("a column has fewer values than rows".into()),
        }
    }

    fn list(&mut self, node: &Node, repetition: u16) -> Result<Value, Reason> {
        let mut elements = Vec::new();
        let levels = self
            .peek(node)?
            .ok_or("a column has fewer values than rows")?;
        if levels.definition < node.definition {
            self.skip(node)?;
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.inside(node)?);
            match self.peek(node)? {
                Some(levels) if levels.repetition >= repetition => {}
                _ => return Ok(Value::Array(elements)),
            }
        }
    }

    /// The value of a node that is present.
    fn inside(&mut self, node: &Node) -> Result<Value, Reason> {
        match (node.kind, node.children.first()) {
            (ColumnKind::Leaf, _) | (_, None) => self.take(node.first),
            (ColumnKind::OnlyChild, Some(child)) => self.node(child),
            (ColumnKind::Object, Some(_)) => {
                let mut object = Map::new();
                for child in &node.children {
                    object.insert(child.name.clone(), self.node(child)?);
                }
                Ok(Value::Object(object))
            }
        }
    }

    fn peek(&mut self, node: &Node) -> Result<Option<Levels>, Reason> {
        self.columns[node.first].peek()
    }

    /// Takes the entry of every column below a node, all of which say that it is missing.
    fn skip(&mut self, node: &Node) -> Result<(), Reason> {
        (node.first..node.end).try_for_each(|column| self.take(column).map(drop))
    }

    fn take(&mut self, column: usize) -> Result<Value, Reason> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("a row has more than {MAX_VALUES} values"));
        }
        self.columns[column].take()
    }
}
