"""Long runs shared out to an executor: the same result as in one place, whatever fails on the way."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import packet_hashes, write_clip
from faults import contents

from imagesr.errors import OutputError
from imagesr.video import segments, shares, upscale
from imagesr.video.options import Options

LENGTH = 20


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", LENGTH)
    monkeypatch.setattr(segments, "LONG_S", 0)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("film") / "in.mp4", frames=147, size=(96, 54))


class Elsewhere:
    """Make shares as another machine would: from what was sent, the last first; results come in order.

    `fails` is the number of a share that ends half way, as a machine that is switched off.
    """

    def __init__(self, fails=None):
        self.fails, self.made = fails, []

    def map(self, function, items):
        """Make all, and yield what was sent back."""
        found = {}
        for number, item in reversed(list(enumerate(items))):
            function, item = pickle.loads(pickle.dumps((function, item)))
            self.made.append(item.numbers)
            if number == self.fails:
                half = shares.Share(item.path, item.out, item.options, item.numbers[:1])
                function(half)
                (segments.Folder(item.out).segment(item.numbers[1]).with_suffix(".segment.part")).write_bytes(b"half")
                raise OutputError("it was switched off")
            found[number] = pickle.loads(pickle.dumps(function(item)))
        yield from (found[number] for number in sorted(found))


OPTIONS = [{"model": "lanczos"}, {"model": "lanczos", "deinterlace": "field"}, {"model": "fast"}]


@pytest.mark.parametrize("options", OPTIONS, ids=["frames", "fields", "a network"])
def test_shares_make_what_one_run_makes(tmp_path, film, options):
    here, there, seen = tmp_path / "here.mp4", tmp_path / "there.mp4", []
    one = upscale.upscale_video(film, here, **options)
    executor = Elsewhere()
    report = upscale.upscale_video(
        *(film, there), executor=executor, parts=3, progress=lambda *done: seen.append(done), **options
    )
    assert len(executor.made) == 3
    assert contents(there) == contents(here)
    assert packet_hashes(there, "v") == packet_hashes(here, "v")
    assert (report.frames, report.video_s, report.kept) == (one.frames, one.video_s, one.kept)
    assert report.notes == one.notes
    assert seen == sorted(seen)
    assert seen[-1] == (one.frames, seen[-1][1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.mp4", "there.mp4"]


def test_an_executor_of_the_standard_library_will_do(tmp_path, film):
    upscale.upscale_video(film, tmp_path / "here.mp4", model="lanczos")
    with ThreadPoolExecutor(2) as executor:
        upscale.upscale_video(film, tmp_path / "there.mp4", model="lanczos", executor=executor, parts=4)
    assert contents(tmp_path / "there.mp4") == contents(tmp_path / "here.mp4")


@pytest.mark.parametrize("last", [None, Elsewhere()], ids=["here", "elsewhere"])
def test_what_a_lost_machine_had_made_is_not_made_again(tmp_path, film, last):
    upscale.upscale_video(film, tmp_path / "here.mp4", model="lanczos")
    out, folder = tmp_path / "there.mp4", tmp_path / "there.mp4.segments"
    with pytest.raises(OutputError, match=r"switched off\. 87 frames are kept in there.mp4.segments; the same command"):
        upscale.upscale_video(film, out, model="lanczos", executor=Elsewhere(fails=0), parts=2)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.segment")}
    assert len(kept) == 5
    made = []

    class Watched(segments.SegmentWriter):
        def finish(self):
            super().finish()
            made.append(self.path.name)

    patch = pytest.MonkeyPatch()
    patch.setattr(segments, "SegmentWriter", Watched)
    try:
        report = upscale.upscale_video(film, out, model="lanczos", executor=last, parts=2)
    finally:
        patch.undo()
    assert sorted(made) == ["000001.segment", "000002.segment", "000003.segment"]
    assert "87 frames were done by earlier runs" in report.notes or last
    assert report.frames == 147
    assert contents(out) == contents(tmp_path / "here.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.mp4", "there.mp4"]


@pytest.mark.parametrize("parts", [0, -1])
def test_parts_that_are_none_are_refused_before_anything_is_made(tmp_path, film, parts):
    with pytest.raises(ValueError, match=f"Expected parts of at least 1. Received: {parts}"):
        upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos", executor=Elsewhere(), parts=parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("finished", [0, 1])
def test_a_run_that_fails_leaves_alone_what_others_still_write(tmp_path, film, finished, monkeypatch):
    class Failing:
        """Finish some segments and begin another, and fail before that one is whole."""

        def map(self, function, items):
            self.first = next(iter(items))
            if finished:
                function(shares.Share(self.first.path, self.first.out, self.first.options, range(finished)))
            segments.Folder(out).segment(finished).with_suffix(".segment.part").write_bytes(b"half")
            monkeypatch.setattr(Path, "iterdir", with_ghosts)
            raise OutputError("it was switched off")

    def with_ghosts(path, iterdir=Path.iterdir):
        """List files, too, that get another name before they are looked at."""
        ghosts = [path / "000005.segment.part", path / "000006.segment"] if path.suffix == ".segments" else []
        return iter([*ghosts, *iterdir(path)])

    executor, out = Failing(), tmp_path / "out.mp4"
    folder = tmp_path / "out.mp4.segments"
    left = rf"switched off\. {LENGTH * finished} frames are kept in out.mp4.segments; the same command goes on"
    with pytest.raises(OutputError, match=left):
        upscale.upscale_video(film, out, model="lanczos", executor=executor, parts=2)
    monkeypatch.undo()
    monkeypatch.setattr(segments, "LENGTH", LENGTH)
    monkeypatch.setattr(segments, "LONG_S", 0)
    kept = {path.name for path in folder.iterdir()} - {"lock"}
    assert kept == {"journal.json", f"{finished:06}.segment.part", *(f"{n:06}.segment" for n in range(finished))}
    shares.make_share(executor.first)  # a worker that goes on
    upscale.upscale_video(film, out, model="lanczos")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


@pytest.mark.parametrize("frames", [1, 19, 147, 10_000, None])
@pytest.mark.parametrize("parts", [1, 3, 8])
def test_shares_are_all_segments_once(frames, parts):
    job = segments.Job(Path("in.mp4"), Path("out.mp4"), Options(), [], {}, frames)
    numbers = [share.numbers for share in shares.shares_of(job, parts)]
    assert numbers[0].start == 0
    assert all(before.stop == after.start for before, after in pairwise(numbers))
    assert numbers[-1].stop > 10**8
    assert len(numbers) == min(parts, -(-(frames or 1) // LENGTH))
    assert all(share.path.is_absolute() and share.out.is_absolute() for share in shares.shares_of(job, parts))
