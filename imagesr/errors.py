"""Errors that reach the user as one line; each has its exit code, in `cli.run_command`."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(Exception):
    """An input that is missing or cannot be read."""


class OutputError(Exception):
    """An output that could not be written, or did not pass its check."""


class ModelError(ValueError):
    """A saved model that is unknown, incomplete or does not match its card."""


class TrainingError(Exception):
    """A training that failed after it had begun."""


def cause(error: BaseException) -> str:
    """Say in one line what was wrong; errors of the system without their number and file."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def together(errors: Iterable[str]) -> str:
    """Return texts `Expected …. Received: …` as one line, in which each expectation stands once."""
    found: dict[str, list[str]] = {}
    for expected, received, what in (error.partition(" Received: ") for error in errors):
        found.setdefault(expected + received, []).append(what)
    return ". ".join(expected + "; ".join(filter(None, whats)) for expected, whats in found.items())
