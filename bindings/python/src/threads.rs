//! The threads that compute: pools of our own, because those of a process do not live on in one that it forks.
//!
//! Python's main thread computes itself, as one of its pool: to hand a small attention over, and to be woken when it is
//! done, takes as long as the attention. rayon lets a thread be in one pool for ever, so other threads, a child, and the
//! main thread after its number of threads was changed, hand their work over.

use std::{
    mem, process,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// They are locked only while the GIL is held, and a fork holds the GIL: no child starts with a lock that nobody will
/// open.
static POOLS: Mutex<Pools> = Mutex::new(Pools { process: 0, wanted: 0, home: Home::Open, others: None });

/// The pools of a process.
struct Pools {
    /// Whose threads they hold.
    process: u32,
    /// How many threads are to compute; 0: nobody has said.
    wanted: usize,
    home: Home,
    /// For everybody who is in no pool.
    others: Option<Arc<ThreadPool>>,
}

/// The pool that the main thread is in.
enum Home {
    /// The main thread has not come yet.
    Open,
    Of {
        owner: ThreadId,
        threads: usize,
        pool: Arc<ThreadPool>,
    },
    /// The main thread is in the pool of the process that was forked.
    Never,
}

impl Pools {
    /// Those of this process, forked or not.
    fn here(&mut self) {
        let (before, now) = (self.process, process::id());
        if before != now {
            self.process = now;
            // The threads of the parent are not here: to end them would be to wait for them.
            mem::forget(self.others.take());
            if let Home::Of { .. } = self.home {
                mem::forget(mem::replace(&mut self.home, Home::Never));
            }
        }
    }

    /// How many threads compute: what was said, or as rayon counts them.
    fn threads(&self) -> usize {
        // To ask the system takes longer than a small attention.
        static USUAL: OnceLock<usize> = OnceLock::new();
        let said = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|threads| *threads > 0);
        let usual = || said().unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
        if self.wanted == 0 { *USUAL.get_or_init(usual) } else { self.wanted }
    }

    fn pool(&mut self, main: bool) -> PyResult<Arc<ThreadPool>> {
        self.here();
        let (here, wanted) = (thread::current().id(), self.threads());
        if matches!(self.home, Home::Open) && main {
            let pool = Arc::new(start(wanted, ThreadPoolBuilder::use_current_thread)?);
            self.home = Home::Of { owner: here, threads: wanted, pool };
        }
        match &self.home {
            Home::Of { owner, threads, pool } if *owner == here && *threads == wanted => Ok(pool.clone()),
            _ => match &self.others {
                Some(pool) => Ok(pool.clone()),
                None => Ok(self.others.insert(Arc::new(start(wanted, |others| others)?)).clone()),
            },
        }
    }
}

/// The allocator of Linux gives large pieces back to the system as soon as they are freed, and every output would pay
/// for fresh pages, up to a fifth of the time; one piece of the largest size that it reuses, freed once, teaches it to
/// keep them, as any large tensor of the process would.
fn keep_freed_memory() {
    /// A little less than the 32 MiB above which it never keeps any (mallopt(3), `M_MMAP_THRESHOLD`).
    const LARGEST: usize = (32 << 20) - (64 << 10);
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST)));
}

fn start(threads: usize, how: fn(ThreadPoolBuilder) -> ThreadPoolBuilder) -> PyResult<ThreadPool> {
    keep_freed_memory();
    let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("glasshead-{at}"));
    how(builder).build().map_err(|error| {
        PyRuntimeError::new_err(format!("{threads} threads cannot be started: {error}\nhint: ask for fewer"))
    })
}

/// Whether this is Python's main thread, which lives as long as the process.
fn is_main(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    Ok(threading.call_method0("main_thread")?.is(&threading.call_method0("current_thread")?))
}

/// The pool for this thread; started at its first call.
fn pool(py: Python<'_>) -> PyResult<Arc<ThreadPool>> {
    // Python may let another thread run while it is asked: not with the lock in hand.
    let main = matches!(pools().home, Home::Open) && is_main(py)?;
    pools().pool(main)
}

/// Computes with all threads, the GIL released.
pub(crate) fn compute<R: Send>(py: Python<'_>, work: impl FnOnce() -> R + Send) -> PyResult<R> {
    let pool = pool(py)?;
    Ok(py.detach(|| {
        let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = pool.install(work);
        if pool.current_num_threads() > 1 {
            pool.spawn(move || stay_awake(call));
        }
        answer
    }))
}

/// How often somebody has computed.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Keeps a thread from falling asleep until somebody computes again, for as long as it would take to wake it twice:
/// Python needs some ten microseconds from one call to the next, and a layer of a small model not many more.
fn stay_awake(call: usize) {
    const AWAKE: Duration = Duration::from_micros(50);
    let start = Instant::now();
    while CALLS.load(Ordering::Relaxed) == call && start.elapsed() < AWAKE {
        thread::yield_now();
    }
}

fn pools() -> MutexGuard<'static, Pools> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads compute.
#[pyfunction]
pub(crate) fn get_num_threads(_py: Python<'_>) -> usize {
    pools().threads()
}

/// Sets how many threads compute, in this process and for all callers; what is being computed ends as it began.
/// Small attentions are fastest where this is said before the first.
#[pyfunction]
pub(crate) fn set_num_threads(_py: Python<'_>, threads: u16) -> PyResult<()> {
    if threads == 0 {
        return Err(pyo3::exceptions::PyValueError::new_err("threads is 0\nhint: at least one computes"));
    }
    let mut pools = pools();
    pools.here();
    if pools.threads() != usize::from(threads) {
        pools.others = None;
    }
    pools.wanted = threads.into();
    Ok(())
}
