//! What the CPU says of itself. Asked once: the question is slow in a virtual machine.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count},
    sync::OnceLock,
};

/// Whether AMD made it.
pub(super) fn is_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| {
        let leaf = __cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    })
}

/// Bytes of the second cache of a core; 0 where it does not say.
pub(super) fn second_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let (first, leaf) = if is_amd() { (0x8000_0000, 0x8000_001d) } else { (0, 4) };
        if __cpuid(first).eax < leaf {
            return 0;
        }
        // One cache after the other, to an empty one: its kind, level, ways, partitions, line and sets (less 1 each).
        let caches = (0..16).map(|n| __cpuid_count(leaf, n)).take_while(|cache| cache.eax & 31 > 0);
        let field = |register: u32, from: u32, bits: u32| (register >> from & ((1 << bits) - 1)) as usize + 1;
        let bytes = caches.filter(|cache| cache.eax >> 5 & 7 == 2 && cache.eax & 31 != 2).map(|cache| {
            let ways = field(cache.ebx, 22, 10) * field(cache.ebx, 12, 10);
            ways * field(cache.ebx, 0, 12) * (cache.ecx as usize + 1)
        });
        bytes.max().unwrap_or(0)
    })
}
