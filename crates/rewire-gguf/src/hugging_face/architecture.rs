//! The architectures whose files are converted.

use rewire_input::{did_you_mean, quoted};

use crate::error::GgufError;
use crate::read::file::Gguf;

/// The architecture of a model, by its name in `general.architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Gpt2,
    Llama,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
}

const NAMES: [(&str, Architecture); 6] = [
    ("gpt2", Architecture::Gpt2),
    ("llama", Architecture::Llama),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("gemma2", Architecture::Gemma2),
    ("gemma3", Architecture::Gemma3),
];

impl Architecture {
    /// Returns the architecture of a file with a whole model.
    pub(crate) fn of(file: &Gguf<'_>) -> Result<Self, GgufError> {
        let metadata = file.metadata();
        let known = NAMES.map(|(name, _)| name);
        let given = metadata.architecture()?;
        let Some((_, architecture)) = NAMES.into_iter().find(|(name, _)| *name == given) else {
            let suggested = did_you_mean(given, known);
            let reason = format!("{} is not supported; Rewire reads {}{suggested}", quoted(given), known.join(", "));
            return Err(metadata.refuse("general.architecture", reason));
        };
        if let Some(other) = metadata.text("general.type")?.filter(|kind| *kind != "model") {
            let reason = format!("the file holds {}, not a model; give the file of the model", quoted(other));
            return Err(metadata.refuse("general.type", reason));
        }
        if let Some(parts) = metadata.whole("split.count")?.filter(|parts| *parts > 1) {
            let reason = format!("the file is one of {parts} parts; join them with `llama-gguf-split --merge`");
            return Err(metadata.refuse("split.count", reason));
        }
        match metadata.whole("general.quantization_version")? {
            None | Some(2) => Ok(architecture),
            Some(other) => Err(metadata.refuse(
                "general.quantization_version",
                format!("it is {other}, and Rewire reads quantized values of version 2"),
            )),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_architectures_is_in_the_order_of_the_architectures() {
        for (index, (name, architecture)) in NAMES.into_iter().enumerate() {
            assert_eq!(architecture as usize, index, "{name}");
        }
    }
}
