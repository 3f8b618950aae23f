"""Frames: what is read, how it is brought to a common form, and how files fail."""

from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import picture, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesr.errors import InputError
from imagesr.media.clips import first_frames_repeated
from imagesr.media.encoders import encoder_options
from imagesr.media.frames import Frame, Packet, Resizer, fitted, plane, working_format
from imagesr.media.source import Source
from imagesr.scale import Scale
from imagesr.video.upscaler import target_size


@pytest.mark.parametrize(
    ("name", "working"),
    [
        ("yuv420p", "yuv420p"),
        ("yuvj422p", "yuv422p"),
        ("nv12", "yuv420p"),
        ("yuva420p", "yuv420p"),
        ("yuyv422", "yuv422p"),
        ("yuv440p", "yuv444p"),
        ("p010le", "yuv420p10le"),
        ("yuv444p12le", "yuv444p12le"),
        ("yuv420p10be", "yuv420p10le"),
        ("yuv422p16le", "yuv422p12le"),
        ("rgb24", "yuv444p"),
        ("gbrp10le", "yuv444p10le"),
        ("pal8", "yuv444p"),
        ("gray", "gray"),
        ("gray16le", "gray12le"),
        ("ya8", "gray"),
    ],
)
def testworking_formats(name, working):
    assert working_format(name) == working


def test_frames_and_packets_come_in_the_order_of_the_file(clip):
    with Source(clip) as source:
        items = list(source)
        assert source.info.frames == 12
        assert not source.damage
    frames = [item for item in items if isinstance(item, Frame)]
    assert [frame.pts for frame in frames] == sorted(frame.pts for frame in frames)
    assert len(frames) == 12
    assert sum(isinstance(item, Packet) for item in items) > 20


def test_a_source_can_be_left_half_read(clip):
    with Source(clip) as source:
        next(iter(source))


def test_rgb_video_is_worked_on_in_full_chroma(tmp_path):
    write_clip(tmp_path / "in.mkv", codec="ffv1", pix_fmt="bgr0", sound=None, options={})
    with Source(tmp_path / "in.mkv") as source:
        frame = next(item for item in source if isinstance(item, Frame))
        assert frame.format.name == source.info.pix_fmt == "yuv444p"
        assert any("bgr0" in note for note in source.notes)
    back = frame.to_ndarray(format="rgb24")
    assert np.abs(back.astype(int) - picture(192, 108)).mean() < 3


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(2, 70), st.integers(2, 70)),
    target=st.tuples(st.integers(2, 70), st.integers(2, 70)),
    pix_fmt=st.sampled_from(["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le"]),
)
def test_fitted_repeats_edges_and_cuts(size, target, pix_fmt):
    frame = Frame(*size, pix_fmt)
    for i in range(len(frame.planes)):
        samples = plane(frame, i)
        samples[:] = np.arange(samples.size).reshape(samples.shape) % 251
    result = fitted(frame, *target)
    assert (result.width, result.height) == target
    for i in range(len(frame.planes)):
        a, b = plane(frame, i), plane(result, i)
        rows, columns = (np.minimum(np.arange(n), m - 1) for n, m in zip(b.shape, a.shape, strict=True))
        np.testing.assert_array_equal(b, a[np.ix_(rows, columns)])


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(2, 5000),
    height=st.integers(2, 5000),
    halved=st.sampled_from([(True, True), (True, False), (False, False)]),
    box=st.tuples(st.integers(2, 5000), st.integers(2, 5000)),
    rotation=st.sampled_from([0, 90, 180, -90]),
)
def test_target_sizes(width, height, halved, box, rotation):
    from types import SimpleNamespace

    turned = {"rotation": rotation, "upright": lambda size: size[::-1] if rotation % 180 else size}
    info = SimpleNamespace(width=width, height=height, halved=halved, shape=Fraction(1), **turned)
    for length, grown, half in zip((width, height), target_size(info, scale=Scale(3, 2)), halved, strict=True):
        step = 2 if half else 1
        assert grown % step == 0
        assert -step / 2 < grown - 1.5 * length <= step / 2  # the nearest, ties up
    fit = target_size(info, box=box)
    limits = box[::-1] if rotation % 180 else box
    assert all(n <= max(2, limit) for n, limit in zip(fit, limits, strict=True))
    assert any(limit - n < 2 for n, limit in zip(fit, limits, strict=True))  # it touches the box


def test_resizer_keeps_time_and_tags(clip):
    with Source(clip) as source:
        frame = [item for item in source if isinstance(item, Frame)][3]
    result = Resizer(288, 162, "yuv420p", kernel="bicubic")(frame)
    assert (result.width, result.height) == (288, 162)
    assert (result.pts, result.time_base) == (frame.pts, frame.time_base)


def test_options_an_encoder_does_not_know_are_not_sent():
    sent, unknown = encoder_options("libx264", {"crf": "18", "preset": "superfast", "cq": "18", "g": "50"})
    assert sent == {"crf": "18", "preset": "superfast", "g": "50"}
    assert unknown == ["cq"]
    sent, unknown = encoder_options("libsvtav1", {"crf": "18", "preset": "superfast"})
    assert (sent, unknown) == ({"crf": "18"}, ["preset"])  # its presets are numbers
    assert encoder_options("libsvtav1", {"preset": "8"})[1] == []
    assert encoder_options("libx264", {"crf": "99"})[1] == []  # no upper limit is declared
    with pytest.raises(ValueError, match="libx264"):
        encoder_options("nothing", {})


def test_a_clip_without_its_first_decoding_times_is_repeated(tmp_path):
    """Matroska has none at all: FFmpeg knows them from the second or third packet on."""
    hevc = write_clip(tmp_path / "hevc.mkv", codec="libx265", sound=None, options={"x265-params": "log-level=none"})
    first_frames_repeated(hevc, 30, tmp_path / "long.mkv")
    with Source(tmp_path / "long.mkv") as source:
        times = [float(item.pts * item.time_base) for item in source if isinstance(item, Frame)]
    assert np.allclose(np.diff(times), 0.04, atol=0.002) and len(times) == 36


def test_what_has_no_video_is_not_repeated(tmp_path, clip):
    with av.open(str(tmp_path / "sound.mka"), "w") as container, av.open(str(clip)) as source:
        copy = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            packet.stream = copy
            if packet.dts is not None:
                container.mux(packet)
    with pytest.raises(InputError, match=r"Cannot find a video stream in .*sound\.mka"):
        first_frames_repeated(tmp_path / "sound.mka", 30, tmp_path / "long.mkv")


def test_a_clip_is_repeated_to_a_length(tmp_path, clip):
    first_frames_repeated(clip, 30, tmp_path / "long.mkv")
    with Source(tmp_path / "long.mkv") as source:
        frames = [item for item in source if isinstance(item, Frame)]
    assert len(frames) == 36
    steps = np.diff([float(frame.pts * frame.time_base) for frame in frames])
    assert steps.min() > 0.03
    assert steps.max() < 0.05
    with pytest.raises(InputError, match=r"missing\.mp4"):
        first_frames_repeated(tmp_path / "missing.mp4", 30, tmp_path / "other.mkv")


@pytest.mark.parametrize("seed", range(30))
def test_a_mutated_file_never_crashes_or_hangs(tmp_path, clip, seed):
    random = np.random.default_rng(seed)
    content = bytearray(clip.read_bytes())
    for _ in range(random.integers(1, 20)):
        at = int(random.integers(len(content)))
        new = random.integers(0, 256, int(random.integers(1, 60)), np.uint8)
        content[at : at + int(random.integers(1, 60))] = new.tobytes()  # lengths differ: bytes come and go
    if seed % 3 == 0:
        del content[int(random.integers(len(content))) :]
    path = tmp_path / "in.mp4"
    path.write_bytes(content)
    try:
        with Source(path) as source:
            frames = sum(isinstance(item, Frame) for item in source)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert 0 < frames <= 13
