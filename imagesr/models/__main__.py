"""List the networks: `imagesr models [--scale 2]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from imagesr.cli import Parser, run_command, scale_argument
from imagesr.models import MODELS, OWN_SCALES, builder, import_keras
from imagesr.scale import Scale

DESCRIPTION = "List the networks and their cost."
EXAMPLES = """
  imagesr models
  imagesr models --scale 4
"""
COLUMNS = ("network", "scale", "colour", "parameters", "MAC per LR pixel", "receptive field", "paper")


def rows(scale: Scale) -> Iterator[tuple[str, ...]]:
    """Yield a row of figures for every network, built at `scale` or at the only scale that it has."""
    from imagesr.models.cost import model_scale, multiply_accumulates, parameters, receptive_field
    from imagesr.models.layers import collapsed

    for name, build in ((name, builder(name)) for name in MODELS):
        try:
            model = collapsed(build(scale))
        except ValueError:  # a scale that it does not have
            model = collapsed(build(OWN_SCALES[name]))
        title, _, paper = sys.modules[build.__module__].__doc__.splitlines()[0].partition(" (")
        yield (
            name,
            str(model_scale(model)),
            "luma" if model.inputs[0].shape[-1] == 1 else "RGB",
            f"{parameters(model):,}",
            f"{multiply_accumulates(model):,.0f}",
            str(receptive_field(model)),
            paper.rstrip(").") or title.rstrip("."),
        )


def _models(options):
    import_keras()
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    for row in rows(options.scale):
        print("| " + " | ".join(row) + " |", flush=True)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(prog="imagesr models", description=DESCRIPTION, examples=EXAMPLES)
    parser.add_argument("--scale", type=scale_argument, default=Scale(2), help="scale to build them at (default: 2)")
    return run_command("models", _models, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
