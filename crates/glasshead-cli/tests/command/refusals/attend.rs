//! Bad requests to `attend`: arrays that do not fit, flags that mean nothing.

use std::fs;

use crate::common::desk::{Desk, REQUEST, raw_safetensors, safetensors};
use glasshead::weights::ArrayData;

fn zeros(shape: &[usize]) -> ArrayData {
    ArrayData::F32(vec![0.0; shape.iter().product()])
}

/// q `[1, 4, 3, 8]`, k and v `[1, 2, 5, 8]`, with some of them replaced and others added.
fn attend(desk: &Desk, changed: &[(&'static str, &'static [usize], ArrayData)]) {
    let sound: [(&str, &[usize]); 3] = [("q", &[1, 4, 3, 8]), ("k", &[1, 2, 5, 8]), ("v", &[1, 2, 5, 8])];
    let mut arrays = changed.to_vec();
    for (name, shape) in sound {
        if !changed.iter().any(|(taken, ..)| *taken == name) {
            arrays.push((name, shape, zeros(shape)));
        }
    }
    safetensors(&desk.path().join("in.safetensors"), &arrays);
}

#[test]
fn arrays_that_do_not_fit() {
    let f32s = |name: &'static str, shape: &'static [usize]| (name, shape, zeros(shape));
    let bools =
        |shape: &'static [usize]| ("mask", shape, ArrayData::Bool(vec![true; shape.iter().product()]));
    let lengths =
        |lengths: &[i64], shape: &'static [usize]| ("kv_lengths", shape, ArrayData::I64(lengths.to_vec()));
    for (array, error, hint) in [
        (f32s("q", &[1, 3, 3, 8]), "q: [1, 3, 3, 8]", "shapes"),
        (f32s("q", &[4, 3, 8]), "q has the shape [4, 3, 8]", "four axes"),
        (f32s("q", &[1, 4, 3, 7]), "k: [1, 2, 5, 8]", "shapes"),
        (f32s("q", &[2, 4, 3, 8]), "k: [1, 2, 5, 8]", "shapes"),
        (f32s("k", &[1, 2, 6, 8]), "v: [1, 2, 5, 8]", "shapes"),
        (f32s("v", &[1, 1, 5, 8]), "v: [1, 1, 5, 8]", "shapes"),
        (f32s("v", &[1, 2, 5, 0]), "v: [1, 2, 5, 0]", ""),
        (f32s("k", &[1, 0, 5, 8]), "[1, 0, 5, ", ""),
        (("q", &[1, 4, 3, 8], ArrayData::F64(vec![0.0; 96])), "k is F32 and q is F64", "one dtype"),
        (("q", &[1], ArrayData::I64(vec![0])), "q is I64", "F32"),
        (("v", &[1, 2, 5, 1], ArrayData::Bool(vec![true; 10])), "v is BOOL", "one dtype"),
        (bools(&[6]), "mask: [1, 1, 1, 6]", "last axis"),
        (bools(&[2, 5]), "mask: [1, 1, 2, 5]", "mask"),
        (bools(&[1, 1, 1, 1, 5]), "mask: [1, 1, 1, 1, 5]", "mask"),
        (bools(&[]), "mask: []", "mask"),
        (("mask", &[5], ArrayData::I64(vec![1; 5])), "mask is I64 [5]", "BOOL"),
        (lengths(&[6], &[1]), "kv_lengths 6", "batch"),
        (lengths(&[-1], &[1]), "kv_lengths -1", "batch"),
        (lengths(&[1, 1], &[2]), "kv_lengths: [2]", "batch"),
        (f32s("kv_lengths", &[1]), "kv_lengths is F32 [1]", "I64"),
        (f32s("sinks", &[3]), "sinks: [3]", "per head"),
        (f32s("sinks", &[4, 1]), "sinks is F32 [4, 1]", "F32 [heads of q]"),
        (f32s("alibi_slopes", &[5]), "alibi_slopes: [5]", "per head"),
        (("alibi_slopes", &[4], ArrayData::F64(vec![0.0; 4])), "alibi_slopes is F64", "F32"),
    ] {
        let desk = Desk::new();
        attend(&desk, &[array]);
        desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "out.safetensors"], error, hint);
        desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "out.safetensors"], "in.safetensors: ", "");
    }
}

#[test]
fn arrays_that_are_missing_or_unreadable() {
    let desk = Desk::new();
    let run = &["attend", "in.safetensors", "-o", "out.safetensors"];
    desk.refused(REQUEST, run, "there is no file in.safetensors", "path");
    safetensors(&desk.path().join("in.safetensors"), &[("k", &[1], zeros(&[1]))]);
    desk.refused(REQUEST, run, "no array `q`", "it has `k`");
    safetensors(&desk.path().join("in.safetensors"), &[("q", &[1, 1, 1, 1], zeros(&[1]))]);
    desk.refused(REQUEST, run, "no array `k`", "it has `q`");
    safetensors(&desk.path().join("in.safetensors"), &[]);
    desk.refused(REQUEST, run, "no array `q`", "empty");
    desk.write(
        "in.safetensors",
        raw_safetensors(r#"{"q":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#, 4),
    );
    desk.refused(REQUEST, run, "`q`", "F32");
    desk.write("in.safetensors", "q,k,v\n1,2,3\n");
    desk.refused(REQUEST, run, "in.safetensors", "safetensors file");
    desk.refused(REQUEST, &["attend", ".", "-o", "out.safetensors"], "is a folder", "file");
}

/// Arrays of no numbers may have axes of any length: a file of 300 bytes that asks for terabytes.
#[test]
fn axes_without_end() {
    const HUGE: usize = 1 << 50;
    for (q, k, v, read) in [
        ([1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, HUGE], "lse"),
        ([HUGE, 1, 0, 1], [HUGE, 1, 0, 1], [HUGE, 1, 0, 1], "lse"),
        ([1, HUGE, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], "all"),
    ] {
        let desk = Desk::new();
        let path = desk.path().join("in.safetensors");
        safetensors(&path, &[("q", &q, zeros(&q)), ("k", &k, zeros(&k)), ("v", &v, zeros(&v))]);
        let run = &["attend", "in.safetensors", "-o", "out.safetensors", "--read", read];
        desk.refused(REQUEST, run, "memory", "");
    }
}

#[test]
fn attend_flags() {
    let desk = Desk::new();
    attend(&desk, &[]);
    for (flag, value, error, hint) in [
        ("--causal", "left", "'left'", "--help"),
        ("--causal", "1.5", "'1.5'", "--help"),
        ("--causal", "99999999999999999999", "whole number", "--help"),
        ("--window", "3", "LEFT,RIGHT", "--help"),
        ("--window", "-2,0", "-2", "--help"),
        ("--window", "1,2,3", "2,3", "--help"),
        ("--window", "", "LEFT,RIGHT", "--help"),
        ("--scale", "nan", "--scale", ""),
        ("--scale", "x", "'x'", "--help"),
        ("--softcap", "-1", "--softcap -1", ""),
        ("--softcap", "inf", "--softcap inf", ""),
        ("--threads", "0", "0", "--help"),
        ("--threads", "many", "many", "--help"),
        ("--isa", "sse", "\"sse\"", "--isa"),
        ("--isa", "", "\"\"", "--isa"),
        ("--read", "enropy", "\"enropy\"", "lse,entropy"),
        ("--read", "rows=3", "row 3", "--read"),
        ("--read", "rows=a", "\"a\"", "--read"),
        ("--read", "top", "\"top\"", "--read"),
        ("--read", "top=0", "\"0\"", "--read"),
        ("--read", "top=99999999999", "99999999999", "--read"),
        ("--read", "segments=4:2", "ascend", "--read"),
        ("--read", "segments=6", "past the 5 keys", "--read"),
        ("--read", "blocks=0", "\"0\"", "--read"),
        ("--read", "lse=1", "\"lse=1\"", "--read"),
    ] {
        let flag_and_value = format!("{flag}={value}");
        let run = &["attend", "in.safetensors", "-o", "out.safetensors", &flag_and_value];
        desk.refused(REQUEST, run, error, hint);
    }
    let mut command = desk.glasshead(&["attend", "in.safetensors", "-o", "out.safetensors"]);
    command.env("GLASSHEAD_ISA", "sse");
    desk.refuses(command, REQUEST, "\"sse\"", "GLASSHEAD_ISA");
}

#[test]
fn attend_leaves_the_old_output_as_it_was() {
    let desk = Desk::new();
    attend(&desk, &[]);
    fs::create_dir(desk.path().join("folder")).unwrap();
    desk.write("out.safetensors", "old");
    let out = desk.path().join("out.safetensors");
    desk.refused(
        REQUEST,
        &["attend", "in.safetensors", "-o", "out.safetensors", "--read", "rows=9"],
        "row 9",
        "",
    );
    assert_eq!(fs::read(&out).unwrap(), b"old");
    desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "folder"], "is a folder", "file");
    desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "none/out"], "none/out", "folder");
    desk.done(&["attend", "in.safetensors", "-o", "out.safetensors"]);
    assert_ne!(fs::read(&out).unwrap(), b"old");
}
