//! The headings under which `--help` lists the options of commands.

/// Options for the prompts.
pub(crate) const PROMPTS: &str = "Prompts";
/// Options for the method, the nodes and the metric.
pub(crate) const WHAT: &str = "What to compute";
/// Options that need `--method attribution-patching`.
pub(crate) const ATTRIBUTION: &str = "Attribution patching";
/// Options for circuits of edges.
pub(crate) const CIRCUITS: &str = "Circuits";
/// Options that need `--method logit-attribution`.
pub(crate) const LOGIT_ATTRIBUTION: &str = "Logit attribution";
/// Options that need `--method path-patching`.
pub(crate) const PATHS: &str = "Path patching";
/// Options that need `--method integrated-gradients`.
pub(crate) const INTEGRATED: &str = "Integrated gradients";
/// Options that need `--method ablation` or a mean.
pub(crate) const ABLATION: &str = "Ablation and means";
/// Options for intervals and random choices.
pub(crate) const UNCERTAINTY: &str = "Uncertainty";
/// Options for the model and its tokenizer.
pub(crate) const MODEL: &str = "Model";
/// Options for the device, the precision and the memory.
pub(crate) const COMPUTE: &str = "Compute";
/// Options for the division of a command among processes.
pub(crate) const SHARDS: &str = "Shards";
/// Options for the output directory.
pub(crate) const OUTPUT: &str = "Output";
/// Options for the comparison with TransformerLens.
pub(crate) const PEER: &str = "Comparison with TransformerLens";
