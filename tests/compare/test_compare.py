"""Two videos on one page: the figures against independent readers, the page in a real browser."""

import json
import re
import shutil
from fractions import Fraction

import numpy as np
import pytest
from conftest import ffmpeg, picture, run_command, write_clip
from PIL import Image

from imagesr.compare import compare
from imagesr.errors import InputError
from imagesr.media.clips import write_clip as write_pictures
from imagesr.media.source import rgb_frames
from imagesr.media.ssim import SSIM
from imagesr.metrics.fidelity import ssim

SIZE = (192, 108)
FRAMES = 30


def scene(i):
    return Image.fromarray(picture(*SIZE, shift=3 * i))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Return an original and two versions of it: a good one, and a worse one with a broken frame, number 17."""
    folder = tmp_path_factory.mktemp("films")

    def broken(i):
        image = scene(i)
        if i == 17:
            image.paste((255, 255, 255), (100, 40, 140, 80))
        return image

    paths = [folder / name for name in ("reference.mp4", "good.mp4", "bad.mp4")]
    write_pictures(paths[0], [scene(i) for i in range(FRAMES)], 25, crf=0)
    write_pictures(paths[1], [scene(i) for i in range(FRAMES)], 25, crf=20)
    write_pictures(paths[2], [broken(i) for i in range(FRAMES)], 25, crf=34)
    return paths


@pytest.fixture(scope="module")
def comparison(films):
    return compare(films[2], films[1], reference=films[0])


def filtered(a, b, name):
    """Return a figure of every frame as ffmpeg's filter of that name prints it."""
    text = ffmpeg("-i", a, "-i", b, "-lavfi", f"{name}=stats_file=-", "-f", "null", "-").decode()
    key = {"psnr": "psnr_y", "ssim": "Y"}[name]
    return [float(value) for value in re.findall(rf"\b{key}:([0-9.]+)", text)]


@pytest.mark.parametrize(("key", "name", "places"), [("psnr_y", "psnr", 0.01), ("ssim_y", "ssim", 1e-5)])
def test_figures_are_ffmpegs(comparison, films, key, name, places):
    for of, film in (("a", films[2]), ("b", films[1])):
        np.testing.assert_allclose(comparison.frames[key][of], filtered(film, films[0], name), atol=places)


def test_vmaf_is_of_every_frame(comparison):
    vmaf = comparison.frames["vmaf_neg"]
    assert len(vmaf["a"]) == len(vmaf["b"]) == FRAMES
    assert np.mean(vmaf["b"]) > np.mean(vmaf["a"])


def test_the_fast_ssim_is_close_to_the_papers():
    random = np.random.default_rng(0)
    a = np.asarray(scene(0).resize((320, 180)).convert("L"))
    b = np.clip(a + random.normal(0, 6, a.shape), 0, 255).astype(np.uint8)
    from imagesr.media.frames import Frame

    measure = SSIM(320, 180, "gray")
    for _ in range(3):
        value = measure(Frame.from_ndarray(a, "gray"), Frame.from_ndarray(b, "gray"))
        assert value == pytest.approx(ssim(a, b), abs=0.02)


def test_the_worst_frames_are_found_and_shown_where_they_are_worst(comparison):
    assert comparison.worst[0] == 17
    assert len(set(comparison.worst)) == 5
    page = json.loads(re.search(r'id="record">(.*?)</script>', comparison.page, re.S)[1])
    crop = page["worst"][0]
    assert list(crop["pictures"]) == [
        "bad.mp4",
        "good.mp4",
        "reference",
        "bad.mp4 - reference, x4",
        "good.mp4 - reference, x4",
    ]
    x, y = map(int, re.search(r"at (\d+), (\d+)", crop["caption"]).groups())
    assert x <= 100 <= 140 <= x + 128
    assert y <= 40 <= 80 <= y + 108
    width, height = comparison.sheet.size
    assert width > 5 * 256
    assert height > 5 * 256


def test_without_a_reference_the_two_are_compared_with_each_other(films):
    result = compare(films[2], films[1])
    assert set(result.frames) == {"difference"}
    assert result.worst[0] == 17
    a, b = luma(films[2]), luma(films[1])
    expected = np.sqrt(((a - b) ** 2).mean((1, 2)))
    np.testing.assert_allclose(result.frames["difference"]["a"], expected, rtol=1e-4)
    assert "differ by" in str(result)


def luma(film):
    raw = ffmpeg("-i", film, "-vf", "extractplanes=y", "-f", "rawvideo", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, *SIZE[::-1]).astype(float)


def test_equal_videos_are_equal(films):
    result = compare(films[1], films[1], reference=films[1], vmaf=False)
    assert set(result.frames["psnr_y"]["a"]) == {100.0}
    assert set(result.frames["ssim_y"]["b"]) == {1.0}


def test_other_sizes_lengths_and_times_are_said(films, tmp_path):
    small = write_clip(tmp_path / "small.mp4", size=(96, 54), frames=20, sound=None)
    result = compare(small, films[1], reference=films[0], vmaf=False)
    assert len(result.frames["psnr_y"]["a"]) == 20
    assert any("small.mp4 is 96x54" in note and "192x108" in note for note in result.notes)
    assert any("first 20 frames" in note for note in result.notes)
    late = write_clip(
        tmp_path / "late.mp4", size=SIZE, frames=10, pts=[3600 * i + 9000 * (i > 4) for i in range(10)], sound=None
    )
    notes = compare(late, films[1], reference=films[0], vmaf=False).notes
    assert any("from frame 5 on" in note for note in notes)


def test_a_part_is_compared(films):
    part = compare(films[2], films[1], reference=films[0], start=0.4, seconds=0.4, vmaf=False)
    whole = filtered(films[2], films[0], "psnr")
    np.testing.assert_allclose(part.frames["psnr_y"]["a"], whole[10:20], atol=0.01)
    assert part.worst[0] == 7  # counted from the start of the part


def test_names_are_told_apart(films, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "good.mp4"
    shutil.copy(films[1], twin)
    names = compare(films[1], twin, vmaf=False).names
    assert names[0].endswith("/good.mp4")
    assert names[1] == "other/good.mp4"


def test_in_a_notebook_it_shows_itself(comparison):
    assert comparison._repr_html_().startswith("<iframe srcdoc=")
    assert "<script" not in comparison._repr_html_()  # escaped


# the command


def run(*arguments):
    return run_command("compare", *arguments)


def test_the_command_leaves_a_page_a_sheet_and_figures(films, tmp_path):
    out, figures = tmp_path / "page.html", tmp_path / "figures.json"
    done = run(films[2], films[1], "--reference", films[0], "-o", out, "--json", figures)
    assert done.returncode == 0, done.stderr
    assert "PSNR-Y" in done.stdout
    assert "VMAF-NEG" in done.stdout
    with Image.open(tmp_path / "page.png") as sheet:
        assert sheet.width > 1000
    record = json.loads(figures.read_text())
    assert record["means"]["psnr_y"]["b"] > record["means"]["psnr_y"]["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "page.html", "page.png"]
    again = run(films[2], films[1], "-o", out)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_a_damaged_video_is_said(films, tmp_path):
    broken, data = tmp_path / "broken.ts", tmp_path / "whole.ts"
    ffmpeg("-i", films[1], "-c", "copy", data)
    content = bytearray(data.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    broken.write_bytes(content)
    out = tmp_path / "page.html"
    done = run(broken, films[0], "-o", out)
    assert done.returncode == 5, done.stderr
    assert "damaged" in done.stderr
    assert out.exists()


def test_files_that_begin_later_are_of_the_same_moments(films, tmp_path):
    late = tmp_path / "late.ts"
    ffmpeg("-i", films[1], "-c", "copy", late)
    result = compare(late, films[1], vmaf=False)
    assert result.notes == []
    assert max(result.frames["difference"]["a"]) == 0


def test_odd_sizes_are_cut_not_squeezed(tmp_path):
    films = [tmp_path / name for name in ("a.mkv", "b.mkv")]
    for film, crf in zip(films, ("10", "30"), strict=True):
        write_clip(film, size=(193, 109), frames=5, sound=None, pix_fmt="yuv444p", options={"crf": crf})
    result = compare(*films, vmaf=False)
    assert not any("Lanczos" in note for note in result.notes)
    a, b = (np.frombuffer(ffmpeg("-i", f, "-vf", "extractplanes=y", "-f", "rawvideo", "-"), np.uint8) for f in films)
    a, b = (raw.reshape(5, 109, 193)[:, :108, :192].astype(float) for raw in (a, b))
    np.testing.assert_allclose(result.frames["difference"]["a"], np.sqrt(((a - b) ** 2).mean((1, 2))), rtol=1e-4)


def test_other_ranges_are_said(films, tmp_path):
    full = write_clip(tmp_path / "full.mp4", size=SIZE, frames=30, sound=None, color_range=2)
    notes = compare(full, films[1], vmaf=False).notes
    assert any("ranges" in note for note in notes)


def test_errors_have_their_types(films):
    with pytest.raises(InputError):
        compare(films[0], "nothing.mp4")


# the page


def shown(browser):
    """Return what the canvas shows, RGB."""
    import base64
    import io

    data = browser.execute_script("return canvas.toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 90, 0.05).until(lambda _: condition())


def test_the_page_in_a_browser(browser, comparison, films, tmp_path):
    page = tmp_path / "page.html"
    comparison.save(page)
    browser.get(page.as_uri())
    wait(browser, lambda: browser.execute_script("return video.readyState") >= 2)
    a, b = (rgb_frames(film, FRAMES) for film in (films[2], films[1]))
    assert len(a) == len(b) == FRAMES
    for number in (17, 3, FRAMES - 1, 0):
        browser.execute_script(f"go({number})")
        wait(browser, lambda number=number: browser.execute_script("return [frame, video.seeking]") == [number, False])
        wait(browser, lambda number=number: f"frame {number} /" in browser.find_element("id", "time").text)
        picture = shown(browser)
        # Left of the divider the one, right of it the other, of the same frame; its neighbours are further away.
        left, right = slice(4, 92), slice(100, 188)
        for part, film in ((left, a), (right, b)):
            errors = [np.abs(picture[:, part] - frame[:, part]).mean() for frame in film]
            assert int(np.argmin(errors)) == number
            assert errors[number] < 6
    # The divider moves with the pointer and with the keys.
    stage = browser.find_element("id", "stage")
    from selenium.webdriver import ActionChains, Keys

    ActionChains(browser).move_to_element_with_offset(stage, round(stage.size["width"] * 0.3), 5).perform()
    wait(browser, lambda: abs(browser.execute_script("return split") - 0.8) < 0.02)
    assert stage.get_attribute("aria-valuenow") == "80"
    stage.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    wait(browser, lambda: abs(browser.execute_script("return split") - 0.76) < 0.02)
    # It plays, steps, and the figures follow.
    browser.find_element("id", "on").click()
    wait(browser, lambda: browser.execute_script("return frame") == 1)
    figure = browser.find_element("css selector", '.now[data-key="psnr_y"][data-of="a"]').text
    assert float(figure) == pytest.approx(comparison.frames["psnr_y"]["a"][1], abs=0.01)
    browser.find_element("id", "play").click()
    wait(browser, lambda: browser.execute_script("return frame") > 5)
    browser.find_element("id", "play").click()
    browser.find_element("css selector", "#worst button").click()
    wait(browser, lambda: browser.execute_script("return frame") == 17)
    assert len(browser.find_elements("css selector", "#charts svg")) == 3
    images = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(images) == 25
    assert min(images) == 128
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    urls = re.findall(r'"url":"([a-z]+):', " ".join(entry["message"] for entry in browser.get_log("performance")))
    assert set(urls) <= {"file", "data", "blob"}, "the page asked the network for something"


def test_the_page_holds_names_that_are_markup(browser, films, tmp_path):
    odd = tmp_path / "<img src=x onerror=alert(1)><!--<script>.mp4"
    shutil.copy(films[1], odd)
    compare(odd, films[2], vmaf=False).save(tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.find_element("id", "nameA").text == odd.name
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0


def test_rates_that_are_no_whole_numbers_are_met(browser, tmp_path):
    film = write_clip(tmp_path / "ntsc.mp4", size=SIZE, frames=40, rate=Fraction(30_000, 1001), sound=None)
    compare(film, film).save(tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    wait(browser, lambda: browser.execute_script("return video.readyState") >= 2)
    for number in (1, 13, 39):
        browser.execute_script(f"go({number})")
        wait(browser, lambda number=number: browser.execute_script("return frame") == number)
