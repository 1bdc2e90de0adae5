//! Headings, sentences and tables, before anyone decides how they look.

/// A report for reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// From top to bottom.
    pub blocks: Vec<Block>,
}

/// A part of a [`Document`].
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// The title of the whole.
    Title(String),
    /// The heading of a part.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A line of shapes or a formula, set apart.
    Formula(String),
    /// A table.
    Table(Table),
    /// Short items.
    List(Vec<String>),
}

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The columns from left to right.
    pub columns: Vec<Column>,
    /// The rows from top to bottom, each with as many cells as there are columns.
    pub rows: Vec<Row>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// Whether it holds numbers, which are set flush right.
    pub number: bool,
}

/// A row of a [`Table`].
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What the row is for.
    pub kind: RowKind,
    /// One per column.
    pub cells: Vec<Cell>,
}

/// The text of one place in a table.
pub type Cell = String;

/// What a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// One of many.
    Plain,
    /// The focus.
    Focus,
    /// What the rows above add to.
    Sum,
}

impl Document {
    pub(crate) fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }
}

impl Table {
    /// A table without rows: names of text columns start with a letter, of number columns with `>`.
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let column = |name: String| match name.strip_prefix('>') {
            Some(name) => Column { name: name.to_owned(), number: true },
            None => Column { name, number: false },
        };
        Self { columns: columns.into_iter().map(|name| column(name.into())).collect(), rows: Vec::new() }
    }

    /// One more row.
    pub fn push(&mut self, kind: RowKind, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(Row { kind, cells });
    }
}
