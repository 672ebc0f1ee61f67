//! A loaded model: tokens, runs, activations, gradients and generation.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire::{Cpu, LanguageModel, Pretrained};
use rewire_hooks::{ActivationCache, AnyRank, GradientProbes, HookPoint};
use rewire_model::{BackwardRule, Run, TransformerConfig};
use rewire_tasks::Choices;

use crate::arrays::{from_numpy, tensor, to_numpy, values};
use crate::failure::Failure;
use crate::hooks::{PythonHooks, points};
use crate::kept::{Kept, Named};
use crate::pairs::{Pairs, Source, answer_tokens, read};
use crate::work;

/// A language model on the CPU.
#[pyclass(frozen, module = "rewire._rewire")]
pub(crate) struct Model {
    pub(crate) model: Arc<LanguageModel<Cpu>>,
    /// Every hook point, once a call has asked for them.
    points: Arc<OnceLock<Vec<HookPoint>>>,
}

#[pymethods]
impl Model {
    /// Finds and loads a model by its name.
    #[staticmethod]
    fn load(py: Python<'_>, name: String, process_weights: bool, keep_in_files: bool) -> PyResult<Self> {
        let model = work::run(py, None, move |_| {
            let mut pretrained = Pretrained::open(&name)?;
            if !process_weights {
                pretrained = pretrained.raw();
            }
            if keep_in_files {
                pretrained = pretrained.stored();
            }
            Ok(pretrained.load::<Cpu>()?)
        })?;
        Ok(Self { model: Arc::new(model), points: Arc::default() })
    }

    /// Returns the name, the sizes, and what is doubtful about the files.
    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let TransformerConfig { n_layers, n_heads, d_model, d_head, d_mlp, d_vocab, n_ctx, bos_token, .. } =
            *self.model.config();
        let about = PyDict::new(py);
        about.set_item("name", self.model.name())?;
        let sizes = [("n_layers", n_layers), ("n_heads", n_heads), ("d_model", d_model), ("d_head", d_head)];
        let sizes = sizes.into_iter().chain([("d_mlp", d_mlp), ("d_vocab", d_vocab), ("n_ctx", n_ctx)]);
        for (name, size) in sizes {
            about.set_item(name, size)?;
        }
        about.set_item("bos_token_id", bos_token)?;
        let warnings: Vec<String> = self.model.warnings().iter().map(ToString::to_string).collect();
        about.set_item("warnings", warnings)?;
        Ok(about)
    }

    /// Returns the token ids of a text, with the BOS in front if `prepend_bos`.
    fn encode(&self, text: &str, prepend_bos: bool) -> Result<Vec<u32>, Failure> {
        let bos = self.model.bos().filter(|_| prepend_bos);
        Ok(self.model.tokenizer()?.encode_prompt(text, bos)?)
    }

    /// Returns the text of token ids.
    fn decode(&self, tokens: Vec<u32>) -> Result<String, Failure> {
        Ok(self.model.decode(&tokens)?)
    }

    /// Returns the only token of a text.
    fn single_token(&self, text: &str) -> Result<u32, Failure> {
        Ok(self.model.tokenizer()?.single_token(text)?)
    }

    /// Returns the names of all hook points, in forward order.
    fn hook_names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let known = self.known();
        work::run(py, None, move |_| Ok(known.points()?.iter().map(ToString::to_string).collect()))
    }

    /// Returns the logits, `[batch, pos, d_vocab]`, and the activations at the named points.
    fn run<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<Vec<u32>>,
        names: Option<Vec<String>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
        let (model, known) = (Arc::clone(&self.model), self.known());
        let (logits, cache) = work::run(py, None, move |_| {
            let wanted = names.map(|names| known.chosen(&names)).transpose()?;
            let mut kept = Kept::new(wanted);
            let transformer = model.transformer();
            let logits = transformer.forward(Run::tokens(transformer.tokens(&tokens)?), &mut kept)?;
            Ok((values(AnyRank::from(logits))?, kept.into_named()?))
        })?;
        Ok((to_numpy(py, logits)?, to_dict(py, cache)?))
    }

    /// Returns the logits of a run in which Python functions see and may replace activations. The
    /// functions run on the calling thread.
    fn run_with_hooks<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<Vec<u32>>,
        hooks: Vec<(String, Py<PyAny>)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (model, known) = (Arc::clone(&self.model), self.known());
        let logits = py.allow_threads(move || -> Result<_, Failure> {
            let names: Vec<String> = hooks.iter().map(|(name, _)| name.clone()).collect();
            let points = known.chosen(&names)?;
            let functions = hooks.into_iter().map(|(_, function)| function);
            let mut hooks = PythonHooks::new(points.into_iter().zip(functions).collect());
            let transformer = model.transformer();
            let logits = transformer.forward(Run::tokens(transformer.tokens(&tokens)?), &mut hooks)?;
            hooks.finish()?;
            values(AnyRank::from(logits))
        })?;
        to_numpy(py, logits)
    }

    /// Returns the gradients of `sum(weights * logits)` at the named points. `weights` is
    /// `[batch, pos, d_vocab]`.
    fn gradients<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<Vec<u32>>,
        weights: &Bound<'py, PyAny>,
        names: Vec<String>,
        backward: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (model, known) = (Arc::clone(&self.model), self.known());
        let rule: BackwardRule = backward.parse().map_err(Failure::argument)?;
        let weights = from_numpy(weights)?;
        let found = work::run(py, None, move |_| {
            let wanted = known.chosen(&names)?;
            let transformer = model.transformer().autodiff();
            let mut probes = GradientProbes::<Autodiff<Cpu>>::filtered(move |point| wanted.contains(&point));
            let run = Run::tokens(transformer.tokens(&tokens)?).with_backward(rule);
            let logits = transformer.forward(run, &mut probes)?;
            let expected = logits.dims();
            if weights.shape() != expected {
                return Err(Failure::Argument(format!(
                    "the gradient of the logits has the shape {:?}, and the logits have {expected:?}",
                    weights.shape()
                )));
            }
            let weights = tensor::<Autodiff<Cpu>>(weights, &transformer.device()).reshape(expected);
            let loss: Tensor<Autodiff<Cpu>, 1> = (logits * weights).sum();
            named(probes.gradients(&loss))
        })?;
        to_dict(py, found)
    }

    /// Returns the likeliest continuation of each prompt, `new_tokens` tokens long.
    fn generate(&self, py: Python<'_>, tokens: Vec<Vec<u32>>, new_tokens: usize) -> PyResult<Vec<Vec<u32>>> {
        let model = Arc::clone(&self.model);
        work::run(py, None, move |_| Ok(model.transformer().generate(&tokens, new_tokens, ())?))
    }

    /// Reads prompt pairs from a file, or from JSON Lines if there is no path.
    #[pyo3(signature = (path, lines, answers, counterfactual, mark, prepend_bos))]
    fn read_pairs(
        &self,
        path: Option<&str>,
        lines: &str,
        answers: &str,
        counterfactual: Option<&str>,
        mark: Option<&str>,
        prepend_bos: bool,
    ) -> Result<Pairs, Failure> {
        let source = path.map_or(Source::Lines(lines), |path| Source::File(Path::new(path)));
        let choices = Choices { counterfactual, mark };
        read(&self.model, &source, answer_tokens(answers)?, choices, prepend_bos)
    }
}

/// The hook points of a model.
struct Known {
    model: Arc<LanguageModel<Cpu>>,
    points: Arc<OnceLock<Vec<HookPoint>>>,
}

impl Model {
    fn known(&self) -> Known {
        Known { model: Arc::clone(&self.model), points: Arc::clone(&self.points) }
    }
}

impl Known {
    /// Returns every hook point, in forward order. The first call runs the model on one token.
    fn points(&self) -> Result<&[HookPoint], Failure> {
        if self.points.get().is_none() {
            let found = points(&self.model)?;
            let _ = self.points.set(found);
        }
        Ok(self.points.get().map_or(&[], Vec::as_slice))
    }

    /// Returns the hook points with these names.
    ///
    /// # Errors
    /// If a name is unknown, or the model has no such point.
    fn chosen(&self, names: &[String]) -> Result<Vec<HookPoint>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let existing = self.points()?;
        let known: Vec<String> = existing.iter().map(ToString::to_string).collect();
        let point = |name: &String| match known.iter().position(|known| known == name) {
            Some(place) => Ok(existing[place]),
            None => Err(Failure::Hook(format!(
                "{} is not a hook point of {}{}; model.hook_names lists them",
                rewire_input::quoted(name),
                self.model.name(),
                rewire_input::did_you_mean(name, known.iter().map(String::as_str))
            ))),
        };
        names.iter().map(point).collect()
    }
}

/// Returns the gradients of a cache.
fn named<B: burn::tensor::backend::Backend>(cache: ActivationCache<B>) -> Result<Named, Failure> {
    let points: Vec<HookPoint> = cache.points().collect();
    points.into_iter().map(|point| Ok((point.to_string(), values(cache.any(point)?.clone())?))).collect()
}

fn to_dict(py: Python<'_>, activations: Named) -> PyResult<Bound<'_, PyDict>> {
    let cache = PyDict::new(py);
    for (name, activation) in activations {
        cache.set_item(name, to_numpy(py, activation)?)?;
    }
    Ok(cache)
}
