"""Runs on a tracking server, and where a model comes from: `imagesr track sync RUN`, `imagesr track lineage MODEL`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from imagesr.cli import Parser, run_subcommand
from imagesr.errors import InputError
from imagesr.tracking import URI

DESCRIPTION = "Send runs to a tracking server, and tell where a model comes from."
EXAMPLES = """
  imagesr track sync runs/*
  imagesr track lineage runs/mine
  imagesr track lineage mine_x2@champion --uri https://mlflow.example.org
"""
EPILOG = f"""\
Without --uri, the address is the one that the run was tracked at, or {URI}. An address with a password
belongs in {URI}, where other users do not see it."""


def _parser():
    usage = "imagesr track {sync,lineage} ..."
    parser = Parser(prog="imagesr track", usage=usage, description=DESCRIPTION, examples=EXAMPLES, epilog=EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)

    def command(name, run, what, example):
        prog = f"imagesr track {name}"
        described = {
            "help": what,
            "description": f"{what[0].upper()}{what[1:]}.",
            "epilog": EPILOG,
            "examples": example,
        }
        one = commands.add_parser(name, prog=prog, **described)
        one.set_defaults(run=run)
        one.add_argument("--uri", help="an MLflow server, or sqlite:///FILE")
        return one.add_argument

    what = "send what the server lacks of runs; repeated, it changes nothing"
    add = command("sync", run_sync, what, "imagesr track sync runs/*")
    add("runs", nargs="+", type=Path, metavar="RUN", help="folders of imagesr train --track")

    what = "tell data, code, config and parents of a model, and check the files"
    add = command("lineage", run_lineage, what, "imagesr track lineage runs/mine")
    add("model", metavar="MODEL", help="a run, a model's folder, NAME@ALIAS, or NAME@NUMBER in the registry")
    return parser


def _uri(options, run=None):
    from imagesr.tracking.mirror import RECORD, read_record

    if uri := options.uri or os.environ.get(URI):
        return uri
    if run and (run / RECORD).exists():
        return read_record(run)["uri"]
    raise ValueError(f"Expected the address of a tracking server, by --uri or {URI}. Received: none")


def _runs(paths):
    """Return the runs among paths; what lies beside them, such as MLflow's own files, is named and passed over.

    Raises InputError for a path that is missing, and where no path is a run.
    """
    from imagesr.tracking.mirror import is_run

    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"Expected runs of imagesr train. Received: {missing[0]}, which is not there")
    found = [path for path in paths if is_run(path)]
    if not found:
        raise InputError(f"Expected runs of imagesr train. Received: {paths[0]}, which is none")
    for path in paths:
        if path not in found:
            print(f"imagesr track: {path} is no run, and is passed over", file=sys.stderr)
    return found


def run_sync(options: argparse.Namespace) -> int:
    """Send the runs, and return the exit code."""
    from imagesr.tracking.mirror import Mirror, begin

    runs = _runs(options.runs)
    addresses = [_uri(options, run) for run in runs]
    from imagesr.tracking.server import Server

    lacking = 0
    for run, uri in zip(runs, addresses, strict=True):
        begin(run, uri)
        mirror = Mirror(run, Server(uri))
        before = mirror.missing()
        mirror.send(last=True)
        after = mirror.missing()
        lacking += after
        left = f", {after} are still missing" if after else ""
        print(f"{run}: {before - after} values were missing and are sent{left}")
    return 1 if lacking else 0


def run_lineage(options: argparse.Namespace) -> int:
    """Print the lineage and what has changed since, and return the exit code."""
    from imagesr.card import ModelCard
    from imagesr.tracking.lineage import changes, describe, read_lineage

    with tempfile.TemporaryDirectory(prefix="imagesr-lineage-") as scratch:
        folder = Path(options.model)
        if not folder.is_dir():
            folder = _fetched(options, Path(scratch))
        if (folder / "card.json").is_file():
            ModelCard.read(folder)  # raises where a file is not what the card says
        record = read_lineage(folder)
        print("\n".join([options.model, *describe(record, indent="  ")]))
        changed = changes(record, folder)
    for line in changed:
        print(f"changed since: {line}", file=sys.stderr)
    return 1 if changed else 0


def _fetched(options, folder):
    name, at, which = options.model.rpartition("@")
    if not at:
        raise ValueError(f"Expected a run, a model's folder, or NAME@ALIAS. Received: {options.model}")
    from imagesr.tracking.server import Server

    server = Server(_uri(options))
    version = server.version(name, which) if which.isdecimal() else server.alias(name, which)
    if version is None:
        raise ValueError(f"Expected a version in the registry. Received: {options.model}")
    server.download(version, folder)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_subcommand("track", _parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
