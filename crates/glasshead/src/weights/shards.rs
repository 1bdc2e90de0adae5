//! A checkpoint that is split over several safetensors files, and the index that says which tensor is where.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::arrays::{ArrayInfo, Arrays, read_safetensors};
use super::files::read_small;
use super::header::shown;
use crate::{Error, Result};

/// The name of the index, as every program that writes such checkpoints calls it.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The largest index we read, in bytes; those of the largest models are near 10 MB.
const LARGEST_INDEX: u64 = 64 << 20;

/// The files of a split checkpoint, and which of them has which tensor.
#[derive(Debug)]
pub(super) struct Shards {
    path: PathBuf,
    /// In the order of their names, which is the order of their numbers.
    files: Vec<Arc<Arrays>>,
    places: BTreeMap<String, usize>,
}

impl Shards {
    /// Reads the index at `path` and every file that it names, which must lie beside it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = read_small(path, LARGEST_INDEX)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|cause| {
            let cause: String = cause.to_string().chars().take(160).flat_map(char::escape_debug).collect();
            refused(path, &format!("is not the index of a split checkpoint: {cause}"))
        })?;
        let map = index.weight_map.0;
        let names: BTreeSet<&str> = map.values().map(String::as_str).collect();
        // All are judged before one is read.
        if let Some(odd) = names.iter().find(|name| !plain(name)) {
            let what = format!("names the file {}; only .safetensors files beside it are read", shown(odd));
            return Err(refused(path, &what));
        }
        if names.is_empty() {
            return Err(refused(path, "names no tensor"));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let files = names.iter().map(|name| {
            let shard = folder.join(name);
            if !shard.exists() {
                return Err(refused(path, &format!("names the file {}, which is not there", shown(name))));
            }
            Ok(Arc::new(read_safetensors(&shard)?))
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let order: BTreeMap<&str, usize> = names.iter().copied().zip(0..).collect();
        let mut places = BTreeMap::new();
        for (tensor, file) in &map {
            let place = order.get(file.as_str()).copied().unwrap_or(0);
            if files.get(place).is_none_or(|arrays| arrays.info(tensor).is_none()) {
                let what =
                    format!("says that the tensor {} is in {}, but it is not", shown(tensor), shown(file));
                return Err(refused(path, &what));
            }
            places.insert(tensor.clone(), place);
        }
        Ok(Self { path: path.to_owned(), files, places })
    }

    /// The index.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files, in the order of their names.
    pub(super) fn files(&self) -> &[Arc<Arrays>] {
        &self.files
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The file that has this tensor, and what it is there.
    pub(super) fn find(&self, name: &str) -> Option<(&Arc<Arrays>, &ArrayInfo)> {
        let file = self.files.get(*self.places.get(name)?)?;
        Some((file, file.info(name)?))
    }
}

/// A file's own name and nothing that leads elsewhere: no folder, no drive, no parent.
fn plain(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0']) && !name.starts_with('.')
}

fn refused(path: &Path, what: &str) -> Error {
    Error::request(
        format!("{} {what}", path.display()),
        "check that all parts of the model were downloaded, and that the index belongs to them",
    )
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensor → file; a tensor that is listed twice is an error, as in a safetensors header.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the file of each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut names = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    match names.entry(name) {
                        Entry::Vacant(free) => free.insert(map.next_value()?),
                        Entry::Occupied(taken) => {
                            let name = shown(taken.key());
                            return Err(A::Error::custom(format!("the tensor {name} comes twice")));
                        }
                    };
                }
                Ok(WeightMap(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}
