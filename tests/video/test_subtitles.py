"""Subtitles in the output: copied, converted where they are text, else named; read back by ffmpeg."""

import av
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
    assert any(line.startswith("subtitle") for line in report.kept)
    with av.open(report.output) as container:
        assert container.streams.subtitles[0].language in ("deu", "ger")


def test_a_last_subtitle_without_an_end_is_no_reason_to_throw_the_video_away(tmp_path, folder):
    source = tmp_path / "in.mp4"
    source.write_bytes(with_text(folder, "mov_text", ".mp4").read_bytes())
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", duration=0.4)
    assert "One & " in read(report.output)


def test_what_no_conversion_reaches_is_named_before_the_start(tmp_path, folder):
    lines = []
    source = with_text(folder, "srt", ".mkv")
    report = imagesr.upscale_video(source, tmp_path / "out.ts", model="lanczos", announce=lines.append)
    told = "subtitle 2 (subrip): .ts files do not hold it"
    assert told in report.dropped
    assert f"will be lost: {told}" in lines


@pytest.mark.parametrize(("out", "kept"), [(".mkv", True), (".mp4", False)])
def test_bitmaps_pass_where_they_are_held(tmp_path, folder, out, kept):
    source = tmp_path / "in.mkv"
    with av.open(str(folder / "clip.mp4")) as clip, av.open(str(source), "w") as target:
        video = target.add_stream_from_template(clip.streams.video[0], opaque=True)
        text = target.add_mux_stream("hdmv_pgs_subtitle")
        for packet in clip.demux(clip.streams.video[0]):
            if packet.size:
                packet.stream = video
                target.mux(packet)
        end = av.Packet(b"\x80\x00\x00")
        end.stream, end.pts, end.dts, end.time_base, end.duration = text, 100, 100, text.time_base, 100
        target.mux(end)
    report = imagesr.upscale_video(source, tmp_path / f"out{out}", model="lanczos")
    lines = report.kept if kept else report.dropped
    assert any(line.startswith("subtitle 1 (hdmv_pgs_subtitle)") for line in lines)
