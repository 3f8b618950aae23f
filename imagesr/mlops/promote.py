"""Let a run become the champion, if it is better: `imagesr promote RUN --name NAME --pictures NAME=DIR`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagesr.cli import Parser, run_command

DESCRIPTION = """\
Export a run, register it as a challenger, compare it with the champion, and let it take the champion's place if it is
better. Every decision is kept with all of its figures."""
EXAMPLES = """
  imagesr promote runs/mine --name mine --pictures b100=data/b100 --calibrate photos/train
  imagesr promote --rollback --name mine_x2
"""
EPILOG = """\
Exit codes: 0 promoted or rolled back, 1 refused, 2 wrong options, 3 unreadable pictures or models, 4 no registry."""


def _parser():
    parser = Parser(
        prog="imagesr promote",
        usage="imagesr promote RUN --name NAME --pictures NAME=DIR ... [options]\n"
        "       imagesr promote --rollback --name NAME_xSCALE",
        description=DESCRIPTION,
        examples=EXAMPLES,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("run", type=Path, nargs="?", metavar="RUN", help="a run of imagesr train --track")
    add("--name", required=True, help="the model's name; in the registry NAME_xSCALE")
    add("--registry", metavar="URI", help="an MLflow server or sqlite:///FILE (default: where the run is tracked)")
    text = "HR pictures to compare on: a data set, such as b100=DIR, or a mere folder"
    add("--pictures", nargs="+", default=[], metavar="NAME=DIR", help=text)
    add("--clips", type=Path, metavar="DIR", help="HR clips (default: a camera moves over some of the pictures)")
    add("--calibrate", type=Path, nargs="+", default=[], metavar="DIR", help="pictures for int8 (default: no int8)")
    add("--limits", type=Path, metavar="FILE", help="limits, in TOML (default: those that are shipped)")
    add("--rollback", action="store_true", help="make the champion before this one the champion again")
    return parser


def promote(
    run: Path,
    name: str,
    uri: str,
    *,
    pictures: Mapping[str, Sequence[Path]],
    clips: Sequence[Path] = (),
    calibrate: Sequence[Path] = (),
    limits: Path | None = None,
) -> tuple[str, bool, Path]:
    """Bring a run to the registry and decide; return its version, whether it is the champion now, and the decision.

    Repeated after a kill, it goes on with the version that is there. Raises OutputError where the registry does not
    answer; the champion stays then.
    """
    from imagesr.files import write_whole
    from imagesr.mlops.gate import LIMITS, Limits, decide
    from imagesr.mlops.measures import measure
    from imagesr.mlops.registry import CHALLENGER, CHAMPION, GATE, WHY, crown, fetch, register
    from imagesr.tracking.lineage import FILE, read_lineage
    from imagesr.tracking.mirror import Mirror, begin
    from imagesr.tracking.server import Server

    bounds = Limits.read(limits or LIMITS)
    card = exported(run, name, calibrate)
    begin(run, uri)
    server = Server(uri)
    mirror = Mirror(run, server)
    mirror.send(last=True)
    version = register(server, mirror.id, card)
    server.set_alias(version, CHALLENGER)
    champion = server.alias(version.name, CHAMPION)
    if champion and champion.number == version.number:
        return version.number, True, run / f"decision-{version.number}.json"
    lineage = read_lineage(run) if (run / FILE).exists() else None
    with tempfile.TemporaryDirectory(prefix="imagesr-champion-") as scratch:
        other = fetch(server, champion, Path(scratch)) if champion else None
        decision = decide(measure(card, other, pictures, bounds, clips=clips, lineage=lineage), bounds)
    told = {"name": version.name, "version": version.number, "champion": champion and champion.number}
    file = run / f"decision-{version.number}.json"
    write_whole(file, json.dumps(told | decision.record(), indent=1) + "\n")
    mirror.send(last=True)  # the decision, too
    server.set_tag(version, GATE, "passed" if decision.passed else "refused")
    server.set_tag(version, WHY, "; ".join(decision.refusals())[:500])
    if decision.passed:
        crown(server, version, champion)
    return version.number, decision.passed, file


def exported(run: Path, name: str, calibrate: Sequence[Path]):
    """Return the card of a run's saved model in RUN/export, with its lineage in it.

    It is made where there is none, or where the one there is of another network or other pictures for int8.
    """
    from imagesr.card import ModelCard, sha256
    from imagesr.errors import ModelError
    from imagesr.files import write_whole
    from imagesr.media.images import find_images
    from imagesr.models import import_keras
    from imagesr.tracking.lineage import FILE

    if not (run / "model.keras").is_file():
        raise ModelError(f"Expected a finished run of imagesr train. Received: {run}")
    pictures = find_images(calibrate)
    digests = [sha256(picture) for picture in pictures]
    calibration = hashlib.sha256(json.dumps(digests).encode()).hexdigest() if pictures else None
    source = {"sha256": sha256(run / "model.keras"), "calibration": calibration}
    for folder in sorted((run / "export").glob(f"{name}_x*")):
        try:
            card = ModelCard.read(folder)
        except ModelError:
            continue
        file = folder / "source.json"
        if file.is_file() and {"calibration": None} | json.loads(file.read_text("utf-8")) == source:
            return card
    import_keras()
    from imagesr.export.export import export

    card = export(run, name, run / "export", calibration=pictures)
    write_whole(card.folder / "source.json", json.dumps(source) + "\n")
    if (run / FILE).exists():
        shutil.copyfile(run / FILE, card.folder / FILE)
    dataclasses.replace(card).write()
    return ModelCard.read(card.folder)


def picture_sets(texts: Sequence[str], scale: str) -> dict[str, list[Path]]:
    """Return the HR pictures of `NAME=DIR` texts by NAME; raises ValueError for data sets that are no files."""
    from imagesr.datasets import DATASETS, DataSource
    from imagesr.datasets.remote import fetched
    from imagesr.scale import Scale

    found = {}
    for text in texts:
        source = DataSource.parse(fetched(text))
        files = [pair.hr for pair in DATASETS[source.name](source.place, Scale.parse(scale), "val")]
        if not all(isinstance(file, Path) for file in files):
            raise ValueError(f"Expected pictures to compare on. Received: {text}")
        key = source.name if source.name not in found else f"{source.name}-{len(found)}"
        found[key] = files
    return found


def _run(parser, options):
    from imagesr.evaluate.inputs import find_items
    from imagesr.scale import Scale
    from imagesr.tracking import URI, address
    from imagesr.tracking.mirror import RECORD, read_record

    if options.rollback:
        return _roll_back(options, options.registry or address(None, Path("runs")))
    if not (options.run and options.pictures):
        parser.error("expected RUN and --pictures, or --rollback")
    import os

    uri = options.registry or os.environ.get(URI)
    if not uri and (options.run / RECORD).exists():
        uri = read_record(options.run)["uri"]
    uri = address(uri, options.run.absolute().parent)
    try:
        scale = json.loads((options.run / "config.json").read_text("utf-8"))["scale"]
    except (OSError, ValueError, KeyError):
        raise ValueError(f"Expected a run of imagesr train. Received: {options.run}") from None
    clips = []
    if options.clips:
        clips = [item.path for item in find_items([options.clips], Scale.parse(scale))[0] if item.info]
    number, passed, file = promote(
        options.run,
        options.name,
        uri,
        pictures=picture_sets(options.pictures, scale),
        clips=clips,
        calibrate=options.calibrate,
        limits=options.limits,
    )
    tell(number, passed, file)
    return 0 if passed else 1


def tell(number: str, passed: bool, file: Path) -> None:
    """Print a decision: every condition, and what became of the version."""
    if file.exists():
        for check in json.loads(file.read_text("utf-8"))["checks"]:
            print(f"{'ok     ' if check['passed'] else 'REFUSED'}  {check['told']}")
    print(f"version {number} {'is the champion' if passed else 'stays a challenger'}: {file}")


def _roll_back(options, uri):
    from imagesr.mlops.registry import roll_back
    from imagesr.tracking.server import Server

    gone, back = roll_back(Server(uri), options.name)
    print(f"{options.name}: version {back.number} is the champion again, {gone.number} is not")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = (parser := _parser()).parse_args(arguments)
    return run_command("promote", lambda given: _run(parser, given), options)


if __name__ == "__main__":
    sys.exit(main())
