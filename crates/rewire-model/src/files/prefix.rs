//! Prefixes of tensor names: those that exports and training code add, and those that are refused.

use crate::config::Architecture;
use crate::families::registry::family;
use crate::files::layout;
use crate::weights::weight_name::WeightName;

/// The prefix of the base model in exports of GPT-2's language model. It may be absent.
const BASE: &str = "transformer.";

/// The prefix of the base model in exports of OPT's language model, with the part after it. The
/// prefix may be absent.
const OPT_BASE: [&str; 2] = ["model.", "decoder."];

/// Prefixes of wrapped models: PyTorch's `DataParallel`, and training code that keeps the model in
/// a field.
const WRAPPERS: [&str; 2] = ["module.", "model."];

/// Returns the name that a tensor has in files of a model of text alone, or `None` if the tensor is
/// not of the model of text. Names in other files stay as they are.
pub(crate) fn of_text(architecture: Architecture, name: &str) -> Option<String> {
    let Some(wrapper) = family(architecture).wrapper else { return Some(name.to_owned()) };
    if wrapper.others.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let found = wrapper.prefixes.iter().find_map(|(prefix, own)| Some((own, name.strip_prefix(prefix)?)));
    Some(found.map_or_else(|| name.to_owned(), |(own, rest)| format!("{own}{rest}")))
}

/// Returns a tensor's name without the prefix `transformer.`, and without `model.` before
/// `decoder.`.
pub(crate) fn bare(name: &str) -> &str {
    let [prefix, next] = OPT_BASE;
    match name.strip_prefix(prefix) {
        Some(rest) if rest.starts_with(next) => rest,
        _ => name.strip_prefix(BASE).unwrap_or(name),
    }
}

/// Returns the prefix of a wrapped model, if all names have it and the token embedding has its own
/// name without it.
pub(crate) fn wrapper(architecture: Architecture, names: &[&str]) -> Option<&'static str> {
    let embedding = embedding(architecture);
    if names.iter().any(|name| bare(name) == embedding) {
        return None;
    }
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
        let opt = |names: &[&str]| wrapper(Architecture::Opt, names);
        assert_eq!(opt(&["model.decoder.embed_tokens.weight"]), None);
        assert_eq!(opt(&["module.model.decoder.embed_tokens.weight"]), Some("module."));
    }

    #[test]
    fn only_the_model_of_text_is_read_from_a_model_of_text_and_images() {
        let of = |name: &str| of_text(Architecture::Gemma3, name);
        for (name, own) in [
            ("language_model.model.embed_tokens.weight", "model.embed_tokens.weight"),
            ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("language_model.norm.weight", "model.norm.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("model.norm.weight", "model.norm.weight"),
        ] {
            assert_eq!(of(name).as_deref(), Some(own), "{name}");
        }
        for name in [
            "vision_tower.vision_model.embeddings.patch_embedding.weight",
            "multi_modal_projector.mm_soft_emb_norm.weight",
        ] {
            assert_eq!(of(name), None);
            assert_eq!(of(&format!("model.{name}")), None);
        }
        // Other families have no such models.
        assert_eq!(of_text(Architecture::Gemma2, "vision_tower.x").as_deref(), Some("vision_tower.x"));
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
