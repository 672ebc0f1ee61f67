//! Compiles and runs every line of docs/for-transformerlens-users.md.
#![allow(unused_variables, clippy::let_and_return)]

use burn::tensor::{Int, Tensor};
use rewire::burn;
use rewire::edges::GradientsAt;
use rewire::hooks::{GradientProbes, ResidualStream};
use rewire::integrated::IntegratedGradientsOptions;
use rewire::model::Prefix;
use rewire::path::Input;
use rewire::prelude::*;
use rewire::run::{Execution, Intervention, MeanOver, mean_activations};
use rewire::tasks::ioi::demo_pairs;
use rewire::tensor::{MatmulPrecision, Precision, set_matmul_precision};

type AnyError = Box<dyn std::error::Error>;

const TEXT: &str = "When John and Mary went to the shops, John gave the bag to";

#[test]
fn models_and_runs() -> Result<(), AnyError> {
    let (name, text) = ("toy-gpt2", TEXT);
    let model = Pretrained::open(name)?.load::<Cpu>()?;
    let raw = Pretrained::open(name)?.raw().load::<Cpu>()?;
    let (transformer, config) = (model.transformer(), model.config());
    let short = transformer.clone().to_precision(Precision::BFloat16);
    set_matmul_precision(MatmulPrecision::Tf32);
    set_matmul_precision(MatmulPrecision::Float32);
    let tokens = model.encode(text)?;
    let batch: Tensor<Cpu, 2, Int> = transformer.tokens(&[tokens.clone(), tokens])?;

    let logits = model.run(text)?;
    let logits = transformer.forward(Run::tokens(batch.clone()), ())?;
    let (logits, cache) = model.run_with_cache(text)?;
    let z = cache.block::<4>(3, Site::Z)?;
    let z = cache.get::<4>("blocks.3.attn.hook_z".parse()?)?;
    let streams = cache.accumulated_residual(ResidualStream::WithMid)?;
    let parts = cache.decomposed_residual()?;
    let lens = transformer.logit_lens(&cache)?;

    let residual = transformer.forward(Run::tokens(batch.clone()).stop_at(2), ())?;
    let logits = transformer.forward(Run::from_residual(2, residual.clone()), ())?;
    let (_, cache) = transformer.run_with_cache(batch)?;
    let prefix = Prefix::from_cache(&cache, config, 10)?;
    let logits = transformer.forward(Run::from_residual(2, residual.narrow(1, 10, 5)).with_prefix(prefix), ())?;
    let text = model.generate(text, 3)?;
    Ok(())
}

#[test]
fn hooks() -> Result<(), AnyError> {
    let text = TEXT;
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let (_, cache) = model.run_with_cache(text)?;
    let mut recorder = Recorder::filtered(|point| point.site() == Some(Site::Z));
    let mut halved = edit(Site::Z.at(3), |z: Tensor<Cpu, 4>| z * 0.5);
    let logits = model.run_with(text, &mut halved)?;
    halved.finish()?;
    let mut patch = Patch::nodes(&[Head::new(3, 7).z()], &cache)?;
    let logits = model.run_with(text, &mut patch)?;
    patch.finish()?;
    let mut probe = Recorder::all();
    let logits = model.run_with(text, (&mut recorder, &mut probe))?;
    assert_eq!(recorder.into_cache().len(), 4);
    Ok(())
}

#[test]
fn gradients() -> Result<(), AnyError> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let transformer = model.transformer().autodiff();
    let mut probes = GradientProbes::filtered(|point| point.site() == Some(Site::Z));
    let tokens = transformer.tokens(&[model.encode("When John and Mary")?])?;
    let loss = transformer.forward(Run::tokens(tokens), &mut probes)?.narrow(2, 5, 1).sum();
    let gradients = probes.gradients(&loss);
    assert!(gradients.block::<4>(3, Site::Z)?.abs().max().into_scalar() > 0.0);
    Ok(())
}

#[test]
fn analyses() -> Result<(), AnyError> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let pairs = demo_pairs(model.tokenizer()?, model.bos())?;
    let transformer = model.transformer();
    let execution = Execution::default().fitted(transformer, pairs.width(), Some(8 << 30));
    let study = Study::new(&model, &pairs, LogitDiff::new(&pairs));

    study.patch([NodeKind::by_position(Component::ResidPre)])?;
    study.patch([Component::HeadZ])?;
    study.patch([Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern])?;
    study.patch([Component::ResidPre, Component::AttnOut, Component::MlpOut].map(NodeKind::by_position))?;
    study.patch_groups(&[vec![Node::new(3, Component::HeadZ).unit(7)]])?;
    study.attribute([Component::HeadZ])?;
    study.attribute_edges()?;
    study.attribute_all_edges(GradientsAt::Base)?;
    study.patch_edges(&["a1.h3->a2.h5<v>".parse()?])?;
    study.integrate([Component::HeadResult], &IntegratedGradientsOptions::default())?;
    study.ablate([Component::HeadZ], &Intervention::Zero)?;
    let means = mean_activations(transformer, &pairs.clean(), &[Site::Z], MeanOver::Prompts, 32)?;
    study.ablate([Component::HeadZ], &Intervention::Fixed(means))?;
    study.path_patch([Component::HeadZ], &[Receiver::new(3, Input::ResidPost)], FreezePolicy::path_patching())?;
    study.path_patch([Component::HeadZ], &[Receiver::new(3, Input::ResidPost)], FreezePolicy::direct())?;
    study.logit_attribution([Component::HeadResult])?;
    Ok(())
}

#[test]
fn every_line_of_the_document_is_here() {
    let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().replace(",]", "]");
    let here = squeeze(include_str!("for_transformerlens_users.rs"));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("../../docs/for-transformerlens-users.md")).unwrap();
    let mut lines = 0;
    for row in document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| TransformerLens |")) {
        let row = row.replace("\\|", "\u{1}");
        let ours = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap().replace('\u{1}', "|");
        for line in ours.split('`').skip(1).step_by(2) {
            assert!(here.contains(&squeeze(line)), "{line} is not compiled here");
            lines += 1;
        }
    }
    assert!(lines > 35, "only {lines} lines were found");
}
