//! What was found, told: as a table, as Markdown, JSON, CSV, or one self-contained page.
//!
//! A report is either data (`json`, `csv`, `html`) or a [`Document`] of headings, sentences and
//! tables, written once in [`tell()`] and laid out for the terminal or as Markdown. To add a format: write
//! its file and name it in `FORMATS`.

mod csv;
mod document;
mod heads;
mod html;
mod json;
mod lesson;
mod markdown;
mod scan;
mod table;
mod tell;

pub use document::{Block, Cell, Column, Document, Row, RowKind, Table};
pub use heads::{HEADS_FORMATS, write_heads};
pub use markdown::markdown;
pub use scan::page::page as scan_page;
pub use scan::{Output, SCAN_FORMATS, ScanFormat};
pub use table::{Style, table};
pub use tell::tell;

use crate::{Result, look::explain::Explained};

/// How a report is laid out: its name, the file ending that stands for it, and who writes it.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The name that `--format` takes.
    pub name: &'static str,
    /// The file endings that choose it where no format is named.
    pub endings: &'static [&'static str],
    write: fn(&Explained, &Style) -> Result<String>,
}

/// All formats.
pub const FORMATS: &[Format] = &[
    Format { name: "table", endings: &["txt"], write: |seen, style| Ok(table(&tell(seen), style)) },
    Format { name: "markdown", endings: &["md", "markdown"], write: |seen, _| Ok(markdown(&tell(seen))) },
    Format { name: "json", endings: &["json"], write: |seen, _| json::json(seen) },
    Format { name: "csv", endings: &["csv"], write: |seen, _| csv::csv(seen) },
    Format { name: "html", endings: &["html", "htm"], write: |seen, _| html::html(seen) },
];

impl Format {
    /// The format of this name.
    pub fn from_name(name: &str) -> Option<&'static Format> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// The format that a file of this name suggests.
    pub fn from_path(path: &std::path::Path) -> Option<&'static Format> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        FORMATS.iter().find(|format| format.endings.contains(&ending.as_str()))
    }

    /// The report in this format, ending with a line break.
    ///
    /// # Errors
    /// Numbers that a format cannot hold.
    pub fn write(&self, seen: &Explained, style: &Style) -> Result<String> {
        (self.write)(seen, style)
    }
}
