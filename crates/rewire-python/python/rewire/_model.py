"""A loaded model."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from . import _rewire
from ._errors import ArgumentError, RewireWarning

Floats = NDArray[np.float32]
Input = Union[str, Sequence[str], Sequence[int], Sequence[Sequence[int]], NDArray[Any]]
"""A prompt or a batch of prompts, as text or as token ids."""

Names = Union[str, Iterable[str], Callable[[str], bool], None]
"""Hook points: one name, several names, a function of the name, or None for all."""


class Hook(SimpleNamespace):
    """The hook point at which a function is called: ``hook.name``, ``hook.layer()``."""

    name: str

    def layer(self) -> int:
        """Returns the layer. Hook points outside the blocks have none."""
        parts = self.name.split(".")
        if parts[0] != "blocks":
            raise ArgumentError(f"{self.name} is in no layer")
        return int(parts[1])


class Model:
    """A transformer language model with its tokenizer. :func:`rewire.load` makes one.

    Attributes
    ----------
    name : str
        The model's name or directory.
    cfg : types.SimpleNamespace
        Its sizes, by TransformerLens' names: ``n_layers``, ``n_heads``, ``d_model``, ``d_head``,
        ``d_mlp``, ``d_vocab``, ``n_ctx``, ``bos_token_id``.
    is_processed : bool
        Whether norms are folded and weights centered.
    """

    def __init__(self, native: _rewire.Model, is_processed: bool = True) -> None:
        self.is_processed = is_processed
        self._native = native
        about = native.describe()
        self.name: str = about.pop("name")
        for warning in about.pop("warnings"):
            warnings.warn(warning, RewireWarning, stacklevel=3)
        self.cfg = SimpleNamespace(**about)

    def __repr__(self) -> str:
        cfg = self.cfg
        return f"<Model {self.name}: {cfg.n_layers} layers, {cfg.n_heads} heads, d_model {cfg.d_model}>"

    @cached_property
    def hook_names(self) -> list[str]:
        """The names of all hook points, in forward order."""
        return self._native.hook_names()

    def to_tokens(self, input: Input, prepend_bos: bool = True) -> NDArray[np.int64]:
        """Returns token ids, ``[batch, pos]``.

        Prompts of different lengths are padded on the right with the BOS (or token 0). No position
        of a prompt attends to the padding.

        Parameters
        ----------
        input : str, list of str, or token ids
            Token ids are used as they are.
        prepend_bos : bool
            Whether text begins with the model's BOS.
        """
        prompts = self._prompts(input, prepend_bos)
        width = max((len(prompt) for prompt in prompts), default=0)
        tokens = np.full((len(prompts), width), self.cfg.bos_token_id or 0, dtype=np.int64)
        for row, prompt in zip(tokens, prompts):
            row[: len(prompt)] = prompt
        return tokens

    def to_str_tokens(self, input: str | Sequence[int] | NDArray[Any], prepend_bos: bool = True) -> list[str]:
        """Returns the text of each token of one prompt."""
        (prompt,) = self._one(input, prepend_bos)
        return [self._native.decode([token]) for token in prompt]

    def to_single_token(self, text: str) -> int:
        """Returns the only token of a text, or raises :class:`rewire.TokenizerError`."""
        return self._native.single_token(text)

    def to_string(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        """Returns the text of token ids, ``[pos]`` or ``[1, pos]``."""
        return self._native.decode([int(token) for token in np.asarray(tokens).ravel()])

    def generate(self, input: str | Sequence[int], max_new_tokens: int = 10, prepend_bos: bool = True) -> str:
        """Returns the prompt and its likeliest continuation (greedy decoding), as text.

        Parameters
        ----------
        input : str or token ids
            One prompt.
        max_new_tokens : int
            The number of new tokens.
        """
        prompts = self._one(input, prepend_bos)
        (continued,) = self._native.generate(prompts, max_new_tokens)
        start = input if isinstance(input, str) else self._native.decode(prompts[0])
        return start + self._native.decode(continued)

    def __call__(self, input: Input, prepend_bos: bool = True) -> Floats:
        """Returns the logits, float32 ``[batch, pos, d_vocab]``."""
        logits, _ = self._native.run(self._rows(input, prepend_bos), [])
        return logits

    def run_with_cache(
        self, input: Input, names: Names = None, prepend_bos: bool = True
    ) -> tuple[Floats, dict[str, Floats]]:
        """Runs the model and keeps activations.

        Parameters
        ----------
        input : str, list of str, or token ids
            The prompts. Shorter prompts are padded on the right.
        names : optional
            The hook points to keep: a name (``"blocks.3.attn.hook_z"``), a list of names, or a
            function of the name (``lambda name: name.endswith("hook_z")``). All by default.
        prepend_bos : bool
            Whether text begins with the model's BOS.

        Returns
        -------
        logits : numpy.ndarray
            ``[batch, pos, d_vocab]``
        cache : dict of str to numpy.ndarray
            The activations by TransformerLens' names: queries, keys, values and z are
            ``[batch, pos, head, d_head]``, patterns ``[batch, head, dest, src]``, the residual
            stream ``[batch, pos, d_model]``, neurons ``[batch, pos, d_mlp]``.
        """
        chosen = None if names is None else self._names(names)
        return self._native.run(self._rows(input, prepend_bos), chosen)

    def run_with_hooks(
        self,
        input: Input,
        fwd_hooks: Iterable[tuple[str | Callable[[str], bool], Callable[..., Any]]],
        prepend_bos: bool = True,
    ) -> Floats:
        """Runs the model with functions that see and may change activations.

        Parameters
        ----------
        input : str, list of str, or token ids
            The prompts.
        fwd_hooks : list of (name, function)
            ``function(activation, hook)`` gets a numpy array and the :class:`Hook` with its name.
            It returns the array with which the run continues, or ``None``; changes that it makes in
            place count as well. A function of one parameter gets the array alone. The name may be a
            function that chooses hook points by name.

        Returns
        -------
        logits : numpy.ndarray
            ``[batch, pos, d_vocab]``
        """
        hooks: list[tuple[str, Callable[[Floats, str], Any]]] = []
        for names, function in fwd_hooks:
            called = _with_hook(function)
            hooks.extend((name, called) for name in self._names(names))
        return self._native.run_with_hooks(self._rows(input, prepend_bos), hooks)

    def cache_gradients(
        self,
        input: Input,
        logit_gradient: Floats | Callable[[Floats], Any],
        names: Names = None,
        *,
        backward: str = "gradient",
        prepend_bos: bool = True,
    ) -> dict[str, Floats]:
        """Returns the gradient of a number at hook points.

        The number is any function of the logits. Give its gradient with respect to the logits; for
        a weighted sum of logits, such as a logit difference, these are the weights.

        Parameters
        ----------
        input : str, list of str, or token ids
            The prompts.
        logit_gradient : numpy.ndarray or function
            The gradient with respect to the logits, ``[batch, pos, d_vocab]``, or a function that
            gets the logits and returns it.
        names : optional
            The hook points, as for :meth:`run_with_cache`. All by default, which takes most memory.
        backward : {"gradient", "relp", "gim"}
            The backward rule.

        Returns
        -------
        dict of str to numpy.ndarray
            The gradients by name, in the shapes of the activations.

        Examples
        --------
        >>> weights = np.zeros(model(prompt).shape, dtype="float32")
        >>> weights[0, -1, model.to_single_token(" Mary")] = 1
        >>> weights[0, -1, model.to_single_token(" John")] = -1
        >>> gradients = model.cache_gradients(prompt, weights, "blocks.3.attn.hook_z")
        """
        rows = self._rows(input, prepend_bos)
        if callable(logit_gradient):
            logits, _ = self._native.run(rows, [])
            logit_gradient = logit_gradient(logits)
        weights = np.asarray(logit_gradient, dtype=np.float32)
        return self._native.gradients(rows, weights, self._names(names), backward)

    def _names(self, names: Names) -> list[str]:
        if names is None:
            return self.hook_names
        if isinstance(names, str):
            return [names]
        if callable(names):
            return [name for name in self.hook_names if names(name)]
        return list(names)

    def _prompts(self, input: Input, prepend_bos: bool) -> list[list[int]]:
        if isinstance(input, str):
            return [self._native.encode(input, prepend_bos)]
        items: list[Any] = input.tolist() if hasattr(input, "tolist") else list(input)
        if items and isinstance(items[0], (int, np.integer)):
            return [_ids(items)]
        return [self._native.encode(item, prepend_bos) if isinstance(item, str) else _ids(item) for item in items]

    def _one(self, input: Any, prepend_bos: bool) -> list[list[int]]:
        prompts = self._prompts(input, prepend_bos)
        if len(prompts) != 1:
            raise ArgumentError(f"give one prompt, not {len(prompts)}")
        return prompts

    def _rows(self, input: Input, prepend_bos: bool) -> list[list[int]]:
        rows: list[list[int]] = self.to_tokens(input, prepend_bos).tolist()
        return rows


def _ids(tokens: Any) -> list[int]:
    ids = [int(token) for token in tokens]
    for token in ids:
        if not 0 <= token < 2**32:
            raise ArgumentError(f"{token} is no token id")
    return ids


def _with_hook(function: Callable[..., Any]) -> Callable[[Floats, str], Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return lambda activation, name: function(activation, Hook(name=name))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = [p.kind for p in parameters]
    if any(p.name == "hook" for p in parameters):
        return lambda activation, name: function(activation, hook=Hook(name=name))
    if len([kind for kind in kinds if kind in positional]) == 1 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        return lambda activation, name: function(activation)
    return lambda activation, name: function(activation, Hook(name=name))
