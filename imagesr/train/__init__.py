"""Training: `fit` trains a model on data, `imagesr train` as a `Config` says; both share `loop`.

`training` has the command's run, `callbacks` saves and draws after every epoch, `metrics` and `losses` are for
`compile`. `start` makes the first weights, `validation` measures, `runs` reads and writes run folders, `blend` mixes
two networks, `extractors` trains feature extractors. SRGAN is in `gan`, a network with two ends in `detail`. Data
belongs in `datasets`, networks in `models`. Only `plots` imports Matplotlib, and only `config` pydantic.
"""

from importlib import import_module

__all__ = ["PSNR", "RunFolder", "Tracked", "fit", "losses", "start_from_linear"]

_MODULES = {
    "PSNR": "metrics",
    "RunFolder": "callbacks",
    "Tracked": "callbacks",
    "fit": "loop",
    "start_from_linear": "start",
}


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'imagesr.train' has no attribute {name!r}")
    import_module("imagesr.models").import_keras()  # not before: it takes seconds
    losses = import_module("imagesr.train.losses")  # whatever is asked for: `compile` then knows their names
    return losses if name == "losses" else getattr(import_module(f"imagesr.train.{_MODULES[name]}"), name)


def __dir__():
    return sorted(__all__)
