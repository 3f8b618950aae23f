"""Odd, malformed and malicious pictures, and what a service says to them.

`python tests/hostile.py --count 5000` starts a service, sends bombs and as many mutated pictures, and prints a table.
"""

import argparse
import io
import json
import random
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from functools import cache
from typing import NamedTuple

import httpx
import numpy as np
import pyvips
from conftest import picture
from PIL import Image
from running import PeakMemory, running_service

WIDTH, HEIGHT = 23, 18
SCALE = 2
QUICK = 0.1  # seconds that a refusal may take, the median of many
SMALL = 20e6  # bytes that refusing a picture may take
HANG = 300  # seconds: large pictures are made, too, and the machine may be busy
QUERY = {"scale": str(SCALE), "model": "fast"}


# Making pictures


def chunk(kind, data, *, crc=None, length=None):
    """Return a PNG chunk; checksum and length are right unless given."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", crc)


def png(width, height, depth, colour, rows, *extra, interlace=0):
    """Return a PNG of filtered rows, compressed already or not, with chunks before IDAT."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    data = rows if rows[:1] == b"\x78" else zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def segment(marker, data):
    """Return a JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def saved(image, format, **options):
    """Return a Pillow picture as a file's bytes."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@cache
def zeros(count):
    """Return so many zero bytes, compressed, made without holding them."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    parts = [packer.compress(block) for _ in range(count // 2**20)]
    return b"".join([*parts, packer.compress(bytes(count % 2**20)), packer.flush()])


@cache
def seeds():
    """Return real pictures of every kind that the service takes, by name."""
    rgb = Image.fromarray(picture(WIDTH, HEIGHT))
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.convert("L").point(lambda v: 255 if v > 140 else v))
    sixteen = pyvips.Image.new_from_array(np.asarray(rgb).astype(np.uint16) * 257).copy(interpretation="rgb16")
    exif = Image.Exif()
    exif[271] = "A maker"
    found = {
        "rgb.png": saved(rgb, "PNG"),
        "rgba.png": saved(alpha, "PNG"),
        "grey.png": saved(rgb.convert("L"), "PNG"),
        "grey alpha.png": saved(alpha.convert("LA"), "PNG"),
        "bit.png": saved(rgb.convert("1"), "PNG"),
        "palette.png": saved(rgb.quantize(7), "PNG"),
        "palette transparent.png": saved(rgb.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
        "16 bit.png": sixteen.pngsave_buffer(),
        "grey 16 bit.png": sixteen.extract_band(0).copy(interpretation="grey16").pngsave_buffer(),
        "interlaced.png": sixteen.pngsave_buffer(interlace=True, bitdepth=8),
        "animated.png": saved(rgb, "PNG", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)]),
        "text.png": saved(rgb, "PNG", pnginfo=_text()),
        "profile.png": saved(rgb, "PNG", icc_profile=pyvips.Image.profile_load("p3")),
        "rgb.jpg": saved(rgb, "JPEG", quality=95),
        "444.jpg": saved(rgb, "JPEG", subsampling=0),
        "progressive.jpg": saved(rgb, "JPEG", progressive=True),
        "grey.jpg": saved(rgb.convert("L"), "JPEG"),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "restart.jpg": saved(rgb, "JPEG", restart_marker_blocks=1),
        "one pixel.png": saved(rgb.crop((0, 0, 1, 1)), "PNG"),
        "one pixel.jpg": saved(rgb.crop((0, 0, 1, 1)), "JPEG"),
        "line.png": saved(rgb.resize((300, 1)), "PNG"),
    }
    for orientation in range(1, 9):
        exif[274] = orientation
        found[f"turned {orientation}.jpg"] = saved(rgb, "JPEG", exif=exif)
    exif[274] = 6
    found["turned 6.png"] = saved(rgb, "PNG", exif=exif)
    return found


def _text():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "short")
    info.add_text("Comment", "long " * 200, zip=True)
    info.add_itxt("Titel", "größer", "de", "Titel", zip=True)
    return info


@cache
def bombs():
    """Return files that are small and would be large, slow or strange, by name."""
    row = b"\0" * (30_000 // 8 + 1)
    text = zlib.compress(b"x" * 2**20, 9)
    pixel = b"\0\0\0\0"
    jpeg = seeds()["rgb.jpg"]
    scans = seeds()["progressive.jpg"]
    first, end = _marker(scans, 0xDA), _marker(scans, 0xDA, last=True)  # nine scans
    return {
        "30000 x 30000, 1 bit, cut off": png(30_000, 30_000, 1, 0, zeros(2**23)[:7000]),
        "30000 x 30000, 1 bit": png(30_000, 30_000, 1, 0, zeros(len(row) * 30_000)),
        "2^31 - 1 wide": png(2**31 - 1, 2**31 - 1, 8, 6, pixel),
        "4000 x 4000, RGBA, no data": png(4000, 4000, 8, 6, pixel),
        "2000000 x 1, 1 bit": png(2_000_000, 1, 1, 0, zeros(250_001)),
        "200 MB of zTXt": png(1, 1, 8, 2, pixel, chunk(b"zTXt", b"Comment\0\0" + zeros(200_000_000))),
        "200 MB of iTXt": png(1, 1, 8, 2, pixel, chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros(200_000_000))),
        "200 MB of iCCP": png(1, 1, 8, 2, pixel, chunk(b"iCCP", b"profile\0\0" + zeros(200_000_000))),
        "4,000 chunks of text": png(1, 1, 8, 2, pixel, *[chunk(b"zTXt", b"Comment\0\0" + text)] * 4000),
        "200,000 empty chunks": png(1, 1, 8, 2, pixel, *[chunk(b"abCd", b"")] * 200_000),
        "rows beyond the last": png(2, 2, 8, 2, zeros(200_000_000)),
        "65535 x 65535 JPEG": _with_size(jpeg, 65_535, 65_535),
        "65500 x 65500 JPEG": _with_size(jpeg, 65_500, 65_500),
        "5000 x 8 JPEG, no data": _with_size(jpeg, 5000, 8),
        "4000 scans": scans[:first] + scans[first:end] * 444 + scans[end:],
        "4000 x 4000, 820 scans, all valid": many_scans(4000, 4000),
        "16 Mpx, 2000 scans": _with_size(scans[:first] + scans[first:end] * 222 + scans[end:], 4000, 4000),
        "EXIF points at itself": _with_exif(jpeg, b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"),
        "EXIF of 65,000 tags": _with_exif(jpeg, b"MM\0*\0\0\0\x08" + struct.pack(">H", 5400) + bytes(12) * 5400),
        "EXIF orientation 9": _with_exif(jpeg, _orientation(9)),
        "EXIF orientation 65535": _with_exif(jpeg, _orientation(65_535)),
        "5 MiB of nothing behind a JPEG": jpeg + bytes(5 * 2**20 - len(jpeg)),
        "5 MiB of markers": b"\xff\xd8" + b"\xff" * (5 * 2**20 - 2),
        "5 MiB of comments": b"\xff\xd8" + segment(0xFE, bytes(65_000)) * 80 + jpeg[2:],
        "GIF": saved(Image.fromarray(picture(9, 9)), "GIF"),
        "WebP": saved(Image.fromarray(picture(9, 9)), "WEBP"),
        "TIFF": saved(Image.fromarray(picture(9, 9)), "TIFF"),
        "BMP": saved(Image.fromarray(picture(9, 9)), "BMP"),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="/etc/passwd"/></svg>',
        "HTML": b"<!doctype html><title>no picture</title><p>none at all</p>",
        "PDF": b"%PDF-1.7\n" + bytes(100),
        "PNG of 8 bytes": b"\x89PNG\r\n\x1a\n",
        "JPEG of 3 bytes": b"\xff\xd8\xff",
        "nothing": b"",
        "one byte": b"\x89",
    }


def _marker(jpeg, marker, *, last=False):
    found = (jpeg.rfind if last else jpeg.find)(bytes([0xFF, marker]))
    assert found > 0
    return found


def _with_size(jpeg, width, height):
    """Return a JPEG that declares another size."""
    sof = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: sof + 5] + struct.pack(">HH", height, width) + jpeg[sof + 9 :]


def many_scans(width, height):
    """Return a grey progressive JPEG in which every bit of every coefficient is a scan of its own, all of them zero.

    Runs of blocks without a coefficient (ITU T.81, G.1.2.2) make a scan of 250,000 blocks 15 bytes long.
    """
    blocks = -(-width // 8) * -(-height // 8)
    # Symbol 0xE0 begins a run of 2^14 blocks and what 14 more bits say, 0x00 one of a single block.
    full, rest = divmod(blocks, 2**15 - 1)
    runs = ("0" + "1" * 14) * full + (f"0{rest - 2**14:014b}" if rest >= 2**14 else "10" * rest)

    def scan(first, last, high, low, bits):
        data = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big").replace(b"\xff", b"\xff\0")
        return segment(0xDA, bytes([1, 1, 0, first, last, high << 4 | low])) + data

    parts = [
        segment(0xDB, bytes([0, *[1] * 64])),
        segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0])),
        segment(0xC4, bytes([0x00, 1, *[0] * 15, 0])),
        segment(0xC4, bytes([0x10, 1, 1, *[0] * 14, 0xE0, 0x00])),
        scan(0, 0, 0, 0, "0" * blocks),
        *(scan(at, at, low + 1 if low < 12 else 0, low, runs) for at in range(1, 64) for low in range(12, -1, -1)),
    ]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def _with_exif(jpeg, tiff):
    return jpeg[:2] + segment(0xE1, b"Exif\0\0" + tiff) + jpeg[2:]


def _orientation(value):
    return b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + struct.pack("<HH", value, 0) + bytes(4)


# Mutating them


def mutated(data, source):
    """Return a picture changed at one to three places; `source` is a random.Random."""
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        kind = source.choice(BYTES + (PNG if data.startswith(b"\x89PNG") else JPEG))
        data = kind(data, source) if len(data) > 20 else data
    return data


def _truncate(data, source):
    return data[: source.randrange(len(data))]


def _flip_bits(data, source):
    data = bytearray(data)
    for _ in range(source.choice((1, 1, 3, 20))):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(data)


def _overwrite(data, source):
    at, length = source.randrange(len(data)), source.choice((1, 2, 4, 30))
    filling = source.choice((b"\0", b"\xff", b"\x7f", bytes([source.randrange(256)])))
    return data[:at] + filling * length + data[at + length :]


def _cut_out(data, source):
    at = source.randrange(len(data))
    return data[:at] + data[at + source.choice((1, 2, 7, 64)) :]


def _repeat(data, source):
    at, length = source.randrange(len(data)), source.choice((1, 4, 12, 64, 400))
    return data[:at] + data[at : at + length] * source.choice((2, 2, 50)) + data[at + length :]


def _insert(data, source):
    at = source.randrange(len(data))
    return data[:at] + bytes(source.randrange(256) for _ in range(source.choice((1, 3, 40)))) + data[at:]


def _append(data, source):
    return data + source.choice((bytes(1000), data, b"\xff\xd8\xff", b"<html>", b"PK\3\4"))


def _chunks(data):
    """Split a PNG into (kind, data), as far as it can be read."""
    at, parts = 8, []
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        parts.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _of_chunks(parts):
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _move_chunks(data, source):
    parts = _chunks(data)
    if not parts:
        return data
    at = source.randrange(len(parts))
    how = source.choice(("drop", "twice", "swap", "last", "shuffle"))
    if how == "drop":
        del parts[at]
    elif how == "twice":
        parts.insert(at, parts[at])
    elif how == "swap":
        other = source.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif how == "last":
        parts.append(parts.pop(at))
    else:
        source.shuffle(parts)
    return _of_chunks(parts)


def _break_chunk(data, source):
    parts = _chunks(data)
    if not parts:
        return data
    at = source.randrange(len(parts))
    kind, body = parts[at]
    crc = source.choice((None, 0, 2**32 - 1))
    length = source.choice((None, 0, 1, len(body) + 1, 2**31 - 1, 2**32 - 1))
    broken = chunk(kind, body, crc=crc, length=length)
    return _of_chunks(parts[:at]) + broken + _of_chunks(parts[at + 1 :])[8:]


def _change_header(data, source):
    """Change IHDR, its checksum right."""
    parts = _chunks(data)
    if not parts or len(parts[0][1]) != 13:
        return data
    fields = list(struct.unpack(">IIBBBBB", parts[0][1]))
    at = source.randrange(7)
    small = (0, 1, 2, 3, 4, 6, 7, 8, 16, 32, 255)
    sizes = (0, 1, 2, 17, 24, 100, 5000, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    fields[at] = source.choice(sizes if at < 2 else small)
    parts[0] = (parts[0][0], struct.pack(">IIBBBBB", *fields))
    return _of_chunks(parts)


def _change_chunk(data, source):
    """Change what a chunk holds, its checksum right; IDAT also before it is compressed."""
    parts = _chunks(data)
    if len(parts) < 2:
        return data
    at = source.randrange(1, len(parts))
    kind, body = parts[at]
    if kind == b"IDAT" and source.random() < 0.5:
        try:
            body = zlib.compress(
                source.choice((_flip_bits, _truncate, _repeat, _cut_out))(zlib.decompress(body), source)
            )
        except zlib.error:
            return data
    elif body:
        body = source.choice((_flip_bits, _truncate, _overwrite, _repeat))(body, source)
    parts[at] = (kind, body)
    return _of_chunks(parts)


def _add_chunk(data, source):
    """Add a chunk that libraries read: colours, transparency, text, a profile, EXIF, an animation."""
    parts = _chunks(data)
    noise = bytes(source.randrange(256) for _ in range(source.choice((0, 1, 4, 32, 300))))
    kinds = b"PLTE tRNS gAMA cHRM sRGB sBIT bKGD pHYs hIST tIME sPLT IDAT IEND aBcD"
    kinds += b" tEXt zTXt iTXt iCCP eXIf acTL fcTL fdAT cICP IHDR"
    kind = source.choice(kinds.split())
    packed = zlib.compress(noise)
    bodies = (noise, packed, b"name\0\0" + packed, bytes(768), _orientation(source.randrange(12)))
    parts.insert(source.randrange(len(parts) + 1), (kind, source.choice(bodies)))
    return _of_chunks(parts)


def _segments(data):
    """Split a JPEG into its segments, the entropy-coded data with the last, as far as it can be read."""
    at, parts = 2, []
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = struct.unpack_from(">H", data, at + 2)[0]
        parts.append(data[at : at + 2 + length])
        at += 2 + length
    return parts, data[at:]


def _move_segments(data, source):
    parts, rest = _segments(data)
    if not parts:
        return data
    at, other = source.randrange(len(parts)), source.randrange(len(parts))
    how = source.choice(("drop", "twice", "swap", "shuffle"))
    if how == "drop":
        del parts[at]
    elif how == "twice":
        parts.insert(other, parts[at])
    elif how == "swap":
        parts[at], parts[other] = parts[other], parts[at]
    else:
        source.shuffle(parts)
    return data[:2] + b"".join(parts) + rest


def _change_segment(data, source):
    parts, rest = _segments(data)
    if not parts:
        return data
    at = source.randrange(len(parts))
    marker, body = parts[at][1], parts[at][4:]
    how = source.choice(("body", "marker", "length"))
    if how == "marker":
        parts[at] = segment(
            source.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE)), body
        )
    elif how == "length":
        wrong = source.choice((0, 1, 2, 3, len(body), len(body) + 3, 65_535))
        parts[at] = bytes([0xFF, marker]) + struct.pack(">H", wrong) + body
    elif body:
        parts[at] = segment(marker, source.choice((_flip_bits, _truncate, _overwrite, _repeat))(body, source)[:65_000])
    return data[:2] + b"".join(parts) + rest


def _change_frame(data, source):
    """Change the declared size, precision, components or sampling of a JPEG."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if at < 0 or at + 19 > len(data):
        return data
    data = bytearray(data)
    data[at + 4 + source.randrange(15)] = source.choice((0, 1, 2, 3, 4, 8, 12, 16, 17, 33, 34, 68, 255))
    return bytes(data)


def _add_segment(data, source):
    """Add a segment: EXIF, a profile, Adobe's colour transform, restarts, a comment; mostly garbage."""
    noise = bytes(source.randrange(256) for _ in range(source.choice((0, 1, 12, 300))))
    added = source.choice(
        (
            segment(0xE1, b"Exif\0\0" + noise),
            segment(0xE1, b"Exif\0\0" + _flip_bits(_orientation(source.randrange(10)), source)),
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + noise),
            segment(0xE2, b"ICC_PROFILE\0" + bytes([source.randrange(4), source.randrange(4)]) + noise),
            segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([source.randrange(4)])),
            segment(0xDD, struct.pack(">H", source.choice((0, 1, 2, 65_535)))),
            segment(0xED, b"Photoshop 3.0\08BIM" + noise),
            segment(0xFE, noise),
        )
    )
    return data[:2] + added + data[2:]


BYTES = (_truncate, _flip_bits, _overwrite, _cut_out, _repeat, _insert, _append)
PNG = (_move_chunks, _break_chunk, _change_header, _change_chunk, _add_chunk)
JPEG = (_move_segments, _change_segment, _change_frame, _add_segment)


# Sending them


def check(answer, data):
    """Raise AssertionError for an answer that the service may not give to a file."""
    assert answer.status_code in (200, 400, 413, 415, 422), (answer.status_code, answer.text[:300])
    if answer.status_code != 200:
        told = answer.json()
        assert list(told) == ["error"], told
        assert isinstance(told["error"], str) and 10 < len(told["error"]) < 400, told
        assert "\n" not in told["error"] and "/tmp" not in told["error"], told
        return
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as sr:
        sr.load()
        assert sr.size in sizes(data), (sr.size, sizes(data))


def sizes(data):
    """Return the sizes that a file may become: the declared one, upright, as Pillow and libvips read it."""
    found = set()
    try:
        lr = pyvips.Image.new_from_buffer(data, "", fail_on="none").autorot()
        found.add((lr.width, lr.height))
    except pyvips.Error:
        pass
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as lr:
            turned = lr.getexif().get(274) in (5, 6, 7, 8)
            found.add(lr.size[::-1] if turned else lr.size)
    except Exception:
        pass
    return {(SCALE * width, SCALE * height) for width, height in found}


def send(client, data):
    """Send a file; returns the answer and the seconds that it took."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    begun = time.perf_counter()
    answer = client.post("/supersizeme", params=QUERY, content=data, headers={"Content-Type": f"image/{kind}"})
    return answer, time.perf_counter() - begun


class Found(NamedTuple):
    """Hold what a service said; `refused` are seconds, `bombs` (name, bytes, status, seconds, bytes of memory)."""

    statuses: Counter
    refused: list[float]
    wrong: list[tuple[bytes, str]]
    bombs: list[tuple[str, int, int, float, int]]
    died: int

    def large(self):
        """Return the names of the bombs that took much memory to be refused."""
        return [name for name, _, status, _, memory in self.bombs if status != 200 and memory >= SMALL]


def measure(count, seed):
    """Send bombs and mutated pictures to a service; returns what is to be told of them."""
    source = random.Random(seed)
    statuses, refused, wrong, bombed = Counter(), [], [], []
    with running_service("-n", "fast") as service, httpx.Client(base_url=service.url, timeout=HANG) as client:
        for name, data in seeds().items():
            answer, _ = send(client, data)
            check(answer, data)
            assert answer.status_code == 200, name
        processes = {process.pid for process in service.tree()}
        for name, data in bombs().items():
            answer, seconds = send(client, data)
            check(answer, data)
            before = service.peaks(anew=True)
            with PeakMemory(service) as memory:
                send(client, data)
            grown = sum(peak - before[pid] for pid, peak in service.peaks().items() if pid in before)
            bombed.append((name, len(data), answer.status_code, seconds, max(grown, memory.peak - memory.before)))
        kinds = list(seeds().values())
        for _ in range(count):
            data = mutated(source.choice(kinds), source)
            try:
                answer, seconds = send(client, data)
            except httpx.TransportError as error:
                wrong.append((data, repr(error)))
                continue
            statuses[answer.status_code] += 1
            if answer.status_code != 200:
                refused.append(seconds)
            try:
                check(answer, data)
            except AssertionError as error:
                wrong.append((data, str(error)))
        died = len(processes - {process.pid for process in service.tree()})
        assert not service.figure("places_taken")
    return Found(statuses, refused, wrong, bombed, died)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="mutated pictures (default: 5000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = measure(options.count, options.seed)
    print("| file | bytes | status | ms | memory, MB |\n| --- | --- | --- | --- | --- |")
    for name, length, status, seconds, memory in found.bombs:
        print(f"| {name} | {length:,} | {status} | {1000 * seconds:.0f} | {memory / 1e6:.1f} |")
    ms = 1000 * np.array(found.refused)
    told = ", ".join(f"{count:,} × {status}" for status, count in sorted(found.statuses.items()))
    print(f"\n{options.count:,} mutated pictures: {told}; {len(found.wrong)} wrong, {found.died} processes died.")
    print(f"Refused within {np.median(ms):.1f} ms (median), {np.percentile(ms, 99):.1f} (99 %), {ms.max():.1f} (all).")
    for data, error in found.wrong[:20]:
        print(json.dumps({"error": error, "data": data[:400].hex()}), file=sys.stderr)
    for name in found.large():
        print(f"Expected {name} to be refused in less than {SMALL / 1e6:g} MB.", file=sys.stderr)
    return int(bool(found.wrong or found.died or found.large() or np.median(found.refused) >= QUICK))


if __name__ == "__main__":
    sys.exit(main())
