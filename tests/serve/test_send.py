"""Send folders to a small server that misbehaves as services and networks do, by the command as a user starts it."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import picture
from PIL import Image
from running import running_service, until

from imagesr.serve.client import main

WIDTH, HEIGHT = 40, 30


class Handler(BaseHTTPRequestHandler):
    """Answer as the next line of the server's script says, and at its end with the picture enlarged."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Be silent."""

    def do_GET(self):
        """Be alive."""
        self.answer(200, b"{}")

    def do_POST(self):
        """Take a picture."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        with server.lock:
            server.seen.append((time.monotonic(), self.path, self.headers["Content-Type"], body))
            act = server.script.pop(0) if server.script else "picture"
        if isinstance(act, tuple):
            status, headers = act
            self.answer(status, b'{"error": "The stub will not."}', headers)
        elif act == "hang up":
            self.close_connection = True
        elif act == "half":
            self.answer(200, enlarged(self.path, body), half=True)
            self.close_connection = True
        elif act == "damaged":
            self.answer(200, enlarged(self.path, body)[:-200])
        elif act == "small":
            self.answer(200, body)
        elif act == "nonsense":
            self.answer(500, b"<html>")
        elif act == "wait":
            server.release.wait(90)
            self.answer(200, enlarged(self.path, body))
        else:
            self.answer(200, enlarged(self.path, body))

    def answer(self, status, body, headers=(), *, half=False):
        """Send an answer, or the first half of it."""
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # who was killed reads no more
            self.wfile.write(body[: len(body) // 2] if half else body)


def enlarged(path, body):
    """Return a picture as a service enlarges it, by Pillow."""
    query = {name: value[0] for name, value in parse_qs(urlsplit(path).query).items()}
    with Image.open(io.BytesIO(body)) as lr:
        size = [round(n * float(query["scale"])) for n in lr.size]
        out = io.BytesIO()
        lr.resize(size).save(out, query["format"])
    return out.getvalue()


@contextmanager
def serving(*script, port=0):
    """Run a stub that follows a script; yields the server."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.script, server.seen, server.lock, server.release = list(script), [], threading.Lock(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def photos(tmp_path):
    """Return a folder of three pictures and something else."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.jpg", "c.JPEG")):
        Image.fromarray(picture(WIDTH, HEIGHT, shift=number * 9)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(photos, url, *more):
    """Run the command; returns its exit code."""
    out = photos.parent / "out"
    return main([str(part) for part in (photos, "--to", url, "--out", out, *more)])


def sizes(folder):
    """Return the name and size of every file in a folder, each decoded to its end."""
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image.load()
            found[path.name] = image.size
    return found


DOUBLED = dict.fromkeys(("a.png", "b.png", "c.png"), (80, 60))


def test_a_folder_is_sent(photos, tmp_path, capsys):
    with serving() as server:
        assert run(photos, server.url + "/supersizeme/", "--json", tmp_path / "done.json") == 0
    assert sizes(tmp_path / "out") == DOUBLED
    assert {(path, type) for _, path, type, _ in server.seen} == {
        ("/supersizeme?scale=2&model=best&format=png&clean=auto", "image/png"),
        ("/supersizeme?scale=2&model=best&format=png&clean=auto", "image/jpeg"),
    }
    assert {body for *_, body in server.seen} == {path.read_bytes() for path in photos.glob("*.[pjJ]*")}
    told = capsys.readouterr().err
    assert "3 of 3 made, in" in told
    assert "80x60" in told
    done = json.loads((tmp_path / "done.json").read_text())
    wanted = {"pictures": 3, "made": 3, "skipped": 0, "not_sent": 0, "failed": [], "requests": 3}
    assert {name: done[name] for name in wanted} == wanted


def test_scale_model_and_format_go_into_the_query(photos, tmp_path):
    with serving() as server:
        assert run(photos, server.url, "-s", "1.5", "-n", "fast", "--format", "jpeg", "--jobs", "1", "-q") == 0
    assert {path for _, path, *_ in server.seen} == {"/supersizeme?scale=1.5&model=fast&format=jpeg&clean=auto"}
    assert sizes(tmp_path / "out") == {"a.jpg": (60, 45), "b.jpg": (60, 45), "c.JPEG": (60, 45)}


def test_a_detail_and_a_clean_go_into_the_query_where_they_are_asked_for(photos):
    with serving() as server:
        assert run(photos, server.url, "--detail", "0.25", "--clean", "0.5", "-q") == 0
    assert {path for _, path, *_ in server.seen} == {"/supersizeme?scale=2&model=best&format=png&detail=0.25&clean=0.5"}


def test_what_is_there_is_not_sent_again(photos, tmp_path, capsys):
    with serving() as server:
        assert run(photos, server.url) == 0
        (tmp_path / "out/b.png").unlink()
        whole = (tmp_path / "out/c.png").read_bytes()
        (tmp_path / "out/c.png").write_bytes(whole[:-100])
        server.seen.clear()
        assert run(photos, server.url) == 0
        assert len(server.seen) == 2
        assert "2 of 3 made, 1 there already" in capsys.readouterr().err
        server.seen.clear()
        assert run(photos, server.url, "-s", "3") == 4  # pictures of another size are somebody's
        assert "is there, 80x60 and not 120x90; -y overwrites" in capsys.readouterr().err
        assert not server.seen
        assert sizes(tmp_path / "out") == DOUBLED
        assert run(photos, server.url, "-s", "3", "-y", "-q") == 0
    assert set(sizes(tmp_path / "out").values()) == {(120, 90)}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("trouble", "least"),
    [
        ((429, {"Retry-After": "1"}), 1),
        ((503, {"Retry-After": "1"}), 1),
        ((429, {}), 0.25),
        ((504, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}), 0.25),
        ("hang up", 0.25),
        ("half", 0.25),
    ],
)
def test_it_comes_back_when_asked(photos, trouble, least, tmp_path):
    for name in ("b.jpg", "c.JPEG"):
        (photos / name).unlink()
    with serving(trouble) as server:
        assert run(photos, server.url) == 0
    first, second = (seen[0] for seen in server.seen)
    assert second - first >= least
    assert sizes(tmp_path / "out") == {"a.png": (80, 60)}


@pytest.mark.parametrize(
    ("act", "told", "code"),
    [
        ((415, {}), "a.png: The stub will not.", 3),
        ("nonsense", "a.png: the service failed: 500 Internal Server Error", 4),
        ("damaged", "a.png: Expected a whole picture. Received: the answer", 4),
        ("small", "a.png: the answer is 40x30 and not 80x60", 4),
        (["hang up"] * 3, "a.png: sending it broke off 3 times: Server disconnected", 4),
    ],
)
def test_one_that_fails_does_not_stop_the_others(photos, act, told, code, tmp_path, capsys):
    script = act if isinstance(act, list) else [act]
    with serving(*script) as server:
        assert run(photos, server.url, "--jobs", "1") == 1
        assert sizes(tmp_path / "out") == {name: DOUBLED[name] for name in ("b.png", "c.png")}
        err = capsys.readouterr().err
        assert f"imagesr send: {photos}/{told}" in err
        assert "2 of 3 made, 1 failed" in err
        server.script = script * 3  # and where all fail, the code says of what
        assert run(photos, server.url, "--jobs", "1", "-y") == code


def test_a_service_that_goes_away_is_waited_for(photos, tmp_path):
    with serving("hang up") as server:
        port = server.server_port
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "imagesr",
                "send",
                photos,
                "--to",
                server.url,
                "--out",
                tmp_path / "out",
                "--jobs",
                "1",
            ]
        )
        until(lambda: server.seen, process)
    time.sleep(1)  # in which it finds nobody
    with serving(port=port):
        assert process.wait(120) == 0
    assert sizes(tmp_path / "out") == DOUBLED


def test_it_is_not_waited_for_longer_than_told(photos, tmp_path, capsys):
    script = ["picture"] + [(503, {"Retry-After": "1"})] * 9
    with serving(*script) as server:
        assert run(photos, server.url, "--patience", "2", "--jobs", "1") == 1
        assert sizes(tmp_path / "out") == {"a.png": (80, 60)}
        err = capsys.readouterr().err
        assert "the service has been away for 2 s (--patience): The stub will not." in err
        assert "1 of 3 made, 2 not sent" in err
        server.script = [(429, {"Retry-After": "100000"})]
        assert run(photos, server.url, "--patience", "2", "-y") == 4
        server.script = ["wait"] * 9  # more than three: a request of the run before may still take one
        assert run(photos, server.url, "--patience", "0.5", "-y", "--jobs", "3") == 4
        assert "there is no answer within 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_what_was_interrupted_goes_on_where_it_was(photos, end, tmp_path):
    with serving("picture", "wait") as server:
        command = [sys.executable, "-m", "imagesr", "send", photos, "--to", server.url, "--out", tmp_path / "out"]
        process = subprocess.Popen([*command, "--jobs", "1"], stderr=subprocess.PIPE, text=True)
        until(lambda: len(server.seen) == 2, process)
        process.send_signal(end)
        err = process.communicate(timeout=120)[1]
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(end, -9)
        if end != signal.SIGKILL:
            assert "1 of 3 made, 2 not sent" in err
            assert "left out: 1 file (1 .txt)" in err
            assert len(err.strip().splitlines()) == 4  # no traceback
        assert sizes(tmp_path / "out") == {"a.png": (80, 60)}
        server.seen.clear()
        assert subprocess.run(command, timeout=120).returncode == 0
        assert len(server.seen) == 2
    assert sizes(tmp_path / "out") == DOUBLED


@pytest.mark.parametrize(
    ("more", "told", "code"),
    [
        (["--out", "nowhere/out"], "Expected an existing folder", 2),
        (["--scale", "0.5"], "Expected a scale from 1 to 8. Received: 0.5", 2),
    ],
)
def test_wrong_options_start_nothing(photos, more, told, code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        assert run(photos, server.url, *more) == code
        assert told in capsys.readouterr().err
        assert not server.seen
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_named_and_the_others_are_sent(photos, capsys):
    with serving() as server:
        assert run(photos, server.url, "nothing/*.png") == 1
        assert "nothing" in capsys.readouterr().err
        assert server.seen
    assert sizes(photos.parent / "out")


def test_the_input_is_never_overwritten(photos, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    with serving() as server:
        assert main([str(photos), "--to", server.url, "--out", str(photos), "-y"]) == 2
        assert "another file for the output than the input" in capsys.readouterr().err
        (photos / "a.jpg").write_bytes((photos / "b.jpg").read_bytes())
        assert not server.seen
        assert run(photos, server.url) == 1  # the clash is refused alone
        assert "a.jpg: not the only one that would become" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are for POSIX")
def test_a_terminal_gets_a_bar(photos, tmp_path):
    import pty
    import termios

    with serving((415, {})) as server:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (25, 100))
        command = [sys.executable, "-m", "imagesr", "send", photos, "--to", server.url, "--out", tmp_path / "out"]
        process = subprocess.Popen(command, stderr=theirs)
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 4096):
                text += part
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert process.wait(120) == 1
    assert b"0/3 [" in text
    assert b"The stub will not." in text
    assert b"2 of 3 made, 1 failed" in text


# And the real service


def test_the_real_service_makes_a_folder_larger(photos, tmp_path, capsys):
    """Its only place makes most requests wait; one picture is damaged; killed in the middle, the rest is made later."""
    for number in range(6):
        Image.fromarray(picture(300, 200, shift=number * 9)).save(photos / f"more{number}.png")
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    with running_service("-n", "fast", "--queue", "0") as service:
        command = [sys.executable, "-m", "imagesr", "send", photos, "--to", service.url, "--out", tmp_path / "out"]
        command += ["-n", "fast", "--jobs", "4"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        until(lambda: list((tmp_path / "out").glob("*.png")), process)
        process.kill()
        process.communicate()
        assert run(photos, service.url, "-n", "fast", "--jobs", "4") == 1
    err = capsys.readouterr().err
    assert "broken.jpg: Expected a picture that can be read" in err
    assert "there already, 1 failed" in err
    wanted = DOUBLED | {f"more{number}.png": (600, 400) for number in range(6)}
    found = sizes(tmp_path / "out")
    assert {name: size for name, size in found.items() if not name.endswith(".part")} == wanted
