//! A scan, told: arrays for programs (safetensors, JSON, Parquet), a short table, a page, a picture.
//!
//! To add a format: write its file and name it in `SCAN_FORMATS`.

mod arrays;
mod json;
mod looks;
mod packed;
pub(super) mod page;
#[cfg(feature = "parquet")]
mod parquet;
mod picture;
mod pixels;
mod svg;
mod tell;

use std::path::{Path, PathBuf};

use super::{Style, table};
use crate::look::scan::{Estimate, Plan, Scan, Source};
use crate::weights::Writer;
use crate::{Error, Result};

/// How a scan is laid out.
#[derive(Clone, Copy, Debug)]
pub struct ScanFormat {
    /// The name that `--format` takes.
    pub name: &'static str,
    /// The file endings that choose it where no format is named.
    pub endings: &'static [&'static str],
    /// Whether it is text, which a terminal can show.
    pub is_text: bool,
    /// The readouts that are taken where none are asked for; those of passages come on top, for a text.
    reads: &'static str,
    /// Whether the row of the last token is one of them, where there is no question.
    last: bool,
    passages: bool,
    /// Bytes of the file per byte of the arrays, where digits make it larger than they are.
    grows: f64,
    /// Whether it can show several texts.
    several: bool,
    /// Whether it shows one head of one layer alone.
    picture: bool,
    write: for<'a> fn(&'a Scan, &Style) -> Result<Vec<Output<'a>>>,
}

/// One file of a report.
pub struct Output<'a> {
    /// What stands before the ending of its name, where a report has several files.
    pub part: Option<&'static str>,
    /// What writes it.
    pub write: Writer<'a>,
}

/// Larger files of text are warned of.
const LARGE: f64 = 300e6;

const ARRAYS: &str = "entropy,max,top=8,received";

/// All formats of a scan.
pub const SCAN_FORMATS: &[ScanFormat] = &[
    ScanFormat {
        name: "table",
        endings: &["txt"],
        is_text: true,
        reads: "entropy,max,distance,first",
        last: false,
        passages: true,
        grows: 0.0,
        several: true,
        picture: false,
        write: |scan, style| Ok(text(table(&tell::tell(scan), style))),
    },
    ScanFormat {
        name: "json",
        endings: &["json"],
        is_text: true,
        reads: ARRAYS,
        last: false,
        passages: true,
        grows: 2.5,
        several: true,
        picture: false,
        write: |scan, _| Ok(one(json::json(scan))),
    },
    ScanFormat {
        name: "safetensors",
        endings: &["safetensors"],
        is_text: false,
        reads: ARRAYS,
        last: false,
        passages: true,
        grows: 0.0,
        several: true,
        picture: false,
        write: |scan, _| Ok(one(arrays::arrays(scan))),
    },
    #[cfg(feature = "parquet")]
    ScanFormat {
        name: "parquet",
        endings: &["parquet"],
        is_text: false,
        reads: ARRAYS,
        last: false,
        passages: true,
        grows: 0.0,
        several: true,
        picture: false,
        write: |scan, _| Ok(parquet::tables(scan)),
    },
    ScanFormat {
        name: "html",
        endings: &["html", "htm"],
        is_text: true,
        reads: "entropy,max,distance,first,top=8,received,blocks",
        last: true,
        passages: true,
        grows: 0.0,
        several: false,
        picture: false,
        write: |scan, _| Ok(one(page::page(scan))),
    },
    ScanFormat {
        name: "svg",
        endings: &["svg"],
        is_text: true,
        reads: "blocks",
        last: false,
        passages: false,
        grows: 0.0,
        several: false,
        picture: true,
        write: |scan, _| Ok(text(svg::svg(&picture::picture(scan)?))),
    },
    ScanFormat {
        name: "png",
        endings: &["png"],
        is_text: false,
        reads: "blocks",
        last: false,
        passages: false,
        grows: 0.0,
        several: false,
        picture: true,
        write: |scan, _| Ok(one(pixels::png(&picture::picture(scan)?, scan)?)),
    },
];

impl ScanFormat {
    /// The format of this name.
    pub fn from_name(name: &str) -> Option<&'static Self> {
        SCAN_FORMATS.iter().find(|format| format.name == name)
    }

    /// The format that a file of this name suggests.
    pub fn from_path(path: &Path) -> Option<&'static Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        SCAN_FORMATS.iter().find(|format| format.endings.contains(&ending.as_str()))
    }

    /// The readouts that are taken where none are asked for; `asked`: there is a question, whose rows are kept;
    /// `each`: every passage is a text of its own.
    pub fn default_read(&self, source: &Source, asked: bool, each: bool) -> String {
        let last = if self.last && !asked { ",rows=last" } else { "" };
        let passages = match source {
            Source::Text(_) if self.passages && !each => ",segments=paragraph",
            _ => "",
        };
        format!("{}{last}{passages}", self.reads)
    }

    /// A line for somebody about to write a file that few programs open: its size, and what to write instead.
    pub fn warns(&self, estimate: &Estimate) -> Option<String> {
        let bytes = estimate.kept as f64 * self.grows;
        (bytes > LARGE).then(|| {
            format!(
                "the {} will have about {:.1} GB; -o FILE.safetensors or .parquet holds the same in {:.1} GB, and --layers, \
                 --heads or fewer readouts are less",
                self.name,
                bytes / 1e9,
                estimate.kept as f64 / 1e9
            )
        })
    }

    /// Refuses several texts ([`Request::each`](crate::look::scan::Request::each)) where only one can be shown.
    ///
    /// # Errors
    /// A page or a picture.
    pub fn check_each(&self, each: bool) -> Result<()> {
        if !each || self.several {
            return Ok(());
        }
        let known = SCAN_FORMATS.iter().filter(|format| format.several).map(|format| format.name);
        Err(Error::request(
            format!("{} shows one text, and --each makes several", self.name),
            format!("there are {}", known.collect::<Vec<_>>().join(", ")),
        ))
    }

    /// Refuses before it runs a plan that the format could not show.
    ///
    /// # Errors
    /// A picture of several heads or readouts.
    pub fn check_plan(&self, plan: &Plan) -> Result<()> {
        if !self.picture {
            return Ok(());
        }
        picture::check([plan.layers().len(), plan.heads().len()], &plan.readouts())
    }

    /// The files of the report, ready to be written.
    ///
    /// # Errors
    /// What a format cannot show: a picture is of one layer, one head and one readout.
    pub fn outputs<'a>(&self, scan: &'a Scan, style: &Style) -> Result<Vec<Output<'a>>> {
        self.check_each(!scan.texts.is_empty())?;
        (self.write)(scan, style)
    }
}

impl Output<'_> {
    /// Where it goes when the report goes to `path`: `out.parquet` → `out.entropy.parquet`.
    pub fn path(&self, path: &Path) -> PathBuf {
        let Some(part) = self.part else { return path.to_owned() };
        match path.extension() {
            Some(ending) => path.with_extension(format!("{part}.{}", ending.to_string_lossy())),
            None => path.with_extension(part),
        }
    }
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("part", &self.part).finish_non_exhaustive()
    }
}

fn one(write: Writer<'_>) -> Vec<Output<'_>> {
    vec![Output { part: None, write }]
}

fn text<'a>(text: String) -> Vec<Output<'a>> {
    one(Box::new(move |out| out.write_all(text.as_bytes())))
}

/// A readout that a format needs is not there.
fn missing(format: &str, what: &str, read: &str) -> Error {
    Error::request(format!("{format} {what}"), format!("for instance {read}"))
}
