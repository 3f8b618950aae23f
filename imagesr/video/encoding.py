"""Which encoder a result goes through, and with which options."""

from __future__ import annotations

from imagesr.media.encoders import check_encoder, encoder_options
from imagesr.media.frames import depth
from imagesr.video.options import Options


def choose_encoders(options: Options, suffix: str) -> dict[str, dict[str, str]]:
    """Return the options of each encoder that may be needed, tried out: for 8 bits first, for deeper video last.

    `suffix` is the output's. Raises ValueError, with the first one's reason, when none of them can do what is asked.
    """
    if options.codec:
        candidates = [options.codec]
    elif suffix == ".webm":
        candidates = ["libsvtav1"]
    elif options.pix_fmt:
        candidates = ["libx265" if depth(options.pix_fmt) > 8 else "libx264"]
    else:
        candidates = ["libx264", "libx265"]
    encoders, refusals = {}, []
    for name in candidates:
        try:
            encoders[name] = _options_of(name, options)
            check_encoder(name, encoders[name], options.pix_fmt, suffix)
        except ValueError as error:
            encoders.pop(name, None)
            refusals.append(error)
    if not encoders:
        raise refusals[0]
    return encoders


def _options_of(codec, wanted):
    """Return what is sent to an encoder; raises ValueError for an option of the user's that it does not know."""
    options, unknown = encoder_options(codec, wanted.encoder)
    if unknown:
        key = unknown[0]
        given = f"{key}={wanted.encoder[key]}"
        raise ValueError(f"Expected an option that {codec} knows and a value it takes. Received: {given}")
    crf = f"{wanted.crf:g}"
    quality = encoder_options(codec, {"crf": crf, "cq": crf, "preset": wanted.preset})[0]
    if "crf" in quality:
        quality.pop("cq", None)  # NVENC's name for the same; only one of them may be sent
    quiet = {"libx265": {"x265-params": "log-level=error"}}.get(codec, {})
    return quality | quiet | options
