"""A blind test of two ways to make the same pictures or clips: `imagesr blind page A B`, then `count VOTES.json …`."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.cli import Parser, check_interrupted, check_record, run_command
from imagesr.compare.crops import worst_window
from imagesr.compare.moving import moving_crops
from imagesr.errors import InputError, cause
from imagesr.files import write_whole
from imagesr.media.containers import FORMATS
from imagesr.media.images import find_images, read_rgb
from imagesr.pixels import luma

CROP = 512  # pixels a side: two fit beside each other on a screen, at their own size
SECONDS = 2.0  # of a clip
SIDES = ("left", "right")
PICKS = (*SIDES, "same")


def blind_page(
    a: Path, b: Path, *, seed: int, crop: int = CROP, seconds: float = SECONDS, zoom: int = 1, grey: bool = False
) -> str:
    """Return an HTML page that shows the pictures and clips of two folders side by side and collects votes.

    Two files of one name, whatever their suffix, are a pair. The page shows the window of `crop` pixels a side in which
    the two differ most, `zoom` times as large, of clips the first `seconds`, over and over; in `grey`, where colours
    would distract. Sides and order follow from `seed`, which the page holds; the page does not say which folder is on
    which side. Raises ValueError for folders without a pair for every file, InputError for a clip that cannot be read.
    """
    pairs, names = _pairs(a, b), _names(a, b)
    on_left, digest = sides(seed, pairs), hashlib.sha256(repr(names).encode())
    shown = {}
    for name, files in pairs.items():
        check_interrupted()
        ordered = files[:: -1 if on_left[name] else 1]
        if _is_clip(files[0]):
            digest.update(repr((name, crop, seconds, *(file.stat().st_size for file in files))).encode())
            film = base64.b64encode(moving_crops(*ordered, side=crop, seconds=seconds)).decode()
            shown[name] = {"name": name, "film": "data:video/mp4;base64," + film}
            continue
        cut = _cut(*map(read_rgb, files), crop, files)
        digest.update(repr((name, *(picture.shape for picture in cut))).encode())
        digest.update(b"".join(picture.tobytes() for picture in cut))
        left, right = cut[:: -1 if on_left[name] else 1]
        shown[name] = {"name": name, "left": _png(left), "right": _png(right)}
    order = [shown[name] for name in _ranked(f"{seed} order", pairs)]
    record = {"pictures": digest.hexdigest()[:16], "names": names, "seed": seed, "zoom": zoom, "grey": grey}
    record["shown"] = order
    template = Path(__file__).with_name("blind.html").read_text("utf-8")
    # Markup in a file's name would end the script that the record stands in, or the page.
    return template.replace("__RECORD__", json.dumps(record).replace("<", "\\u003c"))


def sides(seed: int, pictures: Iterable[str]) -> dict[str, int]:
    """Return for each picture the side of the pair on the left, 0 or 1: each on half of the pictures, by SHA-256."""
    ranked = _ranked(f"{seed} side", pictures)
    return {name: int(i >= len(ranked) / 2) for i, name in enumerate(ranked)}


def _ranked(salt, names):
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt} {name}".encode()).digest())


def _pairs(a, b):
    """Return the files of both folders by their names without suffix."""
    by_name = []
    for folder in (a, b):
        clips = sorted(file for file in folder.iterdir() if _is_clip(file)) if folder.is_dir() else []
        files = clips or find_images([folder])
        by_name.append({file.stem: file for file in files})
        if len(by_name[-1]) < len(files):
            raise ValueError(f"Expected pictures of different names, endings aside. Received: {folder}")
    if odd := sorted(set(by_name[0]) ^ set(by_name[1])):
        raise ValueError(f"Expected the same pictures in {a} and {b}. Received: {odd[0]} in one of them alone")
    pairs = {name: (by_name[0][name], by_name[1][name]) for name in sorted(by_name[0])}
    if mixed := [files for files in pairs.values() if _is_clip(files[0]) != _is_clip(files[1])]:
        raise ValueError(f"Expected two pictures or two clips. Received: {mixed[0][0]} and {mixed[0][1]}")
    return pairs


def _is_clip(file):
    return file.suffix.lower() in FORMATS and file.is_file()


def _names(a, b):
    """Return the names of the two: those of their folders, with as many parents as tell them apart."""
    both = [folder.resolve().parts for folder in (a, b)]
    depth = next((n for n in range(1, max(map(len, both)) + 1) if both[0][-n:] != both[1][-n:]), 0)
    if not depth:
        raise ValueError(f"Expected two folders. Received: {a} and {b}")
    return ["/".join(parts[-depth:]) for parts in both]


def _cut(a, b, side, files):
    """Return the window of two pictures in which they differ most."""
    if a.shape != b.shape:
        sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (a, b))
        raise ValueError(f"Expected two pictures of one size. Received: {files[0]} and {files[1]}, {sizes}")
    window = worst_window((luma(a).astype(np.float64) - luma(b)) ** 2, side)
    return a[window], b[window]


def _png(picture):
    Image.fromarray(picture).save(data := io.BytesIO(), "png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def count(files: Sequence[Path]) -> dict:
    """Return how often B was preferred, in all and for each picture, from the files of votes that the page saves.

    `share` is B's share of the votes for A or B, None without any, and `interval` its 95 % interval by Wilson; `same`
    counts votes for neither. Votes count as independent, even those of one person. Of several files of one person the
    one with the most votes counts. Raises InputError for other files, ValueError for votes on other pictures than the
    first file's.
    """
    sheets = {}
    for file in files:
        sheet = _read_votes(file)
        first = next(iter(sheets.values()), sheet)
        if sheet["pictures"] != first["pictures"]:
            raise ValueError(f"Expected votes on the same pictures. Received: {files[0]} and {file}")
        if len(sheet["votes"]) >= len(sheets.get(sheet["voter"], {"votes": ()})["votes"]):
            sheets[sheet["voter"]] = sheet
    tallies = {name: [0, 0, 0] for name in sorted(first["order"])}  # for A, for B, for neither
    for sheet in sheets.values():
        on_left = sides(sheet["seed"], sheet["order"])
        for name, pick in sheet["votes"].items():
            tallies[name][2 if pick == "same" else on_left[name] ^ SIDES.index(pick)] += 1
    images = [{"image": name, **_tally(*votes)} for name, votes in tallies.items()]
    whole = _tally(*np.sum(list(tallies.values()), 0).tolist())
    return {"names": first["names"], "voters": len(sheets), **whole, "images": images}


def _read_votes(file):
    try:
        sheet = json.loads(file.read_text("utf-8"))
        whole = isinstance(sheet["pictures"], str) and isinstance(sheet["seed"], int) and len(sheet["names"]) == 2
        known = set(sheet["order"])
        if not whole or any(name not in known or pick not in PICKS for name, pick in sheet["votes"].items()):
            raise ValueError("votes for what it does not name")
        str(sheet["voter"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"Expected votes that the page of imagesr blind saved in {file}. Received: {cause(error)}"
        ) from None
    return sheet


def _tally(a, b, same):
    low, high = wilson(b, a + b)
    return {"a": a, "b": b, "same": same, "share": b / (a + b) if a + b else None, "interval": [low, high]}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score (1927): (0, 1) where there was no trial."""
    if not trials:
        return 0.0, 1.0
    z2 = 1.959963984540054**2  # of the normal distribution, 2.5 % are above
    centre = (successes + z2 / 2) / (trials + z2)
    half = (z2 * successes * (trials - successes) / trials + z2**2 / 4) ** 0.5 / (trials + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def _in_words(result):
    """Yield the lines of the result: a table of the pictures, and the verdict."""
    a, b = result["names"]
    width = max(12, *(len(row["image"]) + 2 for row in result["images"]))
    yield f"{'':{width}}{'for A':>8}{'for B':>8}{'same':>8}   share of B, 95 % interval"
    for name, row in [*((row["image"], row) for row in result["images"]), ("all", result)]:
        share = "" if row["share"] is None else "{:.0%}   {:.0%} to {:.0%}".format(row["share"], *row["interval"])
        yield f"{name:{width}}{row['a']:>8}{row['b']:>8}{row['same']:>8}   {share}".rstrip()
    low, high = result["interval"]
    better = f"B, {b}" if low > 0.5 else f"A, {a}" if high < 0.5 else "neither, for certain"
    yield f"A is {a}, B is {b}; {result['voters']} voters; preferred: {better}"


def _make(options):
    if options.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected a page ending in .html. Received: {options.out}")
    check_record(options.out, [], what="the page")
    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} exists already. Choose another name with --out, or overwrite it with -y")
    if options.crop < 1:
        raise ValueError(f"Expected a crop of 1 pixel or more. Received: {options.crop}")
    if not 1 <= options.zoom <= 8:
        raise ValueError(f"Expected a zoom from 1 to 8. Received: {options.zoom}")
    if not 0 < options.seconds <= 60:
        raise ValueError(f"Expected up to 60 seconds of each clip. Received: {options.seconds:g}")
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    how = {"crop": options.crop, "seconds": options.seconds, "zoom": options.zoom, "grey": options.grey}
    write_whole(options.out, blind_page(options.a, options.b, seed=seed, **how))
    print(f"{options.out}: seed {seed}; open it in a browser, then imagesr blind count VOTES.json …")
    return 0


def _count(options):
    if options.json:
        check_record(options.json, options.votes)
    result = count(options.votes)
    print("\n".join(_in_words(result)))
    if options.json:
        write_whole(options.json, json.dumps(result, indent=1) + "\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(
        prog="imagesr blind",
        description="Ask people which of two looks better, without saying which is which.",
        examples="""
            imagesr blind page lanczos/ best/ -o blind.html
            imagesr blind count votes-anna.json votes-ben.json
        """,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    page = commands.add_parser(
        "page",
        help="write a page that shows pairs of pictures and collects votes",
        description="Write a page that shows pairs of pictures and collects votes.",
        examples="imagesr blind page lanczos/ best/ -o blind.html",
    )
    page.add_argument("a", type=Path, metavar="A", help="a folder of pictures or clips")
    page.add_argument("b", type=Path, metavar="B", help="another, with files of the same names and sizes")
    page.add_argument("-o", "--out", type=Path, default=Path("blind.html"), help="default: blind.html")
    crop_help = f"pixels a side that are shown, where the two differ most (default: {CROP})"
    page.add_argument("--crop", type=int, default=CROP, help=crop_help)
    seconds_help = f"seconds of each clip, from its beginning (default: {SECONDS:g})"
    page.add_argument("--seconds", type=float, default=SECONDS, help=seconds_help)
    page.add_argument("--zoom", type=int, default=1, help="how many times as large they are shown (default: 1)")
    page.add_argument("--grey", action="store_true", help="show them without colour")
    page.add_argument("--seed", type=int, help="seed of sides and order, stored in the page (default: a random one)")
    page.add_argument("-y", dest="overwrite", action="store_true", help="overwrite OUT")
    page.set_defaults(run=_make)
    counted = commands.add_parser(
        "count",
        help="say which one was preferred, with a 95 %% interval",
        description="Say which one was preferred, with a 95 %% interval.",
        examples="imagesr blind count votes-anna.json votes-ben.json",
    )
    counted.add_argument("votes", type=Path, nargs="+", metavar="VOTES", help="files that the page saved")
    counted.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    counted.set_defaults(run=_count)
    options = parser.parse_args(arguments)
    return run_command("blind", options.run, options)


if __name__ == "__main__":
    sys.exit(main())
