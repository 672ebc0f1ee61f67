"""Find which parts of a transformer language model cause a behavior.

>>> import rewire
>>> model = rewire.load("toy-gpt2")  # or "gpt2", "owner/name@revision", a directory, a GGUF file
>>> pairs = rewire.Pairs(
...     clean="When John and Mary went to the shops, John gave the bag to",
...     corrupt="When John and Mary went to the shops, Mary gave the bag to",
...     answers=" Mary",
...     wrong_answers=" John",
... )
>>> rewire.activation_patching(model, pairs, nodes="head_z").top(1)
[Ranked(node='L0H7', effect=0.4184...)]
"""

from ._analyses import (
    ablation,
    activation_patching,
    attribution_patching,
    integrated_gradients,
    logit_attribution,
    path_patching,
    screen_then_verify,
)
from ._circuits import Circuit, Judged, Share, evaluate_circuits, find_circuit
from ._edges import edge_effects, head_edge_patching, head_edges
from ._effects import Effects, Ranked
from ._errors import (
    AnalysisError,
    ArgumentError,
    HookError,
    InternalError,
    ModelError,
    PairsError,
    ReportError,
    RewireError,
    RewireWarning,
    TokenizerError,
)
from ._load import from_state_dict, load
from ._model import Hook, Model
from ._pairs import Pairs
from ._rewire import __version__
from ._studies import Check, Reproduction, reproduce_facts, reproduce_ig, reproduce_ioi, reproduce_pythia
from ._sweep import sweep

__all__ = [
    "AnalysisError",
    "ArgumentError",
    "Check",
    "Circuit",
    "Effects",
    "Hook",
    "HookError",
    "InternalError",
    "Judged",
    "Model",
    "ModelError",
    "Pairs",
    "PairsError",
    "Ranked",
    "ReportError",
    "Reproduction",
    "RewireError",
    "RewireWarning",
    "Share",
    "TokenizerError",
    "__version__",
    "ablation",
    "activation_patching",
    "attribution_patching",
    "edge_effects",
    "evaluate_circuits",
    "find_circuit",
    "from_state_dict",
    "head_edge_patching",
    "head_edges",
    "integrated_gradients",
    "load",
    "logit_attribution",
    "path_patching",
    "reproduce_facts",
    "reproduce_ig",
    "reproduce_ioi",
    "reproduce_pythia",
    "screen_then_verify",
    "sweep",
]
