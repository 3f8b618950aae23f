"""Measure one model on pictures from Python: `imagesr.evaluate.evaluate`."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from imagesr.card import ModelCard
from imagesr.engines import import_engine
from imagesr.evaluate import protocol
from imagesr.evaluate.clips import Condition
from imagesr.evaluate.inputs import check_each, check_picture, find_items, labels
from imagesr.evaluate.table import COLUMNS, Table, cells
from imagesr.metrics.fidelity import means
from imagesr.scale import Scale


class Result(dict):
    """Hold figures of a model under `psnr_y`, `ssim_y`, `psnr_rgb`, and each picture's in the list `images`.

    It prints as a table, and a notebook shows it as one. `model`, `scale` and `precision` say what was measured.
    """

    def __str__(self):
        lines = []
        table = Table(self._columns(), [row["image"] for row in self["images"]], lines.append)
        table.title(self._title())
        for name, row in self._rows():
            table.row(name, row)
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self):
        """Return the table for a notebook."""

        def line(tag, entries):
            return f"<tr>{''.join(f'<{tag}>{html.escape(entry)}</{tag}>' for entry in entries)}</tr>"

        columns = self._columns()
        head = line("th", [self._title(), *(COLUMNS[key] for key in columns)])
        body = "".join(line("td", [name, *cells(columns, row)]) for name, row in self._rows())
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"

    def _columns(self):
        return [key for key in COLUMNS if key in self]

    def _title(self):
        return f"{self['model']} x{self['scale']}"

    def _rows(self):
        return [*((row["image"], row) for row in self["images"]), (f"mean of {len(self['images'])}", self)]


def evaluate(
    model: str | Path | Callable,
    data: str | Path | Sequence[str | Path],
    scale: Scale | float | str | None = None,
    *,
    kernel: str = "bicubic",
    engine: str | None = None,
    precision: str = "auto",
    detail: float | None = None,
    clean: float | None = None,
) -> Result:
    """Measure a model on HR pictures: reduce each to LR, upscale it, and compare, by the protocol of the papers.

    Example:
        print(imagesr.evaluate.evaluate("fast-photo", "Set5", scale=2))
        psnr = imagesr.evaluate.evaluate(model, "Set5")["psnr_y"]  # of a keras.Model in training

    Args:
        model: A shipped model's name, "bicubic" or "lanczos", the folder of a saved model, a .keras file, a run folder,
            or a keras.Model from LR to SR in memory.
        data: A folder of HR pictures, a picture, or several of them. `imagesr evaluate` takes clips, too.
        scale: None is the model's own, and 1.5 for a name.
        kernel: How LR is made of HR.
        engine: The runtime of a saved model; None is OpenVINO. Keras runs .keras files and models in memory.
        precision: Of a saved model.
        detail: Of a model that takes one; None is its default.
        clean: The same, from 0 to 1.

    Returns:
        A dictionary of figures that prints as a table.

    Raises:
        ValueError: For missing data, clips, small pictures and an unknown scale or kernel.
        InputError: For a picture that cannot be read.
        ModelError: For an unknown model, or one that is not at this scale.
    """
    condition = Condition(kernel, None, None)
    condition.check()
    name, scale, network = _network(model, scale, engine=engine, precision=precision, detail=detail, clean=clean)
    items, _ = find_items([Path(place) for place in ([data] if isinstance(data, str | Path) else data)], scale)
    if clips := [item.path for item in items if item.info]:
        raise ValueError(f"Expected pictures. Received: {clips[0]}; `imagesr evaluate` measures clips")
    check_each(items, lambda item: check_picture(item.path, scale))
    upscale, rows = protocol.on_pictures(name, network, scale), []
    for item, label in zip(tqdm(items, "evaluating", unit="", leave=False, disable=None), labels(items), strict=True):
        (row,) = protocol.evaluate(upscale, [item.path], scale, condition=condition)["images"]
        rows.append(row | {"image": label})
    told = {"model": name, "scale": str(scale), "precision": network.precision if network else None}
    return Result(told | means(rows, COLUMNS) | {"images": rows})


def _network(model, scale, *, detail, clean, **how):
    """Return a model's name, its scale and its engine, None for a baseline."""
    wanted = None if scale is None else Scale.parse(scale)
    if not isinstance(model, str | Path):
        network = import_engine("keras").checked_network(model, getattr(model, "name", type(model).__name__))
        own = protocol.keras_engine(network, network.name, wanted, detail, clean)
        return network.name, own.card.scale, own
    path = Path(model)
    if (path / "model.keras").is_file() and not (path / "card.json").exists():  # a run
        path /= "model.keras"
    if path.suffix == ".keras":
        own = protocol.load_network(str(path), wanted, detail=detail, clean=clean, **how)
        return path.parent.name if path.name == "model.keras" else path.name, own.card.scale, own
    if wanted is None:
        wanted = ModelCard.read(path).scale if (path / "card.json").is_file() else Scale(3, 2)
    return (
        path.name,
        wanted,
        protocol.load_network(str(model), wanted, detail=detail, clean=clean, **how),
    )
