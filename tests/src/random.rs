//! Random small models and prompt pairs, for properties that hold on all of them.

use proptest::prelude::*;
use rewire_model::{
    Activation, Architecture, Positions, QueryKeyNorms, RotaryScaling, SlidingWindow, TransformerConfig,
};
use rewire_tasks::{PromptPair, PromptPairs, WholeAnswers};

/// Draws a transformer configuration of any family without norms after attention and MLP and with a
/// smooth activation function, with 1 to 4 layers and at least 8 dimensions. In 4 dimensions a
/// norm's variance can be so small that it magnifies float32 rounding: the worst of 160 models with
/// 4 dimensions had 1.75 times the tolerance of [`rounding`], the worst of 800 with 8 to 24
/// dimensions 0.2 times. In float64 both engines agreed exactly.
///
/// [`rounding`]: crate::compare::rounding
pub fn any_config() -> impl Strategy<Value = TransformerConfig> {
    of_families(&[
        Architecture::Gpt2,
        Architecture::GptNeoX,
        Architecture::Llama,
        Architecture::Mistral,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::SmolLm3,
        Architecture::Phi3,
        Architecture::GptJ,
        Architecture::GptNeo,
    ])
}

/// Draws a transformer configuration of any family, as [`any_config`], for properties that also
/// hold with norms after attention and MLP and with ReLU.
pub fn any_family() -> impl Strategy<Value = TransformerConfig> {
    of_families(&Architecture::ALL)
}

fn of_families(families: &'static [Architecture]) -> impl Strategy<Value = TransformerConfig> {
    let sizes = (1_usize..=4, 1_usize..=3, 1_usize..=2, 1_usize..=2);
    (prop::sample::select(families), sizes, 0_usize..=2, any::<bool>()).prop_map(
        |(family, (layers, heads, width, sharing), variant, flag)| {
            let d_model = (heads * 4 * width).max(8);
            match family {
                Architecture::Gpt2 => TransformerConfig {
                    scores_by_inverse_layer: flag,
                    ..TransformerConfig::gpt2(layers, heads, d_model, 17, 12)
                },
                Architecture::GptNeoX => TransformerConfig {
                    positions: Positions::Rotary { dims: 2 * variant, base: 10_000.0 },
                    parallel_block: variant != 2,
                    ..TransformerConfig::neox(layers, heads, d_model, 17, 12)
                },
                Architecture::GptJ => TransformerConfig {
                    positions: Positions::Rotary { dims: 2 * variant, base: 10_000.0 },
                    tied_unembedding: flag,
                    ..TransformerConfig::gptj(layers, heads, d_model, 17, 12)
                },
                Architecture::GptNeo => TransformerConfig {
                    architecture: Architecture::GptNeo,
                    sliding_window: window(1 + variant, (1..layers).step_by(2).collect()),
                    // The family does not divide scores. Those of random weights would be so large
                    // that patterns are 0 or 1.
                    score_scalar: Some(4.0),
                    attention_input_bias: false,
                    tied_unembedding: flag,
                    ..TransformerConfig::gpt2(layers, heads, d_model, 17, 12)
                },
                Architecture::Opt => TransformerConfig {
                    architecture: Architecture::Opt,
                    activation: Activation::Relu,
                    attention_bias: flag,
                    mlp_bias: flag,
                    ..TransformerConfig::gpt2(layers, heads, d_model, 17, 12)
                },
                family => like_llama(family, [layers, heads, sharing], variant, flag),
            }
        },
    )
}

/// Returns the window of these layers, or `None` without layers.
fn window(size: usize, layers: Vec<usize>) -> Option<SlidingWindow> {
    (!layers.is_empty()).then_some(SlidingWindow { size, layers })
}

/// Returns a configuration of Llama or one of its variants, with `sharing` heads to each of
/// `shared` key/value heads.
fn like_llama(
    family: Architecture,
    [layers, shared, sharing]: [usize; 3],
    variant: usize,
    flag: bool,
) -> TransformerConfig {
    let n_heads = shared * sharing;
    let d_model = 8 * n_heads;
    let scaling = [
        None,
        Some(RotaryScaling::Linear { factor: 2.0 }),
        Some(RotaryScaling::Llama3 { factor: 8.0, low_turns: 1.0, high_turns: 4.0, context: 16 }),
    ];
    let window = |layers: Vec<usize>| window(1 + variant, layers);
    let config = TransformerConfig {
        architecture: family,
        key_value_heads: (sharing > 1).then_some(shared),
        d_mlp: 2 * d_model,
        tied_unembedding: flag,
        ..TransformerConfig::llama(layers, n_heads, d_model, 17, 12)
    };
    match family {
        Architecture::Mistral | Architecture::Phi3 => {
            TransformerConfig { sliding_window: window((0..layers).collect()), ..config }
        }
        Architecture::SmolLm3 => TransformerConfig {
            unrotated_layers: (variant..layers).step_by(2).collect(),
            sliding_window: window((variant..layers).step_by(2).collect()).filter(|_| flag),
            ..config
        },
        Architecture::Olmo2 => TransformerConfig {
            pre_norms: false,
            post_norms: true,
            query_key_norms: QueryKeyNorms::AllHeads,
            attention_bias: flag,
            ..config
        },
        Architecture::Gemma3 => TransformerConfig {
            activation: Activation::GeluNew,
            post_norms: true,
            query_key_norms: QueryKeyNorms::EachHead,
            sliding_window: window((0..layers).filter(|layer| (layer + 1) % 3 != 0).collect()),
            rotary_scaling: scaling[variant],
            local_rotary_base: Some(100.0),
            score_scalar: Some(5.0),
            embedding_scale: Some((d_model as f64).sqrt()),
            ..config
        },
        Architecture::Qwen2 => TransformerConfig {
            attention_bias: true,
            attention_output_bias: false,
            sliding_window: window((layers / 2..layers).collect()).filter(|_| flag),
            ..config
        },
        Architecture::Qwen3 => TransformerConfig {
            query_key_norms: QueryKeyNorms::EachHead,
            attention_bias: flag,
            d_head: 12,
            positions: Positions::Rotary { dims: 12, base: 10_000.0 },
            ..config
        },
        Architecture::Gemma2 => TransformerConfig {
            activation: Activation::GeluNew,
            post_norms: true,
            sliding_window: window((0..layers).step_by(2).collect()),
            score_scalar: Some(5.0),
            score_cap: flag.then_some(3.0),
            logit_cap: flag.then_some(4.0),
            embedding_scale: Some((d_model as f64).sqrt()),
            ..config
        },
        _ => TransformerConfig { rotary_scaling: scaling[variant], attention_bias: flag, mlp_bias: flag, ..config },
    }
}

/// Draws one to four pairs of 1 to 8 tokens from a vocabulary of 17. In some pairs, the prompts are
/// equal up to some position.
pub fn any_pairs() -> impl Strategy<Value = PromptPairs> {
    let token = 0_u32..17;
    let pair = (prop::collection::vec(token.clone(), 1..=8), prop::collection::vec(token.clone(), 8), 0_usize..8);
    let pair = (pair, token.clone(), 1_u32..17).prop_map(|((clean, other, from), answer, further)| {
        let from = from.min(clean.len() - 1);
        let mut corrupted = clean.clone();
        corrupted[from..].copy_from_slice(&other[from..clean.len()]);
        PromptPair { clean, corrupted, answers: vec![answer], wrong_answers: vec![(answer + further) % 17] }
    });
    prop::collection::vec(pair, 1..=4).prop_map(|pairs| PromptPairs::new(pairs).expect("pairs of equal length"))
}

/// Draws an answer of one to three tokens for each of four pairs and, for some, the last token of
/// a second answer.
pub fn any_answers() -> impl Strategy<Value = Vec<(Vec<u32>, Option<u32>)>> {
    prop::collection::vec((prop::collection::vec(0_u32..17, 1..=3), prop::option::of(0_u32..17)), 4)
}

/// Returns the pairs with these answers, which the prompts of the set begin.
///
/// # Panics
/// If there are fewer answers than pairs.
pub fn with_whole_answers(pairs: &PromptPairs, answers: &[(Vec<u32>, Option<u32>)]) -> PromptPairs {
    let whole = pairs.pairs().iter().zip(answers).map(|(pair, (answer, other))| {
        let second = other.map(|last| [&answer[..answer.len() - 1], &[last]].concat());
        let answers = [answer.clone()].into_iter().chain(second).collect();
        WholeAnswers { clean: pair.clean.clone(), corrupted: pair.corrupted.clone(), answers }
    });
    let whole: Vec<WholeAnswers> = whole.collect();
    assert_eq!(whole.len(), pairs.len(), "an answer for each pair");
    PromptPairs::with_whole_answers(&whole).expect("answers that differ in their last token only")
}
