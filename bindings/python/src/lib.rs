//! `glasshead._native`: the engine as Python sees it. NumPy arrays come in where they lie and go out as they are;
//! what the package is to its users stands in `python/glasshead`.

mod attend;
#[allow(unsafe_code)]
mod borrow;
mod errors;
mod mask;
mod merge;
mod options;
mod page;
mod read;
mod threads;

/// The engine behind the package `glasshead`. For arrays and options that the package has looked at.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::attend::{attention, backward};
    #[pymodule_export]
    use crate::merge::{adds_up_queries, merge, shares};
    #[pymodule_export]
    use crate::page::page;
    #[pymodule_export]
    use crate::threads::{get_num_threads, set_num_threads};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
