"""Which encoder a result goes through, with which options, and how large it becomes."""

from __future__ import annotations

from collections.abc import Mapping

from imagesr.media.encoders import check_encoder, encoder_options, keeps_alpha
from imagesr.media.frames import depth
from imagesr.video.options import Options

# By VMAF v1 of the encoded frames against those that went in, two clips to 1080p: CRF 18 gives 98.2 and 99.3, CRF 21
# 97.3 and 97.4 in files a third to two fifths smaller, CRF 23 95.8. `veryfast` at 20 gives 96.6 in a quarter less, and
# takes 9 ms of CPU more for each frame, which costs the 30 fps of `balanced` on two cores.
CRF, PRESET = 21, "superfast"
# Encoders of graphics cards and processors: what is missing where they do not work.
HARDWARE = {
    "h264_nvenc": "no usable NVIDIA GPU or driver",
    "h264_qsv": "no usable Intel GPU or driver",
    "h264_amf": "no usable AMD GPU or driver",
    "h264_videotoolbox": "no VideoToolbox",
    "h264_mf": "no Media Foundation encoder",
    "h264_vaapi": "no usable VA-API driver",
}


SMALLEST = 0.93  # of a wanted size: what is smaller is encoded once more
_MOST, _MOST_OF = 1_000_000, {"libsvtav1": 100_000}  # kilobits per second that encoders take
_USUAL = 25  # quantiser of a file of usual quality
_OWN_STEPS = 0.8  # of a doubling of the bits for every six steps above that: 4 clips of 360p and 720p at CRF 16 to 44
_GRAIN_BITS, _MOST_BITS = 0.75, 4.0  # a pixel, of all grain at CRF 21; the same clips at 0.25, 0.5 and 1, CRF 15 to 27
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


def _options_of(codec, wanted):
    """Return what is sent to an encoder; raises ValueError for an option of the user's that it does not know."""
    options, unknown = encoder_options(codec, wanted.encoder)
    if unknown:
        key = unknown[0]
        given = f"{key}={wanted.encoder[key]}"
        raise ValueError(f"Expected an option that {codec} knows and a value it takes. Received: {given}")
    if wanted.bitrate or wanted.target_size:
        quality = average(codec, wanted.bitrate or 1000)
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


def average(codec: str, kilobits: float) -> dict[str, str]:
    """Return an encoder's options for an average bit rate, whose peaks are held to twice of it over two seconds."""
    rate, most = max(1, round(kilobits)), 2 * _MOST  # in bits, libav holds the peaks in 32 bits
    if codec == "libsvtav1":
        return {"b": f"{rate}k"}  # it takes a limit only beside a quality
    return {"b": f"{rate}k", "maxrate": f"{min(most, 2 * rate)}k", "bufsize": f"{min(most, 4 * rate)}k"}


def most_kilobits(codec: str) -> int:
    """Return the highest bit rate that an encoder takes, in kilobits per second."""
    return _MOST_OF.get(codec, _MOST)


def check_target(megabytes: float | None, seconds: float | None, sounds: int) -> None:
    """Raise ValueError for a wanted size that leaves nothing for the picture; `sounds` counts streams of sound."""
    if megabytes and seconds:
        bitrate_of(megabytes, seconds, sounds)


def bitrate_of(megabytes: float, seconds: float, sounds: int) -> float:
    """Return the kilobits per second that a file of so many megabytes leaves for the picture, up to what encoders take.

    Raises ValueError where hardly any are left.
    """
    kilobits = megabytes * 8000 / seconds - _SOUND_KBITS * sounds
    if kilobits < 10:
        raise ValueError(f"Expected a larger target size for {seconds:.0f} s. Received: {megabytes:g} MB")
    return min(kilobits, _MOST)


def expected_size(
    encoder: Mapping[str, str],
    *,
    kilobits_in: float,
    growth: float,
    seconds: float,
    sound: float,
    quantiser: float | None = None,
    pixels: float = 0.0,
    grain: float = 0.0,
) -> tuple[float, float]:
    """Return between which numbers of megabytes the output will lie.

    `kilobits_in` is the input's rate per second, `growth` the output's pixels over the input's, `sound` the kilobits
    per second of what is beside the picture. `quantiser` is the input's in terms of H.264, None where it is not known.
    `grain` is painted on `pixels` a second. For a quality it is a guess: content decides, by a factor of two.
    """
    if "b" in encoder and encoder["b"].endswith("k"):
        megabytes = (float(encoder["b"].removesuffix("k")) + sound) * seconds / 8000
        return 0.85 * megabytes, 1.1 * megabytes
    crf = float(encoder.get("crf", encoder.get("cq", CRF)))
    # Measured: a file of usual quality, a quantiser of 25, takes twice the rate at CRF 21 and the same size; six steps
    # of CRF halve it. A starved input took so few bits because of its own steps, most of which the output has not.
    kilobits = 2 * kilobits_in * growth**0.6 * 2 ** ((21 - crf) / 6)
    if quantiser is not None:
        kilobits *= 2 ** (_OWN_STEPS * (min(max(quantiser, 16), 44) - _USUAL) / 6)
    kilobits += pixels / 1000 * min(_MOST_BITS, _GRAIN_BITS * grain**1.3 * 4 ** ((21 - crf) / 6))
    return (0.5 * kilobits + sound) * seconds / 8000, (2 * kilobits + sound) * seconds / 8000
