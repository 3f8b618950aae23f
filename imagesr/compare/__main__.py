"""Compare two videos on one page: `imagesr compare A B [--reference R]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from imagesr.cli import DAMAGED, Parser, check_record, run_command
from imagesr.compare.videos import SECONDS, compare
from imagesr.files import write_whole


def _parser():
    parser = Parser(
        prog="imagesr compare",
        description="Compare two videos of the same scene, on one page.",
        examples="""
            imagesr compare fast.mp4 best.mp4
            imagesr compare fast.mp4 best.mp4 --reference original.mp4 -o page.html
        """,
    )
    add = parser.add_argument
    add("a", metavar="A", type=Path, help="a video")
    add("b", metavar="B", type=Path, help="another video of the same scene")
    add("--reference", type=Path, metavar="R", help="the original that both are measured against")
    add(
        "-o",
        "--out",
        type=Path,
        default=Path("compare.html"),
        help="the page; a PNG goes beside it (default: compare.html)",
    )
    add("--start", type=float, default=0.0, metavar="S", help="begin at S seconds")
    add(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"compare S seconds (default: {SECONDS:g}; 0 for all)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures of every frame to FILE")
    add("-y", dest="overwrite", action="store_true", help="overwrite OUT")
    return parser


def _check_out(out, inputs, overwrite):
    """Raise ValueError for a page that cannot be written, or that is one of the inputs."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected a page ending in .html. Received: {out}")
    for file in (out, out.with_suffix(".png")):
        check_record(file, inputs, what="the page")
        if file.exists() and not overwrite:
            raise ValueError(f"{file} exists already. Choose another name with --out, or overwrite it with -y")


def _run(options):
    out, files = options.out, [options.a, options.b, *([options.reference] if options.reference else [])]
    _check_out(out, files, options.overwrite)
    if options.json:
        check_record(options.json, [*files, out, out.with_suffix(".png")])
    if not 0 <= options.start < float("inf"):
        raise ValueError(f"Expected a start of 0 s or later. Received: {options.start:g}")
    if not 0 <= options.seconds < float("inf"):
        raise ValueError(f"Expected a time of 0 s (for all) or more. Received: {options.seconds:g}")
    part = {"start": options.start, "seconds": options.seconds or None}
    from tqdm import tqdm

    with tqdm(unit=" frames", leave=False, disable=None) as bar:
        result = compare(options.a, options.b, reference=options.reference, progress=lambda _: bar.update(), **part)
    result.save(out)
    if options.json:
        record = {"names": result.names, "rate": result.rate, "means": result.means(), "frames": result.frames}
        write_whole(options.json, json.dumps(record, indent=1) + "\n")
    print(f"{result}\n{out} and {out.with_suffix('.png')}")
    if result.damaged:
        print(f"imagesr compare: damaged: {result.damaged}", file=sys.stderr)
    return DAMAGED if result.damaged else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("compare", _run, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
