"""Photo files that other programs write: every kind gives the right colours, or one sentence that says what is lost.

Files are made here, byte by byte where Pillow and libvips do not write their kind.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import pyvips
from conftest import picture
from PIL import Image, ImageCms, PngImagePlugin

from imagesr.errors import InputError, OutputError
from imagesr.image.__main__ import main
from imagesr.media import photos
from imagesr.media.photo_kinds import described, has_loader, is_video, kind_of
from imagesr.media.photo_metadata import cleaned_xmp, tiff_tags
from imagesr.media.photos import read_photo, region, write_photo

WIDTH, HEIGHT = 40, 30
RGB = picture(WIDTH, HEIGHT)


def upscaled(data, tmp_path, capsys, *options, name="a.png", out="out.png"):
    """Upscale the bytes of a file by the command; returns its exit code, the result by Pillow, what was said."""
    (tmp_path / name).write_bytes(data)
    code = main([str(tmp_path / name), str(tmp_path / out), "-n", "linear", *options])
    told = capsys.readouterr().err
    if code:
        return code, None, told
    with Image.open(tmp_path / out) as image:
        image.load()
    return code, image, told


def saved(image, format="PNG", **more):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **more)
    return file.getvalue()


def shown(image):
    """Return a result at the size of what it was made of, as numbers."""
    return np.asarray(image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.BOX)).astype(
        int
    )


# PPM and BMP


def pnm(kind, array, most, *, comment=b""):
    """Return a PNM file: P2, P3 as text, P5, P6 as bytes."""
    head = b"P%d\n%s%d %d\n%d\n" % (kind, comment, array.shape[1], array.shape[0], most)
    if kind < 4:
        return head + b" ".join(b"%d" % sample for sample in array.ravel())
    return head + array.astype(">u2" if most > 255 else "u1").tobytes()


@pytest.mark.parametrize("from_bytes", [True, False])
@pytest.mark.parametrize("most", [255, 65_535, 15, 1023])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_pnm_of_every_depth_is_read(kind, most, from_bytes, tmp_path):
    array = np.rint(RGB / 255.0 * most).astype(int)
    array = array if kind in (3, 6) else array[..., 1]
    data = pnm(kind, array, most, comment=b"# made by hand\n")
    (tmp_path / "a.pnm").write_bytes(data)
    read = read_photo(data if from_bytes else tmp_path / "a.pnm").picture
    assert (read.width, read.height, read.bands) == (WIDTH, HEIGHT, 3 if kind in (3, 6) else 1)
    assert read.format == ("ushort" if most > 255 else "uchar")
    samples = region(read, 0, 0, WIDTH, HEIGHT).astype(float) / photos.peak(read)
    np.testing.assert_allclose(np.squeeze(samples), array / most, atol=0.003)


@pytest.mark.parametrize(
    ("name", "mode"), [("a.ppm", "RGB"), ("a.pgm", "L"), ("a.pbm", "1"), ("a.bmp", "RGB"), ("b.bmp", "P")]
)
def test_ppm_and_bmp_are_made(name, mode, tmp_path, capsys):
    small = Image.fromarray(RGB)
    small = small.quantize(16, dither=Image.Dither.NONE) if mode == "P" else small.convert(mode)
    if mode == "1":
        small.paste(0, (0, 0, 20, HEIGHT))
        small.paste(1, (20, 0, WIDTH, HEIGHT))
    data = saved(small, "BMP" if name.endswith("bmp") else "PPM")
    code, large, told = upscaled(data, tmp_path, capsys, name=name)
    assert code == 0, told
    assert large.size == (2 * WIDTH, 2 * HEIGHT)
    assert np.abs(shown(large) - np.asarray(small.convert("RGB"))).mean() < 4


@pytest.mark.parametrize("kind", [3, 6])
def test_a_pnm_that_ends_too_early(kind, tmp_path, capsys):
    data = pnm(kind, RGB, 255)[: 3 * WIDTH * HEIGHT // 2]
    code, _, told = upscaled(data, tmp_path, capsys, name="a.ppm")
    assert (code, told.count("\n")) == (3, 1)
    assert "ends too early" in told
    assert upscaled(data, tmp_path, capsys, "--allow-truncated", name="a.ppm")[0] == 0


@pytest.mark.parametrize(
    "data", [b"P6\n0 4\n255\n", b"P6\n4 4\n70000\n", b"P3\n2 2\n255\n1 2 x", b"P6 nonsense", b"P1\nno"]
)
def test_a_pnm_that_is_none_is_one_sentence(data, tmp_path, capsys):
    code, _, told = upscaled(data, tmp_path, capsys, name="a.ppm")
    assert (code, told.count("\n")) == (3, 1)


def test_a_libvips_without_a_loader_is_told(monkeypatch):
    monkeypatch.setattr(photos, "has_loader", lambda kind: False)
    with pytest.raises(InputError, match="installed libvips reads"):
        read_photo(saved(RGB))
    assert has_loader(kind_of(saved(RGB)[:16]))


# What is a picture


@pytest.mark.parametrize(
    "beginning",
    [
        b"\0\0\0\x20ftypisom\0\0\2\0",
        b"\0\0\0\x14ftypqt  \0\0\0\0",
        b"\0\0\0\x1cftypmp42\0\0\0\0",
        b"\x1aE\xdf\xa3\1\0\0\0\0\0\0\x1fB\x86\x81\1",
        b"RIFF\0\0\1\0AVI LIST",
        b"G@\x11\x10\0B\xf0%\0\1\xc1\0\0\xff\1\xff",
        b"\0\0\1\xba!\0\1\0\1\x80\x1b\x91\0\0\1\xbb",
    ],
)
def test_a_video_is_called_one(beginning, tmp_path, capsys):
    assert is_video(beginning)
    assert described(beginning) == "a video"
    code, _, told = upscaled(beginning + bytes(1000), tmp_path, capsys, name="x.mp4")
    assert code == 3
    assert "is a video: `imagesr video`" in told


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF", "BMP", "PPM"])
def test_a_picture_is_no_video(format):
    data = saved(RGB, format)
    assert not is_video(data[:16])
    assert kind_of(data[:16])


def test_an_empty_file_is_called_empty(tmp_path, capsys):
    code, _, told = upscaled(b"", tmp_path, capsys)
    assert code == 3
    assert "which is empty" in told


# Decoders that are missing


@pytest.mark.parametrize("options", [(), ("--allow-truncated",)])
@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_a_tiff_without_its_decoder(compression, options, tmp_path, capsys):
    try:
        data = saved(RGB, "TIFF", compression=compression)
    except OSError:
        pytest.skip(f"this Pillow does not write {compression}")
    code, _, told = upscaled(data, tmp_path, capsys, *options, name="a.tif")
    if code == 0:
        return  # another libvips has it
    assert (code, told.count("\n")) == (3, 1)
    assert f"{compression.upper()} is not decoded here" in told
    assert "damaged" not in told
    assert "--allow-truncated" not in told


def heic():
    """Return a HEIF file whose one item is HEVC; what the item holds is no picture."""

    def box(kind, *parts):
        data = b"".join(parts)
        return struct.pack(">I4s", 8 + len(data), kind) + data

    def full(kind, *parts):
        return box(kind, bytes(4), *parts)

    # ISO/IEC 14496-15: 8-bit 4:2:0, no parameter sets.
    hvcc = box(b"hvcC", b"\1\1\x60\0\0\0\x90\0\0\0\0\0\x1e\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f\0")
    properties = box(b"ipco", hvcc, full(b"ispe", struct.pack(">II", 64, 64)))
    associations = full(b"ipma", struct.pack(">IHBBB", 1, 1, 2, 0x81, 2))

    def meta(offset):
        item = full(b"iloc", struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, 40))
        infe = box(b"infe", b"\2\0\0\0", struct.pack(">HH4sB", 1, 0, b"hvc1", 0))
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            item,
            full(b"iinf", struct.pack(">H", 1), infe),
            box(b"iprp", properties, associations),
        )

    ftyp = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return ftyp + meta(len(ftyp) + len(meta(0)) + 8) + box(b"mdat", struct.pack(">I", 36), b"\x26\1" + bytes(34))


@pytest.mark.parametrize("options", [(), ("--allow-truncated",)])
def test_hevc_is_named(options, tmp_path, capsys):
    code, _, told = upscaled(heic(), tmp_path, capsys, *options, name="a.heic")
    assert (code, told.count("\n")) == (3, 1)
    if "not decoded here" not in told:
        pytest.skip(f"this libvips decodes HEVC, or refuses the file before: {told}")
    assert "HEVC is not decoded here" in told
    assert "damaged" not in told
    assert "--allow-truncated" not in told


# TIFF


def tiff(array, photometric=2, *, extra=None, profile=b"", order="<", big=False):
    """Return an uncompressed TIFF of one strip: integers, or floating point."""
    array = np.atleast_3d(array)
    height, width, bands = array.shape
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    form = 3 if array.dtype.kind == "f" else 1
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * array.itemsize] * bands),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0]),
        277: ("H", [bands]),
        278: ("I", [height]),
        279: ("I", [len(data)]),
        339: ("H", [form] * bands),
    }
    if extra is not None:
        tags[338] = ("H", extra)
    if profile:
        tags[34675] = ("B", list(profile))
    room, word = (8, "Q") if big else (4, "I")
    first = 16 if big else 8
    place = first + (8 if big else 2) + len(tags) * (20 if big else 12) + room
    entries, behind = b"", b""
    packed = {tag: struct.pack(f"{order}{len(values)}{kind}", *values) for tag, (kind, values) in tags.items()}
    far = sum(len(value) for value in packed.values() if len(value) > room)
    packed[273] = struct.pack(order + "I", place + far)
    for tag, (kind, values) in sorted(tags.items()):
        value = packed[tag]
        if len(value) > room:
            value, behind = struct.pack(order + word, place + len(behind)), behind + value
        entries += struct.pack(f"{order}HH{word}", tag, {"B": 1, "H": 3, "I": 4}[kind], len(values))
        entries += value.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, first) if big else struct.pack(order + "HI", 42, first))
    return head + struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + bytes(room) + behind + data


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_of_a_tiff_are_read(order, big):
    data = tiff(np.zeros((4, 5, 5), np.uint8), extra=[0, 2], order=order, big=big)
    tags = {258: (8,) * 5, 262: (2,), 338: (0, 2)}
    assert tiff_tags(io.BytesIO(data), [258, 262, 338, 700]) == tags
    for end in range(len(data) - 100):
        tiff_tags(io.BytesIO(data[:end]), [258, 262, 338])  # and nothing is raised


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bands", "extra", "mode"),
    [
        (4, [0], "RGB"),
        (4, [2], "RGBA"),
        (4, [1], "RGBA"),
        (5, [0, 0], "RGB"),
        (5, [2, 0], "RGBA"),
        (2, [0], "L"),
        (2, [2], "LA"),
    ],
)
def test_only_what_is_transparency_becomes_transparency(bands, extra, mode, order, big, tmp_path, capsys):
    array = np.full((HEIGHT, WIDTH, bands), 90, np.uint8)
    array[..., -1] = 255 if 0 not in extra else 17
    if extra == [2, 0]:
        array[..., 3] = 200
    data = tiff(array, 2 if bands > 2 else 1, extra=extra, order=order, big=big)
    code, large, told = upscaled(data, tmp_path, capsys, name="a.tif")
    assert (code, large.mode) == (0, mode), told
    assert large.getpixel((30, 30)) == (
        90
        if mode == "L"
        else (90,) * (1 if mode == "LA" else 3) + ((200 if 0 in extra else 255,) if "A" in mode else ())
    )
    assert ("neither colour nor transparency" in told) == (0 in extra)


LAB = [((70, 40, 30), np.uint8), ((70, 40, 30), np.uint16), ((30, -20, -60), np.uint8), ((95, 0, 0), np.uint8)]


@pytest.mark.parametrize("photometric", [8, 9])
@pytest.mark.parametrize(("colour", "depth"), LAB)
def test_cielab_becomes_srgb(colour, depth, photometric, tmp_path, capsys):
    lightness, a, b = colour
    if depth == np.uint8:
        coded = [lightness * 255 / 100, *((a, b) if photometric == 8 else (a + 128, b + 128))]
        pixel = np.rint(coded).astype(int).astype(np.int8 if photometric == 8 else int).astype(np.uint8)
        pixel[0] = round(lightness * 2.55)
    elif photometric == 8:
        pixel = np.array([lightness * 655.35, a * 256, b * 256]).astype(int).astype(np.uint16)
    else:
        pixel = np.array([lightness * 652.8, (a + 128) * 256, (b + 128) * 256]).astype(np.uint16)
    array = np.broadcast_to(pixel, (HEIGHT, WIDTH, 3)).astype(depth)
    lab_profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    code, large, told = upscaled(tiff(array, photometric, profile=lab_profile), tmp_path, capsys, name="a.tif")
    assert code == 0, told
    assert "CIELAB became sRGB" in told
    assert "icc_profile" not in large.info or b"Lab" not in large.info["icc_profile"][16:20]
    signed = Image.frombytes("LAB", (1, 1), bytes([round(lightness * 2.55), a & 255, b & 255]))
    to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    wanted = ImageCms.applyTransform(signed, to_rgb).getpixel((0, 0))
    assert np.abs(np.array(large.convert("RGB").getpixel((30, 30))) - wanted).max() <= 2


def test_the_lab_of_fax_machines_is_refused(tmp_path, capsys):
    code, _, told = upscaled(tiff(RGB, 10), tmp_path, capsys, name="a.tif")
    assert code == 3
    assert "CIELAB" in told


def floats(*values):
    return np.broadcast_to(np.float32(values), (HEIGHT, WIDTH, len(values))).copy()


def test_floating_point_is_what_its_profile_encodes(tmp_path, capsys):
    profile = pyvips.Image.profile_load("p3")
    data = tiff(floats(0.2, 0.5, 0.05), profile=profile)
    code, large, told = upscaled(data, tmp_path, capsys, name="a.tif")
    assert code == 0, told
    assert "floating point became 8 bits" in told
    assert "outside" not in told
    assert np.abs(np.array(large.getpixel((30, 30))) - (51, 128, 13)).max() <= 1
    assert large.info["icc_profile"] == profile


def test_floating_point_without_a_profile_is_linear(tmp_path, capsys):
    code, large, _ = upscaled(tiff(floats(0.2, 0.5, 0.05)), tmp_path, capsys, name="a.tif")
    assert code == 0
    assert np.abs(np.array(large.getpixel((30, 30))) - (124, 188, 63)).max() <= 1


@pytest.mark.parametrize("profile", [b"", pyvips.Image.profile_load("p3")])
@pytest.mark.parametrize("value", [1.7, -0.2, np.nan, np.inf])
def test_floating_point_outside_its_range_is_told(value, profile, tmp_path, capsys):
    array = floats(0.2, 0.5, 0.05)
    array[3, 4, 1] = value
    code, large, told = upscaled(tiff(array, profile=profile), tmp_path, capsys, name="a.tif")
    assert code == 0, told
    assert "values outside 0 to 1 are cut off" in told
    assert large.getpixel((70, 50)) == large.getpixel((60, 50))


def test_a_grey_map_of_numbers_is_refused(tmp_path, capsys):
    code, _, told = upscaled(tiff(floats(0.5), 1), tmp_path, capsys, name="a.tif")
    assert (code, told.count("\n")) == (3, 1)
    assert "Expected floating point as RGB" in told


# PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(*chunks, behind=33):
    """Return a PNG with chunks behind its first one."""
    data = saved(RGB)
    return data[:behind] + b"".join(chunk(*one) for one in chunks) + data[behind:]


TEXTS = PngImagePlugin.PngInfo()
TEXTS.add_text("parameters", "a bird, seed 42")
TEXTS.add_text("Title", "Vögel")
TEXTS.add_text("long", "say it again, " * 200, zip=True)
TEXTS.add_itxt("Description", "漢字, naïve", lang="ja")


@pytest.mark.parametrize("exif", [False, True])
def test_text_is_kept_in_png(exif, tmp_path, capsys):
    more = {"exif": Image.Exif()} if exif else {}
    if exif:
        more["exif"][271] = "A maker"
    data = saved(RGB, pnginfo=TEXTS, **more)
    code, large, told = upscaled(data, tmp_path, capsys)
    assert code == 0, told
    assert large.text == Image.open(io.BytesIO(data)).text
    assert large.getexif().get(271) == ("A maker" if exif else None)
    assert not exif or len(large.getexif()) > 0
    with Image.open(tmp_path / "out.png") as lazy:
        assert lazy.info["parameters"] == "a bird, seed 42"  # before its pixels, where programs look
    assert pyvips.Image.new_from_file(str(tmp_path / "out.png"), fail_on="warning").avg() > 0
    large = upscaled(data, tmp_path, capsys, "--strip", out="bare.png")[1]
    assert not large.text


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_text_that_a_format_cannot_hold_is_named(suffix, tmp_path, capsys):
    code, _, told = upscaled(saved(RGB, pnginfo=TEXTS), tmp_path, capsys, out=f"out.{suffix}")
    assert code == 0
    assert "text (parameters, Title, long, Description)" in told
    assert "left out" not in upscaled(saved(RGB), tmp_path, capsys, out=f"b.{suffix}")[2]


def test_the_text_of_other_formats_is_kept_or_named(tmp_path, capsys):
    assert (
        "its comment is left out" in upscaled(saved(RGB, "JPEG", comment=b"hello"), tmp_path, capsys, name="a.jpg")[2]
    )
    described_tiff = saved(RGB, "TIFF", description="at the lake")
    large = upscaled(described_tiff, tmp_path, capsys, name="a.tif", out="b.tif")[1]
    assert large.tag_v2[270] == "at the lake"
    assert "text (the description)" in upscaled(described_tiff, tmp_path, capsys, name="a.tif", out="b.png")[2]


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ([(b"cICP", b"\x09\x10\0\1")], "cICP (BT.2020, PQ) is not kept"),
        ([(b"cICP", b"\x09\x12\0\1")], "HLG"),
        ([(b"cICP", b"\x0c\x0d\0\1")], "Display P3"),
        ([(b"cICP", b"\1\x0d\0\1")], None),
        ([(b"gAMA", struct.pack(">I", 100_000))], "gAMA is not kept"),
        ([(b"gAMA", struct.pack(">I", 45_455))], None),
        ([(b"gAMA", struct.pack(">I", 100_000)), (b"sRGB", b"\0")], None),
        ([(b"cHRM", struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000))], "cHRM is not"),
        ([(b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000))], None),
    ],
)
def test_a_colour_space_that_is_not_kept_is_told(chunks, says, tmp_path, capsys):
    code, _, told = upscaled(with_chunks(*chunks), tmp_path, capsys)
    assert code == 0, told
    assert says in told if says else "colour space" not in told


def test_the_colours_of_an_avif_are_told(tmp_path, capsys):
    data = saved(RGB, "AVIF")
    place = data.index(b"colrnclx") + 8
    assert "colour space" not in upscaled(data, tmp_path, capsys, name="a.avif")[2]
    pq = data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :]
    assert "the file (BT.2020, PQ)" in upscaled(pq, tmp_path, capsys, name="a.avif", out="b.png")[2]


@pytest.mark.parametrize("frames", [1, 3])
def test_an_animated_png_is_its_first_frame(frames, tmp_path, capsys):
    others = [Image.fromarray(255 - RGB), Image.fromarray(RGB[::-1])][: frames - 1]
    data = saved(RGB, save_all=True, append_images=others)
    code, large, told = upscaled(data, tmp_path, capsys)
    assert code == 0
    assert ("it has 3 frames: the first one is taken" in told) == (frames == 3)
    assert np.abs(shown(large) - RGB).mean() < 3


# XMP

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" {}
 xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="a > b">
<dc:title>At the lake</dc:title>{}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
TIFF_AND_EXIF = 'xmlns:t="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
GAIN_MAP = (
    'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:C="http://ns.google.com/photos/1.0/container/"'
    ' xmlns:Item="http://ns.google.com/photos/1.0/container/item/" hdrgm:Version="1.0"'
)
DIRECTORY = """<C:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><C:Item Item:Semantic="Primary"/></rdf:li>
<rdf:li><C:Item Item:Semantic="GainMap" Item:Length="473"/></rdf:li></rdf:Seq></C:Directory>"""
XMPS = {
    "attributes": (TIFF_AND_EXIF + ' t:Orientation=\'6\' t:ImageWidth="40" exif:PixelXDimension="40"', ""),
    "elements": (
        TIFF_AND_EXIF,
        "<t:Orientation>6</t:Orientation><t:ImageLength>30</t:ImageLength>"
        "<exif:PixelYDimension>30</exif:PixelYDimension>",
    ),
    "gain map": (GAIN_MAP, DIRECTORY),
    "motion": ('xmlns:G="http://ns.google.com/photos/1.0/camera/" G:MotionPhoto="1" G:MicroVideoOffset="4711"', ""),
}


@pytest.mark.parametrize("kind", XMPS)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_xmp_says_nothing_of_the_old_file(kind, format, tmp_path, capsys):
    xmp = XMP.format(*XMPS[kind]).encode()
    exif = Image.Exif()
    exif[274], exif[256], exif[257] = 6, WIDTH, HEIGHT
    exif.get_ifd(0x8769)[0xA002] = WIDTH
    more = {"pnginfo": PngImagePlugin.PngInfo()} if format == "PNG" else {"xmp": xmp}
    if format == "PNG":
        more["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    code, large, told = upscaled(saved(RGB, format, exif=exif, **more), tmp_path, capsys, out="out.jpg")
    assert (code, large.size) == (0, (2 * HEIGHT, 2 * WIDTH))
    kept = large.info["xmp"].decode()
    assert "At the lake" in kept
    assert 'dc:source="a > b"' in kept
    for word in ("6", "Orientation", "Width", "Dimension", "hdrgm", "GainMap", "Directory", "Motion", "4711"):
        assert word not in kept.replace("W5M0MpCehiHzreSzNTczkc9d", "").replace("1999/02/22", "")
    said = {"gain map": "a gain map (HDR)", "motion": "a video or more pictures"}.get(kind)
    assert f"its XMP says of it: {said}" in told if said else "XMP" not in told
    assert large.getexif().get(274, 1) == 1
    assert not {256, 257} & dict(large.getexif()).keys()
    assert large.getexif().get_ifd(0x8769).get(0xA002, 2 * HEIGHT) == 2 * HEIGHT


def test_other_xmp_stays_as_it_is():
    for xmp in (XMP.format("", "").encode(), b"", b"no XML < at all"):
        assert cleaned_xmp(xmp) == (xmp, [])


def test_a_gain_map_of_iso_21496_is_told(tmp_path, capsys):
    data = saved(RGB, "JPEG")
    note = b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"
    data = data[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(note)) + note + data[2:]
    assert "its gain map (HDR) is left out" in upscaled(data, tmp_path, capsys, name="a.jpg")[2]


# Writing


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_a_full_disk_is_called_one(format, tmp_path, monkeypatch):
    noise = photos.from_array(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))
    resource = pytest.importorskip("resource")
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # stands for a disk that is full
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*disk full") as told:
            write_photo(noise, tmp_path / f"a.{format}", format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert ".part" not in str(told.value)
    assert not list(tmp_path.iterdir())
