"""A blind test: pages that do not tell, votes given in a real browser, counts and intervals against published ones."""

import base64
import io
import json
import re

import numpy as np
import pytest
from conftest import ffmpeg, picture, run_command, write_clip
from PIL import Image

from imagesr.compare.blind import blind_page, count, sides, wilson
from imagesr.errors import InputError
from imagesr.media.images import read_rgb

NAMES = [f"photo{i}" for i in range(6)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return two folders of six pictures: those of B are darker, and of two formats."""
    folder = tmp_path_factory.mktemp("folders")
    for which, dark in (("sharp", 0), ("soft", 40)):
        (folder / which).mkdir()
        for i, name in enumerate(NAMES):
            suffix = ".webp" if which == "soft" and i % 2 else ".png"
            shown = Image.fromarray(
                np.clip(picture(90 + i, 64, shift=40 * i).astype(int) - dark, 0, 255).astype(np.uint8)
            )
            shown.save(folder / which / f"{name}{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    return folder / "sharp", folder / "soft"


def record(page):
    return json.loads(re.search(r'id="record">(.*?)</script>', page, re.S)[1])


def pixels(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))))


def test_a_page_shows_pairs_and_does_not_tell(folders):
    page = record(blind_page(*folders, seed=7))
    assert [len(page["shown"]), page["seed"], page["names"]] == [6, 7, ["sharp", "soft"]]
    on_left = sides(7, NAMES)
    assert sorted(on_left.values()) == [0, 0, 0, 1, 1, 1]
    for pair in page["shown"]:
        files = [next(folder.glob(f"{pair['name']}.*")) for folder in folders]
        for side, which in (("left", on_left[pair["name"]]), ("right", 1 - on_left[pair["name"]])):
            assert pair[side].startswith("data:image/png;base64,")
            np.testing.assert_array_equal(pixels(pair[side]), read_rgb(files[which]))
        assert set(pair) == {"name", "left", "right"}


def test_a_seed_gives_the_same_page_and_another_seed_another(folders):
    pages = [record(blind_page(*folders, seed=seed)) for seed in (1, 1, 2, 3, 4)]
    assert pages[0] == pages[1]
    assert len({tuple(pair["name"] for pair in page["shown"]) for page in pages}) > 2
    assert len({tuple(sides(seed, NAMES)[name] for name in NAMES) for seed in range(40)}) > 10
    assert len({page["pictures"] for page in pages}) == 1  # so that votes on all of them are counted together
    turned = record(blind_page(*folders[::-1], seed=1))
    assert turned["pictures"] != pages[0]["pictures"]


def test_large_pictures_are_cut_where_they_differ_most(tmp_path):
    plain = picture(300, 200)
    other = plain.copy()
    other[120:140, 240:260] = 255
    for name, shown in (("a", plain), ("b", other)):
        (tmp_path / name).mkdir()
        Image.fromarray(shown).save(tmp_path / name / "x.png")
    (pair,) = record(blind_page(tmp_path / "a", tmp_path / "b", seed=0, crop=64))["shown"]
    cut = pixels(pair["right" if sides(0, ["x"])["x"] == 0 else "left"])
    assert cut.shape == (64, 64, 3)
    assert (cut == 255).all(-1).sum() == 400


def clips(folder, *, names=("x", "y")):
    """Write two folders of clips that differ in one corner."""
    for which in ("a", "b"):
        (folder / which).mkdir()
        for name in names:
            write_clip(folder / which / f"{name}.mp4", sound=None, options={"crf": "0"})
        if which == "b":
            for name in names:
                marked = folder / which / f"{name}.mp4"
                box = "drawbox=x=120:y=60:w=16:h=16:color=white:t=fill"
                ffmpeg("-i", marked, "-vf", box, "-crf", "1", folder / f"{name}.mp4")
                (folder / f"{name}.mp4").replace(marked)
    return folder / "a", folder / "b"


def frames_of(text, folder):
    (folder / "film.mp4").write_bytes(base64.b64decode(text.split(",")[1]))
    raw = ffmpeg("-i", folder / "film.mp4", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    return np.frombuffer(raw, np.uint8)


def test_clips_are_cut_where_they_differ_most_and_move_together(tmp_path):
    a, b = clips(tmp_path)
    page = record(blind_page(a, b, seed=3, crop=32, seconds=0.2, zoom=2, grey=True))
    assert (page["zoom"], page["grey"]) == (2, True)
    on_left = sides(3, ["x", "y"])
    for pair in page["shown"]:
        assert set(pair) == {"name", "film"}
        film = frames_of(pair["film"], tmp_path).reshape(-1, 32, 64)
        assert len(film) == 5  # 0.2 s at 25 fps
        halves = film[:, :, :32], film[:, :, 32:]
        white = [(half > 225).sum((1, 2)).min() for half in halves]
        assert white[1 - on_left[pair["name"]]] >= 200  # the box, on the side where B is
        assert white[on_left[pair["name"]]] < 50


def test_a_clip_and_a_picture_are_no_pair(tmp_path):
    a, b = clips(tmp_path, names=("x",))
    (b / "x.mp4").unlink()
    Image.fromarray(picture(64, 48)).save(b / "x.png")
    with pytest.raises(ValueError, match="two pictures or two clips"):
        blind_page(a, b, seed=0)


def test_clips_of_two_sizes_are_no_pair(tmp_path):
    a, b = clips(tmp_path, names=("x",))
    write_clip(b / "x.mp4", size=(96, 64), sound=None)
    with pytest.raises(ValueError, match="192x108 and 96x64"):
        blind_page(a, b, seed=0)


# counting


def votes(folder, name, picks, *, seed=7, voter=None, pictures="abc", order=NAMES):
    """Write a file of votes: `picks` names A, B or the same for pictures."""
    on_left = sides(seed, order)
    said = {"same": "same"}
    cast = {
        key: said.get(pick) or ("left" if "AB".index(pick) == on_left[key] else "right") for key, pick in picks.items()
    }
    sheet = {"pictures": pictures, "names": ["sharp", "soft"], "seed": seed, "order": list(order), "votes": cast}
    (folder / name).write_text(json.dumps(sheet | {"voter": voter or name}))
    return folder / name


def test_votes_are_counted_over_seeds_and_voters(tmp_path):
    files = [
        votes(tmp_path, "one.json", dict(zip(NAMES, ["A", "B", "B", "B", "B", "same"], strict=True))),
        votes(tmp_path, "two.json", dict(zip(NAMES, ["A", "A", "B", "B", "B", "B"], strict=True)), seed=11),
        votes(tmp_path, "two (1).json", {NAMES[0]: "B"}, seed=11, voter="two.json"),  # saved before all were given
    ]
    result = count(files)
    assert (result["voters"], result["a"], result["b"], result["same"]) == (2, 3, 8, 1)
    assert result["share"] == pytest.approx(8 / 11)
    assert result["interval"] == pytest.approx(wilson(8, 11))
    rows = {row["image"]: (row["a"], row["b"], row["same"]) for row in result["images"]}
    assert [rows[name] for name in NAMES] == [(2, 0, 0), (1, 1, 0), (0, 2, 0), (0, 2, 0), (0, 2, 0), (0, 1, 1)]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 3: the score without continuity correction
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=6e-5)
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_without_votes_nothing_is_known(tmp_path):
    result = count([votes(tmp_path, "none.json", {NAMES[0]: "same"})])
    assert (result["share"], result["interval"], result["same"]) == (None, [0, 1], 1)


def test_what_is_no_vote_is_refused(tmp_path):
    good = votes(tmp_path, "good.json", {NAMES[0]: "A"})
    other = votes(tmp_path, "other.json", {NAMES[0]: "A"}, pictures="other")
    with pytest.raises(ValueError, match="same pictures"):
        count([good, other])
    for text in ("", "[]", "{}", good.read_text().replace('"left"', '"up"').replace('"right"', '"up"')):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=r"bad\.json"):
            count([good, tmp_path / "bad.json"])


def run(*arguments):
    return run_command("blind", *arguments)


def test_the_command_counts(tmp_path):
    files = [votes(tmp_path, f"{i}.json", dict.fromkeys(NAMES[:4], "B"), seed=i) for i in range(3)]
    done = run("count", *files, "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^all +0 +12 +0   100%   76% to 100%$", done.stdout, re.M)
    assert "3 voters; preferred: B, soft" in done.stdout
    assert json.loads((tmp_path / "result.json").read_text())["b"] == 12


# the page


@pytest.fixture
def page(folders, tmp_path):
    """Return the address of a page that the command wrote."""
    odd = tmp_path / "<script>alert(1)<!--"
    odd.mkdir()
    for file in folders[1].iterdir():
        (odd / file.name).write_bytes(file.read_bytes())
    done = run("page", folders[0], odd, "-o", tmp_path / "page.html", "--seed", "7")
    assert done.returncode == 0, done.stderr
    again = run("page", *folders, "-o", tmp_path / "page.html")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    return (tmp_path / "page.html").as_uri()


def test_votes_are_given_in_a_browser(browser, page, folders, tmp_path):
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(condition):
        WebDriverWait(browser, 90, 0.05).until(lambda _: condition())

    def press(key, then):
        wait(lambda: browser.execute_script("return ready"))
        browser.find_element("css selector", "body").send_keys(key)
        wait(lambda: browser.find_element("id", "place").text == then)

    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page)
    wait(lambda: browser.execute_script("return ready"))
    # What is shown is what was cut, pixel for pixel, and nothing on the page says whose it is.
    shown = browser.execute_script("return record.shown[0]")
    both = browser.execute_script("return [...document.images].map(i => [i.src, i.width, i.naturalWidth])")
    assert [row[0] for row in both] == [shown["left"], shown["right"]]
    assert all(width == natural for _, width, natural in both)
    text = browser.find_element("css selector", "body").text
    assert "sharp" not in text
    assert "alert" not in text
    # This voter takes A, B, B but thinks again and takes A, and sees no difference in the fourth.
    on_left = sides(7, NAMES)
    order = browser.execute_script("return record.shown.map(pair => pair.name)")
    keys = {0: Keys.ARROW_LEFT, 1: Keys.ARROW_RIGHT}
    press(keys[on_left[order[0]]], "pair 2 of 6")  # A
    press(keys[1 - on_left[order[1]]], "pair 3 of 6")  # B
    press(keys[1 - on_left[order[2]]], "pair 4 of 6")  # B, and back
    press(Keys.BACKSPACE, "pair 3 of 6")
    press(keys[on_left[order[2]]], "pair 4 of 6")  # A
    press(" ", "pair 5 of 6")

    # Votes survive that the page is closed. A busy Chromium may hand a new page what another has kept much later, so it
    # is handed over here.
    kept = browser.execute_script("return {...localStorage}")
    source = f"Object.assign(localStorage, {json.dumps(kept)})"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    browser.get(page)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert browser.find_element("id", "place").text == "pair 5 of 6"
    wait(lambda: browser.execute_script("return ready"))
    left = browser.find_element("id", "left")
    left.click()
    wait(lambda: browser.find_element("id", "place").text == "pair 6 of 6")
    press("x" + Keys.ARROW_RIGHT, "all 6 pairs")
    assert not left.is_displayed()
    browser.find_element("css selector", "body").send_keys(Keys.ARROW_LEFT)  # there is nothing left to vote on
    browser.find_element("id", "save").click()
    wait(lambda: list(tmp_path.glob("votes-*.json")))
    (file,) = tmp_path.glob("votes-*.json")
    wait(lambda: file.stat().st_size)
    result = count([file])
    rows = {row["image"]: (row["a"], row["b"], row["same"]) for row in result["images"]}
    expected = [(1, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]
    assert [rows[name] for name in order[:4]] == expected
    assert rows[order[4]] == ((1, 0, 0) if on_left[order[4]] == 0 else (0, 1, 0))
    assert rows[order[5]] == ((0, 1, 0) if on_left[order[5]] == 0 else (1, 0, 0))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    urls = re.findall(r'"url":"([a-z]+):', " ".join(entry["message"] for entry in browser.get_log("performance")))
    assert set(urls) <= {"file", "data"}, "the page asked the network for something"
