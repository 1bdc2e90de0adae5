//! `attention::Read::parse`: any list, any small shape, then the readouts themselves.
//!
//! Checked: a list that is accepted can be read out: every array has as many numbers as its shape says,
//! weights and their sums are never negative, and `top_index` names visible keys or −1.
#![no_main]

use glasshead_attention::{Attention, Causal, Read, Shape, TensorView, Values};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, i8, &str)| {
    let (queries, keys, offset, list) = input;
    let shape = Shape { batch: 1, heads: 2, queries: usize::from(queries % 8), keys: usize::from(keys % 12) };
    let read = match Read::parse(list, &shape) {
        Ok(read) => read,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
    };
    let numbers: Vec<f32> = (0..2 * 12 * 3).map(|n| (n as f32 * 0.7).sin()).collect();
    let view = |tokens| TensorView::contiguous(&numbers, [1, 2, tokens, 3]).expect("fits");
    let (q, k) = (view(shape.queries), view(shape.keys));
    let request = Attention::new(q, k, k).causal(Causal::Offset(offset.into()));
    let seen = request.clone().read(read).run().expect("a list that was accepted can be read out");
    for array in &seen.readouts {
        let count = array.shape.iter().product::<usize>();
        assert_eq!(array.shape[..2], [1, 2]);
        match &array.values {
            Values::F32(values) => {
                assert_eq!(values.len(), count, "{}", array.name);
                let any = array.name == "lse";
                assert!(values.iter().all(|x| any || (x.is_finite() && *x >= 0.0)), "{}", array.name);
            }
            Values::I64(values) => {
                assert_eq!(values.len(), count, "{}", array.name);
                assert!(values.iter().all(|&key| key >= -1 && key < shape.keys as i64));
            }
        }
    }
    let plain = request.run().expect("runs").out;
    assert_eq!(seen.out, plain, "reading changes nothing");
});
