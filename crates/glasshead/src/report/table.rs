//! A document for the terminal.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement};

use super::document::{Block, Document, RowKind, Table};

/// What the terminal can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Bold headings and focus rows.
    pub bold: bool,
    /// Columns of the terminal, where it is known.
    pub width: Option<u16>,
}

/// Lays a document out for a terminal.
pub fn table(document: &Document, style: &Style) -> String {
    let mut text = String::new();
    let bold = |line: &str| if style.bold { format!("\x1b[1m{line}\x1b[0m") } else { line.to_owned() };
    let width = usize::from(style.width.unwrap_or(100).clamp(40, 110));
    for block in &document.blocks {
        let part = match block {
            Block::Title(line) => bold(line),
            Block::Heading(line) => format!("\n{}", bold(line)),
            Block::Text(line) => wrap(line, width, ""),
            Block::Formula(line) => format!("  {line}"),
            Block::Table(table) => lay_out(table, style),
            Block::List(items) => items
                .iter()
                .map(|item| wrap(&format!("- {item}"), width, "  "))
                .collect::<Vec<_>>()
                .join("\n"),
        };
        text.push_str(&part);
        text.push('\n');
    }
    text
}

fn lay_out(table: &Table, style: &Style) -> String {
    let mut laid = comfy_table::Table::new();
    laid.force_no_tty().load_style(comfy_table::presets::NOTHING);
    if style.bold {
        laid.enforce_styling();
    }
    if let Some(width) = style.width {
        laid.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
    }
    laid.set_header(
        table.columns.iter().map(|column| Cell::new(&column.name).add_attribute(Attribute::Underlined)),
    );
    for row in &table.rows {
        let mark = |index: usize, text: &str| {
            let cell = match (row.kind, index) {
                (RowKind::Focus, 0) => Cell::new(format!("▸{}", plain(text))),
                _ => Cell::new(plain(text)),
            };
            if row.kind == RowKind::Plain { cell } else { cell.add_attribute(Attribute::Bold) }
        };
        laid.add_row(row.cells.iter().enumerate().map(|(index, text)| mark(index, text)));
    }
    for (index, column) in table.columns.iter().enumerate() {
        if let Some(laid) = laid.column_mut(index).filter(|_| column.number) {
            laid.set_cell_alignment(CellAlignment::Right);
        }
    }
    laid.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Text of a stranger must not steer the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(indent.to_owned());
            used = indent.len();
        } else if used > 0 {
            used += 1;
            if let Some(line) = lines.last_mut() {
                line.push(' ');
            }
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(&plain(word));
        }
        used += length;
    }
    lines.join("\n")
}
