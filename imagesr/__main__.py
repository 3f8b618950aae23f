"""`imagesr COMMAND …` is `python -m imagesr.COMMAND …`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

# Of every command: the module whose `main` it is, and what it does.
COMMANDS = {
    "video": ("imagesr.video.__main__", "upscale a video"),
    "image": ("imagesr.image.__main__", "upscale photographs"),
    "send": ("imagesr.serve.client", "send photographs to a running service"),
    "bench": ("imagesr.evaluate.bench", "measure the models on this machine"),
    "devices": ("imagesr.evaluate.devices", "list what networks can run on, and how fast"),
    "models": ("imagesr.models.__main__", "list the networks and what they cost"),
    "datasets": ("imagesr.datasets.__main__", "check data sets, make some, publish versions of them"),
    "train": ("imagesr.train.__main__", "train a network"),
    "track": ("imagesr.tracking.__main__", "send runs to MLflow; tell where a model comes from"),
    "export": ("imagesr.export.__main__", "make a trained network runnable"),
    "shaders": ("imagesr.export.players", "copy the shaders for mpv and other players"),
    "evaluate": ("imagesr.evaluate.__main__", "measure a model on pictures and clips"),
    "webcam": ("imagesr.live.webcam", "upscale a camera as it films"),
    "play": ("imagesr.live.play", "play a video upscaled, with its sound"),
    "compare": ("imagesr.compare.__main__", "compare two videos on one page"),
    "serve": ("imagesr.serve.__main__", "upscale photographs over HTTP"),
    "serve.web": ("imagesr.serve.web", "fetch, once, what its page needs to upscale in the browser; copy the page"),
    "feedback": ("imagesr.serve.feedback_command", "ask for retraining where users or inputs say so; forget a user's"),
    "blind": ("imagesr.compare.blind", "ask people which of two looks better"),
    "promote": ("imagesr.mlops.promote", "let a trained network become the champion, if it is better"),
    "retrain": ("imagesr.mlops.retrain", "train anew where the data has changed"),
    "tune": ("imagesr.mlops.tune", "search for the config that measures best"),
    "recursive": ("imagesr.recursive.__main__", "draw pixels one by one: train, sample"),
}
EXAMPLES = ("video in.mp4 out.mp4", "image photo.jpg large.png", "play film.mp4")


SHARED = ("video", "image")  # the commands whose work a cluster can do


def find_main(command: str) -> Callable[[list[str] | None], int]:
    """Return the `main` of a command."""
    main = import_module(COMMANDS[command][0]).main
    return partial(main, executor_on=_executor_on) if command in SHARED else main


def _executor_on(address):
    from imagesr.mlops.ray import executor_on

    return executor_on(address)


def main() -> int:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        import imagesr

        print(f"imagesr {imagesr.__version__}")
        return 0
    if name not in COMMANDS:
        listing = "\n".join(f"  {command:10} {what}" for command, (_, what) in COMMANDS.items())
        examples = "\n".join(f"  imagesr {line}" for line in EXAMPLES)
        more = f"Examples:\n{examples}\n\nimagesr COMMAND --help lists the options of one."
        text = f"usage: imagesr COMMAND …\n\n{listing}\n\n{more}"
        if name in ("-h", "--help"):
            print(text)
            return 0
        print(f"imagesr: expected a command ({', '.join(COMMANDS)}), received {name}", file=sys.stderr)
        return 2
    from imagesr.cli import install_hint

    try:
        return find_main(name)(sys.argv[2:])
    except ModuleNotFoundError as error:
        print(f"imagesr {name}: {install_hint(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
