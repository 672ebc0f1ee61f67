"""Prompt pairs from lists, tables and files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Union

from ._errors import PairsError

if TYPE_CHECKING:
    from . import _rewire
    from ._model import Model

Prompt = Union[str, Sequence[int]]
"""A prompt as text, or as token ids."""

Answer = Union[str, int]
"""An answer as text with its leading space, or as a token id."""


class Pairs:
    """Pairs of a clean and a corrupted prompt, with right and wrong answers.

    Both prompts of a pair must have the same number of tokens. Text gets the model's BOS in front;
    token ids are used as they are.

    Parameters
    ----------
    clean : str or list
        The prompts on which the model shows the behavior: texts, or lists of token ids.
    corrupt : str or list
        The prompts on which it does not.
    answers : list
        The right next token of each clean prompt: a text with its leading space, a token id, or a
        list of these.
    wrong_answers : list, optional
        The wrong next tokens. Only ``metric="log-prob"`` does without.
    position : list of int, optional
        The marked position of each pair, for ``by="marked"``. Positions count from 0, which is the
        BOS if there is one.
    tokens : {"single", "first-token", "whole"}, optional
        How answers of several tokens are read: refused, by their first token, or whole (for
        ``metric="log-prob"``, where this is the default).
    prepend_bos : bool
        Whether text begins with the model's BOS.

    Examples
    --------
    >>> pairs = rewire.Pairs(
    ...     clean=["When John and Mary went to the shops, John gave the bag to"],
    ...     corrupt=["When John and Mary went to the shops, Mary gave the bag to"],
    ...     answers=[" Mary"],
    ...     wrong_answers=[" John"],
    ... )
    """

    def __init__(
        self,
        clean: str | Sequence[Prompt],
        corrupt: str | Sequence[Prompt],
        answers: Answer | Sequence[Answer | Sequence[Answer]],
        wrong_answers: Answer | Sequence[Answer | Sequence[Answer]] | None = None,
        *,
        position: Sequence[int] | None = None,
        tokens: str | None = None,
        prepend_bos: bool = True,
    ) -> None:
        if isinstance(clean, str):
            clean = [clean]
        columns: dict[str, list[Any]] = {
            "clean": [_prompt(prompt) for prompt in clean],
            "corrupt": [_prompt(prompt) for prompt in ([corrupt] if isinstance(corrupt, str) else corrupt)],
            "answers": _answers(answers),
        }
        if wrong_answers is not None:
            columns["wrong_answers"] = _answers(wrong_answers)
        if position is not None:
            columns["position"] = [int(place) for place in position]
        n = len(columns["clean"])
        for name, column in columns.items():
            if len(column) != n:
                raise PairsError(f"Pairs: clean has {n} items and {name} has {len(column)}; give one per pair")
        self._records = [dict(zip(columns, row)) for row in zip(*columns.values())]
        self._path: str | None = None
        self._counterfactual: str | None = None
        self._mark: str | None = None
        self._tokens = tokens
        self._prepend_bos = prepend_bos

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        counterfactual: str | None = None,
        mark: str | None = None,
        tokens: str | None = None,
        prepend_bos: bool = True,
    ) -> Pairs:
        """Uses the pairs of a file, in any format that ``rewire sweep --pairs`` takes.

        These are JSON Lines with ``clean``, ``corrupt``, ``answers`` and ``wrong_answers``, and the
        files of auto-circuit, EAP-IG, MIB, BLiMP and feature-circuits. The file is read when an
        analysis runs.

        Parameters
        ----------
        path : path
            The file.
        counterfactual : str, optional
            The counterfactual of MIB's rows, or the column of a CSV table's corrupted prompts.
        mark : str, optional
            The word of auto-circuit's ``word_idxs`` whose position is marked.
        tokens, prepend_bos
            As for :class:`Pairs`.
        """
        pairs = cls([], [], [], tokens=tokens, prepend_bos=prepend_bos)
        pairs._path = os.fspath(path)
        pairs._counterfactual = counterfactual
        pairs._mark = mark
        return pairs

    @classmethod
    def from_dataframe(
        cls,
        frame: Any,
        *,
        clean: str = "clean",
        corrupt: str = "corrupt",
        answers: str = "answers",
        wrong_answers: str | None = "wrong_answers",
        position: str | None = None,
        tokens: str | None = None,
        prepend_bos: bool = True,
    ) -> Pairs:
        """Makes pairs from the rows of a DataFrame.

        Parameters
        ----------
        frame : pandas.DataFrame
            A table with one pair per row.
        clean, corrupt, answers, wrong_answers, position : str
            The names of its columns.
        tokens, prepend_bos
            As for :class:`Pairs`.
        """
        wanted = [clean, corrupt, answers, *(name for name in (wrong_answers, position) if name is not None)]
        missing = [name for name in wanted if name not in frame]
        if missing:
            raise PairsError(f"the table has no column {missing[0]!r}; it has {', '.join(map(str, frame))}")

        def column(name: str | None) -> list[Any] | None:
            return None if name is None else frame[name].tolist()

        return cls(
            column(clean) or [],
            column(corrupt) or [],
            column(answers) or [],
            column(wrong_answers),
            position=column(position),
            tokens=tokens,
            prepend_bos=prepend_bos,
        )

    def __repr__(self) -> str:
        return f"Pairs.read({self._path!r})" if self._path is not None else f"<{len(self._records)} prompt pairs>"

    def for_model(self, model: Model, metric: object = None) -> _rewire.Pairs:
        """Tokenizes and checks the pairs for a model. The analyses call it."""
        tokens = self._tokens or ("whole" if metric == "log-prob" else "single")
        lines = "\n".join(json.dumps(record) for record in self._records)
        return model._native.read_pairs(
            self._path, lines, tokens, self._counterfactual, self._mark, self._prepend_bos
        )


def _prompt(prompt: Prompt) -> str | list[int]:
    return prompt if isinstance(prompt, str) else [int(token) for token in prompt]


def _answers(answers: Answer | Iterable[Answer | Iterable[Answer]]) -> list[list[str | int]]:
    if isinstance(answers, (str, int)):
        answers = [answers]

    def one(answer: Any) -> str | int:
        return answer if isinstance(answer, str) else int(answer)

    def of_pair(answer: Any) -> list[str | int]:
        is_one = isinstance(answer, str) or not hasattr(answer, "__iter__")
        return [one(answer)] if is_one else [one(item) for item in answer]

    return [of_pair(answer) for answer in answers]
