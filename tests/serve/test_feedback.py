"""Votes, pictures that are kept, drift and signals: the routes in this process, and one real service."""

import asyncio
import hashlib
import io
import json
import sqlite3
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from conftest import picture, run_command
from PIL import Image, ImageCms, PngImagePlugin
from running import running_service, until
from stack import Stack

from imagesr.errors import InputError, OutputError
from imagesr.media.photo_strip import without_metadata
from imagesr.media.photos import read_photo
from imagesr.serve import feedback as feedbacks
from imagesr.serve import votes as databases
from imagesr.serve.app import create_app
from imagesr.serve.feedback import Feedback
from imagesr.serve.feedback_command import signal, wilson
from imagesr.serve.inputs import LOSSLESS, drift, jpeg_quality, measure, record_of
from imagesr.serve.metrics import Metrics
from imagesr.serve.votes import Votes

TABLES = {f"feedback_{name}" for name in ("inputs", "pictures", "settings", "signals", "votes")}


def saved(format="JPEG", array=None, **more):
    file = io.BytesIO()
    Image.fromarray(picture(80, 60) if array is None else array).save(file, format, **more)
    return file.getvalue()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """Start a PostgreSQL, and return the address of its database."""
    stack = Stack(tmp_path_factory.mktemp("postgresql"), tracking=False, store=False)
    yield stack.database_uri
    stack.end()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.stack)])
def url(request, tmp_path):
    """Return the address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/feedback.db"
    address = request.getfixturevalue("postgresql")
    votes = Votes(address)
    with votes._transaction() as run:
        run(f"DROP TABLE {', '.join(TABLES)}")
    return address


class Service:
    """What the routes of feedback need of the service."""

    champions = videos = None

    def __init__(self, feedback):
        self.feedback, self.metrics = feedback, feedback.metrics


@asynccontextmanager
async def serving(folder, url, **more):
    """Yield feedback that knows its database, and a client of the application around it."""
    feedback = Feedback(url, **{"days": 30, "metrics": Metrics()} | more)
    transport = httpx.ASGITransport(create_app(Service(feedback)))
    async with feedback.running(folder), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        async with asyncio.timeout(60):
            while not feedback._key and not feedback.trouble:
                await asyncio.sleep(0.01)
        yield feedback, client


def scene(function):
    """Run an asynchronous test."""

    def run(tmp_path, url):
        asyncio.run(function(tmp_path, url))

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def issued(feedback, body=b"", model="fast-photo@1"):
    return feedback.issue(model, hashlib.sha256(body).digest())


def post(client, request, vote="up", **more):
    return client.post("/feedback", json={"request": request, "vote": vote, **more})


@scene
async def test_a_vote_is_counted_once(tmp_path, url):
    async with serving(tmp_path, url) as (feedback, client):
        request = issued(feedback)
        answer = await post(client, request, words="  fine\0 skin \n")
        assert answer.status_code == 201, answer.text
        again = await post(client, request, "down")
        assert (again.status_code, again.json()) == (
            409,
            {"error": "Expected one vote on each answer. Received: another one"},
        )
        text = feedback.metrics.text().decode()
        assert 'imagesr_votes_total{vote="up"} 1.0' in text and 'imagesr_votes_total{vote="down"} 0.0' in text
    votes = Votes(url)
    assert [tuple(count)[:3] for count in votes.counts()] == [("fast-photo@1", 1, 1)]
    with votes._transaction() as run:
        assert run("SELECT words FROM feedback_votes") == [("fine skin",)]


@scene
async def test_another_process_on_the_same_database_takes_the_vote(tmp_path, url):
    async with serving(tmp_path, url) as (one, _), serving(tmp_path, url) as (_, client):
        assert (await post(client, issued(one))).status_code == 201


@scene
async def test_votes_that_are_none_are_refused_in_one_sentence(tmp_path, url):
    async with serving(tmp_path, url) as (feedback, client):
        request = issued(feedback)
        changed = [
            request[:9] + ("A" if request[9] != "A" else "B") + request[10:],
            request[:-1],
            request + "A",
            "r",
            "",
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda now=time.time: now() - feedbacks.VALID_S - 60)
            old = issued(feedback)
        stranger = await refusals_of_a_stranger(tmp_path)
        for text in [*changed, "../x", "ré", "r" * 2000, stranger, old]:
            answer = await post(client, text)
            assert answer.status_code == 422, text
            assert answer.json()["error"].startswith("Expected ") and "\n" not in answer.json()["error"]
        bodies = [b"", b"x", b"[]", b"{}", b'{"vote": "up"}', b"\xff", b'{"request": "r", "vote": "maybe"}']
        for body in bodies:
            answer = await client.post("/feedback", content=body)
            assert answer.status_code == 422 and answer.json()["error"].startswith("Expected a vote"), body
        assert (await post(client, request, words="w" * 1001)).status_code == 422
        assert (await client.post("/feedback", content=b"{" * 9000)).status_code == 413
        assert (await client.get("/feedback")).headers["allow"] == "POST"
        assert (await post(client, request)).status_code == 201, "what was wrong has used nothing up"
    assert sum(count.votes for count in Votes(url).counts()) == 1


async def refusals_of_a_stranger(folder):
    """Return an id that another service has issued."""
    async with serving(folder, f"sqlite:///{folder}/other.db") as (other, _):
        return issued(other)


@scene
async def test_a_flood_is_refused(tmp_path, url):
    async with serving(tmp_path, url) as (_, client):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feedbacks, "_RATE", 0)
            answers = await asyncio.gather(*(post(client, "r") for _ in range(feedbacks._BURST + 5)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(422), statuses.count(429)) == (feedbacks._BURST, 5)
        assert next(answer for answer in answers if answer.status_code == 429).headers["retry-after"] == "1"


@scene
async def test_only_so_many_wait_for_the_database(tmp_path, url):
    async with serving(tmp_path, url) as (feedback, client):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feedbacks, "_WAITING", 0)
            assert (await post(client, issued(feedback))).status_code == 429


EXIF = Image.Exif()
EXIF[0x010E] = "Anna at home"  # ImageDescription


@scene
async def test_a_picture_is_kept_only_when_it_is_sent_and_without_exif(tmp_path, url):
    body = saved(exif=EXIF, comment=b"Anna", quality=80)
    assert b"Anna" in body
    async with serving(tmp_path, url, days=2) as (feedback, client):
        request = issued(feedback, body)
        place = f"/feedback/{request}/picture"
        assert (await client.put(place, content=body)).status_code == 404, "no vote"
        told = (await post(client, request, "down", words="blurred")).json()
        assert told == {"request": request, "picture": place}
        assert Votes(url).pictures(0) == []
        assert (await client.put(place, content=saved(quality=81))).status_code == 422, "another picture"
        assert (await client.put(place, content=b"")).status_code == 400
        answer = await client.put(place, content=body)
        assert answer.status_code == 201, answer.text
        assert abs(answer.json()["expires"] - time.time() - 2 * 24 * 3600) < 3600
    out = tmp_path / "queue"
    done = run_command("feedback", "pictures", out, "--database", url)
    assert (done.returncode, done.stdout) == (0, f"1 pictures, in {out}\n")
    kept = (out / f"{request}.jpg").read_bytes()
    assert b"Anna" not in kept and not Image.open(io.BytesIO(kept)).getexif()
    assert np.array_equal(Image.open(io.BytesIO(kept)), Image.open(io.BytesIO(body)))
    (line,) = (out / "votes.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "picture": f"{request}.jpg",
        "model": "fast-photo@1",
        "vote": "down",
        "words": "blurred",
    }
    assert Votes(url).expire(time.time()) == 0
    assert Votes(url).expire(time.time() + 3 * 24 * 3600) == 1
    assert Votes(url).pictures(0) == []


@scene
async def test_what_is_forgotten_is_gone(tmp_path, url):
    body = saved()
    async with serving(tmp_path, url) as (feedback, client):
        requests = [issued(feedback, body) for _ in range(3)]
        for request in requests:
            assert (await post(client, request, words="a secret word")).status_code == 201
            assert (await client.put(f"/feedback/{request}/picture", content=body)).status_code == 201
        assert (await client.delete(f"/feedback/{requests[0]}")).status_code == 204
        assert (await client.delete(f"/feedback/{requests[0]}")).status_code == 404
        assert (await client.delete(f"/feedback/{requests[1]}%00")).status_code == 404
        assert (await post(client, requests[0])).status_code == 409, "it does not vote again"
    done = run_command("feedback", "forget", requests[1], requests[2], "rX", "--database", url)
    assert (done.returncode, done.stdout) == (1, "2 forgotten\n")
    assert done.stderr == "imagesr feedback: Expected the id of a vote. Received: rX\n"
    votes = Votes(url)
    assert (votes.pictures(0), votes.counts()) == ([], [])
    if url.startswith("sqlite"):
        held = (tmp_path / "feedback.db").read_bytes()
        assert b"a secret word" not in held and body[-500:-2] not in held
    votes.expire(time.time() + 2 * feedbacks.VALID_S)
    with votes._transaction() as run:
        assert run("SELECT COUNT(*) FROM feedback_votes") == [(0,)]


def test_its_tables_have_names_of_their_own(tmp_path):
    """MLflow, whose database may be the same, has `inputs`; whoever came second would fail."""
    votes = Votes(f"sqlite:///{tmp_path}/feedback.db")
    with votes._transaction() as run:
        found = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
    votes.close()
    assert found == TABLES


def test_what_is_no_id_is_not_asked_for(tmp_path):
    """PostgreSQL fails at a zero byte, which SQLite takes."""

    async def delete():
        async with serving(tmp_path, f"sqlite:///{tmp_path / 'feedback.db'}") as (feedback, client):
            feedback.ask = None  # a call fails
            return [(await client.delete(f"/feedback/{id}")).status_code for id in ("%00", "rX%00", "rX%0A", "r%C3%A9")]

    assert asyncio.run(delete()) == [404] * 4


@scene
async def test_pictures_have_so_much_room(tmp_path, url):
    body = saved()
    async with serving(tmp_path, url) as (feedback, client):
        request = issued(feedback, body)
        await post(client, request)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(databases, "MOST_BYTES", 10)
            answer = await client.put(f"/feedback/{request}/picture", content=body)
        assert (answer.status_code, answer.json()["error"][:29]) == (503, "Expected room for the picture")
    assert [count.votes for count in Votes(url).counts()] == [1], "the vote stands"


def test_a_full_database_costs_the_vote_alone(tmp_path):
    async def full():
        async with serving(tmp_path, f"sqlite:///{tmp_path}/feedback.db") as (feedback, client):
            await feedback.ask(lambda votes: votes._connection.execute("PRAGMA max_page_count = 1").fetchall())
            for _ in range(20):  # until the last page is full
                answer = await post(client, issued(feedback), words="w" * 1000)
                if answer.status_code != 201:
                    break
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
            assert answer.json()["error"].startswith("Expected a database that takes votes")
            assert "imagesr_feedback_failures_total 1.0" in feedback.metrics.text().decode()
            assert (await client.get("/healthz")).status_code == 200
            # The next call connects anew, and this limit is one of the connection.
            assert (await post(client, issued(feedback))).status_code == 201

    asyncio.run(full())


def test_a_database_that_is_not_there_yet(tmp_path):
    async def later():
        url = f"sqlite:///{tmp_path}/later/feedback.db"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feedbacks, "_AGAIN_S", 0.01)
            async with serving(tmp_path, url) as (feedback, client):
                assert "Expected a database that takes feedback" in feedback.trouble
                assert issued(feedback) is None, "no answer asks for a vote"
                assert (await post(client, "r")).status_code == 503
                (tmp_path / "later").mkdir()
                async with asyncio.timeout(60):
                    while not (request := issued(feedback)):
                        await asyncio.sleep(0.01)
                assert (await post(client, request)).status_code == 201

    asyncio.run(later())


@pytest.mark.parametrize("address", ["feedback.db", "mysql://user:secret@host/x", "sqlite:x"])
def test_addresses_that_are_none(address):
    with pytest.raises(ValueError, match=r"Expected sqlite:///FILE or postgresql") as error:
        Feedback(address, days=1)
    assert "secret" not in str(error.value)


# Metadata


def test_png_and_jpeg_keep_what_pixels_need():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Anna")
    for format, more in (("JPEG", {"comment": b"Anna", "progressive": True}), ("PNG", {"pnginfo": text})):
        body = saved(format, exif=EXIF, icc_profile=srgb, **more)
        stripped = without_metadata(body + b"Anna behind its end")
        assert b"Anna" in body and b"Anna" not in stripped
        before, after = (Image.open(io.BytesIO(data)) for data in (body, stripped))
        assert after.info["icc_profile"] == srgb and not after.getexif()
        assert np.array_equal(before, after)
        for cut in range(len(stripped) - 1, 2, -max(1, len(stripped) // 60)):
            with pytest.raises(InputError, match="Expected a whole PNG or JPEG"):
                without_metadata(stripped[:cut])


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\xff\xd8", b"\xff\xd8xx", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\x00"]
)
def test_files_that_are_no_pictures_have_no_metadata(data):
    with pytest.raises(InputError, match="Expected a whole PNG or JPEG"):
        without_metadata(data)


def test_a_long_run_of_one_byte_is_passed_over_once():
    """A search that begins anew at each byte of it would take hours."""
    run, scan = b"\xff" * 3_000_000, b"\xff\xd8\xff\xda\x00\x02"
    assert without_metadata(scan + run + b"\x00" + run + b"\xd9") == scan + run + b"\x00" + run + b"\xd9"
    for data in (scan + run + b"\x00", b"\xff\xd8" + run + b"\x00"):
        with pytest.raises(InputError, match="Expected a whole PNG or JPEG"):
            without_metadata(data)


# Inputs


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_the_quality_of_a_jpeg(tmp_path, quality):
    (tmp_path / "x.jpg").write_bytes(saved(quality=quality))
    assert abs(jpeg_quality(tmp_path / "x.jpg") - quality) < 1.5
    (tmp_path / "x.png").write_bytes(saved("PNG"))
    assert jpeg_quality(tmp_path / "x.png") == LOSSLESS
    with pytest.raises(InputError):
        jpeg_quality(tmp_path)


def figures(array):
    return measure(read_photo(saved("PNG", array)).picture, LOSSLESS)


def test_figures_tell_size_sharpness_and_noise():
    array, random = picture(200, 120), np.random.default_rng(0)
    noisy = np.clip(array + random.normal(0, 8, array.shape[:2])[..., None], 0, 255).astype(np.uint8)
    blurred = np.asarray(Image.fromarray(array).resize((50, 30)).resize((200, 120)))
    size, sharpness, noise, _ = figures(array)
    assert size == pytest.approx(np.log2(200 * 120))
    assert figures(noisy)[2] == pytest.approx(8, abs=1) and noise < 2
    assert figures(blurred)[1] < sharpness
    assert figures(np.zeros((1, 1, 3), np.uint8))[1:3] == (0, 0)


def drawn(number, seed, **shift):
    random = np.random.default_rng(seed)
    columns = {"size": 20, "sharpness": 0.4, "noise": 2, "quality": 0}
    values = {name: middle + shift.get(name, 0) + random.normal(0, 0.3, number) for name, middle in columns.items()}
    values["quality"] = np.where(random.random(number) < 0.5, LOSSLESS, shift.get("jpeg", 90))
    return np.column_stack([*values.values()])


def test_drift_is_seen_in_the_property_that_drifts():
    record = record_of(drawn(500, 0))
    assert max(drift(record, drawn(300, 1)).values()) < 0.25
    found = drift(record, drawn(300, 2, noise=0.6, jpeg=50))
    assert found["noise"] > 0.25 and found["jpeg_quality"] > 0.25
    assert max(found["size"], found["sharpness"]) < 0.25
    with pytest.raises(ValueError, match="Expected at least 100 pictures"):
        record_of(drawn(99, 0))


# Signals


def test_the_interval_of_wilson():
    assert wilson(0, 0) == (0, 1)
    assert wilson(50, 50) == pytest.approx((0.9287, 1), abs=1e-4)
    assert wilson(7, 20) == pytest.approx((0.1812, 0.5671), abs=1e-4)  # as statsmodels has it


def cast(votes, number, up, model="mine_x2/3", at=1000.0):
    with votes._transaction() as run:
        for index in range(number):
            row = f"r{model}{up}{at}{index}", model, int(up), "", at + index
            run("INSERT INTO feedback_votes VALUES (?, ?, ?, ?, ?)", *row)


def asked(votes, **more):
    return signal(votes, **{"target": 0.7, "least": 20, "now": 5000.0} | more)[:2]


def test_fifty_down_are_one_signal_until_it_is_answered(url):
    votes = Votes(url)
    cast(votes, 50, False)
    reason, new = asked(votes)
    assert new and reason.startswith("0 of 50 votes on mine_x2/3 are up: at most 7%, and 70% are wanted")
    assert asked(votes) == (reason, False)
    cast(votes, 50, False, at=2000.0)
    assert asked(votes) == (reason, False), "one, until it is answered"
    assert votes.answer(5000.0) and not votes.answer(5000.0)
    assert asked(votes) == ("", False), "old votes do not count again"
    cast(votes, 50, False, at=6000.0)
    assert asked(votes, now=7000.0)[1]
    cast(votes, 1, True, model="mine_x2/4", at=8000.0)
    assert asked(votes, now=9000.0) == ("", False), "a newer version answers it"


def test_fifty_up_are_none(url):
    votes = Votes(url)
    cast(votes, 50, True)
    assert asked(votes) == ("", False)


def test_a_few_votes_say_nothing(url):
    votes = Votes(url)
    cast(votes, 19, False)
    assert asked(votes) == ("", False)
    assert asked(votes, least=5)[1]


def test_drift_must_persist(url):
    votes = Votes(url)
    votes.set_inputs_record(record_of(drawn(500, 0)))

    def come(number, seed, at, **shift):
        with votes._transaction() as run:
            for index, row in enumerate(drawn(number, seed, **shift).tolist()):
                run("INSERT INTO feedback_inputs VALUES (?, ?, ?, ?, ?)", at + index, *row)

    come(200, 1, 1000)
    come(100, 2, 2000, noise=0.9)
    assert asked(votes) == ("", False), "one group of three"
    come(200, 3, 3000, noise=0.9)
    reason, new = asked(votes)
    assert new and reason.startswith("the noise of the last 300 pictures is not the training set's: PSI ")
    votes.set_inputs_record(record_of(drawn(500, 0, noise=0.9)))
    assert asked(votes, now=time.time()) == ("", False), "a newer record answers it"


def test_the_command_says_it_and_writes_figures(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/feedback.db"
    monkeypatch.setenv("IMAGESR_METRICS", str(tmp_path))
    missing = run_command("feedback", "signal", "--database", url)
    assert missing.returncode == 2 and "which is not there" in missing.stderr
    assert "Expected --database URL, or IMAGESR_FEEDBACK" in run_command("feedback", "signal").stderr
    monkeypatch.setenv("IMAGESR_FEEDBACK", url)
    cast(Votes(url), 50, False)
    first, second = (run_command("feedback", "signal") for _ in range(2))
    assert (first.returncode, first.stdout[:20]) == (1, "retrain: 0 of 50 vot")
    assert (second.returncode, second.stdout[:34]) == (0, "asked for already, and not answere")
    written = (tmp_path / "imagesr_feedback.prom").read_text()
    assert "imagesr_feedback_signal 1\n" in written and "imagesr_feedback_accept_rate 0\n" in written
    assert run_command("feedback", "signal", "--answer").stdout == "the signal is answered\n"
    assert run_command("feedback", "signal").stdout == "no reason to retrain\n"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").write_bytes(saved("PNG"))
    assert "Expected at least 100 pictures" in run_command("feedback", "record", photos).stderr


def test_two_processes_make_one_signal_and_one_secret(url):
    one, two = Votes(url), Votes(url)
    assert one.secret() == two.secret()
    assert [one.signal("", "drift", 1.0), two.signal("", "drift", 2.0)] == [True, False]


def test_a_locked_database_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(databases, "_WAIT", 0.05)
    votes = Votes(f"sqlite:///{tmp_path}/x.db")
    other = sqlite3.connect(tmp_path / "x.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match=r"Expected a database that takes feedback.*locked"):
        votes.add("r", "m", True, "", 1.0)
    other.rollback()
    assert votes.add("r", "m", True, "", 1.0)


# The whole service


@pytest.mark.slow
def test_a_service_takes_votes_and_measures_inputs(tmp_path):
    url = f"sqlite:///{tmp_path}/feedback.db"
    body = saved(exif=EXIF)
    with running_service("-n", "fast", "--videos", "0", "--feedback", url) as service:
        answer = httpx.post(f"{service.url}/supersizeme", content=body, timeout=90)
        request = answer.headers["imagesr-request"]
        assert httpx.get(f"{service.url}/models").json()["feedback"] == {"days": 30}
        vote = httpx.post(f"{service.url}/feedback", json={"request": request, "vote": "down"}, timeout=90)
        assert vote.status_code == 201
        kept = httpx.put(service.url + vote.json()["picture"], content=body, timeout=90)
        assert kept.status_code == 201
        cross = {"Sec-Fetch-Site": "cross-site"}
        assert httpx.put(service.url + vote.json()["picture"], content=body, headers=cross).status_code == 403
        assert service.figure("votes_total") == 1
        size, _, _, quality = until(lambda: Votes(url).inputs(1), service.process)[0]
        assert size == pytest.approx(np.log2(80 * 60)) and quality == pytest.approx(75, abs=1)
    assert [count.model.partition("@")[0] for count in Votes(url).counts()] == ["fast-photo"]


@pytest.mark.slow
def test_the_page_votes(tmp_path, browser):
    url = f"sqlite:///{tmp_path}/feedback.db"
    (tmp_path / "lake.jpg").write_bytes(saved(exif=EXIF))
    with running_service("-n", "fast", "--videos", "0", "--feedback", url) as service:
        browser.get(service.url)

        def find(name):
            return browser.find_element("id", name)

        find("file").send_keys(str(tmp_path / "lake.jpg"))
        until(lambda: find("vote").is_displayed())
        assert "30 days" in find("consent").text and not find("keep").is_selected()
        find("keep").click()
        find("words").send_keys("too smooth")
        find("down").click()
        until(lambda: "The picture is kept until" in find("voted").text)
        ((_, kind, model, up, words),) = Votes(url).pictures(0)
        assert (kind, model.partition("@")[0], up, words) == ("jpg", "fast-photo", 0, "too smooth")
        assert not find("up").is_enabled()
        find("forget").click()
        until(lambda: find("voted").text == "It is deleted.")
        assert Votes(url).pictures(0) == []
