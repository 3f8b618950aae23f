"""How much of a frame an encoder threw away: its quantisers, as the decoder tells them."""

from __future__ import annotations

import math

from imagesr.media.frames import Frame

# The options of a decoder that tells the quantisers of H.264, MPEG-1, -2 and -4.
TELLS = {"export_side_data": "venc_params"}

_H264_STEP = 0.625  # of a quantiser of 0; the step doubles every 6
_NONE, _ALL = 16, 44  # H.264's quantisers of which nothing and everything is said to be lost


def step_of(codec: str, quantiser: float) -> float:
    """Return the step, in codes, to which an encoder rounds the coefficients of an orthonormal transform.

    `codec` is FFmpeg's name of a decoder. Those of H.264 and HEVC tell a logarithm. Those of MPEG-1, -2 and -4 tell
    twice their quantiser, which is the step where all coefficients weigh alike.
    """
    return _H264_STEP * 2 ** (quantiser / 6) if codec in ("h264", "hevc") else quantiser


def lost(step: float) -> float:
    """Return how much of a picture was lost, from 0 to 1, when its coefficients were rounded to `step` codes.

    Noise of σ codes counts as a step of σ√12. Independent steps add up by their squares.
    """
    quantiser = 6 * math.log2(max(step, _H264_STEP) / _H264_STEP)
    return min(max((quantiser - _NONE) / (_ALL - _NONE), 0.0), 1.0)


def quantiser_of(frame: Frame) -> float | None:
    """Return the mean quantiser of a decoded frame's blocks; None where its decoder told none."""
    for data in frame.side_data:
        if data.type.name == "VIDEO_ENC_PARAMS":
            try:
                return float(data.qp_map().mean())
            except ValueError:  # blocks of several sizes
                return float(data.qp)
    return None
