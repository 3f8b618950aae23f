"""Networks run only where a frame differs from the one before, and nobody can tell."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import picture

import imagesr
from imagesr.card import find_models
from imagesr.engines import tuned
from imagesr.engines.chain import load_chain
from imagesr.media.frames import Frame, VideoInfo, plane
from imagesr.media.grain import Grain
from imagesr.scale import Scale
from imagesr.video.pipeline import spread
from imagesr.video.unchanged import Repeats, Windows
from imagesr.video.upscaler import Upscaler, target_size


def info_of(width, height, pix_fmt="yuv420p"):
    bits = 10 if "10" in pix_fmt else 8
    return VideoInfo(
        width,
        height,
        pix_fmt=pix_fmt,
        bits=bits,
        halved=(True, True),
        time_base=Fraction(1, 25),
        rate=Fraction(25),
        sample_aspect_ratio=None,
        color={},
        display_matrix=None,
        rotation=0,
        duration=None,
        frames=None,
    )


def frame_of(luma, pix_fmt):
    frame = Frame(luma.shape[1], luma.shape[0], pix_fmt)
    for i in range(3):
        plane(frame, i)[:] = luma if i == 0 else 1 << (frame.format.components[0].bits - 1)
    return frame


def luma_of_clip(path):
    with av.open(str(path)) as container:
        return np.stack([plane(frame, 0).copy() for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("size", "pix_fmt", "box"),
    [
        ((640, 360), "yuv420p", None),
        ((643, 361), "yuv420p", None),  # padded
        ((640, 360), "yuv420p", (800, 450)),  # brought down
        ((643, 361), "yuv420p", (800, 450)),
        ((480, 270), "yuv420p10le", None),
        ((50, 40), "yuv420p", None),
    ],
)
def test_the_result_is_that_of_whole_frames(size, pix_fmt, box):
    info = info_of(*size, pix_fmt)
    target = target_size(info, scale=None if box else Scale(3, 2), box=box)
    engines = load_chain(find_models("fast"), Scale(3, 2), bits=16 if info.bits > 8 else 8)
    upscaler = Upscaler(info, target, engines)
    random = np.random.default_rng(1)
    luma = np.tile(picture(97, 83)[..., 0], (5, 8))[: size[1], : size[0]].astype(
        np.uint16 if info.bits > 8 else np.uint8
    )
    spared = []
    for number in range(6):
        for _ in range((2, 0, 1, 3, 60, 1)[number]):
            y, x = random.integers(0, size[1]), random.integers(0, size[0])
            spot = luma[y : y + 9, x : x + 9]
            spot[:] = random.integers(0, 256, spot.shape)
        before = upscaler.spared
        frame = frame_of(luma, pix_fmt)
        sr = plane(upscaler(frame), 0)
        whole = plane(Upscaler(info, target, engines)(frame), 0)
        assert np.array_equal(sr, whole)
        spared.append(upscaler.spared - before)
    assert spared[0] == 0
    assert spared[1] == 1
    if size[0] > 400:
        assert spared[2] > 0.5
        assert spared[4] == 0


@pytest.mark.parametrize(("length", "unit", "halo"), [(720, 2, 15), (361, 1, 7), (64, 4, 40), (170, 2, 3), (8, 8, 100)])
def test_every_pixel_is_in_one_tile_and_sees_its_surroundings(length, unit, halo):
    windows = Windows((length, 320), units=(unit, 2), halo=halo)
    flat = np.zeros((length, 320), np.uint8)
    covered = np.zeros(length, int)
    for y in range(length):
        changed = flat.copy()
        changed[y, 0] = 1
        found = windows.changed(changed, flat)
        if found is None:
            continue
        for window in found:
            seen, tile = window.seen[0], window.tile[0]
            assert seen.start % unit == 0
            assert seen.start <= max(0, tile.start - halo)
            assert seen.stop >= min(length, tile.stop + halo)
        covered[y] = sum(w.tile[0].start <= y < w.tile[0].stop for w in found if w.tile[1].start == 0)
    assert set(covered) <= {0, 1}
    assert windows.changed(flat, flat) == []
    if length == 720:
        assert covered.all()


def test_repeats_go_to_the_function_that_has_seen_the_frame():
    frames = [frame_of(np.full((8, 8), value, np.uint8), "yuv420p") for value in (1, 1, 2, 3, 3, 3, 1)]
    calls = [[], [], []]

    def function(turn):
        return lambda frame: calls[turn].append(int(plane(frame, 0)[0, 0])) or frame

    assert list(spread(frames, [function(turn) for turn in range(3)], repeats=Repeats())) == frames
    assert sorted(calls) == [[1, 1, 1], [2], [3, 3, 3]]


def test_sound_between_repeats_does_not_part_them():
    frames = [frame_of(np.full((8, 8), value, np.uint8), "yuv420p") for value in (1, 1, 2, 2, 3, 3)]
    items = [item for frame in frames for item in (frame, av.Packet(b"sound"))]
    calls = [[], [], []]

    def function(turn):
        def work(item):
            if isinstance(item, Frame):
                calls[turn].append(int(plane(item, 0)[0, 0]))
            return item

        return work

    assert list(spread(items, [function(turn) for turn in range(3)], repeats=Repeats())) == items
    assert sorted(calls) == [[1, 1], [2, 2], [3, 3]]


def test_a_network_of_one_size_runs_on_whole_frames():
    info = info_of(640, 360)
    engine = load_chain(find_models("fast"), Scale(3, 2))[0]
    shapes = []

    class Fixed:
        card = dataclasses.replace(engine.card, size=(360, 640))

        def __call__(self, planes):
            shapes.append(planes.shape)
            return engine(planes)

    upscaler = Upscaler(info, (960, 540), [Fixed()])
    luma = np.zeros((360, 640), np.uint8)
    for value in (0, 9):
        luma[0, 0] = value
        upscaler(frame_of(luma, "yuv420p"))
    assert shapes == [(1, 360, 640, 1)] * 2
    assert upscaler.spared == 0


def test_a_clip_that_stands_still_is_as_before(tmp_path, monkeypatch):
    still = np.tile(picture(160, 90), (4, 4, 1))
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", 25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = still.shape[1], still.shape[0], "yuv420p"
        for number in range(8):
            shown = still.copy()
            shown[10 : 10 + 5 * (number // 2), 20:30] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, "rgb24")))
        container.mux(stream.encode())
    report = imagesr.upscale_video(tmp_path / "in.mp4", tmp_path / "kept.mp4", model="fast", crf=10)
    assert report.unchanged > 0.5
    assert "not computed again" in str(report)
    monkeypatch.setattr(Windows, "changed", lambda *_: None)
    report = imagesr.upscale_video(tmp_path / "in.mp4", tmp_path / "whole.mp4", model="fast", crf=10)
    assert report.unchanged == 0
    assert "not computed again" not in str(report)
    kept, whole = (luma_of_clip(tmp_path / name) for name in ("kept.mp4", "whole.mp4"))
    assert np.array_equal(kept, whole)


@pytest.mark.parametrize("size", [(64, 48), (65, 47)])
@pytest.mark.parametrize("box", [None, (80, 60)])
@pytest.mark.parametrize("model", ["lanczos", "fast", "balanced"])
def test_grain_is_painted_on_every_kind_of_result(model, size, box):
    info = info_of(*size, "yuv420p")
    target = target_size(info, scale=None if box else Scale(3, 2), box=box)
    engines = [] if model == "lanczos" else load_chain(find_models(model, flavour="film"), Scale(3, 2))
    engines = tuned(engines, clean=0.5)  # balanced takes it: then steps are dissolved, too
    frame = frame_of(np.tile(picture(97, 83)[..., 0], (2, 2))[: size[1], : size[0]], "yuv420p")
    frame.pts = 1
    with_grain = Upscaler(info, target, engines, grain=Grain(0.5, target))
    plain, grained = Upscaler(info, target, engines), with_grain(frame)
    assert (grained.width, grained.height) == target
    added = plane(grained, 0).astype(int) - plane(plain(frame), 0)
    assert 1 < added.std() < 6 and abs(added.mean()) < 1
    np.testing.assert_array_equal(plane(with_grain(frame), 0), plane(grained, 0))  # the frame that is kept has none


def test_where_an_engine_cleans_faint_steps_dissolve():
    """The network keeps the steps of an encoder's blocks; fast and lanczos, which take no clean, keep them too."""
    info = info_of(320, 180)
    blocks = (90 + np.add.outer(np.arange(180) // 16, np.arange(320) // 16)).astype(np.uint8)
    changed = {}
    for model, clean in (("balanced", 0.5), ("balanced", 0.0), ("fast", 0.5), ("lanczos", 0.5)):
        engines = [] if model == "lanczos" else load_chain(find_models(model, flavour="film"), Scale(3, 2))
        upscaler = Upscaler(info, (480, 270), tuned(engines, clean=clean))
        luma = plane(upscaler(frame_of(blocks, "yuv420p")), 0)[40:-40, 40:-40].astype(int)
        changed[model, clean] = (np.diff(luma, axis=1) != 0).mean()
    assert changed.pop(("balanced", 0.5)) > 2 * max(changed.values())


def test_what_comes_to_the_second_of_a_chain_is_clean_already():
    engines = load_chain(find_models("balanced", flavour="film"), Scale(4), clean=0.5)
    assert [engine.clean for engine in engines] == [0.5, 0.0]
    assert [engine.clean for engine in tuned(engines, clean=0.3)] == [0.3, 0.0]
    assert [engine.clean for engine in tuned(engines)] == [0.5, 0.0]  # their own


def test_only_the_last_of_a_chain_sharpens():
    cards = find_models("balanced", flavour="film")
    default = load_chain(cards, Scale(3))
    assert [str(engine.card.scale) for engine in default] == ["1.5", "2"]
    assert [engine.detail for engine in default] == [0.0, default[1].card.detail]
    assert [engine.detail for engine in load_chain(cards, Scale(3), detail=0.3)] == [0.0, 0.3]
    assert [engine.detail for engine in tuned(default, detail=0.3)] == [0.0, 0.3]
