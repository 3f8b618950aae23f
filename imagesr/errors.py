"""Errors that reach the user as one line; each has its exit code, in `cli.run_command`."""

from __future__ import annotations


class InputError(Exception):
    """An input that is missing or cannot be read."""


class OutputError(Exception):
    """An output that could not be written, or did not pass its check."""


class ModelError(ValueError):
    """A saved model that is unknown, incomplete or does not match its card."""


class TrainingError(Exception):
    """A training that failed after it had begun."""
