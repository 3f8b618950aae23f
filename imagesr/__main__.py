"""`imagesr COMMAND …` is `python -m imagesr.COMMAND …`."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "video": "upscale a video",
    "bench": "measure the models on this machine",
    "train": "train a network",
    "export": "make a trained network runnable",
    "evaluate": "measure PSNR and SSIM on pictures",
}


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
    return import_module(f"imagesr.{name}").main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
