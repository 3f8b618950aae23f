"""Copy the shaders of the shipped models to a folder where players find them: `imagesr shaders DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from imagesr.card import ModelCard, saved_models
from imagesr.cli import Parser, run_command
from imagesr.files import write_whole

DESCRIPTION = "Copy the shaders of the shipped models to a folder, and print the lines for mpv.conf."
EXAMPLES = """
  imagesr shaders ~/.config/mpv/shaders
"""


def copy_shaders(folder: Path) -> list[Path]:
    """Copy every shader of the shipped models into `folder`, as imagesr_NAME_xSCALE.glsl, and return the files.

    Shaders that were copied before are replaced. Raises ModelError for a model that does not match its card, OSError
    where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copied = []
    for place in saved_models():
        shaders = sorted(place.glob("model*.glsl"))
        if shaders:
            ModelCard.read(place)  # checks the files
        for shader in shaders:
            copied.append(folder / f"imagesr_{place.name}{shader.stem.removeprefix('model')}.glsl")
            write_whole(copied[-1], shader.read_bytes())
    return copied


def _cost(shader):
    """Return the second line of a shader, which says what it costs."""
    return shader.read_text("utf-8").splitlines()[1].removeprefix("// ").partition(". ")[0]


def _parser():
    parser = Parser(
        prog="imagesr shaders",
        usage="imagesr shaders DIR",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder for the shaders; it is made if needed")
    return parser


def _shaders(options):
    files = copy_shaders(options.folder)
    for file in files:
        print(f"{file}: {_cost(file)}")
    print("\nOne of these lines goes into mpv.conf:")
    for file in files:
        print(f'glsl-shaders="{file.absolute()}"')
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("shaders", _shaders, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
