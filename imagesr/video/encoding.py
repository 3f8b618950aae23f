"""Which encoder a result goes through, with which options, and how large it becomes."""

from __future__ import annotations

from imagesr.media.encoders import check_encoder, encoder_options, keeps_alpha
from imagesr.media.frames import VideoInfo, depth
from imagesr.video.options import Options

CRF, PRESET = 18, "superfast"
# Encoders of graphics cards and processors: what is missing where they do not work.
HARDWARE = {
    "h264_nvenc": "no usable NVIDIA GPU or driver",
    "h264_qsv": "no usable Intel GPU or driver",
    "h264_amf": "no usable AMD GPU or driver",
    "h264_videotoolbox": "no VideoToolbox",
    "h264_mf": "no Media Foundation encoder",
    "h264_vaapi": "no usable VA-API driver",
}
_SOUND_KBITS = 160  # where a sound's rate is not known


def choose_encoders(options: Options, suffix: str, *, alpha: bool = False) -> dict[str, dict[str, str]]:
    """Return the options of each encoder that may be needed, tried out: for 8 bits first, for deeper video last.

    `suffix` is the output's. With `alpha` one that keeps transparency is chosen where there is one for WebM. Raises
    ValueError, with the first one's reason, when none of them can do what is asked.
    """
    if options.codec == "hardware":
        return _hardware(options, suffix)
    if options.codec:
        candidates = [options.codec]
    elif suffix == ".webm":
        candidates = ["libvpx-vp9" if alpha else "libsvtav1"]
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
        if missing := HARDWARE.get(candidates[0]) or HARDWARE.get(candidates[0].replace("hevc", "h264")):
            raise ValueError(f"Expected an encoder that works here. Received: {candidates[0]}; there is {missing} here")
        raise refusals[0]
    return encoders


def _hardware(options, suffix):
    """Return the first hardware encoder that works, with its options."""
    missing = []
    for name, lack in HARDWARE.items():
        try:
            chosen = _options_of(name, options)
            check_encoder(name, chosen, options.pix_fmt, suffix)
        except ValueError:
            missing.append(lack)
        else:
            return {name: chosen}
    raise ValueError(f"Expected a hardware encoder that works here. There is none: {'; '.join(missing)}")


def keeps_transparency(encoders: dict[str, dict[str, str]], suffix: str) -> bool:
    """Tell whether the chosen encoder keeps transparency."""
    return keeps_alpha(next(iter(encoders)), suffix)


def with_rate(encoder: dict[str, str], options: Options, seconds: float | None, streams: int) -> dict[str, str]:
    """Return an encoder's options with the bit rate that a wanted size comes to.

    Raises ValueError where the length is unknown, or the size too small for it.
    """
    if options.target_size is None:
        return encoder
    if not seconds:
        raise ValueError("Expected a video that says how long it is for a target size. Use --bitrate")
    kilobits = options.target_size * 8000 * 0.98 / seconds - _SOUND_KBITS * streams
    if kilobits < 10:
        raise ValueError(f"Expected a larger target size for {seconds:.0f} s. Received: {options.target_size:g} MB")
    return {**encoder, **_average(kilobits)}


def _options_of(codec, wanted):
    """Return what is sent to an encoder; raises ValueError for an option of the user's that it does not know."""
    options, unknown = encoder_options(codec, wanted.encoder)
    if unknown:
        key = unknown[0]
        given = f"{key}={wanted.encoder[key]}"
        raise ValueError(f"Expected an option that {codec} knows and a value it takes. Received: {given}")
    if wanted.bitrate or wanted.target_size:
        quality = _average(wanted.bitrate or 1000)
    else:
        crf = f"{CRF if wanted.crf is None else wanted.crf:g}"
        quality = encoder_options(codec, {"crf": crf, "cq": crf})[0]
        if "crf" in quality:
            quality.pop("cq", None)  # NVENC's name for the same; only one of them may be sent
    preset = encoder_options(codec, {"preset": wanted.preset or PRESET})[0]
    if codec == "libvpx-vp9":
        preset = {"deadline": "good", "cpu-used": "4", "row-mt": "1", "b": "0"} | quality
    quiet = {"libx265": {"x265-params": "log-level=error"}}.get(codec, {})
    return quality | preset | quiet | options


def _average(kilobits):
    """Return the options of an average bit rate, whose peaks are held to twice of it over two seconds."""
    rate = round(kilobits)
    return {"b": f"{rate}k", "maxrate": f"{2 * rate}k", "bufsize": f"{4 * rate}k"}


def expected_size(info: VideoInfo, size: tuple[int, int], seconds: float, encoder: dict[str, str]) -> float | None:
    """Return roughly how many megabytes the picture will take; None where that cannot be said."""
    return None
