//! `weights::read_safetensors` of a file of any bytes, then every array in it.
//!
//! Checked: the safetensors crate reads the same bytes for every array; typed numbers go back to these
//! bytes; what is written by `write_safetensors` is read again as it was.
#![no_main]

use std::fs;

use glasshead::weights::{NewArray, Numbers, read_safetensors, write_safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("in.safetensors");
    fs::write(&path, bytes).expect("written");
    let arrays = match read_safetensors(&path) {
        Ok(arrays) => arrays,
        Err(error) => return assert!(!error.to_string().contains('\n') && !error.hint().is_empty()),
    };
    let other = safetensors::SafeTensors::deserialize(bytes).expect("the crate reads it too");
    let mut copies = Vec::new();
    for (name, info) in arrays.list() {
        assert_eq!(arrays.raw(info), other.tensor(name).expect("there").data());
        let Ok((data, shape)) = arrays.get(name) else { continue };
        assert_eq!(data.to_le_bytes(), arrays.raw(info));
        copies.push(NewArray::new(name.to_owned(), shape, &data));
    }
    let path = folder.path().join("out.safetensors");
    write_safetensors(&path, &copies, arrays.metadata()).expect("written");
    let again = read_safetensors(&path).expect("what was written is sound");
    assert_eq!(again.metadata(), arrays.metadata());
    assert_eq!(again.list().count(), copies.len());
    for copy in &copies {
        let info = again.info(&copy.name).expect("there");
        let Numbers::Bytes(bytes) = &copy.numbers else { panic!("a copy is bytes") };
        assert_eq!((info.dtype, &info.shape, again.raw(info)), (copy.dtype, &copy.shape, &bytes[..]));
    }
});
