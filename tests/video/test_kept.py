"""What else a file says, and which of its streams is the film; read back by ffmpeg."""

import re
import struct
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ffmpeg, run_video, write_clip

import imagesr


def info(path):
    """Return what ffmpeg prints of a file."""
    from imageio_ffmpeg import get_ffmpeg_exe

    return subprocess.run([get_ffmpeg_exe(), "-hide_banner", "-i", path], capture_output=True, text=True).stderr


def upscaled(source, out, **options):
    return imagesr.upscale_video(source, out, **{"model": "lanczos"} | options)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("small") / "in.mp4", size=(96, 64))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_the_containers_pixel_aspect_counts(tmp_path, suffix):
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=180x144:d=0.2", "-c:v", "libvpx-vp9", "-aspect", "16:9", tmp_path / "a.webm")
    plain = write_clip(tmp_path / "plain.mp4", size=(180, 144), sound=None)
    ffmpeg("-i", plain, "-c", "copy", "-aspect", "16:9", tmp_path / "b.mp4")  # the bitstream says 1:1 or nothing
    for name in ("a.webm", "b.mp4"):
        report = upscaled(tmp_path / name, tmp_path / f"out{suffix}", overwrite=True)
        assert "SAR 64:45 DAR 16:9" in info(report.output)


@pytest.mark.parametrize(
    ("size", "shape", "options", "expected", "sar"),
    [
        ((180, 108), "64/45", {"size": (480, 270)}, (338, 202), "64:45"),
        ((180, 144), "16/15", {"size": (1920, 1080)}, (1350, 1080), "16:15"),
        ((180, 144), "64/45", {"size": (384, 216), "square": True}, (384, 216), "1:1"),
        ((180, 120), "8/9", {"scale": 2, "square": True}, (360, 270), "1:1"),
        ((180, 120), "32/27", {"scale": 2, "square": True}, (426, 240), "1:1"),
    ],
)
def test_sizes_are_meant_as_displayed(tmp_path, size, shape, options, expected, sar):
    source = write_clip(tmp_path / "in.mp4", size=size, sample_aspect_ratio=Fraction(shape), sound=None)
    report = upscaled(source, tmp_path / "out.mp4", **options)
    with av.open(report.output) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == expected
    assert f"SAR {sar}" in info(report.output)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_hevc_is_tagged_as_apple_plays_it(tmp_path, suffix):
    source = write_clip(tmp_path / "in.mkv", pix_fmt="yuv420p10le", options={"profile": "high10"}, size=(96, 64))
    assert "hvc1" in info(upscaled(source, tmp_path / f"out{suffix}").output)


def with_rotation(source, path, degrees, **flips):
    with av.open(str(source)) as upright, av.open(str(path), "w") as turned:
        stream = upright.streams.video[0]
        copy = turned.add_stream_from_template(stream, opaque=True)
        copy.set_display_rotation(degrees, **flips)
        for packet in upright.demux(stream):
            if packet.size:
                packet.stream = copy
                turned.mux(packet)
    return path


@pytest.mark.parametrize("degrees", [90, 180, -90])
@pytest.mark.parametrize("flips", [{}, {"hflip": True}])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_rotation_looks_the_same_in_every_container(tmp_path, small, degrees, flips, suffix):
    source = with_rotation(small, tmp_path / "in.mp4", degrees, **flips)
    report = upscaled(source, tmp_path / f"out{suffix}", crf=4)
    size = "48:72" if degrees % 180 else "72:48"
    looks = [
        np.frombuffer(
            ffmpeg(
                "-i", path, "-frames:v", 1, "-vf", f"scale={size}:flags=area", "-pix_fmt", "gray", "-f", "rawvideo", "-"
            ),
            np.uint8,
        ).astype(int)
        for path in (source, report.output)
    ]
    assert np.abs(looks[0] - looks[1]).mean() < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_rotation_is_a_flag_where_the_container_has_one(tmp_path, small, suffix):
    report = upscaled(with_rotation(small, tmp_path / "in.mp4", -90), tmp_path / f"out{suffix}")
    with av.open(report.output) as container:
        frame = next(container.decode(video=0))
    assert (frame.rotation, frame.width, frame.height) == (-90, 144, 96)


@pytest.mark.parametrize(("out", "kept"), [(".mkv", True), (".mp4", True), (".mov", False), (".webm", False)])
def test_covers(tmp_path, small, out, kept):
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-frames:v", 1, tmp_path / "cover.png")
    attach = [
        "-attach",
        tmp_path / "cover.png",
        "-metadata:s:t",
        "mimetype=image/png",
        "-metadata:s:t",
        "filename=cover.png",
    ]
    ffmpeg("-i", small, "-c", "copy", *attach, tmp_path / "in.mkv")
    both = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic"]
    ffmpeg("-i", small, "-i", tmp_path / "cover.png", *both, tmp_path / "in.mp4")
    for source in (tmp_path / "in.mkv", tmp_path / "in.mp4"):
        report = upscaled(source, tmp_path / f"out{out}", overwrite=True)
        assert ("attached pic" in info(report.output)) == kept
        if kept:
            how = ["-map", "0:v:1", "-c", "copy", "-f", "image2pipe", "-"]
            assert ffmpeg("-i", report.output, *how) == (tmp_path / "cover.png").read_bytes()
        assert kept or any("covers" in line for line in report.dropped)


@pytest.mark.parametrize(("name", "kind"), [("font.ttf", "application/x-truetype-font"), ("notes.txt", "text/plain")])
def test_attachments_stay_in_mkv_and_are_named_elsewhere(tmp_path, small, name, kind):
    (tmp_path / name).write_bytes(b"\0\1\0\0" + bytes(60))
    ffmpeg(
        "-i", small, "-c", "copy", "-attach", tmp_path / name, "-metadata:s:t", f"mimetype={kind}", tmp_path / "in.mkv"
    )
    report = upscaled(tmp_path / "in.mkv", tmp_path / "out.mkv")
    told = info(report.output)
    assert re.search(rf"filename +: {name}", told)
    assert re.search(rf"mimetype +: {kind}", told)
    ffmpeg("-dump_attachment:t:0", tmp_path / "same", "-i", report.output, "-f", "null", "-")
    assert (tmp_path / "same").read_bytes() == (tmp_path / name).read_bytes()
    assert not report.dropped
    report = upscaled(tmp_path / "in.mkv", tmp_path / "out.mp4")
    (lost,) = report.dropped
    assert lost.startswith("attachment 2")
    assert "only .mkv holds attachments" in lost


@pytest.mark.parametrize("out", [".mov", ".mp4"])
def test_apples_keys(tmp_path, small, out):
    keys = ["com.apple.quicktime.make=Maker", "com.apple.quicktime.creationdate=2019-08-03T12:11:12+0200"]
    said = [part for key in keys for part in ("-metadata", key)]
    ffmpeg("-i", small, "-c", "copy", "-movflags", "use_metadata_tags", *said, tmp_path / "in.mov")
    told = info(upscaled(tmp_path / "in.mov", tmp_path / f"out{out}").output)
    assert "com.apple.quicktime.make: Maker" in told
    assert "com.apple.quicktime.creationdate: 2019-08-03T12:11:12+0200" in told
    lost = upscaled(tmp_path / "in.mov", tmp_path / "out.ts").dropped
    assert any("com.apple.quicktime.make" in line and ".ts files do not hold them" in line for line in lost)


@pytest.mark.parametrize("out", [".mkv", ".mp4"])
def test_3d_flags(tmp_path, small, out):
    source = tmp_path / "in.mkv"
    ffmpeg("-i", small, "-c", "copy", "-metadata:s:v", "stereo_mode=left_right", source)
    report = upscaled(source, tmp_path / f"out{out}")
    with av.open(report.output) as container:
        frame = next(container.decode(video=0))
        stereo = next(bytes(data) for data in frame.side_data if data.type.name == "STEREO3D")
    assert struct.unpack("=I", stereo[:4])[0] == 1  # side by side
    report = upscaled(source, tmp_path / "other.mp4", codec="libx265")
    assert any("3D" in line for line in report.dropped)


@pytest.mark.parametrize(("out", "codec"), [(".mkv", "libx265"), (".webm", None)])
def test_matroska_has_a_3d_flag_of_its_own(tmp_path, small, out, codec):
    source = tmp_path / "in.mkv"
    ffmpeg("-i", small, "-c", "copy", "-metadata:s:v", "stereo_mode=left_right", source)
    report = upscaled(source, tmp_path / f"out{out}", codec=codec)
    assert "side by side" in info(report.output)
    assert not report.dropped


@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv", ".webm", ".ts"])
@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_title_language_and_chapters(tmp_path, small, suffix, out):
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/10\nSTART={at}\nEND={at + 2}\ntitle={name}\n" for at, name in ((0, "One"), (2, "Two"))
    )
    (tmp_path / "tags.txt").write_text(f";FFMETADATA1\ntitle=Called\ncomment=Said\n{chapters}")
    both = ["-i", small, "-i", tmp_path / "tags.txt", "-map_metadata", "1", "-map_chapters", "1", "-c", "copy"]
    source = tmp_path / f"in{suffix}"
    ffmpeg(*both, "-metadata:s:a:0", "language=deu" if suffix == ".mkv" else "language=ger", source)
    report = upscaled(source, tmp_path / f"out{out}")
    told = info(report.output)
    assert re.search(r"(title|service_name) +: Called", told)
    assert re.search(r"\((deu|ger)\): Audio", told)
    with av.open(report.output) as container:
        found = [
            (chapter["metadata"]["title"], round(float(chapter["start"] * chapter["time_base"]), 3))
            for chapter in container.chapters()
        ]
    if out == ".ts":
        assert not found
        assert report.dropped == [f"{what}: .ts files do not hold them" for what in ("chapters", "tags (comment)")]
    else:
        assert found == [("One", 0), ("Two", 0.2)]
        assert not report.dropped


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
@pytest.mark.parametrize("out", [".mov", ".mp4", ".mkv", ".webm", ".ts"])
def test_a_timecode_is_kept_or_named(tmp_path, small, suffix, out):
    source = tmp_path / f"in{suffix}"
    ffmpeg("-i", small, "-c", "copy", "-timecode", "01:02:03:04", source)
    report = upscaled(source, tmp_path / f"out{out}", start=0.2)
    told = info(report.output)
    assert bool(re.search("timecode +: 01:02:03:04", told, re.IGNORECASE)) == (out != ".ts")
    assert ("tmcd" in told) == (out in (".mov", ".mp4"))
    how = {".mkv": "kept as a tag", ".webm": "kept as a tag"}.get(out, "written anew")
    assert (f"data 2: timecode 01:02:03:04, {how}" in report.kept) == (out != ".ts")
    assert report.dropped == (["data 2: data streams are not copied"] if out == ".ts" else [])


@pytest.mark.parametrize("out", [".mp4", ".mkv", ".ts"])
def test_other_data_streams_are_named(tmp_path, small, out):
    source, lines = tmp_path / "in.ts", []
    with av.open(str(small)) as clip, av.open(str(source), "w") as target:
        video = target.add_stream_from_template(clip.streams.video[0], opaque=True)
        data = target.add_data_stream("bin_data")
        for packet in clip.demux(clip.streams.video[0]):
            if packet.size:
                packet.stream = video
                target.mux(packet)
        packet = av.Packet(b"some data")
        packet.stream, packet.pts, packet.dts, packet.time_base = data, 9000, 9000, Fraction(1, 90_000)
        target.mux(packet)
    report = upscaled(source, tmp_path / f"out{out}", announce=lines.append)
    (lost,) = report.dropped
    assert re.fullmatch(r"data 1( \(\w+\))?: data streams are not copied", lost)
    assert f"will be lost: {lost}" in lines
    assert "Data:" not in info(report.output)


MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


@pytest.mark.parametrize(("codec", "out"), [(None, ".mp4"), ("libx265", ".mkv"), ("libsvtav1", ".mkv")])
def test_hdr10_metadata(tmp_path, codec, out):
    source = tmp_path / "in.mkv"
    hdr = (
        f"hdr10=1:master-display={MASTERING}:max-cll=1000,400:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    )
    how = ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", f"log-level=error:{hdr}"]
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=96x64:d=0.2", *how, source)
    read = []
    for path in (source, upscaled(source, tmp_path / f"out{out}", codec=codec).output):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            found = {data.type.name: bytes(data) for data in frame.side_data}
            assert (frame.color_trc, frame.colorspace, frame.color_primaries) == (16, 9, 9)
        numbers = struct.unpack("=20i", found["MASTERING_DISPLAY_METADATA"][:80])
        read.append([numbers[i] / numbers[i + 1] for i in range(0, 20, 2)])
        assert struct.unpack("=II", found["CONTENT_LIGHT_LEVEL"][:8]) == (1000, 400)
    assert read[0] == pytest.approx(read[1], rel=1e-3, abs=1e-3)
    lost = upscaled(source, tmp_path / "lost.mkv", codec="ffv1", pix_fmt="yuv420p10le").dropped
    assert any("HDR10" in line for line in lost)


ALPHA = {
    "vp9": ("in.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"]),
    "prores": ("in.mov", ["-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"]),
    "png": ("in.mov", ["-c:v", "png", "-pix_fmt", "rgba"]),
    "ffv1": ("in.mkv", ["-c:v", "ffv1", "-pix_fmt", "yuva444p"]),
}


@pytest.mark.parametrize("kind", ALPHA)
@pytest.mark.parametrize(("out", "codec"), [(".webm", None), (".mov", "prores_ks"), (".mkv", "ffv1")])
def test_transparency_is_kept_where_the_codec_has_it(tmp_path, kind, out, codec):
    file, how = ALPHA[kind]
    half = "color=red:s=96x64:r=10:d=0.5,format=yuva444p,geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='255*gt(X,48)'"
    ffmpeg("-f", "lavfi", "-i", half, *how, tmp_path / file)
    report = upscaled(tmp_path / file, tmp_path / f"out{out}", codec=codec)
    assert not any("transparency" in line for line in report.dropped)
    decoder = ["-c:v", "libvpx-vp9"] if out == ".webm" else []
    alpha = ["-frames:v", 1, "-vf", "alphaextract", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    picture = np.frombuffer(ffmpeg(*decoder, "-i", report.output, *alpha), np.uint8).reshape(96, 144)
    assert picture[:, :60].max() < 20
    assert picture[:, 84:].min() > 235
    lines = []
    report = upscaled(tmp_path / file, tmp_path / "out.mp4", announce=lines.append)
    assert any(line.startswith("will be lost: transparency") for line in lines)


def test_transparency_of_our_own_webm_is_seen(tmp_path):
    clear = ["-f", "lavfi", "-i", "color=red@0:s=96x64:r=10:d=0.3,format=yuva420p"]
    ffmpeg(*clear, "-c:v", "libvpx-vp9", tmp_path / "in.webm")
    again = upscaled(upscaled(tmp_path / "in.webm", tmp_path / "once.webm").output, tmp_path / "twice.webm").output
    alpha = ["-vf", "alphaextract", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    assert max(ffmpeg("-c:v", "libvpx-vp9", "-i", again, *alpha)) < 20
    report = upscaled(tmp_path / "once.webm", tmp_path / "out.mp4")
    assert any(line.startswith("transparency") for line in report.dropped)


def test_the_film_is_the_default_or_the_largest_video_stream(tmp_path):
    for name, size in (("small", (64, 48)), ("large", (128, 96))):
        write_clip(tmp_path / f"{name}.mp4", size=size, sound=None)
    both = ["-i", tmp_path / "small.mp4", "-i", tmp_path / "large.mp4", "-map", "0", "-map", "1", "-c", "copy"]
    flags = ["-disposition:v:0", "0", "-disposition:v:1"]
    for name, flag in (("a.mkv", "default"), ("b.mkv", "0"), ("c.ts", "0")):
        ffmpeg(*both, *flags, flag, tmp_path / name)
        report = upscaled(tmp_path / name, tmp_path / "out.mp4", overwrite=True)
        assert report.size.startswith("128x96")
        assert any("only the default or largest" in line for line in report.dropped)


def test_every_other_video_stream_is_named(tmp_path):
    for name, size in (("small", (64, 48)), ("large", (128, 96))):
        write_clip(tmp_path / f"{name}.mp4", size=size, sound=None)
    files = [part for name in ("small", "large", "small") for part in ("-i", tmp_path / f"{name}.mp4")]
    ffmpeg(*files, "-map", "0", "-map", "1", "-map", "2", "-c", "copy", "-disposition:v", "0", tmp_path / "in.mkv")
    lines = []
    report = upscaled(tmp_path / "in.mkv", tmp_path / "out.mkv", announce=lines.append)
    assert report.size.startswith("128x96")
    assert report.dropped == [f"video {i} (h264): only the default or largest video stream is upscaled" for i in (0, 2)]
    assert all(f"will be lost: {line}" in lines for line in report.dropped)
    assert info(report.output).count("Video:") == 1


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "written"),
    [
        ("yuv420p12le", None, "yuv420p12le"),
        ("yuv444p10le", None, "yuv444p10le"),
        ("yuv420p12le", "libx264", "yuv420p10le"),
        ("yuv422p", "libsvtav1", "yuv420p"),
        ("gray12le", "libx265", "gray12le"),
    ],
)
def test_the_pixel_format_is_kept_or_the_closest(tmp_path, pix_fmt, codec, written):
    how = ["-c:v", "ffv1", "-pix_fmt", pix_fmt]
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.2", *how, tmp_path / "in.mkv")
    report = upscaled(tmp_path / "in.mkv", tmp_path / "out.mkv", codec=codec)
    with av.open(report.output) as container:
        found = next(container.decode(video=0)).format.name
    notes = [note for note in report.notes if " writes " in note]
    assert found == written
    assert bool(notes) == (written != pix_fmt)
    assert all(f"writes {written}, the input has {pix_fmt}" in note for note in notes)


@pytest.mark.parametrize("kind", ["ffconcat", "hls"])
def test_playlists_are_not_followed_under_any_name(tmp_path, small, kind):
    (tmp_path / "part.ts").write_bytes(ffmpeg("-i", small, "-c", "copy", "-f", "mpegts", "-"))
    text = {"ffconcat": "ffconcat version 1.0\nfile 'part.ts'\n"}
    text["hls"] = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n"
    for suffix in (".mp4", ".m3u8", ".ffconcat", ".mkv"):
        source = tmp_path / f"list{suffix}"
        source.write_text(text[kind])
        done = run_video(source, tmp_path / "out.mkv", "-n", "lanczos")
        assert done.returncode == 3, done.stdout
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_huge_header_is_refused_in_words_about_its_size(tmp_path, small):
    (tmp_path / "in.y4m").write_bytes(b"YUV4MPEG2 W100000 H100000 F25:1 Ip A1:1 C420jpeg\nFRAME\n")
    done = run_video(tmp_path / "in.y4m", tmp_path / "out.mp4", "-n", "lanczos")
    assert done.returncode == 3
    assert "100,000x100,000" in done.stderr
    content = ffmpeg("-i", small, "-c:v", "ffv1", "-an", "-f", "matroska", "-")
    width, height = re.search(rb"\xb0\x81\x60\xba\x81\x40", content), b"\xb0\x82\xff\xff\xba\x82\xff\xff"
    if width:  # the two numbers of the header, one byte each, become two bytes: sizes before them no longer fit
        (tmp_path / "in.mkv").write_bytes(content.replace(width[0], height))
        done = run_video(tmp_path / "in.mkv", tmp_path / "out.mp4", "-n", "lanczos")
        assert done.returncode == 3
        assert len(done.stderr.strip().splitlines()) == 1
