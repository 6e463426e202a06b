//! The footer: the tree of columns, and the byte range of each column.

use super::Reason;
use super::thrift::{self, ThriftValue};

/// The largest depth of nested groups.
pub(super) const MAX_DEPTH: usize = 32;

const MAGIC: &[u8] = b"PAR1";

/// The parsed footer of a file.
pub(super) struct Footer {
    pub(super) schema: Node,
    /// For each row group, its columns in the order of the schema.
    pub(super) groups: Vec<Vec<Chunk>>,
}

/// A node of the schema. `definition` counts the optional and repeated nodes on the path to it,
/// itself included: where a level is less than that, the node is missing.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) definition: u16,
    /// For a repeated node, the number of repeated nodes on the path to it, itself included.
    pub(super) repetition: Option<u16>,
    /// The first column below it, or itself if it is a column.
    pub(super) first: usize,
    /// The column after the last one.
    pub(super) end: usize,
    pub(super) kind: ColumnKind,
    pub(super) children: Vec<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    /// A column.
    Leaf,
    /// An object of its children.
    Object,
    /// No value of its own: a list is stored as a group around a repeated group around the element.
    OnlyChild,
}

/// How a column is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) physical: Physical,
    pub(super) unsigned: bool,
    pub(super) max_definition: u16,
    pub(super) max_repetition: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Physical {
    Boolean,
    Int32,
    Int64,
    Float,
    Double,
    Bytes,
    /// Values of this many bytes each.
    Fixed(usize),
}

/// The place of a column of a row group, and how it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) codec: i64,
    pub(super) leaf: Leaf,
    /// Rows of the group.
    pub(super) rows: u64,
}

impl Footer {
    /// Reads the footer of a whole file.
    pub(super) fn parse(file: &[u8]) -> Result<Self, Reason> {
        if file.len() < 12 {
            return Err(format!("it has {} bytes, expected at least 12", file.len()));
        }
        if !file.starts_with(MAGIC) || !file.ends_with(MAGIC) {
            return Err(
                "it does not begin and end with PAR1: not a Parquet file, or cut short".into(),
            );
        }
        let tail = file.len() - 8;
        let length = file[tail..tail + 4].try_into().expect("four bytes");
        let length = u32::from_le_bytes(length) as usize;
        let start = tail
            .checked_sub(length)
            .filter(|start| *start >= MAGIC.len());
        let start = start.ok_or_else(|| format!("its footer claims {length} of {tail} bytes"))?;
        let (meta, _) = thrift::parse(&file[start..tail])?;
        let mut leaves = Vec::new();
        let schema = Builder {
            elements: meta.list(2).iter(),
            leaves: &mut leaves,
        }
        .root()?;
        let group = |item| group(item, &leaves, start);
        let groups = meta.list(4).iter().map(group).collect::<Result<_, _>>()?;
        Ok(Self { schema, groups })
    }
}

/// The chunks of a row group, all before the footer.
fn group(item: &ThriftValue<'_>, leaves: &[Leaf], footer: usize) -> Result<Vec<Chunk>, Reason> {
    let rows = item.count(3, "number of rows")? as u64;
    let columns = item.list(1);
    if columns.len() != leaves.len() {
        let (found, expected) = (columns.len(), leaves.len());
        return Err(format!(
            "a row group has {found} columns, expected {expected}"
        ));
    }
    let chunk = |(column, leaf)| chunk(column, leaf, rows, footer);
    columns.iter().zip(leaves).map(chunk).collect()
}

fn chunk(column: &ThriftValue<'_>, leaf: &Leaf, rows: u64, footer: usize) -> Result<Chunk, Reason> {
    if column.field(1).is_some() {
        return Err("a column lies in another file".into());
    }
    let meta = column
        .field(3)
        .ok_or("a column has no metadata; is the file encrypted?")?;
    let mut start = meta.count(9, "offset of data pages")?;
    if let Some(dictionary) = meta.int(11).filter(|offset| *offset > 0) {
        start = start.min(dictionary as usize);
    }
    let length = meta.count(7, "size of a column")?;
    let end = start.checked_add(length).filter(|end| *end <= footer);
    let end =
        end.ok_or_else(|| format!("a column of {length} bytes at {start} is not in the file"))?;
    Ok(Chunk {
        start,
        end,
        codec: meta.needed(4, "codec")?,
        leaf: *leaf,
        rows,
    })
}

/// Builds a tree from the flat list of elements: each gives the number of its children, which
/// follow it.
struct Builder<'a, 'b> {
    elements: std::slice::Iter<'a, ThriftValue<'a>>,
    leaves: &'b mut Vec<Leaf>,
}

impl<'a> Builder<'a, '_> {
    fn root(mut self) -> Result<Node, Reason> {
        let element = self.elements.next().ok_or("there is no schema")?;
        let children = self.children(element, 0, 0, 1)?;
        match self.elements.next() {
            None => Ok(Node {
                name: String::new(),
                definition: 0,
                repetition: None,
                first: 0,
                end: self.leaves.len(),
                kind: ColumnKind::Object,
                children,
            }),
            Some(_) => Err("the schema has nodes without a parent".into()),
        }
    }

    fn children(
        &mut self,
        element: &ThriftValue<'a>,
        definition: u16,
        repetition: u16,
        depth: usize,
    ) -> Result<Vec<Node>, Reason> {
        if depth > MAX_DEPTH {
            return Err(format!("the schema is more than {MAX_DEPTH} groups deep"));
        }
        let count = element.count(5, "number of children")?;
        if count == 0 || count > self.elements.len() {
            return Err(format!("a group of the schema claims {count} children"));
        }
        let child = |_| self.node(definition, repetition, depth);
        (0..count).map(child).collect()
    }

    fn node(&mut self, definition: u16, repetition: u16, depth: usize) -> Result<Node, Reason> {
        let element = self.elements.next().ok_or("the schema ends early")?;
        let name = element.text(4, "name of a column")?.to_owned();
        let repeated = match element.needed(3, "repetition of a column")? {
            0 => (0, false),
            1 => (1, false),
            2 => (1, true),
            other => return Err(format!("`{name}` has the unknown repetition {other}")),
        };
        let (definition, repetition) =
            (definition + repeated.0, repetition + u16::from(repeated.1));
        let first = self.leaves.len();
        let (kind, children) = match element.int(5).unwrap_or(0) {
            0 => {
                let leaf = leaf(element, &name, definition, repetition)?;
                self.leaves.push(leaf);
                (ColumnKind::Leaf, Vec::new())
            }
            _ => {
                let mut children = self.children(element, definition, repetition, depth + 1)?;
                (group_kind(element, &name, &mut children), children)
            }
        };
        Ok(Node {
            name,
            definition,
            repetition: repeated.1.then_some(repetition),
            first,
            end: self.leaves.len(),
            kind,
            children,
        })
    }
}

/// The kind of a group. Inside a list, the repeated group around the element has no value of its
/// own either, by the specification's rules for older writers.
fn group_kind(element: &ThriftValue<'_>, name: &str, children: &mut [Node]) -> ColumnKind {
    let logical = |number| {
        element
            .field(10)
            .is_some_and(|kind| kind.field(number).is_some())
    };
    let list = element.int(6) == Some(3) || logical(3);
    let map = matches!(element.int(6), Some(1 | 2)) || logical(2);
    let [child] = children else {
        return ColumnKind::Object;
    };
    if child.repetition.is_none() || !(list || map) {
        return ColumnKind::Object;
    }
    let is_element = child.name == "array" || child.name == format!("{name}_tuple");
    if list && !is_element && child.kind == ColumnKind::Object && child.children.len() == 1 {
        child.kind = ColumnKind::OnlyChild;
    }
    ColumnKind::OnlyChild
}

fn leaf(
    element: &ThriftValue<'_>,
    name: &str,
    max_definition: u16,
    max_repetition: u16,
) -> Result<Leaf, Reason> {
    let physical = match element.needed(1, "type of a column")? {
        0 => Physical::Boolean,
        1 => Physical::Int32,
        2 => Physical::Int64,
        3 => Physical::Fixed(12),
        4 => Physical::Float,
        5 => Physical::Double,
        6 => Physical::Bytes,
        7 => match element.count(2, "length of values")? {
            0 => return Err(format!("`{name}` has values of 0 bytes")),
            length => Physical::Fixed(length),
        },
        other => return Err(format!("`{name}` has the unknown type {other}")),
    };
    let signed = |kind: &ThriftValue<'_>| kind.field(10).and_then(|integer| integer.flag(2));
    let unsigned = matches!(element.int(6), Some(11..=14))
        || element.field(10).and_then(signed) == Some(false);
    Ok(Leaf {
        physical,
        unsigned,
        max_definition,
        max_repetition,
    })
}
