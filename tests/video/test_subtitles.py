"""Subtitles in the output: copied, converted where they are text, else named; read back by ffmpeg."""

import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ffmpeg, write_clip

import imagesr

TEXT = "1\n00:00:00,100 --> 00:00:00,300\nOne & <i>two</i>\n\n2\n00:00:00,350 --> 00:00:00,450\nÜber zwei\nZeilen\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subtitles")
    write_clip(folder / "clip.mp4", size=(96, 64))
    (folder / "text.srt").write_text(TEXT, "utf-8")
    return folder


def with_text(folder, codec, suffix):
    source = folder / f"{codec}{suffix}"
    if not source.exists():
        clip = ["-i", folder / "clip.mp4", "-i", folder / "text.srt", "-map", "0", "-map", "1"]
        ffmpeg(*clip, "-c", "copy", "-c:s", codec, "-metadata:s:s:0", "language=deu", source)
    return source


def read(path):
    return ffmpeg("-i", path, "-map", "0:s:0", "-f", "srt", "-").decode().replace("\r", "")


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mov_text", ".mp4"), ("srt", ".mkv"), ("ass", ".mkv"), ("webvtt", ".mkv")]
)
@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv", ".webm"])
def test_text_is_kept_in_every_container_that_holds_text(tmp_path, folder, codec, suffix, out):
    source = with_text(folder, codec, suffix)
    report = imagesr.upscale_video(source, tmp_path / f"out{out}", model="lanczos")
    text = read(report.output)
    assert "One & " in text
    assert "two" in text
    assert "Über zwei\nZeilen" in text
    assert "00:00:00,1" in text.splitlines()[1]
    assert not [line for line in report.dropped if line.startswith("subtitle")]
    held = {".mp4": ["mov_text"], ".mov": ["mov_text"], ".mkv": ["srt", "ass", "webvtt"], ".webm": ["webvtt"]}[out]
    (line,) = [line for line in report.kept if line.startswith("subtitle")]
    assert line.endswith(", copied") == (codec in held)
    assert ("converted to" in line) == (codec not in held)
    with av.open(report.output) as container:
        assert container.streams.subtitles[0].language in ("deu", "ger")


def test_a_last_subtitle_without_an_end_is_no_reason_to_throw_the_video_away(tmp_path, folder):
    source = tmp_path / "in.mp4"
    source.write_bytes(with_text(folder, "mov_text", ".mp4").read_bytes())
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", duration=0.4)
    assert "One & " in read(report.output)


def test_the_empty_text_before_a_subtitle_of_mp4_is_no_difference(tmp_path, folder):
    shutil.copy(folder / "clip.mp4", tmp_path / "clip.mp4")
    (tmp_path / "text.srt").write_text(TEXT.replace("00:00:00,100", "00:00:00,250"), "utf-8")
    source = with_text(tmp_path, "mov_text", ".mp4")
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos", verify="full")
    assert any(note.startswith("verified: ") for note in report.notes)


def test_what_no_conversion_reaches_is_named_before_the_start(tmp_path, folder):
    lines = []
    source = with_text(folder, "srt", ".mkv")
    report = imagesr.upscale_video(source, tmp_path / "out.ts", model="lanczos", announce=lines.append)
    told = "subtitle 2 (subrip): .ts files do not hold it"
    assert told in report.dropped
    assert f"will be lost: {told}" in lines


def write_pgs(path, *spans):
    """Write a PGS file that shows a box of 8x4 pixels at (20, 40) of 96x64; `spans` are (begin, end) in seconds."""

    def segment(kind, at, layout, *numbers, more=b""):
        content = struct.pack(layout, *numbers) + more
        return b"PG" + struct.pack(">IIBH", round(at * 90_000), 0, kind, len(content)) + content

    rows = (b"\x00\x88\x01" + b"\x00\x00") * 4  # eight pixels of colour 1, the end of the line
    content = b""
    for i, (begin, end) in enumerate(spans):
        window = struct.pack(">BBHHHH", 1, 0, 20, 40, 8, 4)
        place = struct.pack(">HBBHH", 0, 0, 0, 20, 40)
        content += segment(0x16, begin, ">HHBHBBBB", 96, 64, 16, 2 * i, 128, 0, 0, 1, more=place)
        content += segment(0x17, begin, "", more=window)
        content += segment(0x14, begin, ">7B", 0, 0, 1, 235, 128, 128, 255)
        content += segment(0x15, begin, ">HBBBHHH", 0, 0, 192, 0, len(rows) + 4, 8, 4, more=rows)
        content += segment(0x80, begin, "")
        content += segment(0x16, end, ">HHBHBBBB", 96, 64, 16, 2 * i + 1, 0, 0, 0, 0)
        content += segment(0x17, end, "", more=window) + segment(0x80, end, "")
    path.write_bytes(content)
    return path


def shown(path):
    """Return the codec of a file's subtitles, and the place and pixels of every picture in them."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        found = [rect for packet in container.demux(stream) for rect in packet.decode()]
        pictures = [(rect.x, rect.y, rect.width, rect.height, bytes(rect[0])) for rect in found]
        return stream.codec_context.codec.canonical_name, pictures


def begins(path):
    """Return when the packets of a file's subtitles begin, in seconds, and their MD5, as ffmpeg reads them."""
    lines = ffmpeg("-i", path, "-map", "0:s:0", "-c", "copy", "-f", "framehash", "-hash", "md5", "-").decode()
    tick = next(Fraction(line.split()[-1]) for line in lines.splitlines() if line.startswith("#tb"))
    cells = [line.split(",") for line in lines.splitlines() if line and line[0] != "#"]
    return np.array([float(int(cell[2]) * tick) for cell in cells]), [cell[5].strip() for cell in cells]


BITMAPS = {
    "hdmv_pgs_subtitle": ("copy", [".mkv"], [".mkv"]),
    "dvd_subtitle": ("dvdsub", [".mkv", ".mp4"], [".mkv"]),
    "dvb_subtitle": ("dvbsub", [".mkv", ".ts"], [".mkv", ".ts"]),
}


@pytest.mark.parametrize(("codec", "suffix"), [(codec, suffix) for codec in BITMAPS for suffix in BITMAPS[codec][1]])
@pytest.mark.parametrize("out", [".mkv", ".ts", ".mp4", ".mov", ".webm"])
def test_bitmaps_are_copied_or_named(tmp_path, folder, codec, suffix, out):
    how, _, holders = BITMAPS[codec]
    pictures = write_pgs(tmp_path / "in.sup", (0.1, 0.2), (0.3, 0.4))
    source = tmp_path / f"in{suffix}"
    both = ["-i", folder / "clip.mp4", "-fix_sub_duration", "-i", pictures, "-map", "0", "-map", "1"]
    ffmpeg(*both, "-c", "copy", "-c:s", how, source)
    box = (20, 40, 8, 4, b"\1" * 32)
    assert shown(source) == (codec, [box, box])
    lines = []
    report = imagesr.upscale_video(source, tmp_path / f"out{out}", model="lanczos", announce=lines.append)
    if out in holders:
        assert f"subtitle 2 ({codec}), copied" in report.kept
        assert not report.dropped
        assert not report.missing
        assert shown(report.output) == (codec, [box, box])
        (before, packets), (after, copied) = begins(source), begins(report.output)
        assert copied == packets
        assert np.ptp(after - before) < 0.002  # all streams may move together
    else:
        told = f"subtitle 2 ({codec}): {out} files do not hold it"
        assert told in report.dropped
        assert f"will be lost: {told}" in lines
        with av.open(report.output) as container:
            assert not container.streams.subtitles


def test_teletext_is_named_with_the_right_reason(tmp_path, folder):
    lines, source = [], tmp_path / "in.ts"
    with av.open(str(folder / "clip.mp4")) as clip, av.open(str(source), "w") as target:
        video = target.add_stream_from_template(clip.streams.video[0], opaque=True)
        pages = target.add_mux_stream("dvb_teletext", time_base=Fraction(1, 90_000))
        for packet in clip.demux(clip.streams.video[0]):
            if packet.size:
                page = av.Packet(b"\x10" + (b"\x02\x2c" + bytes(44)) * 4)
                page.pts = page.dts = round(packet.dts * packet.time_base * 90_000)
                page.time_base, page.stream, packet.stream = Fraction(1, 90_000), pages, video
                target.mux(page)
                target.mux(packet)
    report = imagesr.upscale_video(source, tmp_path / "out.ts", model="lanczos", announce=lines.append)
    told = [line for line in report.dropped + report.kept if line.startswith("subtitle")]
    assert told[0].endswith("copied") or "no decoder for it, and imagesr does not copy it" in told[0]
    assert told[0].endswith("copied") or f"will be lost: {told[0]}" in lines
