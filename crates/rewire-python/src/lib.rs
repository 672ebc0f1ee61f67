//! The native part of the Python package `rewire`.
//!
//! Python calls these functions through the modules in `python/rewire`, which hold the classes, the
//! docstrings and the types that users see. This crate converts arguments and results, and runs
//! the engine without Python's global lock. It adds no method of its own.
#![forbid(unsafe_code)]

mod analyses;
mod arrays;
mod circuits;
mod edges;
mod estimates;
mod exact;
mod failure;
mod head_edges;
mod hooks;
mod kept;
mod metric;
mod model;
mod nodes;
mod outcome;
mod pairs;
mod report;
mod studies;
mod work;

use pyo3::prelude::*;

// Analyses allocate and free large tensors all the time, as in the binary `rewire`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The module `rewire._rewire`.
#[pymodule]
fn _rewire(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<pairs::Pairs>()?;
    module.add_function(wrap_pyfunction!(exact::activation_patching, module)?)?;
    module.add_function(wrap_pyfunction!(exact::path_patching, module)?)?;
    module.add_function(wrap_pyfunction!(exact::ablation, module)?)?;
    module.add_function(wrap_pyfunction!(exact::logit_attribution, module)?)?;
    module.add_function(wrap_pyfunction!(estimates::attribution_patching, module)?)?;
    module.add_function(wrap_pyfunction!(estimates::screen_then_verify, module)?)?;
    module.add_function(wrap_pyfunction!(estimates::integrated_gradients, module)?)?;
    module.add_function(wrap_pyfunction!(edges::edge_effects, module)?)?;
    module.add_function(wrap_pyfunction!(head_edges::head_edges, module)?)?;
    module.add_function(wrap_pyfunction!(head_edges::head_edge_patching, module)?)?;
    module.add_function(wrap_pyfunction!(circuits::find_circuit, module)?)?;
    module.add_function(wrap_pyfunction!(circuits::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(circuits::read_circuit, module)?)?;
    module.add_function(wrap_pyfunction!(circuits::write_circuit, module)?)?;
    module.add_function(wrap_pyfunction!(studies::reproduce_ioi, module)?)?;
    module.add_function(wrap_pyfunction!(studies::reproduce_ig, module)?)?;
    module.add_function(wrap_pyfunction!(studies::reproduce_pythia, module)?)?;
    module.add_function(wrap_pyfunction!(studies::reproduce_facts, module)?)?;
    module.add_function(wrap_pyfunction!(report::report, module)?)?;
    Ok(())
}
