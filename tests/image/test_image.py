"""Photographs: files through the command, checked with Pillow and littleCMS; arrays through `upscale_image`."""

import io
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from conftest import picture, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from running import until

import imagesr
from imagesr.card import models_for
from imagesr.image.__main__ import main
from imagesr.media.images import read_rgb
from imagesr.metrics.fidelity import psnr
from imagesr.pixels import downscale, luma
from imagesr.scale import Scale

WIDTH, HEIGHT = 60, 44


@pytest.fixture
def photo():
    """Return a Pillow picture, RGB."""
    return Image.fromarray(picture(WIDTH, HEIGHT))


def run(*arguments):
    """Run the command; returns its exit code."""
    return main([str(argument) for argument in arguments])


def opened(path):
    """Return a picture, loaded, by Pillow."""
    with Image.open(path) as image:
        image.load()
        return image


# Files


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("scale", ["1.5", "2", "2.5"])
def test_a_photo_becomes_a_larger_one(photo, suffix, scale, tmp_path, capsys):
    photo.save(tmp_path / f"a.{suffix}", quality=98)
    assert run(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}", "-s", scale) == 0
    large = opened(tmp_path / f"b.{suffix}")
    size = round(WIDTH * float(scale)), round(HEIGHT * float(scale))
    assert (large.size, large.mode) == (size, "RGB")
    assert large.format == opened(tmp_path / f"a.{suffix}").format
    wanted = np.asarray(photo.resize(size, Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(large) - wanted).mean() < 6
    assert f"60x44 to {size[0]}x{size[1]}" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(photo, orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    photo.save(tmp_path / "turned.png", exif=exif)
    ImageOps.exif_transpose(opened(tmp_path / "turned.png")).save(tmp_path / "upright.png")
    for name in ("turned", "upright"):
        assert run(tmp_path / f"{name}.png", tmp_path / f"{name}_large.png") == 0
    ours = opened(tmp_path / "turned_large.png")
    assert ours.getexif().get(274, 1) == 1
    np.testing.assert_array_equal(ours, opened(tmp_path / "upright_large.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_exif_is_kept_or_stripped_and_the_profile_stays(photo, suffix, tmp_path):
    exif = Image.Exif()
    exif[271], exif.get_ifd(0x8769)[36867] = "A maker", "2020:02:03 04:05:06"
    profile = pyvips.Image.profile_load("p3")
    photo.save(tmp_path / f"a.{suffix}", exif=exif, icc_profile=profile)
    assert run(tmp_path / f"a.{suffix}", tmp_path / f"kept.{suffix}") == 0
    kept = opened(tmp_path / f"kept.{suffix}")
    assert kept.getexif()[271] == "A maker"
    assert kept.getexif().get_ifd(0x8769)[36867] == "2020:02:03 04:05:06"
    assert kept.info["icc_profile"] == profile
    assert run(tmp_path / f"a.{suffix}", tmp_path / f"bare.{suffix}", "--strip") == 0
    bare = opened(tmp_path / f"bare.{suffix}")
    assert 271 not in bare.getexif()
    assert not bare.getexif().get_ifd(0x8769)
    assert bare.info["icc_profile"] == profile


def lab(image, profile):
    """Return the CIE Lab colours that a picture shows, by littleCMS."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    to_lab = ImageCms.buildTransform(source, ImageCms.createProfile("LAB"), image.mode, "LAB")
    samples = np.asarray(ImageCms.applyTransform(image, to_lab)).astype(float)
    # Pillow's LAB has a and b as signed bytes.
    return np.dstack([samples[..., 0] / 2.55, *((samples[..., i] + 128) % 256 - 128 for i in (1, 2))])


@pytest.mark.parametrize("space", ["p3", "srgb"])
def test_colours_stay_what_they_are(space, tmp_path):
    """Patches of colour look the same before and after, under the profile of the file: ΔE at most 1."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (4, 6, 3), np.uint8)
    profile = pyvips.Image.profile_load(space)
    Image.fromarray(colours.repeat(24, 0).repeat(24, 1)).save(tmp_path / "a.png", icc_profile=profile)
    assert run(tmp_path / "a.png", tmp_path / "b.png") == 0
    before, after = (lab(opened(tmp_path / f"{name}.png"), profile) for name in "ab")
    for row in range(4):
        for column in range(6):
            inside = before[24 * row + 12, 24 * column + 12]
            patch = after[48 * row + 12 : 48 * row + 36, 48 * column + 12 : 48 * column + 36]
            assert np.sqrt(((patch - inside) ** 2).sum(-1)).max() <= 1


def test_cmyk_becomes_srgb_as_littlecms_has_it(tmp_path, capsys):
    profile = pyvips.Image.profile_load("cmyk")
    inks = np.zeros((96, 96, 4), np.uint8)
    inks[..., 0], inks[..., 1] = np.linspace(0, 200, 96)[:, None], np.linspace(0, 200, 96)
    inks[48:, 48:, 2], inks[:30, 60:, 3] = 180, 90
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0, icc_profile=profile)
    assert run(tmp_path / "a.jpg", tmp_path / "b.png") == 0
    assert "CMYK became sRGB" in capsys.readouterr().err
    large = opened(tmp_path / "b.png")
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "CMYK", "RGB", renderingIntent=1
    )
    wanted = ImageCms.applyTransform(opened(tmp_path / "a.jpg"), transform)
    small = np.asarray(large.resize(wanted.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(small - np.asarray(wanted)).mean() < 2


@pytest.mark.parametrize(
    ("mode", "becomes"), [("L", "L"), ("LA", "LA"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB"), ("I;16", "I;16")]
)
def test_modes(photo, mode, becomes, tmp_path):
    if mode == "I;16":
        ramp = np.linspace(10_000, 12_000, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
        Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a.png")
    else:
        (photo.quantize(32) if mode == "P" else photo.convert(mode)).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "b.png") == 0
    large = opened(tmp_path / "b.png")
    assert (large.mode, large.size) == (becomes, (2 * WIDTH, 2 * HEIGHT))
    if mode == "I;16":
        assert len(np.unique(large)) > 1000  # not 256 levels, spread


def test_a_palette_with_transparency_becomes_rgba(photo, tmp_path):
    small = photo.quantize(16)
    small.save(tmp_path / "a.png", transparency=int(np.asarray(small)[0, 0]))
    assert run(tmp_path / "a.png", tmp_path / "b.png") == 0
    large = opened(tmp_path / "b.png")
    assert large.mode == "RGBA"
    assert large.getpixel((0, 0))[3] == 0


@pytest.mark.parametrize("scale", [1.5, 2])
def test_alpha_does_not_ring(photo, scale):
    """Networks overshoot at hard edges; what has no other alpha around it keeps its own exactly."""
    alpha = np.zeros((44, 60), np.uint8)
    alpha[12:32, 20:40] = 255
    large = imagesr.upscale_image(np.dstack([np.asarray(photo), alpha]), scale=scale)[..., 3]
    far = [slice(round(a * scale), round(b * scale)) for a, b in ((14, 30), (22, 38))]
    assert (large[*far] == 255).all()
    near = [slice(round(a * scale), round(b * scale)) for a, b in ((10, 34), (18, 42))]
    large[*near] = 0
    assert not large.any()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_rgb_stay_sixteen(suffix, tmp_path):
    deep = picture(WIDTH, HEIGHT).astype(np.uint16) * 200 + 77
    pyvips.Image.new_from_array(deep).write_to_file(str(tmp_path / f"a.{suffix}"))
    assert run(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}") == 0
    large = pyvips.Image.new_from_file(str(tmp_path / f"b.{suffix}"))
    assert (large.format, large.bands, large.width) == ("ushort", 3, 2 * WIDTH)
    assert len(np.unique(large.numpy())) > 3000
    assert abs(large.avg() - deep.mean()) < 50


def test_nothing_dark_leaks_from_behind_what_is_transparent(tmp_path, capsys):
    """A red disc whose surroundings are black where nobody sees them stays red up to its edge."""
    y, x = np.mgrid[:80, :80]
    inside = (y - 40) ** 2 + (x - 40) ** 2 < 30**2
    rgba = np.zeros((80, 80, 4), np.uint8)
    rgba[inside] = (230, 40, 30, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for scale in ("2", "2.5"):
        assert run(tmp_path / "a.png", tmp_path / "b.png", "-s", scale, "-y") == 0
        large = np.asarray(opened(tmp_path / "b.png")).astype(int)
        seen = large[..., 3] > 0
        assert np.abs(large[seen][:, :3] - (230, 40, 30)).max() <= 3
        assert np.mean(large[..., 3] > 127) == pytest.approx(inside.mean(), abs=0.01)
        middle, edge = len(large) // 2, round(8 * float(scale))
        assert set(np.unique(large[middle - edge : middle + edge, middle - edge : middle + edge, 3])) == {255}
        assert set(np.unique(large[:edge, :edge, 3])) == {0}
    # JPEG has no transparency: on white, and said.
    assert run(tmp_path / "a.png", tmp_path / "b.jpg") == 0
    assert "laid on white" in capsys.readouterr().err
    assert min(opened(tmp_path / "b.jpg").getpixel((2, 2))) > 250


def test_an_animation_is_its_first_frame(photo, tmp_path, capsys):
    photo.save(tmp_path / "a.gif", save_all=True, append_images=[ImageOps.invert(photo)])
    assert run(tmp_path / "a.gif", tmp_path / "b.png") == 0
    assert "2 frames: the first one" in capsys.readouterr().err
    shown = np.asarray(opened(tmp_path / "b.png").convert("RGB").resize(photo.size)).astype(int)
    assert np.abs(shown - np.asarray(photo)).mean() < 15


def test_a_box_and_several_times(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "b.png", "--size", "200x100") == 0
    assert opened(tmp_path / "b.png").size == (136, 100)
    assert run(tmp_path / "a.png", tmp_path / "c.png", "-s", "1.5", "--times", "3") == 0
    assert opened(tmp_path / "c.png").size == (203, 149)  # 60 → 90 → 135 → 203, 44 → 66 → 99 → 149


def test_folders_patterns_and_pipes(photo, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "a.jpg")
    photo.save(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.jpg", "b.png"}
    assert "2 of 2 made" in capsys.readouterr().err
    assert run(tmp_path / "in" / "*.p*g", tmp_path / "out", "--format", "webp") == 0
    assert (tmp_path / "out" / "b.webp").is_file()
    # One that is broken does not hold up the others.
    (tmp_path / "in" / "aa.png").write_bytes(b"no picture")
    assert run(tmp_path / "in", tmp_path / "out2", "-q") == 1
    assert "aa.png" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "out2").iterdir()} == {"a.jpg", "b.png"}
    command = [sys.executable, "-m", "imagesr.image", "-", "-"]
    done = subprocess.run(command, input=(tmp_path / "in" / "a.jpg").read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.size) == ("PNG", (2 * WIDTH, 2 * HEIGHT))


# What cannot be


def broken(tmp_path, photo):
    """Return a JPEG that ends in the middle."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 2])
    return tmp_path / "broken.jpg"


def test_damage_is_taken_when_it_is_asked_for(photo, tmp_path):
    assert run(broken(tmp_path, photo), tmp_path / "out.png", "--allow-truncated") == 0
    assert opened(tmp_path / "out.png").size == (400, 400)


def test_two_of_one_name_are_refused(photo, tmp_path, capsys):
    photo.save(tmp_path / "a.png")
    photo.save(tmp_path / "a.jpg")
    assert run(tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "out", "--format", "png") == 2
    assert "Two become" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_after_sigterm(tmp_path):
    Image.fromarray(picture(3000, 2500)).save(tmp_path / "a.jpg")
    (tmp_path / "spool").mkdir()
    command = [sys.executable, "-m", "imagesr.image", str(tmp_path / "a.jpg"), str(tmp_path / "b.png"), "-s", "4"]
    command += ["--tta"]  # so slow that it is still at its tiles
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path / "spool")}
    )
    until(lambda: any(file.stat().st_size for file in (tmp_path / "spool").rglob("rows")), process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[1]
    # What a callback of libvips loses is printed, and comes again.
    assert (process.returncode, told.splitlines()[-1]) == (143, "imagesr image: terminated")
    assert {file.name for file in tmp_path.iterdir()} == {"a.jpg", "spool"}
    assert not list((tmp_path / "spool").iterdir())


LOSING = """
import os, signal, sys, time
from imagesr.cli import check_interrupted, run_command

class Loses:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def work(options):
    Loses()
    print("going on", flush=True)
    while True:
        time.sleep(0.01)
        check_interrupted()

sys.exit(run_command("work", work, None))
"""


def test_sigterm_is_heard_though_a_finaliser_loses_it():
    """What is raised in one is printed and dropped; so it is in what a C library calls."""
    ended = subprocess.run([sys.executable, "-c", LOSING], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (143, "going on\n")
    assert ended.stderr.endswith("imagesr work: terminated\n")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_exif_is_not_made_up(photo, tmp_path, suffix):
    photo.save(tmp_path / f"a.{suffix}")
    assert run(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}", "-n", "linear") == 0
    assert not opened(tmp_path / f"b.{suffix}").getexif()


def test_a_comment_that_is_no_text_is_left_out(photo, tmp_path):
    """The keyword of a PNG's comment is Latin-1; what else the picture says stays."""
    exif = Image.Exif()
    exif[271] = "A maker"
    photo.save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    text = b"tEXtStra\xdfe\0Am Markt"
    comment = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "a.png").write_bytes(data[:33] + comment + data[33:])
    assert run(tmp_path / "a.png", tmp_path / "b.png", "-n", "linear") == 0
    large = opened(tmp_path / "b.png")
    assert (large.size, large.getexif()[271]) == ((2 * WIDTH, 2 * HEIGHT), "A maker")


WIDE = """
import resource, sys, numpy as np
from contextlib import ExitStack
from imagesr.image.upscale import last, upscaling
from imagesr.card import find_models
from imagesr.scale import Scale
from imagesr.media.photos import encode_photo, from_array
from pathlib import Path

card = next(card for card in find_models("best", flavour="photo") if card.scale == Scale(3))
engine = lambda planes: planes.repeat(3, 1).repeat(3, 2)  # quicker than a network
engine.card = card
picture = from_array(np.full((24, 65_535, 4), 30_000, np.uint16)).copy(interpretation="rgb16")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ExitStack() as spools:
    large = last(upscaling(picture, (131_725, 48), [engine], spools=spools))
    encode_photo(large, Path(sys.argv[1]), "png")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in KiB")
def test_wide_pictures_take_no_more_memory(tmp_path):
    """Of which 226 MB are the rows that are mapped from a file."""
    done = subprocess.run([sys.executable, "-c", WIDE, tmp_path / "a.png"], capture_output=True, text=True, check=True)
    assert opened(tmp_path / "a.png").size == (131_725, 48)
    assert int(done.stdout) < 700_000


# Arrays


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([(), (1,), (2,), (3,), (4,)]),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "float64"]),
    scale=st.sampled_from(["1.5", "2", "3", "4", "1.2", "5/3", "6"]),
)
def test_any_array_comes_back_larger_and_of_its_kind(shape, channels, dtype, scale):
    random = np.random.default_rng(0)
    samples = random.random((*shape, *channels))
    peak = {"uint8": 255, "uint16": 65_535}.get(dtype, 1)
    lr = (samples * peak).astype(dtype)
    sr = imagesr.upscale_image(lr, scale=scale, model="fast")
    scale = Scale.parse(scale)
    assert sr.shape == (scale.grow(shape[0]), scale.grow(shape[1]), *channels)
    assert sr.dtype == lr.dtype
    assert sr.min() >= 0
    assert sr.max() <= peak


@pytest.mark.parametrize("scale", ["1.5", "2", *(slow(s) for s in ("2.5", "6"))])
def test_tiles_leave_no_seam(scale):
    lr = picture(80, 70) if scale == "6" else picture(210, 170)
    whole = imagesr.upscale_image(lr, scale=scale, tile=5000)
    tiled = imagesr.upscale_image(lr, scale=scale, tile=64)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert np.mean(whole != tiled) < 0.001


@pytest.mark.parametrize("model", ["fast", "balanced", "best"])
@pytest.mark.parametrize("scale", ["1.5", "2", "2.5"])
def test_flat_pictures_stay_flat_up_to_their_edge(model, scale):
    for level in (0, 1, 40, 77, 128, 200, 254, 255):
        lr = np.full((30, 34, 4), level, np.uint8)
        assert set(np.unique(imagesr.upscale_image(lr, scale=scale, model=model))) == {level}


def test_all_depths_say_the_same():
    lr = picture(50, 40)
    eight = imagesr.upscale_image(lr)
    sixteen = imagesr.upscale_image(lr.astype(np.uint16) * 257)
    floating = imagesr.upscale_image(lr / 255)
    assert np.abs(sixteen / 257 - eight).max() <= 0.51
    assert np.abs(floating * 255 - eight).max() <= 0.51


def test_the_self_ensemble_does_not_know_up_from_down():
    lr = picture(48, 40)
    sr = imagesr.upscale_image(lr, tta=True, model="fast").astype(int)
    turned = imagesr.upscale_image(np.ascontiguousarray(np.rot90(lr)), tta=True, model="fast")
    assert np.abs(np.rot90(turned, -1) - sr).max() <= 1
    plain = imagesr.upscale_image(lr, model="fast")
    assert 0 < np.abs(plain - sr).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_pillow_in_pillow_out(photo, mode):
    lr = photo.quantize(16) if mode == "P" else photo.convert(mode)
    lr.info["icc_profile"] = b"profile"
    sr = imagesr.upscale_image(lr, scale=1.5)
    assert sr.mode == {"P": "RGB", "1": "L"}.get(mode, mode)
    assert sr.size == (WIDTH * 3 // 2, HEIGHT * 3 // 2)
    assert sr.info["icc_profile"] == b"profile"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), int), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4))]
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="Expected"):
        imagesr.upscale_image(array)


def test_the_flavour_for_photographs_is_chosen():
    for model, name in {"best": "best-photo", "fast-photo": "fast-photo", "linear": "linear"}.items():
        assert {card.name for card in models_for("photographs", model) if card.scale != Scale(1)} == {name}


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["1.5", "2"])
def test_files_come_as_near_to_hr_as_the_evaluator_says(data, scale, tmp_path):
    """PSNR-Y through PNG files is within 0.1 dB of the card's, or above: it rounds once."""
    import json

    scale = Scale.parse(scale)
    (tmp_path / "lr").mkdir()
    photos = sorted((data / "photos/val").glob("*.jpg"))
    for path in photos:
        Image.fromarray(downscale(read_rgb(path), scale)[0]).save(tmp_path / "lr" / f"{path.stem}.png")
    assert run(tmp_path / "lr", tmp_path / "sr", "-q", "-s", scale) == 0
    values = [
        psnr(
            luma(read_rgb(tmp_path / "sr" / f"{path.stem}.png")),
            luma(downscale(read_rgb(path), scale)[1]),
            shave=scale.up,
        )
        for path in photos
    ]
    card = json.loads((Path(__file__).parents[2] / f"saved_models/best-photo_x{scale}/card.json").read_text())
    assert np.mean(values) > card["measured"]["photos-val"]["fp32"]["psnr_y"] - 0.1
