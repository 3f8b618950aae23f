"""The live loop, cameras, sinks and the player, on real files; where time is the subject, on a clock of the tests."""

import contextlib
import io
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.request
from fractions import Fraction
from unittest import mock

import av
import numpy as np
import pytest
from conftest import ffmpeg, picture, run_command, run_python, write_clip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from running import until

from imagesr.cli import install_hint
from imagesr.errors import InputError
from imagesr.live import camera
from imagesr.live.camera import Camera
from imagesr.live.film import Film
from imagesr.live.loop import Live, LiveUpscaler, Meter, Shot
from imagesr.live.sinks import Y4M, Nowhere, Page
from imagesr.live.sound import RATE, Sound, SoundError
from imagesr.live.webcam import open_sink
from imagesr.media.frames import VideoInfo, bgr, from_bgr, plane, rgb
from imagesr.media.samples import sound
from imagesr.video.pipeline import Newest


def shot(number, captured=0.0, size=(64, 36)):
    """Return a grey shot, its number in its luma."""
    frame = from_bgr(np.zeros((size[1], size[0], 3), np.uint8))
    plane(frame, 0)[:] = 16 + number % 200
    return Shot(frame, captured)


def number_of(frame):
    return int(plane(frame, 0)[0, 0]) - 16


def shots(count=None):
    """Yield shots as fast as they are taken, without end where no count is given."""
    yield from map(shot, itertools.count() if count is None else range(count))


class Kept(Nowhere):
    """Remember what was shown."""

    def __init__(self):
        self.numbers, self.figures = [], []

    def show(self, shot, figures):
        self.numbers.append(number_of(shot.sr))
        self.figures.append(figures)


def same(frame):
    return frame, "same"


class Source:
    """Yield shots on the clock of a test, 30 of them a second, when it is their turn."""

    def __init__(self, count, clock):
        self.count, self.clock, self.taken = count, clock, 0
        self._turns = threading.Semaphore(1)

    def __iter__(self):
        for number in range(self.count):
            assert self._turns.acquire(timeout=90), "it has no more turns"
            self.clock.sleep(1 / 30)
            yield shot(number, self.clock.perf_counter())
            self.taken += 1

    def go_on(self, number, turns=6):
        """Take so many more turns after the shot of a number, and wait until they have been taken."""
        for _ in range(turns):
            self._turns.release()
        until(lambda: self.taken >= min(self.count, number + 1 + turns))

    def stop(self):
        """Wake it."""
        self._turns.release()


@pytest.fixture
def loop_clock(clock, monkeypatch):
    """Put the clock of a test into the loop; returns it."""
    monkeypatch.setattr("imagesr.live.loop.time", clock)
    return clock


@pytest.fixture
def film_clock(clock, loop_clock, monkeypatch):
    """Put the clock of a test into everything that plays films and cameras; returns it."""
    for module in ("camera", "film", "sound"):
        monkeypatch.setattr(f"imagesr.live.{module}.time", clock)
    return clock


# the loop


@given(st.lists(st.booleans(), max_size=60))
def test_the_newest_wins_and_none_is_lost_count_of(takes):
    newest, put, got = Newest(), 0, []
    for take in takes:
        if take:
            item = newest.get(timeout=0)
            got += [] if item is None else [item]
        else:
            put += 1
            newest.put(put)
    newest.close()
    with contextlib.suppress(StopIteration):
        got.append(newest.get())
    assert got == sorted(set(got))
    assert got[-1:] == ([put] if put else [])
    assert len(got) + newest.dropped == put


def test_a_closed_newest_says_why():
    newest = Newest()
    newest.close(InputError("gone"))
    with pytest.raises(InputError, match="gone"):
        newest.get()


def test_a_fast_network_shows_every_frame_in_order(loop_clock):
    sink = Kept()

    def source():
        """Yield the next when the one before has been shown: on a busy machine no network is fast."""
        for number in range(30):
            until(lambda number=number: live.meter.frames == number)
            yield shot(number, loop_clock.perf_counter())

    def network(frame):
        loop_clock.sleep(0.02)
        return frame, "same"

    live = Live(source(), network)
    live.run(sink)
    assert sink.numbers == list(range(30))
    assert live.dropped == 0
    figures = live.as_dict()
    assert figures["frames"] == 30
    assert figures["latency_ms"] == {"p50": 20.0, "p95": 20.0}
    assert figures["fps"] == 50
    assert any("fps" in line and "latency" in line and "dropped" in line for line in sink.figures[-1])


def test_a_slow_network_drops_frames_and_adds_no_delay(loop_clock):
    """200 ms for a frame at 30 fps: what is shown is at most a frame older than the network takes."""
    source, sink, begun = Source(75, loop_clock), Kept(), itertools.count()

    def slow(frame):
        before = next(begun)
        until(lambda: live.meter.frames == before)
        source.go_on(number_of(frame))
        return frame, "slow"

    live = Live(source, slow)
    live.run(sink)
    assert sink.numbers == [*range(0, 75, 6), 74]
    assert live.dropped == 75 - len(sink.numbers)
    assert live.as_dict()["latency_ms"] == {"p50": 200.0, "p95": 200.0}  # in a queue it would be ten seconds


def test_a_slow_screen_drops_frames_too(loop_clock):
    source, sink = Source(30, loop_clock), Kept()
    show = sink.show

    def slow(shot, figures):
        show(shot, figures)
        source.go_on(sink.numbers[-1])

    sink.show = slow
    live = Live(source, same)
    live.run(sink)
    assert len(sink.numbers) + live.dropped == 30
    assert live.dropped >= 15
    assert sink.numbers[-1] == 29


@pytest.mark.parametrize("where", ["source", "network", "sink"])
def test_what_goes_wrong_anywhere_ends_the_loop(where):
    def bad(*_):
        raise InputError("it broke")

    def source():
        yield from shots(3)
        bad()

    sink = Kept()
    if where == "sink":
        sink.show = bad
    live = Live(source() if where == "source" else shots(), bad if where == "network" else same)
    with pytest.raises(InputError, match="it broke"):
        live.run(sink)
    until(lambda: not any(thread.is_alive() for thread in live._threads))


def test_a_loop_ends_when_its_time_is_over(loop_clock):
    begun, source = loop_clock.monotonic(), Source(1000, loop_clock)

    def network(frame):
        source.go_on(number_of(frame), turns=1)
        return frame, "same"

    Live(source, network, stop=source.stop).run(Kept(), seconds=0.5)
    assert loop_clock.monotonic() - begun >= 0.5
    assert source.taken < 1000


def test_a_sink_can_end_the_loop_and_hand_on_keys():
    keys, sink = [], Kept()
    answers = iter(["x", None, "left", "quit"])
    sink.poll = lambda: next(answers)
    Live(shots(), same).run(sink, on_key=keys.append)
    assert keys == ["x", "left"]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_percentiles_are_numpys(latencies):
    meter, now = Meter(), types.SimpleNamespace(perf_counter=lambda: 1000.0)
    with mock.patch("imagesr.live.loop.time", now):
        for latency in latencies:
            meter.saw(1000.0 - latency)
    for percent in (50, 95):
        expected = np.percentile(latencies, percent, method="inverted_cdf")
        assert meter.percentile_ms(percent) == pytest.approx(1000 * expected, abs=0.11)


def test_the_model_changes_while_frames_go_through():
    info = VideoInfo(
        64, 36, "yuv420p", 8, (True, True), Fraction(1, 90_000), Fraction(30), None, {}, None, 0, None, None
    )
    upscaler = LiveUpscaler(info, "lanczos", "1.5")
    frame = from_bgr(np.random.default_rng(0).integers(0, 256, (36, 64, 3), np.uint8))
    before, by = upscaler(frame)
    assert (before.width, before.height, by) == (96, 54, "lanczos x1.5")
    upscaler.change(model="fast")
    upscaler._thread.join()
    after, by = upscaler(frame)
    assert by.startswith("fast x1.5")
    assert np.abs(plane(after, 0).astype(int) - plane(before, 0)).max() > 3
    upscaler.change(scale="2")
    upscaler._thread.join()
    assert upscaler(frame)[0].width == 128
    upscaler.change(model="nobody")
    upscaler._thread.join()
    assert "nobody" in upscaler.error
    assert upscaler.model == "fast"


# cameras


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a second of film at 25 fps."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", size=(192, 108), frames=25)


def test_a_file_comes_at_its_own_pace(clip, film_clock):
    film = Camera(str(clip))
    assert film.finite
    assert (film.info.width, film.info.height, film.info.rate) == (192, 108, 25)
    begun, times = film_clock.perf_counter(), []
    for shot in film:
        assert film_clock.perf_counter() == pytest.approx(shot.captured)
        times.append(shot.captured - begun)
    np.testing.assert_allclose(times, np.arange(25) / 25, atol=0.003)


def test_a_file_that_cannot_be_decoded_at_its_pace_adds_no_delay(clip, film_clock, monkeypatch):
    """25 frames of 40 ms that take 80 ms each: without end they would be a second late, and more in a longer film."""
    film = Camera(str(clip))
    read = film._read
    monkeypatch.setattr(film, "_read", lambda: (film_clock.sleep(0.08), read())[1])
    monkeypatch.setattr(camera, "_MOST_LATE_S", 0.2)
    late = [film_clock.perf_counter() - shot.captured for shot in film]
    assert len(late) == 25
    assert max(late) <= 0.2


def test_pictures_keep_their_colours(clip):
    shot = next(iter(Camera(str(clip))))
    with av.open(str(clip)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(rgb(shot.lr).astype(int) - expected).mean() < 3


@pytest.mark.parametrize("height", [480, 720])
def test_opencvs_pictures_become_frames_and_pictures_again(height):
    flat = np.full((height, 64, 3), (200, 120, 40), np.uint8)
    frame = from_bgr(flat)
    assert np.abs(bgr(frame).astype(int) - flat).max() <= 3
    # Enlarged beyond 720 lines it still means the same colours.
    from imagesr.media.frames import Resizer

    larger = Resizer(96, height * 3 // 2, "yuv420p", kernel="lanczos")(frame)
    assert np.abs(bgr(larger).astype(int) - flat[0, 0]).max() <= 3
    assert np.abs(rgb(larger)[..., ::-1].astype(int) - flat[0, 0]).max() <= 3


class Device:
    """Stand in for a camera that gives three pictures, is unplugged, and comes back."""

    opened = 0

    def __init__(self):
        self._left = 0

    def open(self, *_):
        Device.opened += 1
        self._left = 3 if Device.opened != 2 else 0  # the first try to come back is too early

    def isOpened(self):  # noqa: N802, the library's name
        return True

    def read(self):
        self._left -= 1
        return (True, np.full((48, 64, 3), 77, np.uint8)) if self._left >= 0 else (False, None)

    def get(self, _):
        return 0.0

    def set(self, *_):
        return True

    def release(self):
        pass


def test_a_camera_that_goes_away_ends_with_a_sentence(monkeypatch):
    monkeypatch.setattr(camera.cv2, "VideoCapture", Device)
    Device.opened = 0
    source = Camera("0")
    assert len(list(source)) == 3
    assert "no more pictures" in source.ended
    assert "--reconnect" in source.ended


def test_a_camera_that_comes_back_goes_on(monkeypatch):
    monkeypatch.setattr(camera.cv2, "VideoCapture", Device)
    monkeypatch.setattr(camera, "_RETRY_S", 0.01)
    Device.opened, told = 0, []
    source = Camera("0", reconnect=True, tell=told.append)
    seen = []
    for shot in source:
        seen.append(shot)
        if len(seen) == 5:
            source.close()
    assert Device.opened == 3
    assert ["waiting" in text for text in told] == [True, False]


# the command


def webcam(*arguments):
    return run_command("webcam", *arguments)


def test_headless_figures_go_to_a_file(clip, tmp_path):
    done = webcam(clip, "--headless", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames"] + figures["dropped"] == 25
    assert set(figures["latency_ms"]) == {"p50", "p95"}
    assert figures["size"] == [288, 162]
    assert "latency" in done.stderr
    assert done.stdout == ""


def test_without_a_screen_the_sinks_that_work_are_named(clip):
    done = run_python("-m", "imagesr.webcam", clip, environment={"DISPLAY": "", "WAYLAND_DISPLAY": ""})
    assert done.returncode == 2
    assert "no screen" in done.stderr
    assert "mjpeg" in done.stderr
    assert "--headless" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_pipe_of_frames_is_a_video(clip, tmp_path):
    film = tmp_path / "pipe.y4m"
    with film.open("wb") as out:
        command = [sys.executable, "-m", "imagesr.webcam", str(clip), "--sink", "y4m"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with av.open(str(film)) as container:
        video = container.streams.video[0]
        frames = list(container.decode(video))
        assert (video.width, video.height, video.average_rate) == (288, 162, 25)
    assert len(frames) > 1  # in the time that it took from the first that was shown, whatever was dropped


def test_a_reader_that_leaves_ends_it_quietly(clip):
    command = [sys.executable, "-m", "imagesr.webcam", str(clip), "--sink", "y4m"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(100_000)
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(120) == 0
    assert "Traceback" not in told
    assert "Exception" not in told


def test_late_frames_of_a_pipe_are_there_twice():
    out = io.BytesIO()
    sink = Y4M(Fraction(10), out)
    for moment, value in ((0.0, 20), (0.1, 30), (0.4, 40), (0.41, 50), (0.52, 60)):
        frame = from_bgr(np.zeros((16, 16, 3), np.uint8))
        plane(frame, 0)[:] = value
        sink.show(Shot(frame, 5.0 + moment, sr=frame), ())
    frames = out.getvalue().split(b"FRAME\n")[1:]
    assert [frame[0] for frame in frames] == [20, 30, 30, 30, 40, 60]


def test_a_page_shows_the_newest_frame():
    page = Page(0)
    try:
        with urllib.request.urlopen(page.place) as answer:
            assert b"<img src=stream" in answer.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(page.place + "etc/passwd")
        done = threading.Event()

        def film():
            frame = from_bgr(np.full((54, 96, 3), (30, 200, 120), np.uint8))
            while not done.is_set():
                page.show(Shot(frame, 0.0, sr=frame), ())
                time.sleep(0.02)

        thread = threading.Thread(target=film)
        thread.start()
        with urllib.request.urlopen(page.place + "stream", timeout=60) as stream:
            assert stream.headers["Content-Type"].startswith("multipart/x-mixed-replace")
            for _ in range(2):
                while not (line := stream.readline()).startswith(b"Content-Length"):
                    assert line
                stream.readline()
                jpeg = stream.read(int(line.split(b":")[1]))
                image = Image.open(io.BytesIO(jpeg))
                assert image.size == (96, 54)
                np.testing.assert_allclose(np.asarray(image).mean((0, 1)), (120, 200, 30), atol=4)
        done.set()
        thread.join()
    finally:
        page.close()


def test_a_port_in_use_is_said():
    page = Page(0)
    try:
        port = int(page.place.rstrip("/").rsplit(":", 1)[1])
        with pytest.raises(ValueError, match="free port"):
            open_sink("mjpeg", None, None, title="", port=port)
    finally:
        page.close()


def test_a_virtual_camera_gets_every_frame(monkeypatch):
    sent = []

    class FakeCamera:
        device = "/dev/video9"

        def __init__(self, width, height, fps, *, fmt):
            self.shape = (height, width, 3)
            assert (fps, fmt) == (30.0, "bgr")

        def send(self, frame):
            assert frame.shape == self.shape
            sent.append(frame)

        def close(self):
            sent.append("closed")

    fake = types.SimpleNamespace(Camera=FakeCamera, PixelFormat=types.SimpleNamespace(BGR="bgr"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", fake)
    upscaler = types.SimpleNamespace(size=(64, 36))
    sink = open_sink("v4l2", upscaler, types.SimpleNamespace(rate=Fraction(30)), title="")
    assert sink.place == "the camera /dev/video9"
    Live(shots(3), same).run(sink)
    sink.close()
    assert sent[-1] == "closed"
    assert len(sent) >= 2


def test_a_system_without_a_virtual_camera_is_told_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("'v4l2loopback' backend: No v4l2 loopback devices found")

    fake = types.SimpleNamespace(Camera=refuse, PixelFormat=types.SimpleNamespace(BGR="bgr"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", fake)
    with pytest.raises(ValueError, match="modprobe v4l2loopback"):
        open_sink("v4l2", types.SimpleNamespace(size=(64, 36)), types.SimpleNamespace(rate=Fraction(30)))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ModuleNotFoundError) as missing:
        open_sink("v4l2", types.SimpleNamespace(size=(64, 36)), types.SimpleNamespace(rate=Fraction(30)))
    assert "[live]'" in install_hint(missing.value)


@pytest.fixture(scope="module")
def minute(clip):
    """Return a minute of film."""
    film = clip.with_name("minute.mp4")
    ffmpeg("-stream_loop", "59", "-i", clip, "-an", "-c", "copy", film)
    return film


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["webcam", "play"])
def test_a_signal_ends_it_with_its_figures(minute, tmp_path, command, name):
    code = f"""
import sys
import imagesr.{command} as command
from imagesr.live.sinks import Nowhere
Nowhere.show = lambda *_: print("shown", flush=True)
sys.exit(command.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, str(minute), "--headless", "--json", str(tmp_path / "out.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(2):  # so that one has been counted
        assert process.stdout.readline() == "shown\n"
    process.send_signal(name)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + name
    assert "frames shown" in told
    assert "Traceback" not in told
    assert json.loads((tmp_path / "out.json").read_text())["frames"] > 0


# films


def clicks(path, moments, seconds=3):
    """Write a clip whose sound is silent but for clicks."""
    samples = np.zeros((2, RATE * seconds), np.float32)
    for moment in moments:
        samples[:, round(moment * RATE) : round(moment * RATE) + 200] = 0.8
    from imagesr.media.clips import write_clip as write

    write(path, [Image.fromarray(picture(96, 54, i)) for i in range(30 * seconds)], 30, sound=samples)
    return path


@pytest.mark.parametrize("start", [0.0, 0.6, 1.37])
def test_sound_begins_where_it_is_asked_to(tmp_path, start):
    film = clicks(tmp_path / "clicks.mp4", (0.5, 1.0, 2.0))
    heard = np.concatenate(list(sound(film, start)))
    assert heard.shape[1] == 2
    loud = np.flatnonzero(np.abs(heard[:, 0]) > 0.3) / RATE + start
    found = loud[np.flatnonzero(np.diff(loud, prepend=-1) > 0.2)]
    expected = [moment for moment in (0.5, 1.0, 2.0) if moment >= start]
    np.testing.assert_allclose(found, expected, atol=0.03)  # AAC smears a click


def test_a_film_without_sound_says_so(tmp_path):
    film = write_clip(tmp_path / "mute.mp4", sound=None)
    with pytest.raises(InputError, match="none"):
        next(sound(film))


class FakeStream:
    """Stand in for a sound card; `play` has it ask for so many blocks of 10 ms, each in its time."""

    latency, active = 0.01, True

    def __init__(self, *, samplerate, channels, dtype, callback, latency):
        self.heard, self._callback, self.closed, self.time = [], callback, False, 100.0
        FakeStream.newest = self

    def play(self, blocks):
        for _ in range(blocks):
            out = np.empty((RATE // 100, 2), np.float32)
            when = types.SimpleNamespace(outputBufferDacTime=self.time + self.latency)
            self._callback(out, len(out), when, None)
            self.heard.append(out)
            self.time += 0.01

    def start(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def card(monkeypatch):
    """Put a sound card that is played by hand in the place of the system's; returns the module."""
    fake = types.SimpleNamespace(OutputStream=FakeStream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


@pytest.fixture
def going_card(card, film_clock, monkeypatch):
    """Put a sound card in the place of the system's that plays while the clock of the test goes; returns the clock."""
    sleep = film_clock.sleep

    def play(seconds):
        sleep(seconds)
        stream = FakeStream.newest
        if stream.active and not stream.closed:
            stream.play(1)

    monkeypatch.setattr(film_clock, "sleep", play)
    return film_clock


def test_the_sound_is_heard_and_is_the_clock(card, tmp_path):
    film = clicks(tmp_path / "clicks.mp4", (1.0,))
    played = Sound(film)
    played.move(0.5)
    stream = FakeStream.newest
    stream.play(10)
    assert played.now() == 0.5
    assert not np.any(stream.heard)
    stream.heard.clear()
    played.go()
    stream.play(70)
    assert played.now() == pytest.approx(0.5 + 0.7 - stream.latency, abs=0.001)
    played.stop()
    stands = played.now()
    stream.play(20)
    assert played.now() == stands
    assert not np.any(stream.heard[70:])
    played.go()
    stream.play(20)
    assert played.now() > stands + 0.1
    played.close()
    heard = np.concatenate(stream.heard)
    assert np.flatnonzero(np.abs(heard[:, 0]) > 0.3)[0] / RATE == pytest.approx(0.5, abs=0.03)


def test_nothing_is_lost_or_heard_twice_over_a_pause(card, tmp_path):
    film = tmp_path / "noise.wav"  # whose times are exact
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=r=48000:d=2:seed=1", "-ac", "2", film)
    played = Sound(film)
    stream = FakeStream.newest
    played.go()
    stream.play(30)
    played.stop()
    stream.play(20)
    played.go()
    stream.play(30)
    played.move(1.0)
    stream.play(10)
    played.go()
    stream.play(20)
    played.close()
    heard, whole = np.concatenate(stream.heard), np.concatenate(list(sound(film)))
    block = RATE // 100
    np.testing.assert_array_equal(heard[: 30 * block], whole[: 30 * block])
    assert not np.any(heard[30 * block : 50 * block])
    np.testing.assert_array_equal(heard[50 * block : 80 * block], whole[30 * block : 60 * block])
    assert not np.any(heard[80 * block : 90 * block])
    np.testing.assert_array_equal(heard[90 * block :], whole[RATE : RATE + 20 * block])


def test_without_a_sound_card_a_film_plays_all_the_same(monkeypatch, tmp_path, film_clock):
    class Refusing:
        def __init__(self, **_):
            raise RuntimeError("no device")

    fake = types.SimpleNamespace(OutputStream=Refusing, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    film = Film(clicks(tmp_path / "clicks.mp4", (1.0,), seconds=1))
    assert "no device" in film.silent_because
    assert len(list(film)) == 30
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SoundError, match=r"\[live\]"):
        Sound(tmp_path / "clicks.mp4")


def test_a_film_goes_on_without_its_sound_card(going_card, tmp_path):
    film = Film(clicks(tmp_path / "film.mp4", (0.5,), seconds=2))
    frames = iter(film)
    for _ in range(15):
        next(frames)
    stream = FakeStream.newest
    assert not stream.closed
    stream.active = False
    begun, at = going_card.perf_counter(), film.position
    for _ in range(15):
        next(frames)
    assert film.position == pytest.approx(at + 0.5, abs=0.01)
    assert going_card.perf_counter() - begun == pytest.approx(0.5, abs=0.1)
    assert "went away" in film.silent_because
    assert stream.closed
    film.close()
    frames.close()


def test_a_film_is_paused_and_sought_in(tmp_path, film_clock):
    film = Film(clicks(tmp_path / "film.mp4", (), seconds=3), mute=True)
    frames, moments = iter(film), []

    def positions(count):
        return [(next(frames), film.position)[1] for _ in range(count)]

    begun = film_clock.perf_counter()
    moments = positions(10)
    assert film_clock.perf_counter() - begun == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(moments, np.arange(10) / 30, atol=0.002)
    film.seek(2.0)
    assert film.position == 2.0
    assert positions(3) == pytest.approx([2.0, 2.0 + 1 / 30, 2.0 + 2 / 30], abs=0.002)
    film.pause()
    film.seek(1.0)
    assert positions(1) == pytest.approx([1.0], abs=0.002)  # a paused film shows where it is
    film_clock.later(0.4, film.pause)
    begun = film_clock.perf_counter()
    positions(1)
    assert film_clock.perf_counter() - begun == pytest.approx(0.4 + 1 / 30, abs=0.02)
    film.seek(99)
    assert positions(1)[0] == pytest.approx(2.5, abs=0.05)
    shot = next(frames)
    assert shot.note == "0:02 / 0:03"
    assert 0.8 < shot.progress < 0.9
    film.close()
    assert next(frames, None) is None


def test_a_paused_film_ends_with_its_loop(tmp_path, film_clock):
    film = Film(clicks(tmp_path / "film.mp4", (), seconds=3), mute=True)
    live = Live(film, same, stop=film.close)
    film_clock.later(0.3, film.pause)
    live.run(Kept(), seconds=1)
    assert film.position < 0.5
    until(lambda: not any(thread.is_alive() for thread in live._threads))


def test_a_seek_beyond_the_end_comes_back(going_card, tmp_path):
    """Nothing is there when the file does not say how long it is, or its sound ends before its picture."""
    film = Film(clicks(tmp_path / "film.mp4", (), seconds=2))
    frames = iter(film)
    next(frames)
    film.duration = None
    film.seek(60)
    assert next(frames) is not None
    assert film.position < 0.2
    assert film.silent_because == ""
    film.close()
    frames.close()


def test_two_seeks_in_a_row_add_up(tmp_path, film_clock):
    film = Film(clicks(tmp_path / "film.mp4", (), seconds=3), mute=True)
    frames = iter(film)
    next(frames)
    film.seek(film.position + 1)
    film.seek(film.position + 1)
    next(frames)
    assert film.position == pytest.approx(2, abs=0.002)
    film.close()


def test_a_film_that_does_not_begin_at_zero(tmp_path, film_clock):
    """MPEG-TS files begin at 1.4 s."""
    source, film = clicks(tmp_path / "film.mp4", (0.5,)), tmp_path / "film.ts"
    ffmpeg("-i", source, "-c", "copy", film)
    played = Film(film, mute=True)
    frames, begun = iter(played), film_clock.perf_counter()
    for _ in range(10):
        next(frames)
    assert film_clock.perf_counter() - begun == pytest.approx(0.3, abs=0.05)  # and not 1.4 s later
    assert played.position == pytest.approx(9 / 30, abs=0.05)
    played.seek(1)
    next(frames)
    assert played.position == pytest.approx(1, abs=0.05)
    played.close()
    for start in (0, 0.25):
        heard = np.concatenate(list(sound(film, start)))
        assert np.flatnonzero(np.abs(heard[:, 0]) > 0.3)[0] / RATE == pytest.approx(0.5 - start, abs=0.05)


def test_sound_goes_on_where_its_kind_changes_or_it_has_holes(tmp_path):
    mono, stereo, both = (tmp_path / name for name in ("mono.ts", "stereo.ts", "both.ts"))
    tone = ("-f", "lavfi", "-i", "sine=f=440:d=1")
    ffmpeg(*tone, "-ac", "1", "-ar", "44100", "-c:a", "aac", mono)
    ffmpeg(*tone, "-ac", "2", "-ar", "48000", "-c:a", "aac", "-output_ts_offset", "2", stereo)
    both.write_bytes(mono.read_bytes() + stereo.read_bytes())
    heard = np.concatenate(list(sound(both)))
    loud = np.abs(heard[:, 0]).reshape(-1)[: 3 * RATE]
    assert loud[RATE // 4 : RATE // 2].max() > 0.05
    assert loud[round(1.3 * RATE) : round(1.7 * RATE)].max() < 0.01  # a second of nothing
    assert loud[round(2.3 * RATE) : round(2.7 * RATE)].max() > 0.05


def test_play_without_a_screen_names_what_play_can_do(clip):
    done = run_python("-m", "imagesr.play", clip, environment={"DISPLAY": "", "WAYLAND_DISPLAY": ""})
    *told, error = done.stderr.splitlines()
    assert done.returncode == 2 and [line.partition(" ")[0] for line in told] == ["clean"]
    assert "mjpeg" not in error
    assert "--headless" in error


@pytest.mark.slow
def test_neither_delay_nor_memory_grows(tmp_path):
    film = write_clip(tmp_path / "long.mp4", size=(320, 180), frames=3000, sound=None)
    figures = []
    for seconds in (15, 90):
        out = tmp_path / f"{seconds}.json"
        given = [film, "--headless", "--seconds", seconds, "--json", out]
        assert run_python("-m", "imagesr.webcam", *given).returncode == 0
        figures.append(json.loads(out.read_text()))
    assert figures[1]["latency_ms"]["p95"] < figures[0]["latency_ms"]["p95"] + 20
    assert figures[1]["peak_memory_mb"] < figures[0]["peak_memory_mb"] + 15


def test_play_runs_without_a_screen_when_told_so(clip, tmp_path):
    done = run_command("play", clip, "--headless", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames"] + figures["dropped"] == 25


def test_frames_of_a_film_are_those_of_the_file(clip, film_clock):
    shown = [plane(shot.lr, 0).copy() for shot in Film(clip, mute=True)]
    expected = ffmpeg("-i", clip, "-vf", "extractplanes=y", "-f", "rawvideo", "-")
    np.testing.assert_array_equal(shown, np.frombuffer(expected, np.uint8).reshape(-1, 108, 192))
