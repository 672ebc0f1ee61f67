//! The tests in float64, in which computations that differ by rounding agree. They are a program of
//! their own because burn has one floating-point type for each device of a process.

/// Runs properties in float64, with the second number of cases.
macro_rules! in_this_precision {
    ($properties:ident, $float32:literal, $float64:literal) => {
        $properties!(float64, burn_ndarray::NdArray<f64>, $float64);
    };
}

#[path = "../properties/mod.rs"]
mod properties;

mod atp_star;
mod backward_rules;
mod circuits;
mod direct;
mod edge_effects;
mod gradients;
mod head_edges;
mod metrics;
