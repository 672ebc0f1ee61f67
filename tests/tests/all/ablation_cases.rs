//! Accuracy after ablation, compared with literal generation, and what ablation refuses.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use ndarray::{ArrayD, Axis as Dimension};
use rewire_analysis::AnalysisError;
use rewire_analysis::integrated::interpolation_curves;
use rewire_analysis::node::{Component, Node, NodeKind, Positions};
use rewire_analysis::patching::{Ablated, AnswerAccuracy, ablate_groups, ablation, answer_accuracy};
use rewire_analysis::run::{Execution, Intervention, MeanOver, mean_activations};
use rewire_analysis::stats::Proportion;
use rewire_hooks::{ActivationCache, Hook, HookPoint, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::ioi::{Corruption, IoiGenerator, Split};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::array;
use rewire_toy::Toy;

use crate::ablation_parity::means;
use crate::properties::ablation::clean_prompts;

/// Replaces z of some heads at all positions; the last given position also serves all later ones.
struct WithoutHeads {
    heads: Vec<[usize; 2]>,
    /// One array per layer, `[1, pos, head, d_head]`.
    values: Vec<ArrayD<f32>>,
}

impl Hook<Flex> for WithoutHeads {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<Flex, D>) -> Tensor<Flex, D> {
        let HookPoint::Block { layer, site: Site::Z } = point else { return activation };
        let dims = activation.dims();
        let mut z = array(activation);
        for &[_, head] in self.heads.iter().filter(|[of, _]| *of == layer) {
            for pos in 0..dims[1] {
                let given = self.values[layer].shape()[1];
                let value = self.values[layer].slice(ndarray::s![0, pos.min(given - 1), head, ..]).to_owned();
                z.slice_mut(ndarray::s![0, pos, head, ..]).assign(&value);
            }
        }
        Tensor::from_data(TensorData::new(z.into_iter().collect(), dims), &Default::default())
    }
}

/// Returns a toy model and generated IOI prompts of several lengths.
fn ioi(toy: Toy, n: usize) -> (Transformer<Flex>, rewire_tasks::Tokenizer, PromptPairs) {
    let model: Transformer<Flex> = toy.load(&Default::default()).unwrap();
    let tokenizer = toy.tokenizer().unwrap();
    let prompts = IoiGenerator::new(&tokenizer).unwrap().sample(n, 3, Split::All);
    let pairs = Corruption::Abc.pairs(&prompts, &tokenizer, model.config().bos_token).unwrap();
    (model, tokenizer, pairs)
}

/// Computes accuracy literally: each prompt alone, each token with a forward from the start of the
/// prompt, without a cache.
fn slow_accuracy(
    model: &Transformer<Flex>,
    pairs: &PromptPairs,
    tokenizer: &rewire_tasks::Tokenizer,
    heads: &[[usize; 2]],
    values: impl Fn(&PromptPair) -> Vec<ArrayD<f32>>,
) -> [Proportion; 3] {
    let mut counts = [Vec::new(), Vec::new(), Vec::new()];
    for pair in pairs.pairs() {
        let mut tokens = pair.clean.clone();
        for step in 0..3 {
            let run = Run::tokens(model.tokens(&[tokens.clone()]).unwrap());
            let without = WithoutHeads { heads: heads.to_vec(), values: values(pair) };
            let logits = array(model.forward(run, without).unwrap());
            let last = logits.index_axis(Dimension(0), 0).index_axis(Dimension(0), tokens.len() - 1).to_owned();
            let largest = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if step == 0 {
                let [answer, wrong] = [pair.answers[0], pair.wrong_answers[0]].map(|t| last[[t as usize]]);
                counts[0].push(answer == largest);
                counts[1].push(answer > wrong);
            }
            tokens.push(last.iter().position(|&l| l == largest).unwrap() as u32);
        }
        let text = tokenizer.decode(&tokens[pair.clean.len()..]);
        let name = tokenizer.decode(&pair.answers);
        counts[2].push(text.split_whitespace().next().is_some_and(|word| word.contains(name.trim())));
    }
    counts.map(Proportion::of)
}

#[test]
fn accuracy_equals_prompt_by_prompt_generation_without_a_cache() {
    for toy in Toy::ALL {
        let (model, tokenizer, pairs) = ioi(toy, 24);
        let config = model.config().clone();
        let last = config.n_layers - 1;
        let layers = 0..config.n_layers;
        let z_of = |tokens: &[u32]| {
            let mut recorder = Recorder::filtered(|p| p.site() == Some(Site::Z));
            model.forward(Run::tokens(model.tokens(&[tokens.to_vec()]).unwrap()), &mut recorder).unwrap();
            let cache = recorder.into_cache();
            layers.clone().map(|layer| array(cache.block::<4>(layer, Site::Z).unwrap())).collect::<Vec<_>>()
        };
        let given = |by: &Intervention<Flex>| match by {
            Intervention::Fixed(cache) => {
                layers.clone().map(|l| array(cache.block::<4>(l, Site::Z).unwrap())).collect()
            }
            _ => vec![ArrayD::zeros(vec![1, 1, config.n_heads, config.d_head]); config.n_layers],
        };
        let sets = [vec![[last, 7]], vec![[0, 0], [0, 5], [last, 2]], (0..24).map(|i| [1 + i / 8, i % 8]).collect()];
        // Each position has its own mean, so generated tokens after END use activations unlike
        // those before.
        let by = [Intervention::Zero, means(&model, &pairs, MeanOver::Prompts), Intervention::Resample];
        let cases: Vec<_> = sets.iter().flat_map(|set| by.iter().map(move |by| (set, by))).collect();
        let ablations: Vec<_> = cases
            .iter()
            .map(|(set, by)| Ablated {
                nodes: set.iter().map(|&[layer, head]| Node::new(layer, Component::HeadZ).unit(head)).collect(),
                by: (*by).clone(),
            })
            .collect();
        let execution = Execution { prompt_batch: 7, ..Execution::default() };
        let found = answer_accuracy(&model, &pairs, &tokenizer, &ablations, 3, &execution).unwrap();
        for (found, (set, by)) in found.iter().zip(cases) {
            let values = |pair: &PromptPair| match by {
                Intervention::Resample => z_of(&pair.corrupted),
                // Given activations are as long as the prompt. Positions after END use the
                // activation at END.
                other => given(other)
                    .into_iter()
                    .map(|v| v.slice_axis(Dimension(1), (0..v.shape()[1].min(pair.clean.len())).into()).to_owned())
                    .collect(),
            };
            let expected = slow_accuracy(&model, &pairs, &tokenizer, set, values);
            let what = format!("{toy:?} without {set:?} by {}", by.name());
            assert_eq!([found.first, found.above_wrong, found.said], expected, "{what}");
        }
        // If the first token is not an answer, further tokens were generated.
        assert!(found.iter().any(|f| f.first.successes < f.first.n), "{toy:?} is always right");
    }
}

#[test]
fn ablating_the_toys_heads_destroys_their_accuracy() {
    let (model, tokenizer, pairs) = ioi(Toy::Gpt2, 60);
    let all: Vec<Node> = (0..4).map(|layer| Node::new(layer, Component::HeadZ)).collect();
    let by = [
        Intervention::Zero,
        means(&model, &pairs, MeanOver::PromptsAndPositions),
        means(&model, &pairs, MeanOver::Prompts),
        Intervention::Resample,
    ];
    let mut ablations = vec![Ablated { nodes: vec![], by: Intervention::Zero }];
    ablations.extend(by.into_iter().map(|by| Ablated { nodes: all.clone(), by }));
    let found = answer_accuracy(&model, &pairs, &tokenizer, &ablations, 3, &Execution::default()).unwrap();
    let whole = &found[0];
    assert!(whole.first.share() > 0.9 && whole.said.share() > 0.9 && whole.logit_difference > 2.0, "{whole:?}");
    assert!(!whole.is_never_right() && whole.first.n == 60);
    for ablated in &found[1..] {
        assert!(ablated.first.share() < 0.5 && ablated.mean_rank > whole.mean_rank, "{ablated:?}");
    }
    let never: AnswerAccuracy = {
        let dog = tokenizer.single_token(" dog").unwrap();
        let swapped = pairs.pairs().iter().map(|p| PromptPair {
            answers: vec![dog],
            wrong_answers: p.answers.clone(),
            ..p.clone()
        });
        let swapped = PromptPairs::new(swapped.collect()).unwrap();
        answer_accuracy(&model, &swapped, &tokenizer, &ablations[..1], 3, &Execution::default()).unwrap().remove(0)
    };
    assert!(never.is_never_right(), "{never:?}");
}

#[test]
fn unsupported_ablations_are_refused() {
    let (model, tokenizer, pairs) = ioi(Toy::NeoX, 4);
    let head = Node::new(1, Component::HeadZ).unit(2);
    let refused = |nodes: Vec<Node>, by: Intervention<Flex>, new_tokens| {
        let ablated = Ablated { nodes, by };
        answer_accuracy(&model, &pairs, &tokenizer, &[ablated], new_tokens, &Execution::default())
            .unwrap_err()
            .to_string()
    };
    let twice = refused(vec![head.clone(), head.clone()], Intervention::Zero, 3);
    assert_eq!(twice, "head_z:L1H2 is named twice in one set");
    let metric = LogitDiff::new(&pairs);
    let groups = [vec![head.clone(), head.clone()]];
    let twice =
        ablate_groups(&model, asked(&pairs, &metric), &groups, &Intervention::Zero, &Execution::default()).unwrap_err();
    assert!(matches!(twice, AnalysisError::NodeTwice { .. }), "{twice}");
    let result = Node::new(1, Component::HeadResult).unit(2);
    assert!(refused(vec![head.clone(), result], Intervention::Zero, 3).contains("named twice"));
    let all = Node::new(1, Component::HeadZ);
    assert!(refused(vec![head.clone(), all], Intervention::Zero, 3).contains("named twice"));
    let by_prompt = Tensor::<Flex, 4>::zeros([4, 1, 8, 16], &Default::default());
    let by_prompt = ActivationCache::new().with(HookPoint::block(1, Site::Z), by_prompt);
    assert!(refused(vec![head.clone()], Intervention::Fixed(by_prompt), 3).contains("[4, 1, 8, 16]"));
    let other = Node::new(1, Component::HeadZ).unit(8);
    assert!(refused(vec![other], Intervention::Zero, 3).contains("head 8 is out of range"));
    let at = head.clone().at(Positions::One(1));
    assert!(refused(vec![at], Intervention::Zero, 3).contains("ablate it at all positions"));
    assert!(refused(vec![Node::new(0, Component::HeadPattern)], Intervention::Zero, 3).contains("patterns grow"));
    assert!(refused(vec![head.clone()], Intervention::Zero, 1000).contains("context"));
    let empty = Intervention::Fixed(ActivationCache::new());
    assert!(refused(vec![head], empty, 3).contains("blocks.1.attn.hook_z"));
    let keys = [NodeKind::all(Component::HeadK)];
    let fixed = Intervention::Fixed(
        mean_activations(&model, &clean_prompts(&pairs), &[Site::K], MeanOver::Prompts, 4).unwrap(),
    );
    let rotated = ablation(&model, asked(&pairs, &metric), &keys, &fixed, &Execution::default()).unwrap_err();
    assert!(rotated.to_string().contains("rotates"), "{rotated}");
    let query = [Node::new(0, Component::HeadQ).unit(0)];
    let curve =
        interpolation_curves(&model, &pairs, &metric, &query, &[0.5], &Intervention::Zero, &Execution::default());
    assert!(curve.unwrap_err().to_string().contains("residual stream"));
}
