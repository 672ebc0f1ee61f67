//! All families. A new one is added here.

use crate::config::Architecture;
use crate::families::family::Family;
use crate::families::gemma2::GEMMA2;
use crate::families::gemma3::GEMMA3;
use crate::families::gpt_neo::GPT_NEO;
use crate::families::gpt2::GPT2;
use crate::families::gptj::GPTJ;
use crate::families::llama::LLAMA;
use crate::families::mistral::MISTRAL;
use crate::families::neox::NEOX;
use crate::families::olmo2::OLMO2;
use crate::families::opt::OPT;
use crate::families::phi3::PHI3;
use crate::families::qwen2::QWEN2;
use crate::families::qwen3::QWEN3;
use crate::families::smollm3::SMOLLM3;

/// The supported families.
pub(crate) const FAMILIES: [&Family; 14] =
    [&GPT2, &NEOX, &LLAMA, &MISTRAL, &QWEN2, &QWEN3, &GEMMA2, &GEMMA3, &OLMO2, &SMOLLM3, &PHI3, &GPTJ, &GPT_NEO, &OPT];

/// Returns the family of an architecture.
pub(crate) fn family(architecture: Architecture) -> &'static Family {
    let found = FAMILIES.into_iter().find(|family| family.architecture == architecture);
    found.expect("every architecture has a family")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TransformerConfig;

    #[test]
    fn every_family_reads_back_what_it_writes() {
        assert_eq!(FAMILIES.map(|family| family.architecture), Architecture::ALL);
        for family in FAMILIES {
            let config = TransformerConfig::tiny(family.architecture);
            let json = config.to_hugging_face();
            assert_eq!(json["model_type"], family.model_type);
            assert_eq!(TransformerConfig::from_json(json.to_string().as_bytes()), Ok(config));
        }
    }
}
