"""What can go wrong, by whose fault it is: the exit code of a command follows from it."""

from __future__ import annotations


class InputError(Exception):
    """A video that cannot be read."""


class OutputError(Exception):
    """A video that could not be written, or did not pass its check."""


class ModelError(ValueError):
    """A saved model that is unknown, incomplete or does not match its card."""


class TrainingError(Exception):
    """A training that went wrong after it had begun."""
