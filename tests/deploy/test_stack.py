"""The stack of deploy/Procfile as a user starts it: ready, under load, its processes killed, its alerts fired.

What it measures is printed: `pytest -s tests/deploy/test_stack.py`.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import picture, write_clip
from PIL import Image

from imagesr.serve.inputs import LEAST, record_of
from imagesr.serve.votes import Votes

pytestmark = [pytest.mark.stack, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PATIENCE = 400  # seconds: the machine may be busy
NAME = "mine_x2"
# Register a shipped model as a version of NAME, and make it the champion: ADDRESS FOLDER MODEL, and a word for damage.
CROWN = """
import dataclasses, shutil, sys, uuid
from pathlib import Path
from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.mlops.registry import CHAMPION, crown, register
from imagesr.tracking.server import Server
uri, folder, model, *damage = sys.argv[1:]
server, folder = Server(uri), Path(folder, uuid.uuid4().hex, "mine_x2")
shutil.copytree(SAVED_MODELS / model, folder)
dataclasses.replace(ModelCard.read(folder), name="mine", folder=folder).write()
card = ModelCard.read(folder)
if damage:
    for file in folder.glob("model*.onnx"):
        file.write_bytes(b"x" + file.read_bytes()[1:])
run = server.find_run(uuid.uuid4().hex, name="mine", started=0)
crown(server, register(server, run, card), server.alias("mine_x2", CHAMPION))
"""


def png(size=(96, 64)):
    file = io.BytesIO()
    Image.fromarray(picture(*size)).save(file, "PNG")
    return file.getvalue()


def until(true, seconds=PATIENCE):
    """Wait until it is true; returns the seconds that it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, f"nothing within {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - begun


def told(*figures):
    print("measured:", *figures, flush=True)


class Stack:
    """Hold the processes that `deploy/up` has started."""

    def __init__(self, block):
        self.block, self.port = block, free_ports()
        self.begin()

    def begin(self, serve=""):
        self.log = (self.block / "up.log").open("w+")
        command = [sys.executable, ROOT / "deploy/up", "--block", self.block, "--port", str(self.port)]
        command += ["--serve", serve]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=env, start_new_session=True)
        begun = time.monotonic()
        try:
            while "ready after" not in self.said():
                assert self.process.poll() is None, self.said()
                assert time.monotonic() < begun + PATIENCE, self.said()
                time.sleep(0.2)
        except BaseException:
            self.end()
            raise

    def said(self):
        return (self.block / "up.log").read_text()

    def url(self, offset, path):
        return f"http://127.0.0.1:{self.port + offset}{path}"

    def ask(self, data, query=""):
        return httpx.post(self.url(0, f"/supersizeme?model=fast{query}"), content=data, timeout=120)

    def vote(self, vote, words=""):
        """Vote on a new answer; returns the status."""
        requests = []
        found = lambda: self.ask(png()).headers.get("imagesr-request")  # noqa: E731, none before the database is there
        until(lambda: requests.append(found()) or requests[-1])
        given = {"request": requests[-1], "vote": vote, "words": words}
        while (answer := httpx.post(self.url(0, "/feedback"), json=given, timeout=120)).status_code == 429:
            time.sleep(1)
        return answer.status_code

    def crown(self, model, *damage):
        """Make a version of NAME, from a shipped model, the registry's champion."""
        self.python("-c", CROWN, self.url(1, ""), self.block / "tmp", model, *damage)

    def python(self, *arguments):
        """Run Python with the environment of the stack's clients."""
        keys = dict(re.findall(r"^export (\w+)='(.*)'$", (self.block / "etc/env").read_text(), re.M))
        env = os.environ | keys | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *map(str, arguments)], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def query(self, text):
        """Return the series of an expression, those that are no number left out."""
        answer = httpx.get(self.url(4, f"/api/v1/query?query={urllib.parse.quote(text)}"), timeout=60).json()
        return [one for one in answer["data"]["result"] if one["value"][1] != "NaN"]

    def alerts(self):
        """Return what Alertmanager holds as (name, part)."""
        found = httpx.get(self.url(5, "/api/v2/alerts?active=true&inhibited=true"), timeout=60).json()
        return {(one["labels"]["alertname"], one["labels"].get("part")) for one in found}

    def notices(self, kind):
        file = self.block / "log/alerts.log"
        return [line for line in file.read_text().splitlines() if f" {kind} " in line] if file.exists() else []

    def pids(self):
        """Return the number of every process by its name."""
        ctl = Path(sys.executable).with_name("supervisorctl")
        done = subprocess.run(
            [ctl, "-c", self.block / "etc/supervisord.conf", "status"], capture_output=True, text=True
        )
        return {name: int(pid) for name, pid in re.findall(r"^stack:(\S+) +RUNNING +pid (\d+)", done.stdout, re.M)}

    def control(self, *words):
        ctl = Path(sys.executable).with_name("supervisorctl")
        subprocess.run([ctl, "-c", self.block / "etc/supervisord.conf", *words], capture_output=True, check=True)

    def end(self):
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.log.close()
        return time.monotonic() - begun


def free_ports():
    """Return a port with free ones behind it."""
    for base in range(20_000, 29_000, 100):
        try:
            for port in range(base, base + 15):
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    pytest.fail("needs 15 free ports in a row")


@pytest.fixture(scope="module")
def block():
    missing = subprocess.run([sys.executable, ROOT / "deploy/up", "--check"], capture_output=True, text=True)
    if "on this machine" in missing.stderr:  # programs that are missing; anything else is a fault of the command
        pytest.skip(missing.stderr.strip())
    assert not missing.returncode, missing.stderr
    # Not in pytest's folder: PostgreSQL runs as another user there.
    folder = Path(tempfile.mkdtemp(prefix="imagesr-stack-"))
    folder.chmod(0o755)
    disks = [(folder, "2g"), (folder / "database", "300m")] if sys.platform == "linux" and os.geteuid() == 0 else []
    mounted = []
    for place, size in disks:  # small disks, to be filled
        place.mkdir(exist_ok=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", place]).returncode == 0:
            mounted.insert(0, place)
    yield folder
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(block):
    stack = Stack(block)
    told("start:", *stack.said().splitlines()[-1:])
    stack.crown("fast_x2")
    assert stack.vote("up") == 201
    told(f"stop after {stack.end():.1f} s")
    stack.begin(f"--follow {NAME}")  # with a champion, which a registry that was made just now has not
    told("start again:", *stack.said().splitlines()[-1:])
    yield stack
    if stack.process.poll() is None:
        told(f"stop after {stack.end():.1f} s")


class Load(threading.Thread):
    """Send pictures, one after another, and keep what failed."""

    def __init__(self, stack, data):
        super().__init__()
        self.stack, self.data, self.failed, self.served, self.longest = stack, data, [], 0, 0.0
        self.ended = threading.Event()

    def run(self):
        while not self.ended.is_set():
            begun = time.monotonic()
            try:
                answer = self.stack.ask(self.data)
            except httpx.TransportError as error:
                self.failed.append(repr(error))
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                self.served += 1
                self.longest = max(self.longest, time.monotonic() - begun)
            elif answer.status_code != 429:
                self.failed.append(f"{answer.status_code} {answer.text[:80]}")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


def test_a_start_wakes_nobody_and_waits_for_the_registry(stack):
    """It comes first: the stack has just been started twice, at last with a champion to follow."""
    log, woken = (stack.block / "log/supervisord.log").read_text(), stack.notices("firing")
    told(f"alerts of two starts: {woken}")
    assert "spawned: 'service-1'" in log and "exited: service" not in log, "the registry has their first champion"
    assert not [line for line in woken if "ServiceDown" in line], "Prometheus comes last"


def panels():
    for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                yield file.stem, panel["title"], target["expr"]


def test_every_panel_has_a_series_under_load(stack):
    code = "from imagesr.textfile import record, recorded; import time\n"
    code += "record('retrain', {'run_timestamp_seconds': time.time()}, state='promoted')\n"
    code += "with recorded('etl', step='load') as figures: figures |= {'rows': 8, 'rejected': 0}"
    stack.python("-c", code)
    stack.crown("best-photo_x2")
    clip = write_clip(stack.block / "clip.mp4", size=(96, 64)).read_bytes()
    with Load(stack, png()) as load:
        assert stack.ask(b"no picture").status_code == 415
        assert httpx.post(stack.url(0, "/video?model=fast&scale=2"), content=clip, timeout=120).status_code == 202
        assert [stack.vote("up"), stack.vote("down")] == [201, 201]
        until(lambda: database(stack, lambda votes: len(votes.inputs(LEAST)) == LEAST))
        database(stack, lambda votes: votes.set_inputs_record(record_of(votes.inputs(LEAST))))
        empty = lambda: [one for one in panels() if not stack.query(one[2])]  # noqa: E731
        try:
            until(lambda: not empty())
        except AssertionError:
            pytest.fail(f"no series: {empty()}")
    told(f"{len([*panels()])} queries of panels, each with a series")
    assert not load.failed


def database(stack, ask):
    """Call a function with the database of feedback."""
    address = re.search("^export IMAGESR_FEEDBACK='(.*)'$", (stack.block / "etc/env").read_text(), re.M)[1]
    votes = Votes(address)
    try:
        return ask(votes)
    finally:
        votes.close()


def test_killed_one_after_another_the_service_answers_and_the_data_stay(stack):
    import boto3

    keys = dict(re.findall(r"^export (\w+)='(.*)'$", (stack.block / "etc/env").read_text(), re.M))
    s3 = boto3.client(
        "s3",
        endpoint_url=keys["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="one", Body=b"1")
    made = httpx.post(stack.url(1, "/api/2.0/mlflow/experiments/create"), json={"name": "kept"}, timeout=120)
    assert made.status_code == 200, made.text
    before = database(stack, voted)
    for name, pid in stack.pids().items():
        with Load(stack, png()) as load:
            until(lambda load=load: load.served)
            os.kill(pid, signal.SIGKILL)
            took = until(lambda name=name, pid=pid: stack.pids().get(name, pid) != pid and is_ready(stack, name))
            count = load.served
            until(lambda load=load, count=count: load.served > count + 2)
        away = " (refused while nothing listened)" * bool(load.failed)
        told(f"kill -9 {name}: ready again after {took:.1f} s, {len(load.failed)} requests failed{away}")
        assert name == "front" or not load.failed, load.failed[:3]
        assert name != "front" or len(load.failed) <= 100
    until(lambda: all(is_ready(stack, name) for name in stack.pids()) and len(stack.pids()) == 11)
    assert s3.get_object(Bucket="kept", Key="one")["Body"].read() == b"1"
    found = httpx.get(stack.url(1, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=kept"), timeout=120)
    assert found.status_code == 200, found.text
    assert stack.query("count_over_time(up[1h]) > 1"), "Prometheus keeps what it had"
    assert database(stack, voted) == before > 0


def voted(votes):
    return sum(count.votes for count in votes.counts())


def test_a_process_drains_without_a_lost_request(stack):
    with Load(stack, png((400, 300))) as one, Load(stack, png()) as two, Load(stack, png()) as three:
        for name in ("service-1", "service-2"):
            count = one.served
            stack.control("restart", f"stack:{name}")
            until(lambda name=name: is_ready(stack, name))
            until(lambda count=count: one.served > count + 3)
    assert not one.failed + two.failed + three.failed
    told(f"{one.served + two.served + three.served} pictures while both processes were restarted, none failed")


def test_two_processes_beside_one(stack):
    """Measure alone: eight clients, 80 pictures of 400x300, two processes of half the cores or one of them all."""
    two = crowded(lambda: stack.ask(png((400, 300))))
    stack.control("stop", "stack:service-1", "stack:service-2")
    command = [sys.executable, "-m", "imagesr.serve", "--port", str(stack.port + 9)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    alone = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_ready(stack, "service-1"))
        url = stack.url(9, "/supersizeme?model=fast")
        one = crowded(lambda: httpx.post(url, content=png((400, 300)), timeout=120))
    finally:
        alone.terminate()
        alone.wait()
        stack.control("start", "stack:service-1", "stack:service-2")
    for name, (rate, p50, p99) in {"one process": one, "two behind nginx": two}.items():
        told(f"{name}: {rate:.1f} pictures/s, p50 {p50:.2f} s, p99 {p99:.2f} s")
    until(lambda: is_ready(stack, "service-1") and is_ready(stack, "service-2"))


def crowded(ask):
    """Return pictures a second, and the seconds of the median and of the slowest of a hundred."""

    def timed(number):
        begun = time.monotonic()
        while (answer := ask()).status_code == 429:
            time.sleep(0.1)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - begun

    for _ in range(4):
        ask()
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        took = sorted(clients.map(timed, range(80)))
    return len(took) / (time.monotonic() - begun), took[len(took) // 2], took[-1]


def is_ready(stack, name):
    done = subprocess.run([sys.executable, ROOT / "deploy/up", "--port", str(stack.port), "--ready", name])
    return done.returncode == 0


def fires_and_clears(stack, alert, fault, mend, part=None):
    """Make a fault and mend it; the alert must come and go, with Alertmanager and in the notices."""
    held = lambda: any(name == alert and part in (None, where) for name, where in stack.alerts())  # noqa: E731
    until(lambda: not held())
    before = len(stack.notices("firing"))
    begun = time.monotonic()
    fault()
    until(held)
    fired = time.monotonic() - begun
    until(lambda: any(alert in line for line in stack.notices("firing")[before:]))
    before = len(stack.notices("resolved"))
    begun = time.monotonic()
    mend()
    until(lambda: not held())
    cleared = time.monotonic() - begun
    until(lambda: any(alert in line for line in stack.notices("resolved")[before:]))
    told(f"{alert}: fired after {fired:.0f} s, cleared {cleared:.0f} s after it began to be mended")
    return fired


def test_part_down(stack):
    def stop():
        stack.control("stop", "stack:mlflow")

    fires_and_clears(stack, "PartDown", stop, lambda: stack.control("start", "stack:mlflow"), "mlflow")


def test_service_down(stack):
    names = ["stack:service-1", "stack:service-2"]
    fires_and_clears(
        stack, "ServiceDown", lambda: stack.control("stop", *names), lambda: stack.control("start", *names)
    )
    until(lambda: is_ready(stack, "service-1") and is_ready(stack, "service-2"))


def test_errors(stack):
    """The service's temporary folders are gone, as where somebody tidies /tmp: every picture fails with 500."""
    names = ["stack:service-1", "stack:service-2"]

    def tidy():
        for folder in (stack.block / "tmp").glob("imagesr-serve-*"):
            shutil.rmtree(folder)

    def mend():
        ended.set()
        thread.join()
        stack.control("restart", *names)

    ended = threading.Event()

    def ask():
        while not ended.is_set():
            stack.ask(png())
            ended.wait(0.2)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        fires_and_clears(stack, "Errors", tidy, mend)
    finally:
        ended.set()
        thread.join()
    until(lambda: is_ready(stack, "service-1") and is_ready(stack, "service-2"))


def test_slow(stack):
    """Both processes are held for longer than is promised, with a picture under way."""
    pids = [pid for name, pid in stack.pids().items() if name.startswith("service-")]
    promised = float(stack.query("imagesr:slo:p99_seconds")[0]["value"][1])

    def hold():
        with Load(stack, png((400, 300))) as one, Load(stack, png((400, 300))) as two:
            until(lambda: one.served and two.served)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(promised + 3)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            until(lambda: one.longest > promised or two.longest > promised)
        assert not one.failed

    fires_and_clears(stack, "Slow", hold, lambda: None)


def test_queue_full(stack):
    crowd = [Load(stack, png((640, 480))) for _ in range(24)]

    def come():
        for one in crowd:
            one.start()

    def go():
        for one in crowd:
            one.ended.set()
        for one in crowd:
            one.join()

    fires_and_clears(stack, "QueueFull", come, go)
    assert not [text for one in crowd for text in one.failed]


def test_disk_full(stack):
    if not os.path.ismount(stack.block):
        pytest.skip("needs root, to mount a small disk")
    file = stack.block / "large"

    def fill():
        free = shutil.disk_usage(stack.block).free
        with file.open("wb") as out:
            for _ in range((free - 80_000_000) // 2**20):
                out.write(bytes(2**20))

    fires_and_clears(stack, "DiskFull", fill, file.unlink)


def test_without_prometheus_it_says_so_and_the_service_answers(stack):
    with Load(stack, png()) as load:
        stack.control("stop", "stack:prometheus")
        until(lambda: "prometheus does not answer" in stack.said())
        stack.control("start", "stack:prometheus")
        until(lambda: "prometheus answers again" in stack.said())
    assert not load.failed


def test_votes_while_the_database_is_away(stack):
    assert stack.vote("up") == 201
    stack.control("stop", "stack:database")
    try:
        with Load(stack, png()) as load:
            request = "r" + "A" * 80
            answer = httpx.post(stack.url(0, "/feedback"), json={"request": request, "vote": "up"}, timeout=120)
            assert answer.status_code == 422, answer.text  # it is told without the database
            assert stack.vote("up") == 503
            for address in (f"/feedback/{request}%00", "/feedback/%00"):  # nginx itself would refuse it
                assert httpx.delete(stack.url(9, address), timeout=120).status_code == 404
            count = load.served
            until(lambda: load.served > count + 3)
        assert not load.failed
    finally:
        stack.control("start", "stack:database")
    until(lambda: stack.vote("up") == 201)


def test_votes_while_the_database_is_full(stack):
    if not os.path.ismount(stack.block / "database"):
        pytest.skip("needs root, to mount a small disk")
    file, answers = stack.block / "database/large", []
    with Load(stack, png()) as load:
        try:
            with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
                while out.write(bytes(2**12)):
                    pass
            until(lambda: answers.append(stack.vote("up", "w" * 1000)) or answers[-1] != 201)
            assert answers[-1] == 503
            count = load.served
            until(lambda: load.served > count + 3)
        finally:
            file.unlink()
        until(lambda: stack.vote("up") == 201)
    assert not load.failed
    told(f"a full database: {len(answers) - 1} votes were taken, then 503; no picture failed")


def test_champion_differs(stack):
    """The registry's champion is damaged: both processes refuse it, and serve the one before."""
    before = {one["metric"]["version"] for one in stack.query("imagesr_model_version")}

    def back():
        stack.python("-m", "imagesr", "promote", "--rollback", "--name", NAME, "--registry", stack.url(1, ""))

    with Load(stack, png()) as load:
        fires_and_clears(stack, "ChampionDiffers", lambda: stack.crown("fast_x2", "damaged"), back)
    assert not load.failed
    assert {one["metric"]["version"] for one in stack.query("imagesr_model_version")} == before


def test_accept_rate_fell(stack):
    def vote(vote, enough):
        while not enough(database(stack, lambda votes: [sum(kind) for kind in ups_and_votes(votes)])):
            assert stack.vote(vote) == 201

    def down():
        vote("down", lambda found: found[1] >= 30 and found[0] < 0.5 * found[1])

    fires_and_clears(stack, "AcceptRateFell", down, lambda: vote("up", lambda found: found[0] > 0.8 * found[1]))


def test_votes_down_are_a_signal_that_prometheus_sees(stack):
    """Retraining asks for it first, with the variables that are written for cron."""

    def cast(votes):
        for number in range(50):
            votes.add(f"down{number}", f"{NAME}/9", False, "", time.time())

    def asked(expected):
        stack.python("-c", f"from imagesr.mlops.retrain import _asked; assert _asked() == {expected}")

    database(stack, cast)
    asked((True, True))
    took = until(lambda: stack.query("imagesr_feedback_signal == 1"))
    asked((True, False))
    told(f"50 votes down: Prometheus has the signal {took:.0f} s after retraining asked")
    database(stack, lambda votes: votes.answer(time.time()))
    asked((False, False))
    until(lambda: stack.query("imagesr_feedback_signal == 0"))


def ups_and_votes(votes):
    return [[count.up for count in votes.counts()], [count.votes for count in votes.counts()]]


def test_input_drifts(stack):
    """The training set's record is of smooth pictures, which do not come."""
    with Load(stack, png()) as load:
        until(lambda: database(stack, lambda votes: len(votes.inputs(LEAST)) == LEAST))
        strange = [(20 + number / 100, 0.01, 30.0, 5.0) for number in range(LEAST)]

        def record(figures):
            database(stack, lambda votes: votes.set_inputs_record(record_of(figures)))

        def fitting():
            record(database(stack, lambda votes: votes.inputs(300)))

        fitting()
        fires_and_clears(stack, "InputDrifts", lambda: record(strange), fitting)
    assert not load.failed


def test_no_retraining(stack):
    """The last run ended long ago, by the file that `imagesr retrain` writes."""
    file = stack.block / "metrics/imagesr_retrain.prom"

    def write(age):
        text = f'imagesr_retrain_run_timestamp_seconds{{state="refused"}} {time.time() - age:.0f}\n'
        file.write_text(text)

    fires_and_clears(stack, "NoRetraining", lambda: write(40 * 86400), lambda: write(0))


def test_it_stops_within_its_time(stack):
    took = stack.end()
    told(f"stop after {took:.1f} s")
    left = subprocess.run(["pgrep", "-f", str(stack.block)], capture_output=True, text=True).stdout.split()
    assert not left
