"""Weights as PyTorch saves them, read without PyTorch and without running the code that a pickle may hold."""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from imagesr.errors import cause


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """Read a PyTorch file of plain tensors, in the format before version 1.6 or the zip since, running no code of it.

    The tensors are read-only views of the file's values: the file cannot ask for more memory than it has bytes.
    Raises ValueError for a file that holds anything else.
    """
    failures = (pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, OSError)
    try:
        with file.open("rb") as opened:
            tensors, storages = (_read_zip if zipfile.is_zipfile(opened) else _read_pickles)(opened)
        return {name: _tensor(storages, *place) for name, place in tensors.items()}
    except (*failures, OverflowError, MemoryError) as error:  # the last two of numbers and texts in the pickle
        raise ValueError(f"Expected the weights of a PyTorch network in {file}. Received: {cause(error)}") from None


class _Reader(pickle.Unpickler):
    """Read a pickle of tensors: of each its storage's key, offset, size and strides. Nothing else is let in."""

    types = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}  # noqa: RUF012, PyTorch's names

    def __init__(self, file):
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, size, strides, *_: (key, offset, size, strides)
        if module == "torch" and name in self.types:
            return name
        raise pickle.UnpicklingError(f"it holds {module}.{name}")

    def persistent_load(self, saved):
        _, kind, key, _, count = saved[:5]
        self.storages[key] = self.types[kind], count
        return key


def _read_zip(opened):
    with zipfile.ZipFile(opened) as archive:
        root = archive.namelist()[0].partition("/")[0]
        reader = _Reader(archive.open(f"{root}/data.pkl"))
        tensors = reader.load()
        data = {}
        for key in reader.storages:
            name = f"{root}/data/{key}"
            _check_length(opened, archive.getinfo(name).file_size)  # PyTorch does not compress
            data[key] = archive.read(name)
    return tensors, {key: np.frombuffer(data[key], kind) for key, (kind, _) in reader.storages.items()}


def _read_pickles(opened):
    opened.seek(0)
    for _ in range(3):  # a magic number, the version, and what machine wrote it
        _Reader(opened).load()
    reader = _Reader(opened)
    tensors, keys = reader.load(), _Reader(opened).load()
    storages = {}
    for key in keys:
        kind, count = reader.storages[key]
        _check_length(opened, count * kind.itemsize)
        opened.seek(8, 1)  # the count again
        storages[key] = np.frombuffer(opened.read(count * kind.itemsize), kind, count)
    return tensors, storages


def _check_length(opened, length):
    """Raise ValueError for a storage longer than its file: it is not read then, and no memory is taken for it."""
    if not 0 <= length <= (most := os.fstat(opened.fileno()).st_size):
        raise ValueError(f"a storage of {length:,} bytes in a file of {most:,}")


def _tensor(storages, key, offset, size, strides):
    held, sizes = storages[key], (*size, *strides, offset)
    if len(size) != len(strides) or not all(type(n) is int and n >= 0 for n in sizes):
        raise ValueError(f"a tensor with offset {offset}, size {size} and strides {strides}")
    # as_strided reads whatever lies there: the last value must be one of the storage.
    if 0 not in size and offset + sum((n - 1) * step for n, step in zip(size, strides, strict=True)) >= len(held):
        raise ValueError(f"a tensor of size {'x'.join(map(str, size))} beyond its {len(held)} values")
    values = held[offset:]
    # A stride of 0 repeats a value as often as the size says.
    if math.prod(size) > len(values):
        raise ValueError(f"a tensor of size {'x'.join(map(str, size))} of {len(values)} values")
    if not size:
        return values[0].copy()
    return np.lib.stride_tricks.as_strided(values, size, [n * values.itemsize for n in strides], writeable=False)
