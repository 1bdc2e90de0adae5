//! `weights::parse_header`, any bytes.
//!
//! Checked: what is accepted describes arrays that lie one behind the other from 0 to `data_bytes`, each as
//! long as its shape and dtype say, in a header that the safetensors crate accepts as well. What is refused
//! is refused in one line.
#![no_main]

use glasshead::weights::parse_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let header = match parse_header(json) {
        Ok(header) => header,
        Err(what) => return assert!(!what.is_empty() && !what.contains('\n') && what.len() < 2000, "{what}"),
    };
    let mut arrays: Vec<_> = header.arrays.values().collect();
    arrays.sort_by_key(|info| (info.bytes.start, info.bytes.end));
    let mut end = 0;
    for info in arrays {
        assert_eq!(info.bytes.start, end);
        end = info.bytes.end;
        let bits =
            info.shape.iter().map(|&axis| axis as u128).product::<u128>() * info.dtype.bitsize() as u128;
        assert_eq!(bits, 8 * (info.bytes.len() as u128));
    }
    assert_eq!(end, header.data_bytes);
    if header.data_bytes < 1 << 20 {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json);
        file.resize(file.len() + header.data_bytes, 0);
        let other = safetensors::SafeTensors::deserialize(&file).expect("the crate reads it too");
        assert_eq!(other.len(), header.arrays.len());
    }
});
