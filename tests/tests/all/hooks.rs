//! Hooks that observe change no bit. Errors of hooks, caches and runs for hook points and shapes
//! that do not exist.

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{CacheError, HookPoint, Patch, PatchError, Recorder, Site};
use rewire_model::{
    Architecture, ModelError, Prefix, ReadPositions, Readout, Run, RunStart, Transformer, TransformerConfig,
};
use rewire_tests::compare::array;
use rewire_tests::fixture::processings;
use rewire_tests::on_every_backend;

on_every_backend!(a_recorder_changes_no_bit_in_any_family);

fn model() -> Transformer<Flex> {
    Transformer::random(&TransformerConfig::neox(2, 2, 16, 11, 6), 0, &Default::default())
}

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
    Tensor::zeros(shape, &Default::default())
}

fn run(model: &Transformer<Flex>) -> Run<Flex> {
    Run::tokens(model.tokens(&[vec![1, 2, 3]]).unwrap())
}

fn a_recorder_changes_no_bit_in_any_family<B: Backend>() {
    let prompts = [vec![1, 5, 2, 6, 3], vec![4, 2, 1, 3, 6]];
    for family in Architecture::ALL {
        for (weights, processing) in processings() {
            let random = Transformer::<B>::random(&TransformerConfig::tiny(family), 7, &Default::default());
            let model = random.processed(processing);
            let run = || Run::tokens(model.tokens(&prompts).unwrap());
            let bits = |logits: Tensor<B, 3>| array(logits).mapv(f32::to_bits);
            let mut recorder = Recorder::all();
            let recorded = bits(model.forward(run(), &mut recorder).unwrap());
            let what = format!("{family:?}, {weights}");
            assert_eq!(bits(model.forward(run(), ()).unwrap()), recorded, "{what}");
            // A run from a recorded residual stream gives the rest of the run.
            let cache = recorder.into_cache();
            let last = model.config().n_layers - 1;
            let stream = cache.block::<3>(last, Site::ResidPre).unwrap();
            assert_eq!(
                bits(model.forward(Run::from_residual(last, stream), ()).unwrap()),
                recorded,
                "{what} from L{last}"
            );
            // A recorder of a single site changes nothing either.
            let mut few = Recorder::filtered(|p| p.site() == Some(Site::Z));
            assert_eq!(bits(model.forward(run(), &mut few).unwrap()), recorded, "{what}, z alone");
        }
    }
}

#[test]
fn patches_without_effect_are_reported() {
    let model = model();
    let plain = array(model.forward(run(&model), ()).unwrap());

    let point = HookPoint::block(0, Site::ResidMid);
    let mut unreached = Patch::new().replace(point, zeros([1, 3, 16]));
    model.forward(run(&model), &mut unreached).unwrap();
    assert_eq!(unreached.finish(), Err(PatchError::NotReached { point }));

    let point = HookPoint::block(1, Site::Z);
    for (value, mask) in [([1, 3, 2, 9], [1, 3, 2, 8]), ([1, 3, 2, 8], [1, 1, 2, 8])] {
        let mut misfit = Patch::new().replace_where(point, zeros(value), zeros(mask).greater_elem(1.0));
        assert_eq!(
            array(model.forward(run(&model), &mut misfit).unwrap()),
            plain,
            "a patch of another shape was applied"
        );
        let found = if value[3] == 9 { value } else { mask }.to_vec();
        let expected = vec![1, 3, 2, 8];
        assert_eq!(misfit.finish(), Err(PatchError::ShapeMismatch { point, expected, found }));
    }

    let mut whole = Patch::new().replace(point, zeros([1, 3, 2, 8]));
    assert_ne!(array(model.forward(run(&model), &mut whole).unwrap()), plain);
    assert_eq!(whole.finish(), Ok(()));
}

#[test]
fn cache_errors_name_the_missing_hook_point() {
    let model = model();
    let mut recorder = Recorder::filtered(|p| p.site() == Some(Site::Z));
    model.forward(run(&model), &mut recorder).unwrap();
    let cache = recorder.into_cache();
    let missing = HookPoint::block(0, Site::Q);
    assert_eq!(cache.get::<4>(missing).unwrap_err(), CacheError::Missing { point: missing, available: 2 });
    let point = HookPoint::block(1, Site::Z);
    assert_eq!(cache.get::<3>(point).unwrap_err(), CacheError::Rank { point, asked: 3, found: 4 });
    assert!(matches!(cache.head_results(0, zeros([3, 8, 16])), Err(CacheError::Size { expected: 2, found: 3, .. })));
    assert!(matches!(Prefix::from_cache(&cache, model.config(), 2), Err(CacheError::Missing { .. })));
}

#[test]
fn runs_that_do_not_fit_the_model_are_refused() {
    let model = model();
    let tokens = |prompts: &[Vec<u32>]| model.tokens(prompts).map(|_| ()).unwrap_err();
    assert!(matches!(tokens(&[]), ModelError::NoTokens));
    assert!(matches!(tokens(&[vec![]]), ModelError::NoTokens));
    assert!(matches!(tokens(&[vec![1], vec![1, 2]]), ModelError::UnequalPrompts { prompt: 1, expected: 1, found: 2 }));
    assert!(matches!(tokens(&[vec![0; 7]]), ModelError::ContextExceeded { found: 7, n_ctx: 6 }));
    let outside = tokens(&[vec![1, 11]]);
    assert!(matches!(outside, ModelError::TokenOutsideVocabulary { token: 11, position: 1, d_vocab: 11, .. }));

    let refused = |run: Run<Flex>| model.forward(run, ()).map(|_| ()).unwrap_err();
    let shape = |run| matches!(refused(run), ModelError::RunShape { .. });
    assert!(shape(Run::from_residual(3, zeros([1, 3, 16]))), "2 layers and the final norm");
    let mid = |layer| Run::new(RunStart::ResidMid { layer, residual: zeros([1, 3, 16]) });
    assert!(shape(mid(2)));
    assert!(shape(Run::from_residual(0, zeros([1, 3, 8]))));
    let joined = |start, rows| shape(Run::from_residual(1, zeros([1, 3, 16])).with_joining(vec![start, rows]));
    let later = |layer, pos| RunStart::Residual { layer, residual: zeros([1, pos, 16]) };
    assert!(joined(later(2, 3), later(0, 3)), "rows that join before the start of the run");
    assert!(joined(later(1, 3), later(2, 2)), "rows of other positions");
    let tokens = RunStart::Tokens(model.tokens(&[vec![1, 2, 3]]).unwrap());
    assert!(joined(tokens, later(2, 3)), "rows that join from tokens");
    assert!(matches!(refused(Run::from_residual(0, zeros([1, 9, 16]))), ModelError::ContextExceeded { .. }));
    let reading = |positions, columns| run(&model).with_readout(Readout { positions, columns });
    assert!(shape(reading(ReadPositions::Each(vec![3]), None)));
    assert!(shape(reading(ReadPositions::Each(vec![0, 0]), None)));
    let several = |positions, per_prompt| reading(ReadPositions::Several { positions, per_prompt }, None);
    assert!(shape(several(vec![0, 3], 2)));
    assert!(shape(several(vec![0, 1], 1)));
    assert!(shape(several(vec![], 0)));
    assert_eq!(model.forward(several(vec![0, 2, 2], 3), ()).unwrap().dims(), [1, 3, 11]);
    assert!(shape(reading(ReadPositions::All, Some(vec![11]))));

    let mut recorder = Recorder::all();
    let two = Run::tokens(model.tokens(&[vec![1, 2, 3], vec![4, 5, 6]]).unwrap());
    model.forward(two, &mut recorder).unwrap();
    let prefix = Prefix::from_cache(&recorder.into_cache(), model.config(), 2).unwrap();
    assert!(
        shape(Run::from_residual(0, zeros([3, 1, 16])).with_prefix(prefix.clone())),
        "half a copy of the prefix's prompts"
    );
    assert!(
        model.forward(Run::from_residual(0, zeros([4, 1, 16])).with_prefix(prefix.clone()), ()).is_ok(),
        "two copies"
    );
    let before = Readout { positions: ReadPositions::Each(vec![1, 1]), columns: None };
    assert!(
        shape(Run::from_residual(0, zeros([2, 1, 16])).with_prefix(prefix).with_readout(before)),
        "a position that is not computed"
    );

    let parallel = Transformer::<Flex>::random(&TransformerConfig::neox(2, 2, 16, 11, 6), 0, &Default::default());
    let refused = parallel.forward(mid(0), ()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("between attention and MLP"), "{refused}");
}
