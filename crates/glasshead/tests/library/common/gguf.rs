//! Writes GGUF files for tests: sound ones, and ones that lie where a test wants them to.

/// A tensor as it stands in the list of a header.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    /// Outermost first, as everywhere but in the files.
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: u32,
    pub(crate) offset: u64,
}

/// A file in pieces; `bytes` puts them together and believes everything.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) key_count: Option<u64>,
    pub(crate) keys: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) tensors: Vec<Listed>,
    pub(crate) data: Vec<u8>,
    pub(crate) alignment: u64,
}

impl Default for File {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
            alignment: 32,
        }
    }
}

pub(crate) const F32: u32 = 0;
pub(crate) const Q4_1: u32 = 3;
pub(crate) const Q8_0: u32 = 8;

impl File {
    /// A key with a value: its type and its bytes.
    pub(crate) fn key(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.keys.push((key.into(), [&kind.to_le_bytes()[..], bytes].concat()));
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        let bytes = string(value.as_bytes());
        self.key(key, 8, &bytes)
    }

    pub(crate) fn count(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn number(self, key: &str, value: f32) -> Self {
        self.key(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.key(key, 7, &[u8::from(value)])
    }

    pub(crate) fn texts(self, key: &str, values: &[&str]) -> Self {
        let values: Vec<u8> = values.iter().flat_map(|value| string(value.as_bytes())).collect();
        let count = values_len(&values);
        self.array(key, 8, count, &values)
    }

    pub(crate) fn array(self, key: &str, kind: u32, count: u64, bytes: &[u8]) -> Self {
        let bytes = [&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat();
        self.key(key, 9, &bytes)
    }

    /// A tensor with its bytes, behind those before.
    pub(crate) fn tensor(mut self, name: &str, shape: &[u64], dtype: u32, bytes: &[u8]) -> Self {
        while !(self.data.len() as u64).is_multiple_of(self.alignment) {
            self.data.push(0);
        }
        let offset = self.data.len() as u64;
        self.tensors.push(Listed { name: name.into(), shape: shape.to_vec(), dtype, offset });
        self.data.extend(bytes);
        self
    }

    pub(crate) fn f32(self, name: &str, shape: &[u64], numbers: &[f32]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensor(name, shape, F32, &bytes)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(string(key));
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|axis| out.extend(axis.to_le_bytes()));
            out.extend(tensor.dtype.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        if self.alignment > 0 {
            while !(out.len() as u64).is_multiple_of(self.alignment) {
                out.push(0);
            }
        }
        out.extend(&self.data);
        out
    }
}

/// A text with its length in front.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

fn values_len(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        bytes = &rest[u64::from_le_bytes(*length) as usize..];
        count += 1;
    }
    count
}
