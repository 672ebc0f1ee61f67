//! Prefixes of tensor names: those that exports and training code add, and those that are refused.

use crate::config::Architecture;
use crate::files::layout;
use crate::weights::weight_name::WeightName;

/// The prefix of the base model in exports of GPT-2's language model. It may be absent.
const BASE: &str = "transformer.";

/// Prefixes of wrapped models: PyTorch's `DataParallel`, and training code that keeps the model in
/// a field.
const WRAPPERS: [&str; 2] = ["module.", "model."];

/// Returns a tensor's name without the prefix `transformer.`.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_prefix(BASE).unwrap_or(name)
}

/// Returns the prefix of a wrapped model, if all names have it and the token embedding has its own
/// name without it.
pub(crate) fn wrapper(architecture: Architecture, names: &[&str]) -> Option<&'static str> {
    let embedding = embedding(architecture);
    WRAPPERS.into_iter().find(|&prefix| {
        names.iter().all(|name| name.starts_with(prefix))
            && names.iter().any(|name| name.strip_prefix(prefix).is_some_and(|name| bare(name) == embedding))
    })
}

/// Returns the name that the token embedding has in place of its own, and the prefix to remove, or
/// `None` if no name ends as that of the token embedding.
pub(crate) fn foreign(architecture: Architecture, names: &[&str]) -> Option<(String, String)> {
    let embedding = embedding(architecture);
    let found = names.iter().find_map(|name| {
        let prefix = name.strip_suffix(embedding.as_str()).filter(|prefix| prefix.ends_with('.') && *prefix != BASE)?;
        Some((*name, prefix))
    });
    found.map(|(name, prefix)| {
        let prefix = prefix.strip_suffix(BASE).filter(|rest| !rest.is_empty()).unwrap_or(prefix);
        (name.to_owned(), prefix.to_owned())
    })
}

fn embedding(architecture: Architecture) -> String {
    layout::file_name(architecture, WeightName::WE, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefixes_of_wrapped_models_are_removed() {
        let gpt2 = |names: &[&str]| wrapper(Architecture::Gpt2, names);
        assert_eq!(gpt2(&["wte.weight", "wpe.weight"]), None);
        assert_eq!(gpt2(&["transformer.wte.weight", "lm_head.weight"]), None);
        assert_eq!(gpt2(&["module.wte.weight", "module.wpe.weight"]), Some("module."));
        assert_eq!(gpt2(&["module.lm_head.weight", "module.transformer.wte.weight"]), Some("module."));
        assert_eq!(gpt2(&["model.transformer.wte.weight"]), Some("model."));
        assert_eq!(gpt2(&["module.wte.weight", "step"]), None);
        assert_eq!(gpt2(&["module.other"]), None);
        assert_eq!(gpt2(&["net.wte.weight"]), None);
        assert_eq!(wrapper(Architecture::GptNeoX, &["module.gpt_neox.embed_in.weight"]), Some("module."));
    }

    #[test]
    fn other_prefixes_are_named() {
        let of = |name: &str| foreign(Architecture::Gpt2, &["step", name]).map(|(_, prefix)| prefix);
        assert_eq!(of("net.wte.weight").as_deref(), Some("net."));
        assert_eq!(of("transformer.transformer.wte.weight").as_deref(), Some("transformer."));
        assert_eq!(of("module.transformer.wte.weight").as_deref(), Some("module."));
        assert_eq!(of("wte.weight"), None);
        assert_eq!(of("transformer.wte.weight"), None);
        assert_eq!(of("newte.weight"), None);
    }
}
