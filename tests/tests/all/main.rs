//! The tests that span several crates, except those in float64, in one program, so that code
//! generic over the backend is compiled once.

/// Runs properties in float32, with the first number of cases.
macro_rules! in_this_precision {
    ($properties:ident, $float32:literal, $float64:literal) => {
        $properties!(float32, burn::backend::Flex, $float32);
    };
}

#[path = "../properties/mod.rs"]
mod properties;

mod ablation_cases;
mod ablation_parity;
mod causes;
mod checkpoints;
mod config_fields;
mod corpus;
mod damaged_input;
mod devices;
mod edge_circuit_parity;
mod edge_parity;
mod families;
mod gguf;
mod gpt2_tokenizer;
mod guide;
mod heads;
mod hooks;
mod hub;
mod imports;
mod integrated;
mod loading;
mod metric_parity;
mod notation;
mod panels;
mod parity;
mod path_cases;
mod path_parity;
mod precision;
mod prose;
mod stored;
mod sweep_cases;
mod tidy;
mod toy;
mod vanishing;
mod vocabulary;
mod zeros;
