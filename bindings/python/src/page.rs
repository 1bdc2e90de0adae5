//! The page of `glasshead scan`, for what was read out from Python.

use glasshead::{
    look::{
        scan::{Origin, Recipe, Role, Scan, ScanToken, ScannedModel},
        segments::{Segment, beginning},
    },
    report::scan_page,
};
use glasshead_attention::{Array, Values};
use numpy::{Element, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::{
    exceptions::{PyMemoryError, PyRuntimeError, PyValueError},
    prelude::*,
};

use crate::errors::wrong_type;

/// Name, first byte in the text, byte after the last one, role.
type Token = (String, usize, usize, String);

/// The fields of `glasshead._page.Scan`, which says what they are.
#[derive(FromPyObject)]
pub(crate) struct Fields<'py> {
    model: String,
    family: Option<String>,
    /// Layers of the model, heads of a layer.
    sizes: (usize, usize),
    call: String,
    read: String,
    text: String,
    tokens: Vec<Token>,
    layers: Vec<usize>,
    heads: Vec<usize>,
    rows: Vec<usize>,
    segment_ends: Vec<usize>,
    block: Option<usize>,
    /// By name, an array `[heads, …]` of every layer.
    readouts: Vec<(String, Vec<Bound<'py, PyUntypedArray>>)>,
}

/// The page as one text that needs nothing else. Readouts that it does not tell of are left out.
#[pyfunction]
pub(crate) fn page(py: Python<'_>, scan: Fields<'_>) -> PyResult<String> {
    let scan = scan.checked()?;
    py.detach(|| {
        let mut page = Vec::new();
        scan_page(&scan)(&mut page).map_err(|error| error.to_string())?;
        String::from_utf8(page).map_err(|error| error.to_string())
    })
    .map_err(|error: String| {
        PyRuntimeError::new_err(format!("the page could not be made: {error}\nhint: print(…) shows a table"))
    })
}

impl Fields<'_> {
    /// Everything fits together, so that nothing behind it can fail.
    fn checked(self) -> PyResult<Scan> {
        let count = self.tokens.len();
        let (of_layers, of_heads) = self.sizes;
        if count == 0 || self.text.len() > u32::MAX as usize {
            return Err(wrong("tokens", format!("has {count}, of a text of {} bytes", self.text.len())));
        }
        within("layers", &self.layers, of_layers)?;
        within("heads", &self.heads, of_heads)?;
        for (name, chosen) in [("layers", &self.layers), ("heads", &self.heads)] {
            if chosen.is_empty() {
                return Err(wrong(name, "is empty"));
            }
        }
        within("rows", &self.rows, count)?;
        within("segment_ends", &self.segment_ends, count + 1)?;
        if !self.segment_ends.is_sorted() {
            return Err(wrong("segment_ends", "does not ascend"));
        }
        if self.block == Some(0) {
            return Err(wrong("block", "is 0"));
        }
        let readouts = self.arrays()?;
        let tokens = self.tokens.iter().enumerate().map(|(at, token)| placed(at, token, &self.text));
        let tokens = tokens.collect::<PyResult<Vec<_>>>()?;
        Ok(Scan {
            own: 0..self.text.len(),
            texts: Vec::new(),
            segments: segments(&self.segment_ends, &tokens, &self.text),
            first_passage: self.segment_ends.iter().position(|end| *end > 0),
            text: self.text,
            tokens,
            layers: self.layers,
            heads: self.heads,
            rows: self.rows,
            block: self.block,
            readouts,
            model: ScannedModel { name: self.model, family: self.family, layers: of_layers, heads: of_heads },
            recipe: Recipe {
                origin: Origin::Python { call: self.call },
                read: self.read,
                version: env!("CARGO_PKG_VERSION"),
            },
        })
    }

    /// Those that a page tells of, `[layers, heads, …]`.
    fn arrays(&self) -> PyResult<Vec<Array>> {
        let mut arrays: Vec<Array> = Vec::new();
        for (name, layers) in &self.readouts {
            let Some((name, axes)) = self.known(name, layers)? else { continue };
            let axes = [vec![self.heads.len()], axes].concat();
            let values = match name {
                "top_index" => Values::I64(joined(name, layers, &axes, self.layers.len())?),
                _ => Values::F32(joined(name, layers, &axes, self.layers.len())?),
            };
            if arrays.iter().any(|array| array.name == name) {
                return Err(wrong(name, "is there twice"));
            }
            arrays.push(Array { name, shape: [vec![self.layers.len()], axes].concat(), values });
        }
        let axes_of = |name| arrays.iter().find(|array| array.name == name).map(|array| &array.shape);
        if axes_of("top_index") != axes_of("top_weight") {
            return Err(wrong("top_index", "is not shaped as top_weight"));
        }
        let indices = arrays.iter().find_map(|array| array.i64()).unwrap_or_default();
        let keys = -1..self.tokens.len() as i64;
        match indices.iter().find(|index| !keys.contains(index)) {
            Some(index) => Err(wrong("top_index", format!("holds {index}, which is no token"))),
            None => Ok(arrays),
        }
    }

    /// What a readout is called in a scan, and its axes behind `[layers, heads]`.
    fn known(
        &self,
        name: &str,
        layers: &[Bound<'_, PyUntypedArray>],
    ) -> PyResult<Option<(&'static str, Vec<usize>)>> {
        const PER_TOKEN: [(&str, &str); 10] = [
            ("lse", "lse"),
            ("entropy", "entropy"),
            ("max_weight", "max_weight"),
            ("distance", "distance"),
            ("sink_weight", "sink_weight"),
            ("first", "first_weight"),
            ("previous", "previous"),
            ("self", "self"),
            ("induction", "induction"),
            ("received", "received"),
        ];
        let count = self.tokens.len();
        if let Some((_, name)) = PER_TOKEN.iter().find(|(known, _)| *known == name) {
            return Ok(Some((name, vec![count])));
        }
        Ok(Some(match name {
            "top_index" | "top_weight" => {
                // How many keys there are of a query, only the array knows.
                let keys = layers.first().and_then(|array| array.shape().last().copied()).unwrap_or(0);
                if keys == 0 {
                    return Err(wrong(name, "holds no keys"));
                }
                (if name == "top_index" { "top_index" } else { "top_weight" }, vec![count, keys])
            }
            "rows" => ("rows", vec![self.rows.len(), count]),
            "segments" => ("segments", vec![count, self.segment_ends.len()]),
            "blocks" => {
                let block = self.block.ok_or_else(|| wrong("block", "is None, and blocks were read"))?;
                ("blocks", vec![count.div_ceil(block); 2])
            }
            _ => return Ok(None),
        }))
    }
}

fn wrong(what: &str, problem: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{what} {problem}\nhint: seen.page() and seen.show() put it together"))
}

fn within(name: &str, numbers: &[usize], count: usize) -> PyResult<()> {
    match numbers.iter().find(|number| **number >= count) {
        Some(number) => Err(wrong(name, format!("holds {number}, and there are {count}"))),
        None => Ok(()),
    }
}

fn placed(at: usize, (name, start, end, role): &Token, text: &str) -> PyResult<ScanToken> {
    let roles = [Role::Text, Role::Special, Role::Answer];
    let role = roles.into_iter().find(|known| known.name() == role);
    match (role, text.get(*start..*end)) {
        (Some(role), Some(own)) => {
            let text = if own.is_empty() { name.as_str() } else { own }.to_owned();
            Ok(ScanToken { id: at as u32, text, start: *start, end: *end, role })
        }
        _ => Err(wrong("tokens", format!("has at place {at} what is no part of the text, or has no role"))),
    }
}

/// Passages by the tokens at which they end; their bytes are those of their tokens.
fn segments(ends: &[usize], tokens: &[ScanToken], text: &str) -> Vec<Segment> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    let segment = |(start, &end): (usize, &usize)| {
        let with_bytes = || tokens[start..end].iter().filter(|token| token.start < token.end);
        let bytes = with_bytes().next().map_or(0, |token| token.start)
            ..with_bytes().next_back().map_or(0, |token| token.end);
        let label = match text.get(bytes.clone()) {
            Some(passage) if !passage.trim().is_empty() => beginning(passage),
            _ => format!("tokens {start} to {end}"),
        };
        Segment { label, start: bytes.start, end: bytes.end, tokens: end - start }
    };
    starts.zip(ends).map(segment).collect()
}

/// The arrays `[heads, …]` of all layers, one behind the other: the one time that they are copied.
fn joined<T: Element + Copy>(
    name: &str,
    layers: &[Bound<'_, PyUntypedArray>],
    axes: &[usize],
    count: usize,
) -> PyResult<Vec<T>> {
    if layers.len() != count {
        return Err(wrong(name, format!("is of {} layers, not of {count}", layers.len())));
    }
    let mut arrays = Vec::new();
    for array in layers {
        if array.shape() != axes {
            return Err(wrong(name, format!("has the shape {:?}, not {axes:?}", array.shape())));
        }
        let aligned = array.getattr("flags")?.getattr("aligned")?.is_truthy()?;
        if !array.is_c_contiguous() || !aligned {
            return Err(wrong(name, "does not lie in C order"));
        }
        let Ok(array) = array.cast::<PyArrayDyn<T>>() else {
            let hint = "readouts are float32, and top_index is int64";
            return Err(wrong_type(name, array.dtype().str()?, hint));
        };
        arrays.push(array.try_readonly()?);
    }
    let mut all = Vec::new();
    all.try_reserve_exact(arrays.iter().map(|array| array.len()).sum()).map_err(|_| {
        PyMemoryError::new_err(format!(
            "{name} does not fit into memory once more\nhint: choose layers or heads"
        ))
    })?;
    for array in &arrays {
        all.extend_from_slice(array.as_slice()?);
    }
    Ok(all)
}
