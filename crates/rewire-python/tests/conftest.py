"""What the tests share: the toy models, prompt pairs, and the command `rewire`."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

import rewire

PROMPTS = [
    ("When John and Mary went to the shops, {} gave the bag to", " Mary", " John"),
    ("When Tom and James went to the park, {} gave the ball to", " James", " Tom"),
]


@pytest.fixture(scope="session")
def model() -> rewire.Model:
    return rewire.load("toy-gpt2")


@pytest.fixture(scope="session")
def neox() -> rewire.Model:
    return rewire.load("toy-neox")


@pytest.fixture(scope="session")
def pairs() -> rewire.Pairs:
    return rewire.Pairs(
        clean=[text.format(wrong.strip()) for text, _, wrong in PROMPTS],
        corrupt=[text.format(right.strip()) for text, right, _ in PROMPTS],
        answers=[right for _, right, _ in PROMPTS],
        wrong_answers=[wrong for _, _, wrong in PROMPTS],
    )


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pairs as JSON Lines."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    with path.open("w") as file:
        for text, right, wrong in PROMPTS:
            clean, corrupt = text.format(wrong.strip()), text.format(right.strip())
            record = {"clean": clean, "corrupt": corrupt, "answers": [right], "wrong_answers": [wrong]}
            file.write(json.dumps(record) + "\n")
    return path


class Command:
    """The command `rewire`, whose path is in REWIRE_COMMAND."""

    def __init__(self, program: str, pairs: Path, directory: Path) -> None:
        self.program, self.pairs, self.directory = program, pairs, directory

    def sweep(self, *arguments: str) -> dict[str, np.ndarray]:
        """Runs a sweep of every prompt and returns its tables."""
        out = self.directory / "out"
        command = [self.program, "sweep", "--pairs", str(self.pairs), "--per-prompt", "--force", "--out", str(out)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return read_safetensors(out / "effects.safetensors")

    def refused(self, *arguments: str) -> str:
        """Returns the error of a sweep that is refused."""
        command = [self.program, "sweep", "--pairs", str(self.pairs), "--out", str(self.directory / "refused")]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        return done.stderr.strip().splitlines()[-1].removeprefix("error: ")


@pytest.fixture(scope="session")
def command(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    program = os.environ.get("REWIRE_COMMAND")
    if program is None:
        pytest.skip("REWIRE_COMMAND does not name the command rewire")
    return Command(program, pairs_file, tmp_path_factory.mktemp("sweeps"))


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the float32 tensors of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, about in header.items():
        start, end = (8 + length + offset for offset in about["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(about["shape"])
    return tensors
