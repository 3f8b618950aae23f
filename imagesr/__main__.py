"""`imagesr COMMAND …` is `python -m imagesr.COMMAND …`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

COMMANDS = {
    "video": "upscale a video",
    "image": "upscale photographs",
    "send": "send photographs to a running service",
    "bench": "measure the models on this machine",
    "models": "list the networks and what they cost",
    "datasets": "check data sets: verify, leaks; make some: film, scenes",
    "train": "train a network",
    "export": "make a trained network runnable",
    "evaluate": "measure a model on pictures and clips",
    "webcam": "upscale a camera as it films",
    "play": "play a video upscaled, with its sound",
    "compare": "compare two videos on one page",
    "serve": "upscale photographs over HTTP",
    "serve.web": "fetch, once, what its page needs to enlarge in the browser",
    "blind": "ask people which of two looks better",
    "recursive": "draw pixels one by one: train, sample",
}


def door(command: str) -> Callable[[list[str] | None], int]:
    """Return the `main` of a command, a module or a package with a `__main__`."""
    module = import_module(f"imagesr.{command}")
    return (module if hasattr(module, "main") else import_module(f"imagesr.{command}.__main__")).main


def main() -> int:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        import imagesr

        print(f"imagesr {imagesr.__version__}")
        return 0
    if name not in COMMANDS:
        listing = "\n".join(f"  {command:10} {what}" for command, what in COMMANDS.items())
        text = f"usage: imagesr COMMAND …\n\n{listing}\n\nimagesr COMMAND --help lists the options of one."
        if name in ("-h", "--help"):
            print(text)
            return 0
        print(f"imagesr: expected a command ({', '.join(COMMANDS)}), received {name}", file=sys.stderr)
        return 2
    try:
        return door(name)(sys.argv[2:])
    except ModuleNotFoundError as error:
        print(f"imagesr {name}: it needs the package {error.name}: pip install 'imagesr[train]'", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
