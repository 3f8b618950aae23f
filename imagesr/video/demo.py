"""Something to upscale for those who have nothing at hand: a rendered 720p clip with sound, and a comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagesr.errors import OutputError
from imagesr.files import whole
from imagesr.media.clips import SAMPLE_RATE, write_clip
from imagesr.media.frames import Frame, Resizer
from imagesr.media.opening import reason
from imagesr.media.source import Source
from imagesr.video.options import check_paths
from imagesr.video.report import Report
from imagesr.video.upscale import upscale_video

SIZE, RATE, SECONDS = (1280, 720), 30, 4
_SCENE = (3000, 1800)  # wider than the frame, so that the camera can travel
_CROP = (300, 240)  # of the 1080p frame, in the comparison
# Options of the run that the middle frame at detail 0 is made with, too.
_AGAIN = (
    "scale",
    "size",
    "model",
    "engine",
    "device",
    "precision",
    "threads",
    "clean",
    "codec",
    "crf",
    "preset",
    "encoder",
)
_PRINT = (  # text, pixels below the board's edge, height
    ("LAKE TRAIL", 58, 54),
    ("Viewpoint 1.5 km   ·   Ferry 720 m", 122, 21),
    ("Please keep to the path. Dogs on a lead.", 160, 17),
)
_A, _E, _B = (220, 277.2, 329.6, 440), (246.9, 311.1, 370, 493.9), (220, 277.2, 440, 554.4)  # chords, in Hz


def scene(size: tuple[int, int] = _SCENE, *, seed: int = 7) -> Image.Image:
    """Paint a landscape with detail at every scale: mountains, a lake, grass, a fence, a sign with small print.

    `size` is (width, height) in pixels.
    """
    width, height = size
    random = np.random.default_rng(seed)

    def noise(exponent, shape=(height, width)):
        """Return fractal noise of spectrum 1/f**exponent, mean 0, deviation 1."""
        fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
        spectrum = np.hypot(fy, fx)
        spectrum[0, 0] = 1
        waves = np.fft.rfft2(random.standard_normal(shape)) / spectrum**exponent
        waves[0, 0] = 0
        field = np.fft.irfft2(waves, s=shape)
        return field / field.std()

    y = np.linspace(0, 1, height)[:, None]
    clouds = np.clip(noise(1.7) * 0.5 + 0.1, 0, 1)[..., None] * (1 - y[..., None] * 1.4).clip(0)
    sky = np.array([70, 125, 200]) * (1 - y[..., None]) + np.array([225, 205, 180]) * y[..., None]
    picture = sky * (1 - clouds) + 250 * clouds

    for depth, base in enumerate((0.50, 0.56, 0.63)):
        # Three ridges, the nearer the darker and the rougher; lit from the left.
        ridge = base - 0.07 * noise(1.35, (1, width + 1))[0, :width] / (1 + 0.3 * depth)
        relief = noise(1.5)
        light = np.clip(0.75 + 0.9 * (np.roll(relief, 3, 1) - relief), 0.25, 1.4)
        rock = np.array([(132, 138, 152), (98, 108, 104), (62, 82, 58)][depth]) * light[..., None]
        if depth == 0:
            snow = ((y < base - 0.03 + 0.02 * relief) & (light > 0.7))[..., None]
            rock = np.where(snow, 235 * np.minimum(light, 1.05)[..., None], rock)
        picture = np.where((y > ridge)[..., None], rock, picture)

    shore, meadow = int(0.68 * height), int(0.80 * height)
    rows = np.arange(meadow - shore)
    mirror = picture[shore - 1 - rows]
    ripple = (noise(0.6, (meadow - shore, width)) * (2 + rows[:, None] * 0.05)).astype(int)
    columns = np.clip(np.arange(width) + ripple, 0, width - 1)
    picture[shore:meadow] = 0.72 * mirror[np.arange(len(rows))[:, None], columns] + np.array([10, 22, 34])
    ground = np.array([78, 96, 44]) * np.clip(0.8 + 0.25 * noise(0.8, (height - meadow, width)), 0.3, 1.3)[..., None]
    picture[meadow:] = ground

    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for root in random.uniform((0, meadow - 12), (width, height), (9000, 2)):
        near = (root[1] - meadow) / (height - meadow)
        lean, height_px = random.normal(0, 8 + 12 * near), 12 + 50 * max(0.0, near) * random.uniform(0.5, 1)
        shade, tip = random.uniform(0.6, 1.5), (root[0] + lean, root[1] - height_px)
        draw.line([*root, *tip], fill=tuple(int(c * shade) for c in (86, 118, 48)), width=1 + int(2 * max(0.0, near)))
    for x in range(-20, width, 46):  # a picket fence: edges at one distance, the hardest thing for a resizer
        top = meadow - 34 + int(6 * np.sin(x / 160))
        draw.polygon(
            [(x, top + 70), (x, top), (x + 9, top - 12), (x + 18, top), (x + 18, top + 70)], fill=(228, 222, 210)
        )
        draw.line([x + 18, top, x + 18, top + 70], fill=(150, 142, 130), width=2)
    draw.line([0, meadow - 8, width, meadow - 8], fill=(205, 198, 184), width=7)

    for left in (560, 1500, 2350):
        board = (left, meadow - 330, left + 400, meadow - 100)
        draw.rectangle((left + 190, board[3], left + 210, meadow + 60), fill=(84, 60, 40))
        draw.rectangle(board, fill=(246, 241, 226), outline=(70, 50, 34), width=7)
        for line, (text, points) in enumerate(
            (
                ("LAKE TRAIL", 54),
                ("Viewpoint 1.5 km   ·   Ferry 720 m", 21),
                ("Please keep to the path. Dogs on a lead.", 17),
            )
        ):
            place = (left + 200, board[1] + (58, 122, 160)[line])
            draw.text(place, text, fill=(40, 34, 30), anchor="mm", font=ImageFont.load_default(points))
        for i in range(24):  # a ruler below the print
            draw.line(
                [left + 30 + 15 * i, board[3] - 34, left + 30 + 15 * i, board[3] - 20 + 5 * (i % 2)], fill=(40, 34, 30)
            )
    return image


def render(path: Path) -> None:
    """Write the demonstration clip: the camera travels over the scene at 720p, to a few plucked chords."""
    picture, frames = scene(), RATE * SECONDS

    def views():
        for i in range(frames):
            travel = 0.5 - 0.5 * np.cos(np.pi * i / (frames - 1))
            zoom = 1.5 - 0.2 * travel
            left, top = (_SCENE[0] - SIZE[0] * 1.5) * travel, 540 - 80 * travel
            view = (left, top, left + SIZE[0] * zoom, top + SIZE[1] * zoom)
            yield picture.resize(SIZE, Image.Resampling.BICUBIC, box=view)

    write_clip(path, views(), RATE, sound=_music())


def _music() -> np.ndarray:
    """Return SECONDS of plucked chords, (2, samples) float32."""
    time = np.arange(SAMPLE_RATE * SECONDS) / SAMPLE_RATE
    sound = np.zeros((2, len(time)))
    for beat, note in enumerate((*_A, *_A[2::-1], *_E, *_E[2::-1], *_B[:2])):
        since = np.clip(time - beat * SECONDS / 16, 0, None)
        tone = sum(np.sin(2 * np.pi * note * k * since) / k**1.5 for k in (1, 2, 3)) * np.exp(-3 * since) * (since > 0)
        sound += 0.12 * tone * np.array([[0.6 + 0.4 * (beat % 2)], [1 - 0.4 * (beat % 2)]])
    return np.ascontiguousarray(sound, np.float32)


def run_demo(out: str | Path, **options) -> Report:
    """Render a clip, upscale it to `out` and save a comparison with Lanczos beside it as PNG.

    `options` and errors are those of `upscale_video`; a PNG that is in the way raises ValueError.
    """
    out = Path(out)
    picture = out.with_suffix(".png")
    if picture.exists() and not options.get("overwrite"):
        raise ValueError(f"{picture} exists already. Choose another name, or overwrite it with -y")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "demo.mp4"
        check_paths(source, out, overwrite=options.get("overwrite", False))
        render(source)
        report = upscale_video(source, out, **options)
        shown = {"imagesr": middle_frame(out)}
        if report.detail and options.get("realtime") is None:
            shown = {
                "detail 0, faithful": _faithful(source, Path(folder), options),
                f"detail {report.detail:g}": shown["imagesr"],
            }
        compare(middle_frame(source), shown, picture)
    report.notes.append(f"side by side with Lanczos: {picture}")
    return report


def _faithful(source, folder, options):
    """Return the middle frame of a clip, upscaled at detail 0."""
    again = {name: options[name] for name in _AGAIN if name in options}
    out = folder / "faithful.mp4"
    upscale_video(source, out, detail=0.0, start=SECONDS / 2, duration=1 / RATE, **again)
    return middle_frame(out)


def compare(source: Frame, upscaled: Mapping[str, Frame], picture: Path) -> None:
    """Save a PNG: two details of a frame, enlarged by Lanczos on the left, and as `upscaled`, by name, beside it."""
    *_, ours = upscaled.values()
    resize = Resizer(ours.width, ours.height, "yuv420p", kernel="lanczos")
    images = {"Lanczos": resize(source).to_image(), **{name: frame.to_image() for name, frame in upscaled.items()}}
    zoom, gap, caption = 3 if len(images) < 3 else 2, 12, 40
    crop_width, crop_height = min(_CROP[0], ours.width // 2), min(_CROP[1], ours.height // 2)
    width, height = crop_width * zoom, crop_height * zoom
    across = len(images) * (width + gap) - gap
    sheet = Image.new("RGB", (across, caption + 2 * height + gap), "white")
    draw = ImageDraw.Draw(sheet)
    places = _busiest(ours.to_image(), crop_width, crop_height)
    for column, (name, image) in enumerate(images.items()):
        x = column * (width + gap)
        draw.text((x + width / 2, caption / 2), name, fill="black", anchor="mm", font=ImageFont.load_default(26))
        for row, (u, v) in enumerate(places):
            crop = image.crop((u, v, u + crop_width, v + crop_height)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(crop, (x, caption + row * (height + gap)))
    try:
        with whole(picture) as part:
            sheet.save(part, "PNG")
    except OSError as error:
        raise OutputError(f"Cannot write {picture}: {reason(error)}") from None


def middle_frame(path):
    """Return the middle frame of a clip, which is decoded twice: a film is not kept in memory."""
    with Source(path) as source:
        count = sum(isinstance(item, Frame) for item in source)
    with Source(path) as source:
        return next(islice((item for item in source if isinstance(item, Frame)), count // 2, None))


def _busiest(image, width, height):
    """Return the corners of the two crops that tell most: few strong edges rather than noise,
    the second above or below the first."""
    gray = np.asarray(image.convert("L"), float)
    edges = np.abs(np.diff(gray, axis=1))[:-1] + np.abs(np.diff(gray, axis=0))[:, :-1]

    def score(u, v):
        crop = edges[v : v + height, u : u + width]
        return (crop**2).mean() / (crop.mean() + 2)

    corners = [(u, v) for v in range(0, image.height - height, 30) for u in range(0, image.width - width, 30)]
    ranked = sorted(corners, key=lambda corner: score(*corner), reverse=True)
    first = ranked[0]
    return first, next((corner for corner in ranked if abs(corner[1] - first[1]) >= height), first)
