"""Colours as they are seen: matrices, ranges and tags, read back by ffmpeg."""

import av
import numpy as np
import pytest
from conftest import ffmpeg, slow

import imagesr

BARS = [
    (191, 191, 191),
    (191, 191, 0),
    (0, 191, 191),
    (0, 191, 0),
    (191, 0, 191),
    (191, 0, 0),
    (0, 0, 191),
    (16, 16, 16),
]
TAGS = ("colorspace", "color_range", "color_trc", "color_primaries")


def bars(path, *output, size=(192, 96)):
    """Write ten frames of eight colour bars by ffmpeg; `output` are its options."""
    width, height = size
    row = np.repeat(np.array(BARS, np.uint8), width // 8, 0)
    raw = path.with_suffix(".rgb")
    raw.write_bytes(np.broadcast_to(row, (10, height, width, 3)).tobytes())
    how = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i", raw]
    ffmpeg("-y", *how, *output, path)
    return path


def seen(path):
    """Return the means of the bars as a player that goes by the tags shows them, (8, 3) RGB."""
    with av.open(str(path)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    scale = "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp"
    raw = ffmpeg("-i", path, "-frames:v", "1", "-vf", scale, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    picture = np.frombuffer(raw, np.uint8).reshape(height, width, 3).astype(int)
    middle, half = picture[height // 4 : 3 * height // 4], width // 32
    return np.array(
        [middle[:, n - half : n + half].mean((0, 1)) for n in (round(width * (i + 0.5) / 8) for i in range(8))]
    )


def tags(path):
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return {name: getattr(frame, name) for name in TAGS}


RGB = {
    "gbrp in ffv1": ("in.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"),
    "bgr0 in ffv1": ("in.mkv", "-c:v", "ffv1", "-pix_fmt", "bgr0"),
    "x264rgb": ("in.mkv", "-c:v", "libx264rgb", "-qp", "0"),
    "png in mov": ("in.mov", "-c:v", "png", "-pix_fmt", "rgb24"),
    "16 bits in png": ("in.mov", "-c:v", "png", "-pix_fmt", "rgb48be"),
    "qtrle": ("in.mov", "-c:v", "qtrle"),
    "gif": ("in.gif",),
    "apng": ("in.apng", "-pix_fmt", "rgb24"),
    "gbrp10 in ffv1": ("in.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp10le"),
    "raw": ("in.avi", "-c:v", "rawvideo", "-pix_fmt", "bgr24"),
}


@pytest.mark.parametrize(
    ("name", "lines"),
    [*((name, 144) for name in RGB), ("x264rgb", 720), *(slow(name, 720) for name in RGB if name != "x264rgb")],
)
def test_rgb_becomes_yuv_of_the_same_colours_and_says_which(tmp_path, name, lines):
    file, *how = RGB[name]
    source = bars(tmp_path / file, *how)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", size=(4000, lines), crf=4)
    found = tags(report.output)
    assert found["colorspace"] == (1 if lines == 720 else 6)
    assert found["color_range"] == 1
    dithered = name == "gif"
    assert np.abs(seen(report.output) - (seen(source) if dithered else BARS)).max() <= (4 if dithered else 3)


@pytest.mark.parametrize(("matrix", "number"), [("bt709", 1), ("smpte170m", 6), ("bt470bg", 5), ("bt2020nc", 9)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_tagged_video_keeps_matrix_and_range(tmp_path, matrix, number, full, pix_fmt):
    span = "full" if full else "limited"
    convert = f"scale=out_color_matrix={matrix}:out_range={span}:flags=accurate_rnd"
    marks = ["-colorspace", matrix, "-color_range", "pc" if full else "tv", "-pix_fmt", pix_fmt]
    source = bars(tmp_path / "in.mp4", "-vf", convert, *marks, "-c:v", "libx264", "-crf", "2")
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="fast", crf=4)
    assert tags(report.output)["colorspace"] == number
    assert tags(report.output)["color_range"] == (2 if full else 1)
    assert np.abs(seen(report.output) - seen(source)).max() <= 3


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((720, 480), "1080p", (6, 6, 6)),
        ((720, 576), "1080p", (5, 6, 5)),
        ((640, 360), (960, 540), (2, 2, 2)),  # not taken for another kind: nothing is made up
        ((1280, 720), (640, 360), (1, 1, 1)),
        ((1280, 720), (1920, 1080), (2, 2, 2)),
    ],
)
def test_untagged_video_is_tagged_where_players_would_guess_another_matrix(tmp_path, size, box, expected):
    source = tmp_path / "in.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc=s={size[0]}x{size[1]}:d=0.1", "-c:v", "libx264", "-pix_fmt", "yuv420p", source
    )
    box = (1920, 1080) if box == "1080p" else box
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", size=box)
    found = tags(report.output)
    assert (found["colorspace"], found["color_trc"], found["color_primaries"]) == expected


def test_full_range_of_motion_jpeg_stays_full(tmp_path):
    source = bars(tmp_path / "in.avi", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", crf=4)
    assert tags(report.output)["color_range"] == 2
    assert np.abs(seen(report.output) - seen(source)).max() <= 3


@pytest.mark.parametrize("pix_fmt", ["gray", "monob"])
def test_grey_keeps_its_range(tmp_path, pix_fmt):
    codec = ["-c:v", "png"] if pix_fmt == "monob" else ["-c:v", "ffv1"]
    source = tmp_path / "in.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=white:s=96x64:d=0.2", *codec, "-pix_fmt", pix_fmt, source)
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos", crf=2)
    raw = ffmpeg("-i", report.output, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    assert np.frombuffer(raw, np.uint8).mean() >= 245
