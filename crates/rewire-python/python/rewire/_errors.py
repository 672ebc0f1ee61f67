"""The exceptions of Rewire. Each carries the words of the command's error."""


class RewireError(Exception):
    """Base class of all errors of Rewire."""


class ModelError(RewireError):
    """A model could not be found, loaded or run."""


class TokenizerError(RewireError):
    """A text could not be tokenized, or the model has no tokenizer."""


class PairsError(RewireError):
    """Prompt pairs, or a file of prompt pairs, cannot be used."""


class HookError(RewireError):
    """A hook point is unknown, or a hook returned something that does not fit."""


class AnalysisError(RewireError):
    """An analysis refused its input, or failed."""


class ReportError(RewireError):
    """A report could not be written."""


class ArgumentError(RewireError, ValueError):
    """An argument has no meaning, such as an unknown metric."""


class InternalError(RewireError):
    """A fault in Rewire. Please report it."""


class RewireWarning(UserWarning):
    """Something is doubtful about a model, prompt pairs or effects."""
