//! The threads that compute: a pool of our own, because those of a process do not live on in one that it forks.

use std::{
    process,
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The pool, and the process whose threads it holds. It is locked only while the GIL is held, and a fork holds the
/// GIL: no child starts with a lock that nobody will open.
static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// The pool of this process; started at the first call.
pub(crate) fn pool(_held: Python<'_>) -> PyResult<Arc<ThreadPool>> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match &*pool {
        Some((process, threads)) if *process == process::id() => Ok(threads.clone()),
        _ => replace(&mut pool, 0),
    }
}

fn replace(pool: &mut Option<(u32, Arc<ThreadPool>)>, threads: usize) -> PyResult<Arc<ThreadPool>> {
    let name = |at| format!("glasshead-{at}");
    let started = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
    let started = Arc::new(started.map_err(|error| {
        PyRuntimeError::new_err(format!("{threads} threads cannot be started: {error}\nhint: ask for fewer"))
    })?);
    match pool.replace((process::id(), started.clone())) {
        // The threads of the parent are not here: to end them would be to wait for them.
        Some((process, forked)) if process != process::id() => std::mem::forget(forked),
        _ => {}
    }
    Ok(started)
}

/// How many threads compute.
#[pyfunction]
pub(crate) fn get_num_threads(py: Python<'_>) -> PyResult<usize> {
    Ok(pool(py)?.current_num_threads())
}

/// Sets how many threads compute, in this process and for all callers; what is being computed ends as it began.
#[pyfunction]
pub(crate) fn set_num_threads(_py: Python<'_>, threads: u16) -> PyResult<()> {
    if threads == 0 {
        return Err(pyo3::exceptions::PyValueError::new_err("threads is 0\nhint: at least one computes"));
    }
    replace(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner), threads.into()).map(drop)
}
