//! All tests that span several crates, in one program, so that code generic over the backend is
//! compiled once.

mod ablation;
mod causes;
mod checkpoints;
mod config_fields;
mod corpus;
mod damaged_input;
mod devices;
mod families;
mod gguf;
mod gpt2_tokenizer;
mod gradients;
mod guide;
mod heads;
mod hooks;
mod hub;
mod identities;
mod imports;
mod integrated;
mod loading;
mod metric_parity;
mod metrics;
mod notation;
mod parity;
mod path_cases;
mod paths;
mod precision;
mod prose;
mod sweep_cases;
mod sweeps;
mod tidy;
mod toy;
mod vanishing;
mod vocabulary;
mod zeros;
