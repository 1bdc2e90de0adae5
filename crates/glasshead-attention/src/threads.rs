//! The one place that knows whether there are threads.

/// Calls `work(state, index, chunk)` for every chunk of `values`, in any order, on the caller's rayon
/// pool; `init` makes one state per run of chunks. Chunks are independent, so threads change no bit.
pub(crate) fn for_each_chunk<T: Send, S>(
    values: &mut [T],
    len: usize,
    init: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, usize, &mut [T]) + Send + Sync,
) {
    if values.is_empty() || len == 0 {
        return;
    }
    #[cfg(feature = "rayon")]
    {
        use rayon::prelude::*;
        values
            .par_chunks_mut(len)
            .enumerate()
            .for_each_init(init, |state, (index, chunk)| work(state, index, chunk));
    }
    #[cfg(not(feature = "rayon"))]
    {
        let mut state = init();
        for (index, chunk) in values.chunks_mut(len).enumerate() {
            work(&mut state, index, chunk);
        }
    }
}

/// Calls `work` for every task: on the caller's pool if it is worth to `spread` them, else one after the other.
pub(crate) fn for_each<T: Send>(tasks: &mut [T], spread: bool, work: impl Fn(&mut T) + Send + Sync) {
    #[cfg(feature = "rayon")]
    if spread && tasks.len() > 1 {
        use rayon::prelude::*;
        tasks.par_iter_mut().with_max_len(1).for_each(work);
        return;
    }
    let _ = spread;
    tasks.iter_mut().for_each(work);
}

/// How many threads the caller's pool has.
pub(crate) fn count() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    return 1;
}

/// Runs `work` on every thread of the pool at once, and waits for all.
pub(crate) fn on_each(work: impl Fn() + Sync) {
    #[cfg(feature = "rayon")]
    rayon::broadcast(|_| work());
    #[cfg(not(feature = "rayon"))]
    work();
}
