"""The commands `imagesr datasets extract`, `transform`, `load` and `prune`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from imagesr.store import without_secrets
from imagesr.textfile import recorded

NAMES = ("div2k", "urban100", "bsd100")


def source_argument(text: str) -> tuple[str, str]:
    """Return the name and the source of a text such as div2k=DIV2K.zip."""
    name, equals, source = text.partition("=")
    if name not in NAMES or not (equals and source):
        raise argparse.ArgumentTypeError(f"expected NAME=SOURCE with a name ({', '.join(NAMES)}), received {text}")
    return name, source


def digest_argument(text: str) -> tuple[str, str]:
    """Return the name and the SHA-256 of a text such as div2k=9f86…."""
    name, _, digest = text.partition("=")
    if name not in NAMES or not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise argparse.ArgumentTypeError(f"expected NAME=SHA256 with 64 hexadecimal digits, received {text}")
    return name, digest.lower()


def add_commands(command: Callable[..., Callable]) -> None:
    """Add the commands to a parser; `command` takes name, function, what it does and an example, and returns `add`."""
    what = "take pictures out of zips, folders, addresses or Kaggle"
    add = command("extract", run_extract, what, "imagesr datasets extract div2k=train.zip div2k=valid.zip --out raw")
    text = "a zip, a folder, https://… of a zip, or kaggle:OWNER/DATASET; a name may have several"
    add("sources", nargs="+", type=source_argument, metavar="NAME=SOURCE", help=f"{', '.join(NAMES)}: {text}")
    add("--out", type=Path, required=True, metavar="RAW", help="the folder for the pictures")
    text = "what the source must be; without it, it is written down"
    add("--sha256", nargs="+", type=digest_argument, default=[], metavar="NAME=SHA256", help=text)

    what = "make the tree of pairs, and check it: one leak, and it is not made"
    add = command("transform", run_transform, what, "imagesr datasets transform raw tree")
    add("raw", type=Path, metavar="RAW", help="a folder of imagesr datasets extract")
    add("out", type=Path, metavar="TREE", help="the folder for the tree")
    text = "numbers of pictures (default: train=800 validation=100 urban100=100 bsd100=100, the official ones)"
    add("--expect", nargs="+", default=[], metavar="SET=NUMBER", help=text)

    what = "publish a tree as the newest version in a store"
    add = command("load", run_load, what, "imagesr datasets load tree s3://bucket/data")
    add("tree", type=Path, metavar="TREE", help="a folder of imagesr datasets transform")
    add("store", metavar="STORE", help="a folder, or s3://BUCKET/PREFIX")

    what = "remove old versions from a store"
    add = command("prune", run_prune, what, "imagesr datasets prune s3://bucket/data --keep 2")
    add("store", metavar="STORE", help="a folder, or s3://BUCKET/PREFIX")
    add("--keep", type=int, default=2, metavar="N", help="versions that stay, the newest ones (default: 2)")


def run_extract(options: argparse.Namespace) -> int:
    """Extract the sources, and return the exit code."""
    from imagesr.datasets.extract import extract

    with recorded("etl", step="extract") as figures:
        entries = extract(options.sources, options.out, sha256=options.sha256, progress=progress)
        figures |= {"rows": sum(entry["pictures"] for entry in entries), "rejected": 0}
    for entry in entries:
        print(f"{entry['name']}: {entry['pictures']} pictures of {entry['from']}, SHA-256 {entry['sha256']}")
    return 0


def run_transform(options: argparse.Namespace) -> int:
    """Make the tree, and return the exit code."""
    from imagesr.datasets.tree import expected, transform
    from imagesr.store.versions import read_tree

    with recorded("etl", step="transform") as figures:
        problems = transform(options.raw, options.out, expect=expected(options.expect), progress=progress)
        figures |= {"rows": 0 if problems else len(read_tree(options.out).files), "rejected": len(problems)}
    return _told(problems, f"{options.out} is there, and in order.", f"{options.out} is not made")


def run_load(options: argparse.Namespace) -> int:
    """Publish the tree, and return the exit code."""
    from imagesr.datasets.tree import load

    with recorded("etl", step="load") as figures:
        version, sent, problems = load(options.tree, options.store, progress=progress)
        figures |= {"rows": sent, "rejected": len(problems)}
    what = f"{sent} files sent" if sent else "nothing to send"
    place = without_secrets(options.store)
    return _told(problems, f"{version} is the newest version of {place}: {what}.", "nothing is published")


def _told(problems, well, badly):
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem{'s' * (len(problems) > 1)}: {badly}." if problems else well)
    return 1 if problems else 0


def run_prune(options: argparse.Namespace) -> int:
    """Remove old versions, and return the exit code."""
    from imagesr.store import open_store
    from imagesr.store.versions import prune

    for version in (gone := prune(open_store(options.store), options.keep)):
        print(f"removed {version}")
    print(f"{len(gone) or 'no'} version{'s' * (len(gone) != 1)} removed.")
    return 0


def progress(items: Iterable, **options) -> Iterable:
    """Wrap an iterable in a progress bar, on a terminal only."""
    from tqdm import tqdm

    return tqdm(items, disable=None, leave=False, dynamic_ncols=True, **options)
