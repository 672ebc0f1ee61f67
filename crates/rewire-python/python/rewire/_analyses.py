"""One function for every method."""

from __future__ import annotations

from . import _rewire
from ._asked import Asked, Metric, Nodes, one_kind
from ._effects import Effects, with_details
from ._errors import ArgumentError
from ._model import Model
from ._pairs import Pairs
from ._progress import Progress


def activation_patching(
    model: Model,
    pairs: Pairs,
    nodes: Nodes = "head_z",
    by: str = "all",
    *,
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    normalized: bool = False,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Patches each node, one at a time. The effects are exact.

    Parameters
    ----------
    model : Model
    pairs : Pairs
    nodes : str or list of str
        A kind of node: ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``,
        ``head_q``, ``head_k``, ``head_v``, ``head_z``, ``head_result``, ``head_pattern`` or
        ``mlp_post``. Or single nodes: ``["head_z:L3H7", "mlp_out:L2@end"]``.
    by : {"all", "position", "cell", "marked"}
        Which positions a node covers: all together; each alone; each cell of an attention pattern
        alone; or the marked position of each pair.
    metric : str or function
        ``"logit-diff-normalized"`` (effects are shares of the clean minus the corrupted logit
        difference), ``"logit-diff"``, ``"probability"``, ``"prob-diff"``, ``"log-prob"``, ``"kl"``
        or ``"accuracy"``. Or a function ``f(logits, prompts)``: it gets the logits that the metric
        reads, ``[row, d_vocab]``, and the number of the pair of each row, and returns one number
        per row. It is called from several threads and reads the whole vocabulary, so it is slower,
        and it has no gradient.
    direction : {"denoising", "noising"}
        Patch clean activations into the corrupted run, or corrupted ones into the clean run.
    metric_position : int or "marked"
        The position that the metric reads; ``-1`` is the last token.
    normalized : bool
        For a metric that is a function: whether effects are shares of its change.
    prompt_batch : int, optional
        Prompt pairs held in memory at once.
    progress : bool or function
        Show a bar if tqdm is installed; or call a function with (patches done, all patches).

    Returns
    -------
    Effects
        ``values`` is ``[layer]``, ``[layer, head]`` or ``[layer, neuron]``, then ``[pos]`` or
        ``[dest, src]``; ``[node, ..]`` for single nodes.

    Raises
    ------
    PairsError, AnalysisError, ArgumentError
    """
    asked = Asked(model, pairs, metric, direction, metric_position, normalized, prompt_batch, progress)
    return asked.effects("activation patching", _rewire.activation_patching, one_kind(nodes), by)


def attribution_patching(
    model: Model,
    pairs: Pairs,
    nodes: Nodes = "head_z",
    by: str = "all",
    *,
    backward: str = "gradient",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Estimates the effects of all nodes from one backward pass.

    Parameters
    ----------
    backward : {"gradient", "relp", "gim"}
        What the backward pass computes.
    model, pairs, nodes, by, metric, direction, metric_position, prompt_batch, progress
        As for :func:`activation_patching`. The metric must have a gradient.

    Returns
    -------
    Effects
        As for :func:`activation_patching`.
    """
    asked = Asked(model, pairs, metric, direction, metric_position, False, prompt_batch, progress, backward)
    return asked.effects("attribution patching", _rewire.attribution_patching, one_kind(nodes), by)


def screen_then_verify(
    model: Model,
    pairs: Pairs,
    nodes: str = "head_z",
    by: str = "all",
    *,
    k: int = 10,
    backward: str = "gradient",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Ranks all nodes by attribution, and patches the ``k`` nodes of largest attribution exactly.

    Parameters
    ----------
    k : int
        How many nodes to patch.
    model, pairs, nodes, by, backward, metric, direction, metric_position, prompt_batch, progress
        As for :func:`attribution_patching`. ``nodes`` is a kind.

    Returns
    -------
    Effects
        Exact effects; NaN for nodes that were not patched. ``details`` has ``attribution`` (the
        estimates of all nodes, :class:`Effects`), ``verified``, ``skipped`` and
        ``largest_skipped`` (the largest attribution among skipped nodes).
    """
    asked = Asked(model, pairs, metric, direction, metric_position, False, prompt_batch, progress, backward)
    found = asked.effects("screening", _rewire.screen_then_verify, one_kind(nodes), by, k)
    return with_details(found, attribution=asked.named(found.details["attribution"]))


def path_patching(
    model: Model,
    pairs: Pairs,
    receivers: Nodes,
    nodes: Nodes = "head_z",
    by: str = "all",
    *,
    freeze: str = "path-patching",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    normalized: bool = False,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Patches the paths from each sender to the receivers alone. The effects are exact.

    Parameters
    ----------
    receivers : str or list of str
        Where the paths end: ``"logits"``, ``"head_q:L3H7"``, ``"mlp_in:L3"``, ``"resid_post:L3"``,
        with ``@14``, ``@end`` or ``@marked`` for a position. All receivers are patched together.
    nodes, by
        The senders, as the nodes of :func:`activation_patching`.
    freeze : {"path-patching", "direct"}
        Which activations keep the values of the unpatched run: z of all heads except the senders,
        or all heads and MLPs.
    model, pairs, metric, direction, metric_position, normalized, prompt_batch, progress
        As for :func:`activation_patching`.

    Returns
    -------
    Effects
        One effect per sender. ``details["unreached"]`` names receivers that no path reaches.
    """
    to = [receivers] if isinstance(receivers, str) else list(receivers)
    asked = Asked(model, pairs, metric, direction, metric_position, normalized, prompt_batch, progress)
    return asked.effects("path patching", _rewire.path_patching, one_kind(nodes), by, to, freeze)


def integrated_gradients(
    model: Model,
    pairs: Pairs,
    nodes: str = "head_z",
    by: str = "all",
    *,
    baseline: str = "corrupt",
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float = 0.01,
    line: str = "layer",
    mean_over: str = "all",
    metric: Metric = "logit-diff-normalized",
    metric_position: int | str = -1,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Integrates gradients along the line from the clean activations to a baseline.

    An attribution has the sign of noising: a node that supports the behavior is below 0.

    Parameters
    ----------
    baseline : {"corrupt", "zero", "mean"}
        The end of the line: the corrupted run, zeros, or means over the clean prompts.
    steps, rule : int, str
        The quadrature: ``gauss-legendre``, ``riemann-left``, ``riemann-right``,
        ``riemann-middle`` or ``trapezoid``.
    tolerance : float
        The completeness gap allowed, as a share of the change of the metric. A larger gap doubles
        the steps, and at last is an :class:`AnalysisError`.
    line : {"layer", "node"}
        Whether all heads or neurons of a layer move together, or each alone.
    mean_over : {"all", "position"}
        The axes of means.
    model, pairs, nodes, by, metric, metric_position, prompt_batch, progress
        As for :func:`attribution_patching`. ``nodes`` is a kind.

    Returns
    -------
    Effects
        ``details`` has ``gap`` and ``change`` of the metric, ``[prompt, layer]``, and ``steps`` by
        layer.
    """
    asked = Asked(model, pairs, metric, "noising", metric_position, False, prompt_batch, progress)
    arguments = (baseline, steps, rule, tolerance, line, mean_over)
    return asked.effects("integrated gradients", _rewire.integrated_gradients, one_kind(nodes), by, *arguments)


def ablation(
    model: Model,
    pairs: Pairs,
    nodes: Nodes = "head_z",
    by: str = "all",
    *,
    replacement: str = "zero",
    mean_over: str = "all",
    metric: Metric = "logit-diff-normalized",
    metric_position: int | str = -1,
    normalized: bool = False,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Replaces each node in the clean run, one at a time. The effects are exact.

    Parameters
    ----------
    replacement : {"zero", "mean", "resample"}
        Zeros, the mean over the clean prompts, or the activation of the corrupted prompt.
    mean_over : {"all", "position"}
        Means over prompts and positions, or over prompts at each position.
    model, pairs, nodes, by, metric, metric_position, normalized, prompt_batch, progress
        As for :func:`activation_patching`.

    Returns
    -------
    Effects
        The change of the metric. A node that supports the behavior is below 0.
    """
    asked = Asked(model, pairs, metric, "noising", metric_position, normalized, prompt_batch, progress)
    return asked.effects("ablation", _rewire.ablation, one_kind(nodes), by, replacement, mean_over)


def logit_attribution(
    model: Model,
    pairs: Pairs,
    nodes: str = "head_z",
    by: str = "all",
    *,
    normalized: bool = True,
    final_norm_gain: str = "applied",
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Returns what each node adds directly to the logit difference on the clean prompts.

    Parameters
    ----------
    normalized : bool
        Shares of the clean minus the corrupted logit difference, or logits.
    final_norm_gain : {"applied", "left-out"}
        For unprocessed weights: multiply by the gain of the final norm, or leave it out as
        TransformerLens does.
    model, pairs, nodes, by, prompt_batch, progress
        As for :func:`activation_patching`. ``nodes`` is a kind that writes to the residual stream.

    Returns
    -------
    Effects
    """
    if final_norm_gain not in ("applied", "left-out"):
        raise ArgumentError(f"unknown final_norm_gain {final_norm_gain!r}; use applied or left-out")
    metric = "logit-diff-normalized" if normalized else "logit-diff"
    asked = Asked(model, pairs, metric, "noising", -1, False, prompt_batch, progress)
    gain = final_norm_gain == "applied"
    return asked.effects("logit attribution", _rewire.logit_attribution, one_kind(nodes), by, gain)
