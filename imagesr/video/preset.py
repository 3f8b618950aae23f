"""Options of `imagesr video` from a file: `--preset-file FILE`, TOML or JSON of the options' long names."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

_NOT_IN_A_FILE = ("help", "version", "preset-file", "demo")


def with_preset(make: Callable[[], argparse.ArgumentParser], arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those of their preset file before them; what the command line gives wins.

    `make` returns a parser of the command. Raises ValueError for a file that cannot be read and for wrong names.
    """
    parser = make()
    given = _given(make(), arguments)
    if "preset_file" not in given:
        return list(arguments)
    file = given["preset_file"]
    actions = {string[2:]: action for string, action in parser._option_string_actions.items() if string[:2] == "--"}
    groups = [group._group_actions for group in parser._mutually_exclusive_groups]
    found: list[str] = []
    for key, value in _read(file).items():
        name = key.replace("_", "-")
        if name not in actions or name in _NOT_IN_A_FILE:
            raise ValueError(f"Expected names of options in {file}. Received: {key!r}{_near(name, actions)}")
        others = [actions[name], *(action for group in groups if actions[name] in group for action in group)]
        if not any(action.dest in given for action in others):
            found += _words(actions[name], name, value, file)
    return found + list(arguments)


def _given(parser, arguments):
    """Return the options that the command line itself has."""
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_intermixed_args(arguments))


def _read(file: Path):
    try:
        text = file.read_text("utf-8")
        found = json.loads(text) if file.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"Expected a preset file that can be read. {file}: {error.strerror}") from None
    except ValueError as error:
        kind = "JSON" if file.suffix.lower() == ".json" else "TOML"
        raise ValueError(f"Expected a preset file in {kind}. {file}: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise ValueError(f"Expected a preset file with names and values. {file} has none")
    return found


def _near(name, actions):
    near = get_close_matches(name, set(actions) - {*_NOT_IN_A_FILE}, 1)
    return f"; {near[0]!r} is one" if near else ""


def _words(action, name, value, file):
    """Return the words of the command line that say the same as a name and its value."""
    if isinstance(value, bool):
        if not value:
            return []
        if action.nargs == 0:
            return [f"--{name}"]
        if action.nargs == "?":
            return [f"--{name}={action.const}"]  # alone it would take the next word for its value
    elif isinstance(value, str | int | float) and action.nargs != 0:
        return [f"--{name}={value}"]
    expected = "true or false" if action.nargs == 0 else "a text or a number"
    raise ValueError(f"Expected {expected} for {name!r} in {file}. Received: {json.dumps(value, default=str)}")
