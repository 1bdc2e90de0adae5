//! The header of a GGUF file: its metadata, and which tensor lies where. A pure function of bytes, so that
//! it can be fuzzed. Nothing is copied that may be long: texts and arrays are ranges of the header.
//!
//! candle has a reader too; this one comes before it because it tells every lie apart, refuses names that
//! come twice and tensors that overlap, and needs no memory for what it does not keep.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use candle_core::quantized::GgmlDType;

use super::header::{shape, shown};

/// What a header says, after it has been found to be consistent with the size of its file.
#[derive(Clone, Debug)]
pub struct GgufHeader {
    /// The metadata by key.
    pub metadata: BTreeMap<String, GgufValue>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, GgufTensor>,
    /// How many bytes the header has, without the padding behind it.
    pub bytes: usize,
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// A whole number of any of the eight integer types.
    Integer(i128),
    /// `f32`; kept apart, because 1e-5 and its nearest `f64` print differently.
    F32(f32),
    /// `f64`
    F64(f64),
    /// `bool`
    Bool(bool),
    /// Where a text lies in the header: UTF-8.
    Text(Range<usize>),
    /// An array of numbers, yes-or-no or texts.
    Array(GgufArray),
}

/// An array of the metadata, where it lies in the header.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufArray {
    /// The type of its elements.
    pub(super) kind: Kind,
    /// How many there are.
    pub len: usize,
    /// Their bytes.
    pub(super) bytes: Range<usize>,
}

/// Where a tensor lies and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// How its numbers are stored.
    pub dtype: GgmlDType,
    /// Its axes, outermost first (a file has them the other way round).
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<u64>,
}

/// The type of a value as a file spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer { bytes: usize, signed: bool },
    F32,
    F64,
    Bool,
    Text,
    Array,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Integer { bytes: 1, signed: false },
            1 => Self::Integer { bytes: 1, signed: true },
            2 => Self::Integer { bytes: 2, signed: false },
            3 => Self::Integer { bytes: 2, signed: true },
            4 => Self::Integer { bytes: 4, signed: false },
            5 => Self::Integer { bytes: 4, signed: true },
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::Integer { bytes: 8, signed: false },
            11 => Self::Integer { bytes: 8, signed: true },
            12 => Self::F64,
            _ => return None,
        })
    }

    /// The least bytes that one value of this kind takes.
    pub(super) fn least(self) -> usize {
        match self {
            Self::Integer { bytes, .. } => bytes,
            Self::Bool => 1,
            Self::F32 => 4,
            Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

/// What a whole number of these little-endian bytes is.
pub(super) fn integer(bytes: &[u8], signed: bool) -> i128 {
    let negative = signed && bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    for (to, &from) in wide.iter_mut().zip(bytes) {
        *to = from;
    }
    i128::from_le_bytes(wide)
}

/// Every way to store numbers that is read, as it stands in a file and as it is called.
const DTYPES: &[(u32, GgmlDType)] = &[
    (0, GgmlDType::F32),
    (1, GgmlDType::F16),
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (9, GgmlDType::Q8_1),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (15, GgmlDType::Q8K),
    (30, GgmlDType::BF16),
];

/// Names of what is not read, so that a refusal says more than a number.
#[rustfmt::skip]
const OTHER_DTYPES: &[(u32, &str)] = &[
    (16, "IQ2_XXS"), (17, "IQ2_XS"), (18, "IQ3_XXS"), (19, "IQ1_S"), (20, "IQ4_NL"), (21, "IQ3_S"),
    (22, "IQ2_S"), (23, "IQ4_XS"), (24, "I8"), (25, "I16"), (26, "I32"), (27, "I64"), (28, "F64"),
    (29, "IQ1_M"), (34, "TQ1_0"), (35, "TQ2_0"), (39, "MXFP4"),
];

/// Reads the header of a file of `file_bytes` bytes, of which `head` are the first ones. `None`: the
/// header goes on behind `head`, and may be sound. Allocates in proportion to `head` only.
///
/// # Errors
/// What is wrong, as the second half of a sentence that begins with the file's name.
pub fn parse_gguf(head: &[u8], file_bytes: u64) -> Result<Option<GgufHeader>, String> {
    match (Reader { head, at: 0, file_bytes }).header() {
        Ok(header) => Ok(Some(header)),
        Err(Stop::Behind) => Ok(None),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

enum Stop {
    /// The next bytes are in the file, but not in the part we have.
    Behind,
    Wrong(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

struct Reader<'a> {
    head: &'a [u8],
    at: usize,
    file_bytes: u64,
}

impl<'a> Reader<'a> {
    /// Bytes of the file that are still to come.
    fn left(&self) -> u64 {
        self.file_bytes.saturating_sub(self.at as u64)
    }

    fn take(&mut self, bytes: u64, of: &dyn Fn() -> String) -> Result<&'a [u8], Stop> {
        if bytes > self.left() {
            let (of, left) = (of(), self.left());
            return Err(Stop::Wrong(format!("is cut off: {of} needs {bytes} bytes, {left} are left")));
        }
        let end = usize::try_from(bytes).ok().and_then(|bytes| self.at.checked_add(bytes));
        let taken = end.and_then(|end| self.head.get(self.at..end)).ok_or(Stop::Behind)?;
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self, of: &dyn Fn() -> String) -> Result<u32, Stop> {
        Ok(integer(self.take(4, of)?, false) as u32)
    }

    fn u64(&mut self, of: &dyn Fn() -> String) -> Result<u64, Stop> {
        Ok(integer(self.take(8, of)?, false) as u64)
    }

    /// A text with its length in front: where it lies.
    fn text(&mut self, of: &dyn Fn() -> String) -> Result<Range<usize>, Stop> {
        let bytes = self.u64(of)?;
        self.take(bytes, of)?;
        Ok(self.at - bytes as usize..self.at)
    }

    fn name(&mut self, of: &'static str) -> Result<String, Stop> {
        let range = self.text(&|| of.to_owned())?;
        let name = std::str::from_utf8(&self.head[range]);
        Ok(name.map_err(|_| format!("has {of} that is not UTF-8 text"))?.to_owned())
    }

    fn header(mut self) -> Result<GgufHeader, Stop> {
        let start = || "the start of a GGUF file".to_owned();
        if self.take(4, &start)? != b"GGUF" {
            return Err(Stop::Wrong("does not begin with the letters GGUF".to_owned()));
        }
        match self.u32(&start)? {
            2 | 3 => {}
            swapped @ (0x0200_0000 | 0x0300_0000) => {
                let version = swapped.swap_bytes();
                return Err(Stop::Wrong(format!(
                    "is a big-endian GGUF file (version {version}), which is not read"
                )));
            }
            version => return Err(Stop::Wrong(format!("has the GGUF version {version}; 2 and 3 are read"))),
        }
        let tensors = self.u64(&start)?;
        let entries = self.u64(&start)?;
        // Each takes at least so many bytes: a lie is told before anything is done about it.
        self.fits(entries, 13, "metadata keys")?;
        self.fits(tensors, 32, "tensors")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = self.name("a metadata key")?;
            let value = self.value(&key)?;
            match metadata.entry(key) {
                Entry::Vacant(free) => free.insert(value),
                Entry::Occupied(taken) => {
                    return Err(Stop::Wrong(format!("has the metadata key {} twice", shown(taken.key()))));
                }
            };
        }
        let alignment = alignment(&metadata)?;
        let mut listed = Vec::new();
        for _ in 0..tensors {
            listed.push(self.tensor()?);
        }
        let bytes = self.at;
        let data_start = (bytes as u64).next_multiple_of(alignment);
        let tensors = placed(listed, data_start, alignment, self.file_bytes)?;
        Ok(GgufHeader { metadata, tensors, bytes })
    }

    fn fits(&self, count: u64, least: u64, what: &str) -> Result<(), Stop> {
        if count > self.left() / least {
            let left = self.left();
            return Err(Stop::Wrong(format!(
                "claims {count} {what}, more than its last {left} bytes can hold"
            )));
        }
        Ok(())
    }

    fn value(&mut self, key: &str) -> Result<GgufValue, Stop> {
        let of = || format!("the metadata key {}", shown(key));
        let kind = self.kind(key)?;
        Ok(match kind {
            Kind::Integer { bytes, signed } => {
                GgufValue::Integer(integer(self.take(bytes as u64, &of)?, signed))
            }
            Kind::F32 => GgufValue::F32(f32::from_bits(self.u32(&of)?)),
            Kind::F64 => GgufValue::F64(f64::from_bits(self.u64(&of)?)),
            Kind::Bool => match self.take(1, &of)? {
                [byte @ (0 | 1)] => GgufValue::Bool(*byte == 1),
                other => {
                    return Err(Stop::Wrong(format!(
                        "has a yes-or-no {} of {other:?}, neither 0 nor 1",
                        shown(key)
                    )));
                }
            },
            Kind::Text => {
                let range = self.text(&of)?;
                if std::str::from_utf8(&self.head[range.clone()]).is_err() {
                    return Err(Stop::Wrong(format!("has a text {} that is not UTF-8", shown(key))));
                }
                GgufValue::Text(range)
            }
            Kind::Array => GgufValue::Array(self.array(key, &of)?),
        })
    }

    fn kind(&mut self, key: &str) -> Result<Kind, Stop> {
        let number = self.u32(&|| format!("the metadata key {}", shown(key)))?;
        let kind = Kind::of(number);
        Ok(kind.ok_or_else(|| format!("gives the metadata key {} the unknown type {number}", shown(key)))?)
    }

    fn array(&mut self, key: &str, of: &dyn Fn() -> String) -> Result<GgufArray, Stop> {
        let kind = self.kind(key)?;
        if kind == Kind::Array {
            // Allowed by the format, used by nobody, and a way to let a reader call itself without end.
            return Err(Stop::Wrong(format!(
                "has arrays inside the array {}, which is not read",
                shown(key)
            )));
        }
        let count = self.u64(of)?;
        self.fits(count, kind.least() as u64, &format!("elements in {}", shown(key)))?;
        let start = self.at;
        if kind == Kind::Text {
            for _ in 0..count {
                self.text(of)?;
            }
        } else {
            self.take(count * kind.least() as u64, of)?;
        }
        Ok(GgufArray { kind, len: count as usize, bytes: start..self.at })
    }

    fn tensor(&mut self) -> Result<(String, Listed), Stop> {
        let name = self.name("a tensor name")?;
        let of = || format!("the tensor {}", shown(&name));
        let axes = self.u32(&of)?;
        if !(1..=4).contains(&axes) {
            return Err(Stop::Wrong(format!(
                "gives the tensor {} {axes} axes; 1 to 4 are allowed",
                shown(&name)
            )));
        }
        let mut shape = Vec::with_capacity(4);
        for _ in 0..axes {
            shape.push(self.u64(&of)?);
        }
        shape.reverse();
        let dtype = self.u32(&of)?;
        let offset = self.u64(&of)?;
        let dtype = match DTYPES.iter().find(|(number, _)| *number == dtype) {
            Some(&(_, dtype)) => dtype,
            None => {
                let known = OTHER_DTYPES.iter().find(|(number, _)| *number == dtype);
                let what = known.map_or_else(|| format!("type {dtype}"), |(_, name)| (*name).to_owned());
                return Err(Stop::Wrong(format!(
                    "has the tensor {} in {what}, which is not read",
                    shown(&name)
                )));
            }
        };
        Ok((name, Listed { dtype, shape, offset }))
    }
}

struct Listed {
    dtype: GgmlDType,
    shape: Vec<u64>,
    offset: u64,
}

impl Listed {
    /// How many bytes the tensor takes, or what is wrong with its shape.
    fn bytes(&self, name: &str) -> Result<u64, String> {
        let name = shown(name);
        let said = shape(&self.shape);
        if self.shape.contains(&0) {
            return Err(format!("gives the tensor {name} the shape {said}, with an axis of 0"));
        }
        let block = self.dtype.block_size() as u64;
        let product = self.shape.iter().try_fold(1u64, |product, &axis| product.checked_mul(axis));
        let bytes = product.and_then(|numbers| (numbers / block).checked_mul(self.dtype.type_size() as u64));
        // Numbers are counted in memory as f32 later: that must fit as well.
        let fits =
            product.and_then(|numbers| numbers.checked_mul(4)).is_some_and(|f32s| f32s <= isize::MAX as u64);
        let bytes = bytes.filter(|_| fits);
        let bytes =
            bytes.ok_or_else(|| format!("gives the tensor {name} a shape whose product overflows"))?;
        if self.shape.last().is_some_and(|row| !row.is_multiple_of(block)) {
            return Err(format!(
                "gives the tensor {name} the shape {said}, whose rows are no whole blocks of {block} ({:?})",
                self.dtype
            ));
        }
        Ok(bytes)
    }
}

fn alignment(metadata: &BTreeMap<String, GgufValue>) -> Result<u64, String> {
    const LARGEST: i128 = 1 << 20;
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(&GgufValue::Integer(n)) if (1..=LARGEST).contains(&n) && n.count_ones() == 1 => Ok(n as u64),
        Some(GgufValue::Integer(n)) => {
            Err(format!("has `general.alignment` {n}, which is no power of two up to 2^20"))
        }
        Some(_) => Err("has a `general.alignment` that is no whole number".to_owned()),
    }
}

/// Checks that every tensor lies in the file, aligned, and on no other one.
fn placed(
    listed: Vec<(String, Listed)>,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<BTreeMap<String, GgufTensor>, String> {
    let room = file_bytes.saturating_sub(data_start);
    let mut ranges = Vec::with_capacity(listed.len());
    let mut tensors = BTreeMap::new();
    for (name, tensor) in listed {
        let bytes = tensor.bytes(&name)?;
        let quoted = shown(&name);
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(format!("has the tensor {quoted} at {}, no multiple of {alignment}", tensor.offset));
        }
        let end = tensor.offset.checked_add(bytes).filter(|end| *end <= room);
        let Some(end) = end else {
            return Err(format!(
                "is cut off, or lies: the tensor {quoted} takes {bytes} bytes from {}, but there are {room}",
                tensor.offset
            ));
        };
        let bytes = data_start + tensor.offset..data_start + end;
        ranges.push((bytes.clone(), name.clone()));
        let axes = tensor.shape.iter().map(|&axis| axis as usize).collect();
        let tensor = GgufTensor { dtype: tensor.dtype, shape: axes, bytes };
        if tensors.insert(name, tensor).is_some() {
            return Err(format!("has the tensor {quoted} twice"));
        }
    }
    ranges.sort_by_key(|(bytes, _)| bytes.start);
    for pair in ranges.windows(2) {
        if let [(before, one), (after, other)] = pair
            && before.end > after.start
        {
            return Err(format!("has overlapping tensors: {} and {}", shown(one), shown(other)));
        }
    }
    Ok(tensors)
}
