//! Safetensors files that lie. Each test is named after its attack; each must end in one sentence with a
//! hint, quickly, without a panic and without memory that the file's bytes do not back.

use std::fs;
use std::path::{Path, PathBuf};

use glasshead::Fault;
use glasshead::weights::{
    ArrayData, Dtype, NewArray, Numbers, Weights, parse_header, read_safetensors, write_safetensors,
};
use tempfile::TempDir;

/// A file with this header length, header and data.
fn file(folder: &TempDir, length: u64, header: &[u8], data: &[u8]) -> PathBuf {
    let path = folder.path().join("hostile.safetensors");
    let bytes: Vec<u8> = length.to_le_bytes().iter().chain(header).chain(data).copied().collect();
    fs::write(&path, bytes).expect("written");
    path
}

/// Refused with a sentence that names the file and has all of these words in it.
fn refused_file(path: &Path, words: &[&str]) {
    let error = read_safetensors(path).expect_err("refused");
    let said = error.to_string();
    assert_eq!(error.fault(), Fault::Request);
    assert!(said.contains("hostile.safetensors"), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains('\n') && said.len() < 700 && !error.hint().is_empty(), "{said}");
    assert!(Weights::open(path).is_err());
}

fn refused(header: &str, data: &[u8], words: &[&str]) {
    let folder = TempDir::new().expect("temporary folder");
    refused_file(&file(&folder, header.len() as u64, header.as_bytes(), data), words);
}

#[test]
fn empty_file() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.safetensors");
    fs::write(&path, b"").expect("written");
    refused_file(&path, &["0 bytes"]);
}

#[test]
fn file_shorter_than_its_header_length() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.safetensors");
    fs::write(&path, b"\x02\0\0").expect("written");
    refused_file(&path, &["3 bytes"]);
}

#[test]
fn header_length_beyond_file() {
    let folder = TempDir::new().expect("temporary folder");
    refused_file(&file(&folder, 1000, b"{}", b""), &["1000", "ends after 2"]);
}

#[test]
fn header_length_huge() {
    let folder = TempDir::new().expect("temporary folder");
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40, 100_000_001] {
        refused_file(&file(&folder, length, b"{}", b""), &["header", "more than"]);
    }
}

#[test]
fn header_not_json() {
    refused("{\"a\":", b"", &["not JSON"]);
    refused("not json", b"", &["not JSON"]);
    refused("", b"", &["not JSON"]);
    refused(&"[".repeat(100_000), b"", &["not"]);
}

#[test]
fn header_not_an_object() {
    refused("[1, 2]", b"", &["does not describe arrays"]);
    refused("{\"a\": 3}", b"", &["does not describe arrays"]);
    refused("{\"a\": {\"dtype\": \"F32\"}}", b"", &["does not describe arrays", "shape"]);
}

#[test]
fn header_not_utf8() {
    let folder = TempDir::new().expect("temporary folder");
    refused_file(&file(&folder, 4, b"{\xff\xfe}", b""), &["UTF-8"]);
}

#[test]
fn dtype_unknown() {
    refused(r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, b"1234", &["`a`", "F33"]);
}

#[test]
fn shape_product_overflow() {
    let header = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#;
    refused(header, b"1234", &["`a`", "overflows"]);
    let header = r#"{"a":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]}}"#;
    refused(header, b"", &["`a`", "overflows"]);
    // One more than 64 bits hold; negative; a fraction.
    for axis in ["18446744073709551616", "-1", "1.5"] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{axis}],"data_offsets":[0,4]}}}}"#);
        refused(&header, b"1234", &["does not describe arrays"]);
    }
}

#[test]
fn shape_larger_than_its_bytes() {
    refused(
        r#"{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4]}}"#,
        b"1234",
        &["`a`", "[1000]", "4000"],
    );
}

#[test]
fn shape_smaller_than_its_bytes() {
    refused(r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#, b"1234", &["`a`", "F16"]);
}

#[test]
fn data_cut_off() {
    refused(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, b"1234", &["cut off", "8", "4"]);
}

#[test]
fn data_promised_but_enormous() {
    let header =
        r#"{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}"#;
    refused(header, b"1234", &["cut off"]);
}

#[test]
fn data_behind_the_last_array() {
    refused(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        b"12345",
        &["behind its last array"],
    );
    refused("{}", b"1", &["behind its last array"]);
}

#[test]
fn offsets_overlapping() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                     "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    refused(header, b"123456789abc", &["overlapping", "`a`", "`b`"]);
}

#[test]
fn offsets_shared() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                     "b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    refused(header, b"1234", &["overlapping"]);
}

#[test]
fn offsets_with_a_gap() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                     "b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;
    refused(header, b"123456789abc", &["4 bytes in front of `b`"]);
}

#[test]
fn offsets_backwards() {
    refused(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        b"1234",
        &["`a`", "end before its start"],
    );
}

#[test]
fn offsets_overflowing() {
    let most = u64::MAX;
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[{},{most}]}}}}"#, most - 1);
    refused(&header, b"1234", &["in front of `a`"]);
}

#[test]
fn names_twice() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                     "a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    refused(header, b"12345678", &["`a` comes twice"]);
}

#[test]
fn name_that_floods_the_terminal() {
    let name = "\\u001b[2J\\n".repeat(5000);
    let header = format!(r#"{{"{name}":{{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}}}"#);
    refused(&header, b"1234", &["F33", "\\u{1b}"]);
}

#[test]
fn metadata_not_text() {
    refused(r#"{"__metadata__":{"a":1}}"#, b"", &["does not describe arrays"]);
}

#[test]
fn bool_byte_other_than_0_and_1() {
    let folder = TempDir::new().expect("temporary folder");
    let header = r#"{"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let path = file(&folder, header.len() as u64, header.as_bytes(), &[0, 1, 2]);
    let error = read_safetensors(&path).expect("well formed").get("mask").expect_err("refused");
    assert!(error.to_string().contains("`mask`") && error.to_string().contains("byte 2"), "{error}");
}

#[test]
fn dtype_that_is_no_weight() {
    let folder = TempDir::new().expect("temporary folder");
    let header = r#"{"w":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#;
    let path = file(&folder, header.len() as u64, header.as_bytes(), &[0; 4]);
    let weights = Weights::open(&path).expect("well formed");
    let error = weights.tensor("w", &[1]).expect_err("refused");
    assert!(error.to_string().contains("`w`") && error.to_string().contains("I32"), "{error}");
    assert!(weights.table("w", [1, 1]).is_err());
    let error = weights.tensor("v", &[1]).expect_err("refused");
    assert!(error.to_string().contains("`v`") && error.hint().contains("`w`"), "{error}");
    let error = weights.tensor("w", &[2, 3]).expect_err("refused");
    assert!(error.to_string().contains("[1]") && error.to_string().contains("[2, 3]"), "{error}");
    assert!(read_safetensors(&path).expect("well formed").get("w").is_err());
}

#[test]
fn missing_file_and_folder_in_its_place() {
    let folder = TempDir::new().expect("temporary folder");
    let missing = read_safetensors(&folder.path().join("no.safetensors")).expect_err("refused");
    assert!(missing.to_string().contains("no.safetensors"), "{missing}");
    let folder = read_safetensors(folder.path()).expect_err("refused");
    assert!(folder.to_string().contains("is a folder"), "{folder}");
}

#[cfg(unix)]
#[test]
fn stream_without_end() {
    // Zeros promise a header of no bytes, which is no JSON: nothing more is read.
    assert!(read_safetensors(Path::new("/dev/zero")).is_err());
}

#[test]
fn any_truncation_of_a_sound_file() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.safetensors");
    write_safetensors(&path, &sample(), &[("a".to_owned(), "b".to_owned())].into()).expect("written");
    let bytes = fs::read(&path).expect("read");
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).expect("written");
        read_safetensors(&path).expect_err("cut off");
    }
}

#[test]
fn any_flipped_bit_of_a_sound_header() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("sound.safetensors");
    write_safetensors(&path, &sample(), &Default::default()).expect("written");
    let bytes = fs::read(&path).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    for bit in 0..length * 8 {
        let mut header = bytes[8..8 + length].to_vec();
        header[bit / 8] ^= 1 << (bit % 8);
        if let Ok(header) = parse_header(&header) {
            assert!(header.arrays.values().all(|info| info.bytes.end <= header.data_bytes));
        }
    }
}

fn sample() -> Vec<NewArray<'static>> {
    let bf16 = half::bf16::from_f32;
    vec![
        NewArray::new("mask", &[3], &ArrayData::Bool(vec![true, false, true])),
        NewArray::new("half", &[1, 2], &ArrayData::F16(vec![half::f16::from_f32(0.5), half::f16::NAN])),
        NewArray::new("wide", &[2], &ArrayData::F64(vec![f64::MIN_POSITIVE, -1.0])),
        NewArray::new("brain", &[3], &ArrayData::Bf16(vec![bf16(1.0), bf16(2.0), bf16(3.0)])),
        NewArray::new("long", &[1], &ArrayData::I64(vec![i64::MIN])),
        NewArray::new("none", &[0, 5], &ArrayData::F32(vec![])),
        NewArray::new("one \"ä\"", &[], &ArrayData::F32(vec![7.0])),
    ]
}

#[test]
fn what_is_written_is_read_again_and_does_not_depend_on_the_order() {
    let folder = TempDir::new().expect("temporary folder");
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let metadata = [("k".to_owned(), "line\nline".to_owned()), ("a".to_owned(), "ä".to_owned())].into();
    let mut arrays = sample();
    write_safetensors(&a, &arrays, &metadata).expect("written");
    arrays.reverse();
    write_safetensors(&b, &arrays, &metadata).expect("written");
    let bytes = fs::read(&a).expect("read");
    assert_eq!(bytes, fs::read(&b).expect("read"));
    let read = read_safetensors(&a).expect("sound");
    assert_eq!(read.metadata(), &metadata);
    assert_eq!(read.list().count(), arrays.len());
    for array in &arrays {
        let (data, shape) = read.get(&array.name).expect("there");
        let Numbers::Bytes(bytes) = &array.numbers else { panic!("{array:?}") };
        assert_eq!((data.dtype(), shape, &data.to_le_bytes()), (array.dtype, &array.shape[..], bytes));
    }
    let other = safetensors::SafeTensors::deserialize(&bytes).expect("other readers agree");
    assert_eq!(other.tensor("long").expect("there").dtype(), Dtype::I64);
}

#[test]
fn writing_refuses_what_it_could_not_read() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("out");
    let number = NewArray::new("a", &[1], &ArrayData::F32(vec![7.0]));
    let twice = write_safetensors(&path, &[number.clone(), number.clone()], &Default::default());
    assert!(twice.expect_err("refused").to_string().contains("twice"));
    let odd = NewArray { shape: vec![2], ..number };
    assert!(write_safetensors(&path, &[odd], &Default::default()).is_err());
    assert!(!path.exists());
}
