"""imagesr: upscale video at frame rate on ordinary machines, and train the networks that do it."""

import time as _time

STARTED = _time.perf_counter()  # what `imagesr video` takes for the start of the process

__version__ = "0.1.0"
__all__ = ["datasets", "evaluate", "load", "models", "train", "upscale_image", "upscale_video"]


def load(model, scale=None, *, kind="film", **options):
    """Load a model as an upscaler of NumPy arrays and Pillow images that keeps its engines.

    Example:
        up = imagesr.load("best", scale=2, kind="photo")
        large = up(Image.open("photo.jpg"))

    Args:
        model: A shipped model's name, or the folder of a model.
        scale: Factor from 1, which keeps the size and cleans, to 8; None is 1.5 for film and 2 for photographs.
        kind: "film" takes uint8 RGB or grey and runs at frame rate, its colours at half the resolution, as in video.
            "photo" takes 8 and 16 bits, floating point in [0, 1] and alpha, and rounds once.
        **options: For film those of `imagesr.engines.load_engine`, such as `precision` and `threads`; for photographs
            `tta`, `tile` and `threads`. For both `detail` and `clean`, each from 0 to 1.

    Returns:
        A callable with `scale`, `card` and `precision`. For planes of luma use `imagesr.engines.load_engine`.

    Raises:
        ValueError: For an unknown kind, or a scale outside 1 to 8.
        ModelError: For an unknown or damaged model, and a scale, a detail or a clean that it does not have.
    """
    if kind == "photo":
        from imagesr.image.upscale import PhotoUpscaler

        return PhotoUpscaler(str(model), scale or 2, **options)
    if kind == "film":
        from imagesr.video.arrays import FilmUpscaler

        return FilmUpscaler(str(model), scale or "1.5", **options)
    raise ValueError(f"Expected a kind, film or photo. Received: {kind}")


def __getattr__(name):
    # Importing the package must cost milliseconds; the rest is imported when it is asked for.
    from importlib import import_module

    if name == "upscale_video":
        return import_module("imagesr.video.upscale").upscale_video
    if name == "upscale_image":
        return import_module("imagesr.image.upscale").upscale_image
    if name in __all__:
        return import_module(f"imagesr.{name}")
    raise AttributeError(f"module 'imagesr' has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, "__version__"])
