"""Errors that a user can correct.

Library code raises these; ``runtime.cli.run`` turns them into one line on stderr and exit code 2. Each message names
the thing that is wrong and what to do about it.
"""


class UserError(ValueError):
    """Something that the user, not the programmer, can put right."""

    exit_code = 2


class UnknownNetworkError(UserError):
    """A network, depth or kind of scaling factor that the symbols do not know."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or made for something else."""


class DataError(UserError):
    """A data set that is missing, incomplete or damaged."""


class GraphError(UserError):
    """A symbol that cannot be read or cannot be worked on."""


class NothingLeftError(UserError):
    """Stripping would leave no path from the data to the output."""


class CannotShrinkError(UserError):
    """The network cannot be rebuilt without its dead structures and stay the same network otherwise."""


class ProofError(UserError):
    """Two networks that must compute the same do not."""


class TrainingError(UserError):
    """Training that cannot start or cannot go on."""


class AnotherEndedError(TrainingError):
    """Another process of a run has ended, or does not answer, which ends the run."""

    exit_code = 3


class MissingDependencyError(UserError):
    """An optional package that is not installed."""
