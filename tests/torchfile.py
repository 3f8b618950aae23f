"""Files of weights as PyTorch writes them, made without PyTorch."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import pytest


def write_weights(file, tensors, *, zipped=True):
    """Write float32 arrays as PyTorch does, in the zip or in the older pickles; what a stride of 0 repeats once."""
    with pytest.MonkeyPatch.context() as patch:
        _write(_torch(patch), file, tensors, zipped)


def _torch(patch):
    """Put what PyTorch's pickles name where pickle finds it."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    module.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def rebuild(*arguments):
        return arguments

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    utils._rebuild_tensor_v2, module._utils = rebuild, utils
    patch.setitem(sys.modules, "torch", module)
    patch.setitem(sys.modules, "torch._utils", utils)
    return module


def _stored(values):
    return values[tuple(slice(None if step else 1) for step in values.strides)]


def _write(torch, file, tensors, zipped):
    stored = {name: _stored(values) for name, values in tensors.items()}
    keys = {name: str(i) for i, name in enumerate(tensors)}

    class Tensor:
        def __init__(self, name):
            self.name = name

        def __reduce__(self):
            strides = tuple(n // 4 for n in tensors[self.name].strides)
            return torch._utils._rebuild_tensor_v2, (Storage(self.name), 0, tensors[self.name].shape, strides)

    class Storage:
        def __init__(self, name):
            self.name = name

    class Writer(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, Storage):
                place = "storage", torch.FloatStorage, keys[item.name], "cpu", stored[item.name].size
                return place if zipped else (*place, None)
            return None

    Writer(pickled := io.BytesIO(), 2).dump(collections.OrderedDict((name, Tensor(name)) for name in tensors))
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickled.getvalue())
            for name, values in stored.items():
                archive.writestr(f"archive/data/{keys[name]}", values.tobytes())
        return
    with file.open("wb") as out:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(head, out, 2)
        out.write(pickled.getvalue())
        pickle.dump([*keys.values()], out, 2)
        for values in stored.values():
            out.write(struct.pack("<q", values.size) + values.tobytes())
