"""Rendered scenes with their true depth: planes, spheres and boxes that hide one another and are painted alike."""

from __future__ import annotations

import numpy as np

SAMPLES = 4  # rays a side of every pixel: what antialiases the picture, and its depth
OBJECTS = (7, 14)  # at least, at most
NEAR, FAR = 2.5, 11.0  # metres from the camera: where objects are, and what is behind them all
FLOOR = 1.4  # metres below the camera
FOCUS = 0.9  # focal length in widths of the picture
WAVES, WAVELENGTHS = 6, (0.04, 0.16)  # of a pattern, in widths of the picture where it is


def render(size: tuple[int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene of `size` (height, width): RGB, uint8 (H, W, 3), and depth in metres, float32 (H, W).

    Everything is painted with the same two colours in patterns as coarse as one another, and hardly shaded: where one
    thing ends and another begins is an edge among many, and only depth tells it from those of the patterns.
    Picture and depth are means over the same rays, so that a pixel on the border of two things has some depth of each.
    """
    height, width = (n * SAMPLES for n in size)
    y, x = np.indices((height, width), np.float32) + np.float32(0.5)
    rays = np.stack([x / width - 0.5, (y - height / 2) / width, np.full_like(x, FOCUS)], -1) / np.float32(FOCUS)
    depth, colour = np.full((height, width), np.inf, np.float32), np.empty_like(rays)
    palette = random.uniform([[0.1], [0.5]], [[0.5], [0.9]], (2, 3))  # one dark, one light
    light = _unit(random.normal(size=3) - (0, 1, 1))
    whole = (slice(None), slice(None))
    surfaces = [
        (FAR, whole, _plane, (np.array([random.uniform(-0.4, 0.4), 0, 1]), FAR)),
        (FAR / 2, whole, _plane, (np.array([0, 1, 0]), FLOOR)),
        *(_object(random, height, width) for _ in range(random.integers(OBJECTS[0], OBJECTS[1] + 1))),
    ]
    for away, window, intersect, shape in surfaces:
        some = rays[window].reshape(-1, 3)
        distance, normals = intersect(some, *(np.float32(value) for value in shape))
        seen = distance < depth[window].ravel()
        points = some[seen] * distance[seen, np.newaxis]
        shade = 0.85 + 0.15 * np.abs(normals[seen] @ np.float32(light))
        seen = seen.reshape(depth[window].shape)
        depth[window][seen] = points[:, 2]
        colour[window][seen] = _texture(points / np.float32(away), palette, random) * shade[:, np.newaxis]
    cells = (size[0], SAMPLES, size[1], SAMPLES)
    picture = colour.reshape(*cells, 3).mean((1, 3))
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8), depth.reshape(cells).mean((1, 3))


def _object(random, height, width):
    """Draw a sphere or a box in sight: how far away, in which window of rays, its intersection and what that takes."""
    z = random.uniform(NEAR, FAR - 1.5)
    centre = np.array([random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5) * height / width, FOCUS]) * z / FOCUS
    centre[1] = min(centre[1], FLOOR)
    radius = z * random.uniform(0.06, 0.2)  # far things are larger, or they would not be seen
    around = radius / (z - radius) * FOCUS * width * 1.3  # rays: more than it covers, off the axis too
    if random.random() < 0.4:
        intersect, shape = _sphere, (centre, radius)
    else:
        axes = np.linalg.qr(random.normal(size=(3, 3)))[0]
        sides = _unit(random.uniform((0.1, 0.4, 0.4), (0.8, 1, 1))) * radius  # boards as well as cubes
        intersect, shape = _box, (centre, axes, sides)
    middle = centre[:2] / z * FOCUS * width + (width / 2, height / 2)
    x, y = (slice(max(0, int(m - around)), max(0, int(m + around))) for m in middle)
    return z, (y, x), intersect, shape


def _plane(rays, normal, offset):
    """Return how far along each ray the plane of `normal · point = offset` is, inf where it is not, and its normals."""
    with np.errstate(divide="ignore"):
        distance = offset / (rays @ normal)
    return np.where(distance > 0, distance, np.inf), np.broadcast_to(_unit(normal), rays.shape)


def _sphere(rays, centre, radius):
    along, square = rays @ centre, np.einsum("ij,ij->i", rays, rays)
    root = along**2 - square * (centre @ centre - radius**2)
    distance = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / square, np.inf)
    points = rays * np.where(root > 0, distance, 0)[:, np.newaxis]
    return distance, (points - centre) / radius


def _box(rays, centre, axes, sides):
    """Intersect with a box of half `sides` along `axes`: inside is where all slabs are (Kay and Kajiya 1986)."""
    along, middle = rays @ axes, centre @ axes
    along = np.where(along == 0, np.float32(1e-9), along)
    reach = np.copysign(sides, along)
    enter, leave = (middle - reach) / along, ((middle + reach) / along).min(1)
    face, enter = enter.argmax(1), enter.max(1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf), axes.T[face]


def _texture(points, palette, random):
    """Paint points of space, (N, 3) in distances from the camera, with spots or stripes of two colours."""
    kind = random.integers(2)
    axis = _unit(random.normal(size=3))
    pattern = np.zeros(len(points), np.float32)
    for _ in range(WAVES):
        direction = _unit(random.normal(size=3) if kind else axis + 0.2 * random.normal(size=3))
        wave = 2 * np.pi * FOCUS / random.uniform(*WAVELENGTHS) * direction
        pattern += np.cos(points @ np.float32(wave) + np.float32(random.uniform(0, 2 * np.pi)))
    share = (1 + np.tanh(2 * pattern))[:, np.newaxis] / 2
    first, second = np.float32(np.clip(palette + random.normal(0, 0.04, palette.shape), 0, 1))
    return first + share * (second - first)


def _unit(vector):
    return vector / np.linalg.norm(vector)
