"""Send what nobody should to a real service, and compare what it makes of odd pictures with Pillow and littleCMS."""

import io
import random
import struct

import httpx
import numpy as np
import pytest
import pyvips
from hostile import HANG, bombs, check, measure, mutated, saved, seeds, send
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from running import running_service

PATCH = 16
COLOURS = [(200, 40, 60), (30, 160, 70), (40, 60, 200), (128, 128, 128), (250, 240, 30), (10, 20, 5)]


@pytest.fixture(scope="module")
def client():
    """Return a client of a service, which stays whole to the end."""
    with running_service("-n", "fast") as service, httpx.Client(base_url=service.url, timeout=HANG) as client:
        yield client
        assert service.process.poll() is None
        assert not service.figure("places_taken")
        assert "Traceback" not in service.log()


def enlarged(client, data):
    """Return the service's answer as a loaded Pillow picture."""
    answer, _ = send(client, data)
    assert answer.status_code == 200, answer.text
    check(answer, data)
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    return image


# What is hostile


def examples(count, thorough):
    """Return Hypothesis's settings: the same examples in every run, new ones in thorough ones."""
    return settings(max_examples=count, derandomize=not thorough, deadline=None, database=None)


@pytest.mark.parametrize("name", seeds())
def test_odd_pictures_are_enlarged(client, name):
    enlarged(client, seeds()[name])


def test_bombs_are_refused(client):
    accepted = set()
    for name, data in bombs().items():
        answer, _ = send(client, data)
        check(answer, data)
        if answer.status_code == 200:
            accepted.add(name)
    strange = {"200,000 empty chunks", "rows beyond the last", "5000 x 8 JPEG, no data", "5 MiB of comments"}
    strange |= {"EXIF points at itself", "EXIF of 65,000 tags", "EXIF orientation 9", "EXIF orientation 65535"}
    assert accepted <= strange | {"5 MiB of nothing behind a JPEG"}


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mutated_pictures_are_answered(client, thorough):
    @examples(1000 if thorough else 40, thorough)
    @given(st.sampled_from(sorted(seeds())), st.randoms())
    def run(name, source):
        data = mutated(seeds()[name], source)
        check(send(client, data)[0], data)

    run()


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_noise_is_refused(client, thorough):
    @examples(300 if thorough else 20, thorough)
    @given(st.binary(max_size=3000), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b""]))
    def run(data, beginning):
        answer, _ = send(client, beginning + data)
        check(answer, beginning + data)
        assert answer.status_code in (400, 415)

    run()


@pytest.mark.slow
def test_five_thousand_hostile_pictures():
    found = measure(5000, seed=random.randrange(2**32))
    assert not found.wrong, [(error, data.hex()) for data, error in found.wrong[:3]]
    assert not found.died
    assert not found.large()
    assert found.statuses[200] > 100
    assert found.statuses.total() == 5000


# What is odd, and good


def patches(mode="RGB"):
    """Return a picture of flat patches, PATCH pixels wide."""
    image = Image.new("RGB", (PATCH * len(COLOURS), PATCH))
    for number, colour in enumerate(COLOURS):
        image.paste(colour, (PATCH * number, 0, PATCH * (number + 1), PATCH))
    return image.convert(mode, dither=Image.Dither.NONE)


def centres(image):
    """Return the samples in the middle of every patch, (patches, bands)."""
    samples = np.asarray(image)
    scale = image.height // PATCH
    middle = scale * PATCH // 2
    return np.array([samples[middle, middle + scale * PATCH * i] for i in range(len(COLOURS))])


def lab(image):
    """Return the CIELAB colours of the patches of a picture, through its own profile by littleCMS."""
    profile = image.info.get("icc_profile")
    if profile:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        image = ImageCms.profileToProfile(image, profile, srgb, renderingIntent=intent, outputMode="RGB")
    codes = centres(image)[:, :3] / 255
    linear = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-6)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def adobe_rgb():
    """Return an ICC profile of Adobe RGB (1998): primaries adapted to D50, gamma 563/256."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65_536 * value) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    tags = {
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"wtpt": xyz(0.9505, 1, 1.0891),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 10) + b"Adobe RGB\0" + bytes(79),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    body = struct.pack(">I", len(tags)) + table + body
    head = struct.pack(">I4sI", 128 + len(body), b"\0\0\0\0", 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63_190, 65_536, 54_061)
    return head.ljust(128, b"\0") + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P"])
def test_modes_stay_what_they_show(client, mode):
    lr = patches().quantize(8) if mode == "P" else patches(mode)
    shown = {"1": "L", "P": "RGB"}.get(mode, mode)
    sr = enlarged(client, saved(lr, "PNG"))
    assert sr.mode == shown
    assert np.abs(centres(sr).astype(int) - centres(lr.convert(shown))).max() <= 1


def test_palettes_with_transparency_become_rgba(client):
    lr = patches().quantize(8)
    data = saved(lr, "PNG", transparency=bytes([0, 60, 120, 180, 240, 255, 255, 255]))
    sr = enlarged(client, data)
    wanted = centres(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert sr.mode == "RGBA"
    found = centres(sr).astype(int)
    assert np.abs(found[:, 3] - wanted[:, 3]).max() <= 1
    seen = wanted[:, 3] > 0
    assert np.abs(found[seen] - wanted[seen]).max() <= 1


@pytest.mark.parametrize("bands", [1, 3])
def test_sixteen_bits_stay(client, bands):
    codes = np.array(COLOURS, np.uint16)[:, :bands] * 255 + 77
    lr = np.ascontiguousarray(np.repeat(np.repeat(codes[np.newaxis], PATCH, 0), PATCH, 1))
    space = "rgb16" if bands == 3 else "grey16"
    answer, _ = send(client, pyvips.Image.new_from_array(lr).copy(interpretation=space).pngsave_buffer())
    sr = pyvips.Image.new_from_buffer(answer.content, "")
    assert (sr.format, sr.bands, sr.width) == ("ushort", bands, 2 * PATCH * len(COLOURS))
    found = sr.numpy().reshape(sr.height, sr.width, bands)[PATCH, PATCH :: 2 * PATCH].astype(int)
    assert np.abs(found - codes).max() <= 16  # a sixteenth of a code of 8 bits


@pytest.mark.parametrize("profile", ["p3", "adobe"])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_profiles_and_their_colours_stay(client, profile, format):
    icc = adobe_rgb() if profile == "adobe" else pyvips.Image.profile_load("p3")
    data = saved(patches(), format, icc_profile=icc, **({"quality": 100, "subsampling": 0} if format == "JPEG" else {}))
    sr = enlarged(client, data)
    assert sr.info["icc_profile"] == icc
    wanted = lab(Image.open(io.BytesIO(data)))
    assert np.linalg.norm(lab(patches()) - wanted, axis=1).max() > 3  # they are not sRGB's
    assert np.linalg.norm(lab(sr) - wanted, axis=1).max() <= 1


@pytest.mark.parametrize("embedded", [True, False])
def test_cmyk_is_shown_as_littlecms_shows_it(client, embedded):
    icc = bytes(pyvips.Image.profile_load("cmyk"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    cmyk = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    lr = ImageCms.profileToProfile(patches(), srgb, cmyk, renderingIntent=intent, outputMode="CMYK")
    data = saved(lr, "JPEG", quality=100, subsampling=0, **({"icc_profile": icc} if embedded else {}))
    shown = Image.open(io.BytesIO(data))
    wanted = ImageCms.profileToProfile(shown, cmyk, srgb, renderingIntent=intent, outputMode="RGB")
    wanted.info.pop("icc_profile", None)
    assert np.linalg.norm(lab(enlarged(client, data)) - lab(wanted), axis=1).max() <= 1
