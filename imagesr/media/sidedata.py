"""What frames carry beside pixels, for encoders that are told by options: HDR10 metadata, 3D packing."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

# AVStereo3DType to x264's frame-packing.
_PACKING = {1: 3, 2: 4, 3: 5, 4: 0, 6: 2, 7: 1}
# The option of an encoder that takes further ones, and what those are called: mastering display, light, packing.
_OPTIONS = {
    "libx264": ("x264-params", "mastering-display", "cll", "frame-packing"),
    "libx265": ("x265-params", "master-display", "max-cll", ""),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light", ""),
}
# AVStereo3DType to Matroska's StereoMode, by FFmpeg's names.
STEREO_MODES = {
    1: "left_right",
    2: "top_bottom",
    4: "checkerboard_lr",
    6: "row_interleaved_lr",
    7: "col_interleaved_lr",
}


@dataclass(frozen=True)
class SideData:
    """Hold HDR10 metadata in the words of x265, and how two views are packed into a frame.

    `mastering` is `G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min)`, `light` is `MaxCLL,MaxFALL`; both are empty where unknown.
    `stereo` is AVStereo3DType, 0 for a single view.
    """

    mastering: str = ""
    light: str = ""
    stereo: int = 0

    def __bool__(self):
        return bool(self.mastering or self.light or self.stereo)


def side_data_of(frame) -> SideData:
    """Read the side data of a frame."""
    found = {data.type.name: bytes(data) for data in frame.side_data}
    mastering = _mastering(found.get("MASTERING_DISPLAY_METADATA", b""))
    light = found.get("CONTENT_LIGHT_LEVEL", b"")
    stereo = found.get("STEREO3D", b"")
    return SideData(
        mastering=mastering,
        light="{},{}".format(*struct.unpack("=II", light[:8])) if len(light) >= 8 else "",
        stereo=struct.unpack("=I", stereo[:4])[0] if len(stereo) >= 4 else 0,
    )


def _mastering(data):
    """Read AVMasteringDisplayMetadata: ten fractions, and whether primaries and luminance are known."""
    if len(data) < 88:
        return ""
    numbers = struct.unpack("=22i", data[:88])
    if not (numbers[20] and numbers[21]):
        return ""
    values = [numbers[i] / (numbers[i + 1] or 1) for i in range(0, 20, 2)]
    red, green, blue, white = (tuple(round(v * 50_000) for v in values[i : i + 2]) for i in (0, 2, 4, 6))
    low, high = (round(v * 10_000) for v in values[8:10])
    points = "".join(f"{name}({x},{y})" for name, (x, y) in zip("GBR", (green, blue, red), strict=True))
    return f"{points}WP({white[0]},{white[1]})L({high},{low})"


def encoder_side_data(codec: str, data: SideData, options: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return an encoder's options with the side data added, and what the encoder cannot write, in words."""
    key, mastering, light, packing = _OPTIONS.get(codec, ("", "", "", ""))
    lost, parameters = [], {}
    if data.mastering or data.light:
        if not key:
            lost.append(f"HDR10 mastering and light metadata: {codec} does not write them")
        elif data.mastering:
            parameters[mastering] = _decimal(data.mastering) if codec == "libsvtav1" else data.mastering
        if key and data.light:
            parameters[light] = data.light
    if data.stereo:
        if packing and data.stereo in _PACKING:
            parameters[packing] = str(_PACKING[data.stereo])
        else:
            lost.append(f"3D packing flag: {codec} does not write it")
    if not parameters:
        return dict(options), lost
    text = ":".join(f"{name}={value}" for name, value in parameters.items())
    return {**options, key: f"{text}:{options[key]}" if options.get(key) else text}, lost


def _decimal(mastering):
    """Rewrite x265's whole numbers as the decimals that SVT-AV1 reads."""

    def pair(found):
        unit = 10_000 if found[1] == "L" else 50_000
        return f"{found[1]}({int(found[2]) / unit:.4f},{int(found[3]) / unit:.4f})"

    return re.sub(r"([A-Z]+)\((\d+),(\d+)\)", pair, mastering)
