"""Films of photographs: the camera's path, what an encoder does to them, and the command that writes them."""

import numpy as np
import pytest
from conftest import ffmpeg, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagesr.datasets import DATASETS
from imagesr.datasets.__main__ import main
from imagesr.datasets.degradations import Degradation
from imagesr.datasets.film import FRAMES, KEPT, MACROBLOCK, SHOTS, WINDOW, PannedPhoto, camera, window
from imagesr.datasets.pairs import load_pairs
from imagesr.metrics.fidelity import psnr
from imagesr.pixels import resize
from imagesr.scale import Scale
from imagesr.train.config import Config
from imagesr.train.training import train

X15 = Scale(3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two photographs of fine and coarse detail, one of them upright."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, size in (("wide", (260, 200)), ("upright", (150, 220))):
        detail = resize(random.integers(0, 70, (size[1] // 2, size[0] // 2, 3), np.uint8), size)
        Image.fromarray(picture(*size) // 2 + detail).save(folder / f"{name}.png")
    return folder


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    photo=st.tuples(st.integers(30, 90), st.integers(30, 90)),
    share=st.tuples(st.floats(0.4, 1), st.floats(0.4, 1)),
)
def test_a_camera_stays_on_its_photograph(seed, photo, share):
    rows, columns = np.indices(photo)
    ramp = np.stack([rows, columns, rows * 0], 2).astype(np.uint8)  # every pixel says where it is
    size = tuple(max(4, int(n * s)) for n, s in zip(photo, share, strict=True))
    frames = camera(ramp, size, 6, np.random.default_rng(seed))
    assert [frame.shape for frame in frames] == [(*size, 3)] * 6
    for frame in frames:
        steps = [np.diff(frame[:, 0, 0].astype(int)), np.diff(frame[0, :, 1].astype(int))]
        # It sees the photograph upright and never larger than it is: neighbours are one pixel apart or more.
        assert all((step >= 0).all() and step.mean() > 0.9 for step in steps if len(step) > 8)
        if all((step == 1).all() for step in steps):
            y, x = frame[0, 0, :2]
            np.testing.assert_array_equal(frame, ramp[y : y + size[0], x : x + size[1]])


def test_cameras_pan_zoom_and_stand_still():
    photo = np.random.default_rng(1).integers(0, 256, (80, 90), np.uint8)
    kinds = {"whole pixels": 0, "resampled": 0, "moves": 0}
    for seed in range(60):
        frames = camera(photo, (40, 48), 5, np.random.default_rng(seed))
        windows = np.lib.stride_tricks.sliding_window_view(photo, (40, 48))
        exact = (windows[:, :, 0, 0] == frames[0][0, 0]) & (windows[:, :, -1, -1] == frames[0][-1, -1])
        kinds["whole pixels" if exact.any() else "resampled"] += 1
        kinds["moves"] += any((frame != frames[0]).any() for frame in frames)
    assert min(kinds.values()) > 10, kinds


@given(st.tuples(st.integers(60, 3000), st.integers(60, 3000)), st.sampled_from(["3/2", "2", "3"]))
def test_a_window_is_whole_macroblocks_of_lr(size, scale):
    scale = Scale.parse(scale)
    hr = window(size, scale)
    lr = [n * scale.down // scale.up for n in hr]
    assert all(n % MACROBLOCK == 0 and 0 < n <= most for n, most in zip(lr, WINDOW, strict=True))
    assert all(n <= have for n, have in zip(hr, size, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("degrade", [(), ("kernel=area", "h264=20"), ("softness=1:2", "hevc=20", "noise=0:1")])
def test_frames_meet_their_own_and_repeat(folder, channels, degrade):
    degradation = Degradation.parse(degrade)
    for lr, hr, _ in PannedPhoto(folder / "wide.png", 3).pairs(X15, channels, degradation):
        assert lr.dtype == hr.dtype == np.uint8
        assert lr.shape[:2] == tuple(n * 2 // 3 for n in hr.shape[:2])
        assert lr.ndim == (2 if channels == 1 else 3)
        sr = resize(lr, hr.shape[1::-1])
        here = psnr(sr, hr, shave=6)
        assert here > 24
        for axis in (0, 1):
            assert all(psnr(np.roll(sr, shift, axis), hr, shave=6) < here - 0.5 for shift in (-1, 1))


def test_films_repeat_and_differ_by_their_number(folder):
    degradation = Degradation.parse(["kernel=bicubic,area", "softness=1:2@0.5", "h264=16:30@0.9"])

    def film(number):
        return [
            side for pair in PannedPhoto(folder / "wide.png", number).pairs(X15, 1, degradation) for side in pair[:2]
        ]

    assert all((a == b).all() for a, b in zip(film(0), film(0), strict=True))
    assert any((a != b).any() for a, b in zip(film(0), film(1), strict=True))


def test_an_encoder_sees_the_whole_film(folder):
    random = np.random.default_rng
    photo = np.asarray(Image.open(folder / "wide.png").convert("L"))
    films = {}
    for crf in (12, 40):
        hr = camera(photo, (96, 96), FRAMES, random(5))
        films[crf] = Degradation.parse([f"h264={crf}"]).film(hr, X15, random(0))
    plain = Degradation().film(camera(photo, (96, 96), FRAMES, random(5)), X15, random(0))
    for (fine, _, little), (coarse, _, much), (lr, _, none) in zip(films[12], films[40], plain, strict=True):
        assert psnr(fine, lr) > 38 > psnr(coarse, lr) + 5
        assert none == 0 <= little < 0.2 < 0.6 < much <= 1


@pytest.mark.parametrize("codec", ["mpeg2", "mpeg4", "hevc"])
def test_films_say_how_much_an_encoder_took(folder, codec):
    loss = {}
    for strength in (3, 24):
        degradation = Degradation.parse([f"{codec}={strength + 16 * (codec == 'hevc')}"])
        loss[strength] = [lost for *_, lost in PannedPhoto(folder / "wide.png", 1).pairs(X15, 1, degradation)]
    assert max(loss[3]) < min(loss[24])


def test_films_are_loaded_beside_photographs(folder, capsys):
    pairs = DATASETS["film"](folder, X15, "train")
    assert (len(pairs), len(DATASETS["film"](folder, X15, "val"))) == (2 * SHOTS, 2)
    loaded = load_pairs(pairs, X15, size=(48, 48), sizes=(1.0, 0.5), degradation=Degradation.parse(["h264=20:30"]))
    assert len(loaded) == len(pairs) * KEPT
    assert all(lr.shape == tuple(n * 2 // 3 for n in hr.shape) for lr, hr in loaded)
    loss = [lost for *_, lost in load_pairs(pairs, X15, degradation=Degradation.parse(["mpeg2=20"]), clean=True)]
    assert len(loss) == len(pairs) * KEPT
    assert min(loss) > 0.5
    with pytest.raises(ValueError, match=r"at least 300x300 pixels. Received: .*png of 144x216"):
        load_pairs(pairs, X15, size=(300, 300))


def test_a_photograph_too_small_to_film(tmp_path):
    Image.fromarray(picture(60, 20)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least"):
        load_pairs(DATASETS["film"](tmp_path, X15, "train"), X15)


def test_a_network_is_trained_on_films(folder, tmp_path):
    options = {"degrade": ("kernel=bicubic,area", "h264=20:30@0.5"), "steps": 2, "batch": 2, "patch": 48}
    config = Config(data=(f"film={folder}",), val=(f"film={folder}",), loss="log_mse", **options)
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "model.keras").exists()


def test_photographs_are_filmed_without_loss(folder, tmp_path, capsys):
    films = tmp_path / "made" / "films"
    assert main(["film", str(folder), str(films), "--frames", "3"]) == 0
    assert "2 clips of 3 frames" in capsys.readouterr().out
    assert sorted(file.name for file in films.iterdir()) == ["upright.mp4", "wide.mp4"]
    raw = ffmpeg("-i", films / "wide.mp4", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    height, width = size = (168, 216)  # of 200 x 260: six sevenths, in multiples of 24
    film = np.frombuffer(raw, np.uint8).reshape(3, -1)[:, : height * width].reshape(3, height, width)
    photo = np.asarray(Image.open(folder / "wide.png"))
    for frame, seen in zip(film, camera(photo, size, 3, np.random.default_rng(1)), strict=True):
        luma = 16 + 219 / 255 * (seen @ np.array([0.2126, 0.7152, 0.0722]))  # BT.709, studio range
        assert np.abs(frame - luma).max() < 1.5
