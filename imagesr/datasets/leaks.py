"""Find pictures that are in two folders at once: a copy, a re-encoded picture, or a crop of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imagesr.datasets.verify import Problem, decode, is_picture, list_files, plain
from imagesr.media.images import SUFFIXES

# `leaks`, stage 2. The hash has 256 bits. On 440 photographs, copies (JPEG q30, sizes 0.25 to 1.5, squeezed, grey,
# gamma 0.7) lie 0 to 24 bits apart; over 70,000 pairs of different ones, mirrored too, 86 or more. 64 bits do not
# separate as well: 8 against 12.
HASH_SIDE = 16
HASH_BITS = 48
FLAT = 1.0  # codes of deviation under which a hash shows noise alone

# `leaks`, stage 3. 512 pixels keep the detail of most crops of a sixteenth, and make all photographs equally quick.
SIDE = 512
POINTS = 500
# SIFT's own 0.04 finds nothing in skies and blurred backgrounds. Lower thresholds find more points than are wanted,
# and taking the strongest would take them all from one busy corner: every cell of a grid gives its best instead.
CONTRAST = 0.01
CELLS = 12
CANDIDATES = 8  # the true picture came first, second or third in all 1,250 trials among 440
RATIO = 0.8  # Lowe's own
TOLERANCE = 4.0  # pixels of the shrunken picture
# In 70,000 pairs of different photographs, mirrored too, four points agreed by chance twice, five once, six never. Laid
# over one another such pairs correlate by 0.35 at most, true crops by 0.97 and more.
AGREE = 5
CORRELATION = 0.9
OVERLAP = 0.25  # of the smaller picture: a watermark or a frame in common is no leak
# A mirrored picture's descriptor is the picture's own with its rows (4 x 4 cells) and its 8 directions reversed.
MIRROR = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True)
class Leak:
    """Name a picture in both folders; `how` is file, picture or crop, `figure` the bits apart or points that agree."""

    a: str
    b: str
    how: str
    mirrored: bool = False
    figure: int = 0

    def __str__(self):
        mirrored = ", mirrored" * self.mirrored
        return {
            "file": "same file",
            "picture": f"same picture{mirrored} ({self.figure} of {HASH_SIDE**2} bits apart)",
            "crop": f"crop{mirrored} ({self.figure} points agree)",
        }[self.how]


@dataclass(frozen=True)
class LeakReport:
    """Hold what `leaks` found, and how many pictures of either folder it compared."""

    pictures: tuple[int, int]
    leaks: list[Leak]
    unreadable: list[Problem]


@dataclass(frozen=True)
class _Fingerprint:
    """Hold what a picture is known by: checksum, hashes (None if flat), and points (N, 2) with descriptors (N, 128)."""

    path: str
    sha256: str
    grey: np.ndarray
    hashes: tuple[np.ndarray, np.ndarray] | None
    points: np.ndarray
    descriptors: np.ndarray


def leaks(a: Path | str, b: Path | str, *, progress: Callable[..., Iterable] = plain) -> LeakReport:
    """Find the pictures under folder `a` that are under `b` too: the same file, the same picture, or a crop of it.

    A picture may be re-encoded, resized and mirrored; a crop may be turned as well. Two crops of one picture count when
    they share a quarter of the smaller. A crop without texture (sky, blur) is not found. Each picture takes under 1 MB
    of memory. `progress` as in `verify`. Raises ValueError for folders that are missing, lie in one another or have
    no pictures, ImportError when OpenCV or ImageHash is missing.
    """
    import cv2  # noqa: F401 - a missing package is reported before the work begins
    import imagehash  # noqa: F401

    folders = Path(a), Path(b)
    places = [folder.resolve() for folder in folders]
    if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
        raise ValueError(f"Expected two folders, neither inside the other. Received: {a} and {b}")
    paths = [[folder / file for file in list_files(folder) if is_picture(file)] for folder in folders]
    for folder, found in zip(folders, paths, strict=True):
        if not found:
            raise ValueError(f"Expected a folder with pictures ({', '.join(sorted(SUFFIXES))}). Received: {folder}")
    with ThreadPoolExecutor() as pool:
        total = sum(map(len, paths))
        prints = list(progress(pool.map(_fingerprint, paths[0] + paths[1]), total=total, desc="read"))
        sides = prints[: len(paths[0])], prints[len(paths[0]) :]
        prints_a, prints_b = ([entry for entry in side if isinstance(entry, _Fingerprint)] for side in sides)
        found = {(leak.a, leak.b): leak for leak in _whole(prints_a, prints_b)}
        pairs = [(a, b, mirrored) for b, a, mirrored in _search(prints_b, prints_a, pool, progress)]
        pairs += _search(prints_a, prints_b, pool, progress)
        unique = {(a.path, b.path, mirrored): (a, b, mirrored) for a, b, mirrored in pairs}
        likely = [pair for (a, b, _), pair in unique.items() if (a, b) not in found]
        crops = progress(pool.map(lambda pair: _crop(*pair), likely), total=len(likely), desc="compare")
        for leak in filter(None, crops):
            found.setdefault((leak.a, leak.b), leak)
    unreadable = [entry for entry in prints if isinstance(entry, Problem)]
    return LeakReport((len(prints_a), len(prints_b)), [found[pair] for pair in sorted(found)], unreadable)


def _fingerprint(path):
    import imagehash

    try:
        data = path.read_bytes()
        image = _grey(decode(data)[0])
    except (OSError, ValueError) as error:
        return Problem(path.as_posix(), "unreadable", getattr(error, "strerror", None) or str(error))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=None)
    grey = np.asarray(image)
    hashes = None
    if grey.std() >= FLAT:
        views = image, ImageOps.mirror(image)
        hashes = tuple(imagehash.phash(view, hash_size=HASH_SIDE).hash.ravel() for view in views)
    return _Fingerprint(path.as_posix(), hashlib.sha256(data).hexdigest(), grey, hashes, *_features(grey))


def _grey(image):
    if image.mode[0] not in "IF":
        return image.convert("L")
    # Pillow clips deep samples at 255 instead of scaling them.
    samples = np.asarray(image).astype(np.float64)
    low, high = samples.min(), samples.max()
    return Image.fromarray(np.uint8(np.round((samples - low) / max(high - low, 1e-9) * 255)))


def _features(grey):
    """Return up to POINTS points (x, y) spread over a grey picture, and their descriptors: the roots of SIFT's.

    The root (Arandjelović and Zisserman, 2012) keeps one strong edge from ruling the distance.
    """
    import cv2

    sift = cv2.SIFT_create(contrastThreshold=CONTRAST)
    found = sift.detect(grey, None)
    if not found:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    strength = np.array([point.response for point in found])
    x, y = (np.array([point.pt for point in found]) * CELLS / grey.shape[::-1]).astype(int).T
    order = np.lexsort((-strength, x + CELLS * y))  # cell by cell, the strongest first
    cell = (x + CELLS * y)[order]
    rank = np.arange(len(order)) - np.searchsorted(cell, cell)
    chosen = order[np.lexsort((-strength[order], rank))][:POINTS]
    found, descriptors = sift.compute(grey, [found[i] for i in chosen])
    points = np.array([point.pt for point in found], np.float32)
    return points, np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))


def _whole(prints_a, prints_b):
    """Yield the leaks of whole pictures: the same file, or hashes that are close."""
    for b in prints_b:
        for a in prints_a:
            if a.sha256 == b.sha256:
                yield Leak(a.path, b.path, "file")
            elif a.hashes and b.hashes:
                plain, mirrored = (int(np.count_nonzero(a.hashes[0] != side)) for side in b.hashes)
                if min(plain, mirrored) <= HASH_BITS:
                    yield Leak(a.path, b.path, "picture", mirrored < plain, min(plain, mirrored))


def _search(prints, others, pool, progress):
    """List (print, other, mirrored) that are worth a close look.

    Every point votes for the picture that holds its nearest neighbour among all points of the others, and the pictures
    with the most votes are taken: so the time grows with the number of pictures, not of pairs. It is done both ways,
    since a picture that lies among the others in many pieces spreads its votes over them; the pieces do not.
    """
    import cv2

    prints, others = ([entry for entry in side if len(entry.points) >= AGREE] for side in (prints, others))
    if not prints or not others:
        return []
    owner = np.repeat(np.arange(len(others)), [len(entry.points) for entry in others])
    index = cv2.flann_Index(np.concatenate([entry.descriptors for entry in others]), {"algorithm": 1, "trees": 4})

    def vote(entry):
        found = []
        for mirrored in (False, True):
            descriptors = _mirror(entry).descriptors if mirrored else entry.descriptors
            nearest, _ = index.knnSearch(descriptors, 1, params={"checks": 32})
            votes = np.bincount(owner[nearest[:, 0]], minlength=len(others))
            best = np.argsort(-votes, kind="stable")[:CANDIDATES]
            found += [(entry, others[i], mirrored) for i in best if votes[i] > 0]
        return found

    return [entry for found in progress(pool.map(vote, prints), total=len(prints), desc="search") for entry in found]


def _mirror(entry):
    points = entry.points * np.float32((-1, 1)) + np.float32((entry.grey.shape[1] - 1, 0))
    descriptors = np.ascontiguousarray(entry.descriptors[:, MIRROR])
    return replace(entry, grey=np.ascontiguousarray(entry.grey[:, ::-1]), points=points, descriptors=descriptors)


def _crop(a, b, mirrored):
    """Return the leak if one move, turn and resizing brings points of `b` onto those of `a`, and the pictures agree."""
    import cv2

    moved = _mirror(b) if mirrored else b
    distance, nearest = cv2.batchDistance(moved.descriptors, a.descriptors, cv2.CV_32F, K=2)
    clear = np.flatnonzero(distance[:, 0] < RATIO * distance[:, 1])
    if len(clear) < AGREE:
        return None
    here, there = moved.points[clear], a.points[nearest[clear, 0]]
    move, inliers = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE)
    if move is None:
        return None
    # A point with two directions counts once, and so do points that all fall on one.
    inliers = inliers.ravel() > 0
    agree = min(len(np.unique(np.round(side[inliers]), axis=0)) for side in (here, there))
    if agree < AGREE or _correlation(a.grey, moved.grey, move) < CORRELATION:
        return None
    return Leak(a.path, b.path, "crop", mirrored, agree)


def _correlation(a, b, move):
    """Correlate grey picture `b`, moved by the (2, 3) matrix, with `a` where they overlap; 0 if that is too little."""
    import cv2

    scale = np.hypot(move[0, 0], move[1, 0])
    if not 1 / 16 <= scale <= 16:
        return 0.0
    if scale > 1:
        return _correlation(b, a, cv2.invertAffineTransform(move))
    # Reduced by averaging first: warpAffine alone would alias.
    small = cv2.resize(b, [max(1, round(n * scale)) for n in b.shape[::-1]], interpolation=cv2.INTER_AREA)
    move = np.hstack([move[:, :2] * (np.array(b.shape[::-1]) / small.shape[::-1]), move[:, 2:]])
    size = a.shape[::-1]
    moved = cv2.warpAffine(small, move, size, flags=cv2.INTER_LINEAR)
    shared = cv2.warpAffine(np.ones_like(small), move, size, flags=cv2.INTER_NEAREST)
    shared = cv2.erode(shared, np.ones((9, 9))) > 0  # the blur below brings in what lies outside
    if shared.sum() < OVERLAP * min(a.size, small.size):
        return 0.0
    values = [cv2.GaussianBlur(picture, (0, 0), 1.5)[shared].astype(np.float64) for picture in (a, moved)]
    if min(side.std() for side in values) < FLAT:
        return 0.0
    return float(np.corrcoef(*values)[0, 1])
