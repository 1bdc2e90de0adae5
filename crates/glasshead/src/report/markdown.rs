//! A document as GitHub-flavoured Markdown.

use super::document::{Block, Document, RowKind, Table};

/// Lays a document out as Markdown.
pub fn markdown(document: &Document) -> String {
    let mut text = String::new();
    for block in &document.blocks {
        match block {
            Block::Title(line) => text.push_str(&format!("# {}", escape(line))),
            Block::Heading(line) => text.push_str(&format!("## {}", escape(line))),
            Block::Text(line) => text.push_str(&escape(line)),
            Block::Formula(line) => text.push_str(&format!("`{line}`")),
            Block::Table(table) => text.push_str(&rows(table)),
            Block::List(items) => {
                let items: Vec<String> = items.iter().map(|item| format!("- {}", escape(item))).collect();
                text.push_str(&items.join("\n"));
            }
        }
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn rows(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let mut lines = vec![
        line(table.columns.iter().map(|column| escape(&column.name)).collect()),
        line(
            table
                .columns
                .iter()
                .map(|column| if column.number { "--:".into() } else { ":--".into() })
                .collect(),
        ),
    ];
    for row in &table.rows {
        let cell = |text: &String| {
            let text = escape(text);
            if row.kind == RowKind::Plain || text.is_empty() { text } else { format!("**{text}**") }
        };
        lines.push(line(row.cells.iter().map(cell).collect()));
    }
    lines.join("\n")
}

/// Keeps text from being read as markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '_' | '`' | '<' | '[' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_break_a_table() {
        let mut table = Table::new(["word", ">share"]);
        table.push(RowKind::Plain, vec!["a|b*c\n".into(), "1".into()]);
        assert!(rows(&table).ends_with("| a\\|b\\*c  | 1 |"));
    }
}
