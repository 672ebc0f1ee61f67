"""Models from names, files and memory."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import _rewire
from ._errors import ModelError
from ._model import Model


def load(
    name: str | os.PathLike[str] | Any,
    *,
    tokenizer: Any = None,
    process_weights: bool = True,
    keep_in_files: bool = False,
) -> Model:
    """Loads a language model on the CPU, in float32.

    Parameters
    ----------
    name : str, path, or transformers model
        - ``"toy-gpt2"`` or ``"toy-neox"``, which are part of the package,
        - ``"gpt2"``, ``"pythia-160m@step3000"`` or ``"owner/name"`` on the Hugging Face hub, with
          an optional ``@revision``, or ``:FILE.gguf`` for a GGUF file of the repository,
        - a directory in Hugging Face layout, or a GGUF file,
        - a ``transformers`` model in memory, with its ``tokenizer``.
    tokenizer : transformers tokenizer, optional
        For a ``transformers`` model. Without one, prompts must be token ids.
    process_weights : bool
        Fold norms and center weights, as TransformerLens does by default. It changes no
        probability.
    keep_in_files : bool
        Leave the weights in their files and convert each matrix when it is used. It takes less
        memory and more time, and gives the same numbers.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        For an unknown name, a failed download, or damaged files.
    """
    if hasattr(name, "save_pretrained"):
        with _temporary() as directory:
            name.save_pretrained(directory, safe_serialization=True)
            if tokenizer is not None:
                tokenizer.save_pretrained(directory)
            return _from_directory(directory, getattr(name, "name_or_path", "") or "model", process_weights)
    return Model(_rewire.Model.load(os.fspath(name), process_weights, keep_in_files), process_weights)


def from_state_dict(
    state_dict: Mapping[str, Any],
    config: Mapping[str, Any] | Any,
    *,
    tokenizer: Any = None,
    process_weights: bool = True,
) -> Model:
    """Makes a model of weights in memory.

    Parameters
    ----------
    state_dict : dict of str to tensor or array
        Weights by their Hugging Face names, as ``transformers`` models have them. Values are torch
        tensors or numpy arrays.
    config : dict or transformers config
        The contents of the model's ``config.json``.
    tokenizer : transformers tokenizer, or path of a tokenizer.json, optional
        Without one, prompts must be token ids.
    process_weights : bool
        As for :func:`load`.
    """
    described = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    with _temporary() as directory:
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump(described, file)
        _write_safetensors(os.path.join(directory, "model.safetensors"), state_dict)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(directory)
        elif tokenizer is not None:
            with open(tokenizer, "rb") as given, open(os.path.join(directory, "tokenizer.json"), "wb") as file:
                file.write(given.read())
        return _from_directory(directory, str(described.get("_name_or_path") or "model"), process_weights)


@contextmanager
def _temporary() -> Iterator[str]:
    # Imported here, because `import rewire` would take longer by a tenth.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rewire-") as directory:
        yield directory


def _from_directory(directory: str, name: str, process_weights: bool) -> Model:
    """Loads a temporary directory, which neither the model nor an error names."""
    try:
        model = Model(_rewire.Model.load(directory, process_weights, False), process_weights)
    except ModelError as error:
        raise ModelError(str(error).replace(directory, name)) from None
    model.name = name
    return model


def _write_safetensors(path: str, state_dict: Mapping[str, Any]) -> None:
    arrays = {name: _array(name, tensor) for name, tensor in state_dict.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(described)))
        file.write(described)
        for array in arrays.values():
            file.write(array.tobytes())


def _array(name: str, tensor: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().float().numpy()
    try:
        return np.ascontiguousarray(tensor, dtype="<f4")
    except (TypeError, ValueError) as error:
        raise ModelError(f"the weight {name} is no tensor or array: {error}") from None
