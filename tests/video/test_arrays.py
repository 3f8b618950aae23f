"""`imagesr.load`: pictures from memory, film and photographs."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import imagesr
from imagesr.card import find_models
from imagesr.engines import load_engine
from imagesr.errors import ModelError
from imagesr.media.frames import from_bgr, plane
from imagesr.scale import Scale


@pytest.fixture(scope="module")
def film():
    """Return an upscaler of film frames, by `fast` at x1.5."""
    return imagesr.load("fast")


def test_a_frame_keeps_its_colours_and_its_luma_is_the_networks(film):
    rgb = picture(192, 108)
    sr = film(rgb)
    assert (sr.shape, sr.dtype) == ((162, 288, 3), np.uint8)
    small = np.asarray(Image.fromarray(sr).resize((192, 108), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - rgb).mean() < 4
    frame = from_bgr(np.ascontiguousarray(rgb[..., ::-1]))
    luma = load_engine(find_models("fast")[0])(np.ascontiguousarray(plane(frame, 0))[np.newaxis, ..., np.newaxis])
    y = 16 + sr @ np.array([65.481, 128.553, 24.966]) / 255  # BT.601, as of less than 720 lines
    assert np.abs(y - luma[0, ..., 0]).mean() < 1


def test_a_turned_view_of_bgr_is_the_same_picture(film):
    rgb = picture(192, 108)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    # swscale subsamples the chroma of BGR and of RGB by two routines.
    assert np.abs(film(bgr[..., ::-1]).astype(int) - film(rgb)).mean() < 2


@pytest.mark.parametrize(("size", "scale"), [((77, 101), 1.5), ((64, 48), 2), ((33, 20), 1.3)])
def test_every_size_is_its_scale(size, scale):
    rgb = picture(*size)
    grown = tuple(Scale.parse(scale).grow(n) for n in size)
    assert imagesr.load("fast", scale)(rgb).shape == (*grown[::-1], 3)


def test_a_frame_is_cleaned_at_its_own_size():
    rgb = picture(96, 64)
    noisy = (rgb + np.random.default_rng(0).normal(0, 10, rgb.shape)).clip(0, 255).astype(np.uint8)
    up = imagesr.load("balanced", scale=1)
    plain, cleaned = (np.abs(up(noisy, clean=clean).astype(int) - rgb).mean() for clean in (0, 0.7))
    assert up(noisy).shape == rgb.shape and cleaned < plain - 1
    with pytest.raises(ModelError, match=r"a model of scale 1 \(balanced\)\. Received: 1, fast"):
        imagesr.load("fast", scale=1)


@pytest.mark.parametrize("kind", ["film", "photo"])
@pytest.mark.parametrize("name", ["detail", "clean"])
def test_a_number_that_is_none_is_one_sentence(kind, name):
    with pytest.raises(ModelError, match=f"Expected a {name} from 0 to 1. Received: auto"):
        imagesr.load("best", scale=2, kind=kind, **{name: "auto"})


def test_grey_and_pillow_are_returned_as_they_came(film):
    grey = picture(96, 64)[..., 1]
    assert film(grey).shape == (96, 144)
    large = film(Image.fromarray(grey))
    assert (large.mode, large.size) == ("L", (144, 96))
    assert film(Image.fromarray(picture(96, 64))).mode == "RGB"


def test_an_upscaler_says_what_it_is(film):
    assert (film.scale, film.card.name, film.card.flavour) == (Scale(3, 2), "fast", "film")
    assert film.precision in ("int8", "bf16", "fp32")


def test_photographs_have_their_own_flavour_and_depth():
    up = imagesr.load("fast", kind="photo")
    assert (up.scale, up.card.name, up.precision) == (Scale(2), "fast-photo", "fp32")
    deep = picture(40, 30).astype(np.uint16) * 257
    assert (up(deep).shape, up(deep).dtype) == ((60, 80, 3), np.uint16)
    assert (up(deep) == imagesr.upscale_image(deep, model="fast")).all()


@pytest.mark.parametrize(
    ("array", "received"),
    [
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
    ],
)
def test_other_arrays_are_refused(film, array, received):
    with pytest.raises(ValueError, match=received):
        film(array)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="film or photo"):
        imagesr.load("fast", kind="movie")
    with pytest.raises(ValueError, match="from 1 to 8"):
        imagesr.load("fast", 9)
    with pytest.raises(ValueError, match="nosuch"):
        imagesr.load("nosuch")


def test_the_package_shows_what_there_is():
    assert {"load", "upscale_image", "upscale_video", "models", "datasets", "train", "evaluate"} <= set(dir(imagesr))


def test_opencv_frames_go_through_at_frame_size(clip, film):
    cv2 = pytest.importorskip("cv2")
    capture, shapes = cv2.VideoCapture(str(clip)), []
    while True:
        found, frame = capture.read()
        if not found:
            break
        shapes.append(film(frame[..., ::-1]).shape)
    assert shapes == [(162, 288, 3)] * 12
