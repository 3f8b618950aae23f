#!/usr/bin/env python3
"""A plug-in for GIMP 3: send a layer to a running `imagesr serve`, and put its answer above it, larger.

docs/photos.md says how to install it. It needs nothing but GIMP's own Python.
"""

import json
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp, Gio, GLib, GObject  # noqa: E402

NAME = "plug-in-imagesr-upscale"
URL = "http://127.0.0.1:5000"
TILE = 640  # pixels a side that are sent at once: with its margin, 16 bits and alpha, below the service's 5 MiB
MARGIN = 64  # pixels around a tile, which are cut off again: what the network sees around a pixel
PATIENCE = 300  # seconds that a busy service is waited for


def upscale(picture, url, scale, model):
    """Post a picture's bytes and return the answer's; raises ValueError with the service's own sentence."""
    # Not by what each tile shows: tiles would differ.
    query = urllib.parse.urlencode({"scale": f"{scale:g}", "model": model, "clean": 0})
    request = urllib.request.Request(f"{url.rstrip('/')}/supersizeme?{query}", picture, {"Content-Type": "image/png"})
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code in (429, 503) and time.monotonic() < deadline:
                time.sleep(float(error.headers.get("Retry-After", 1)))
                continue
            try:
                told = json.loads(error.read())["error"]
            except (ValueError, KeyError, TypeError):
                told = f"{url} answered {error.code}: is it imagesr serve?"
            raise ValueError(told) from None
        except OSError as error:
            raise ValueError(f"No service answers at {url}: start it by `imagesr serve` ({error})") from None


def picture_of(layer, box):
    """Return a part of a layer as the bytes of a PNG file, in the layer's own colours and depth."""
    x, y, width, height = box
    source = layer.get_image()
    image = Gimp.Image.new_with_precision(width, height, source.get_base_type(), source.get_precision())
    try:
        image.set_color_profile(source.get_effective_color_profile())
        part = Gimp.Layer.new_from_drawable(layer, image)
        image.insert_layer(part, None, 0)
        part.set_opacity(100)
        part.set_visible(True)
        part.set_mode(Gimp.LayerMode.NORMAL)
        part.resize(width, height, -x, -y)
        part.set_offsets(0, 0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "part.png")
            Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, image, Gio.File.new_for_path(str(file)), None)
            return file.read_bytes()
    finally:
        image.delete()


def paste(answer, layer, cut, place):
    """Copy the box `cut` of an answer's picture into a layer, to (x, y)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answer.png")
        file.write_bytes(answer)
        image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(str(file)))
    try:
        x, y, width, height = cut
        source, target = image.get_layers()[0].get_buffer(), layer.get_buffer()
        source.copy(
            Gegl.Rectangle.new(x, y, width, height),
            Gegl.AbyssPolicy.NONE,
            target,
            Gegl.Rectangle.new(*place, width, height),
        )
        target.flush()
    finally:
        image.delete()


def spans(length):
    """Yield (begin, end) of the tiles of a side."""
    for begin in range(0, length, TILE):
        yield begin, min(begin + TILE, length)


def enlarged(layer, scale, url, model):
    """Return a new layer of a layer's image, `scale` times as large, tile by tile."""
    width, height = layer.get_width(), layer.get_height()
    size = round(width * scale), round(height * scale)
    result = Gimp.Layer.new(
        layer.get_image(), f"{layer.get_name()} ×{scale:g}", *size, layer.type(), 100, Gimp.LayerMode.NORMAL
    )
    tiles = [(x, y) for y in spans(height) for x in spans(width)]
    for done, ((left, right), (top, bottom)) in enumerate(tiles):
        Gimp.progress_update(done / len(tiles))
        x, y = max(0, left - MARGIN), max(0, top - MARGIN)
        box = (x, y, min(width, right + MARGIN) - x, min(height, bottom + MARGIN) - y)
        answer = upscale(picture_of(layer, box), url, scale, model)
        # Whole pixels of the result: TILE and MARGIN are multiples of 64, so that they are for scales such as 1.5.
        begin, end = (round(left * scale), round(top * scale)), (round(right * scale), round(bottom * scale))
        cut = (begin[0] - round(x * scale), begin[1] - round(y * scale), end[0] - begin[0], end[1] - begin[1])
        paste(answer, result, cut, begin)
    _, x, y = layer.get_offsets()
    result.set_offsets(round(x * scale), round(y * scale))
    return result


def run(procedure, run_mode, image, drawables, config, data):
    """Upscale the layer that is chosen, as the dialog or the caller says."""
    if run_mode == Gimp.RunMode.INTERACTIVE:
        gi.require_version("GimpUi", "3.0")
        from gi.repository import GimpUi

        GimpUi.init(NAME)
        dialog = GimpUi.ProcedureDialog.new(procedure, config, "Upscale with imagesr")
        dialog.fill(None)
        chosen = dialog.run()
        dialog.destroy()
        if not chosen:
            return procedure.new_return_values(Gimp.PDBStatusType.CANCEL, None)
    options = (config.get_property(key) for key in ("scale", "url", "model"))
    image.undo_group_start()
    try:
        if len(drawables) != 1 or not isinstance(drawables[0], Gimp.Layer):
            raise ValueError(f"Expected one layer. Received: {len(drawables)} layers, masks or channels")
        layer = drawables[0]
        Gimp.progress_init("Upscaling")
        result = enlarged(layer, *options)
        image.insert_layer(result, layer.get_parent(), image.get_item_position(layer))
    except ValueError as error:
        told = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), str(error), 0)
        return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, told)
    finally:
        image.undo_group_end()
    Gimp.displays_flush()
    return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, None)


class Upscale(Gimp.PlugIn):
    """Tell GIMP what there is, and where in its menus."""

    def do_set_i18n(self, name):
        """Say that the plug-in has no translations."""
        return False

    def do_query_procedures(self):
        """Name the procedure."""
        return [NAME]

    def do_create_procedure(self, name):
        """Describe the procedure and its arguments."""
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, None)
        procedure.set_image_types("RGB*, GRAY*")
        procedure.set_menu_label("_Upscale with imagesr…")
        procedure.add_menu_path("<Image>/Layer")
        procedure.set_documentation("Send the layer to imagesr serve, and put the larger one above it", None, name)
        procedure.set_attribution("imagesr", "Apache-2.0", "2026")
        write = GObject.ParamFlags.READWRITE
        procedure.add_double_argument("scale", "Sc_ale", "Factor, above 1 and up to 8", 1.01, 8, 2, write)
        procedure.add_string_argument("url", "Ser_vice", "Address of imagesr serve", URL, write)
        procedure.add_string_argument("model", "_Model", "One of the service's models", "best", write)
        return procedure


if __name__ == "__main__":
    Gimp.main(Upscale.__gtype__, sys.argv)
