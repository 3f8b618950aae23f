"""Kill, damage and fill up: `python tests/faults.py` disturbs runs of `imagesr video` at length and prints a table.

Hundreds of runs are started. Each is forked from one process that has imported the package.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import psutil
from conftest import ffmpeg, packet_hashes, write_clip

LENGTH = 20  # frames of a segment
SMALL = (96, 54)
HANG_S = 120.0  # a run on a clip of 96x54 that takes longer hangs, also on a busy machine
LANCZOS = ("-n", "lanczos")  # the cheapest

_forks = multiprocessing.get_context("forkserver")


# Runs


def child(arguments, log, length, unchecked):
    """Run the command in this process, in segments of `length` frames whatever it takes; `unchecked` fills the disk."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from imagesr.video import __main__ as command
    from imagesr.video import segments

    segments.LENGTH, segments.LONG_S = length, 0
    if unchecked:
        segments.SegmentedWriter._check_disk = lambda self: None
    run = command._video

    def marked(*given):
        Path(f"{log}.begun").touch()  # from now on signals are answered
        return run(*given)

    command._video = marked
    sys.exit(command.main(arguments))


class Run:
    """A run of `imagesr video`, begun."""

    def __init__(self, *arguments, log, length=LENGTH, unchecked=False):
        _forks.set_forkserver_preload(
            ["faults", *(f"imagesr.video.{name}" for name in ("__main__", "upscale", "batch"))]
        )
        self.log, self._begun = Path(log), Path(f"{log}.begun")
        self._begun.unlink(missing_ok=True)
        self.process = _forks.Process(target=child, args=([*map(str, arguments)], str(log), length, unchecked))
        self.process.start()

    def end(self, seconds=HANG_S):
        """Wait for its end; return its exit code, None where it hangs, and what it said."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.kill()
        return code, self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def begun(self):
        """Wait until it answers signals."""
        until = time.monotonic() + HANG_S
        while not self._begun.exists() and self.process.exitcode is None and time.monotonic() < until:
            time.sleep(0.005)

    def kill(self):
        """Kill it; tell whether it was still going on."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


def command(*arguments, length=None, long_s=None):
    """Return the words that start `imagesr video` in a process of its own, with other segments where asked."""
    code = "import sys; from imagesr.video import segments; "
    code += f"segments.LENGTH = {length}; " if length else ""
    code += f"segments.LONG_S = {long_s}; " if long_s is not None else ""
    code += "from imagesr.video.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, arguments)]


def contents(path):
    """Return the checksum and time of every decoded frame, and the packets of the sound, as ffmpeg reads them."""
    how = ["-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framemd5"]
    lines = ffmpeg("-copyts", "-i", path, *how, "-").decode().splitlines()
    return [(line.split(",")[2], line.split(",")[-1]) for line in lines if line[0] != "#"], packet_hashes(path)


def one_line(told):
    """Tell whether a run has said one sentence, and no traceback."""
    lines = [line for line in told.strip().splitlines() if line.startswith("imagesr video: ")]
    return len(lines) == 1 and "Traceback" not in told


@contextmanager
def place(folder):
    """Yield an empty folder to work in."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# Killed at any moment


@dataclass
class Kills:
    """Count kills by what they left, and what came of them."""

    kills: int = 0
    left: Counter = field(default_factory=Counter)
    finished: int = 0
    wrong: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def killed(count, seed, folder):
    """Kill runs at random moments, some again and again; go on, and compare with a run that nothing disturbed."""
    chance, found = random.Random(seed), Kills()
    with place(folder) as here:
        source, out = write_clip(here / "in.mp4", frames=12 * LENGTH + 7, size=SMALL), here / "out.mp4"
        for _ in range(2):  # the first one also starts the process that forks
            begun = time.monotonic()
            code, told = Run(source, here / "whole.mp4", *LANCZOS, "-y", log=here / "log").end()
            seconds = time.monotonic() - begun
            assert code == 0, told
        expected = contents(here / "whole.mp4")
        while found.kills < count:
            for _ in range(chance.randint(1, 3)):
                run = Run(source, out, *LANCZOS, "-y", log=here / "log")
                time.sleep(chance.uniform(0, 1.1 * seconds))
                if run.kill():
                    found.kills += 1
                    found.left[_left_by(out)] += 1
                if out.exists() and contents(out) != expected:
                    found.wrong.append(f"kill {found.kills}")
            code, told = Run(source, out, *LANCZOS, "-y", log=here / "log").end()
            found.finished += 1
            if code or contents(out) != expected:
                found.others.append(f"{code}: {told}")
            out.unlink(missing_ok=True)
            if rest := sorted({path.name for path in here.iterdir()} - {"in.mp4", "whole.mp4", "log", "log.begun"}):
                found.others.append(f"left: {rest}")
                for name in rest:
                    shutil.rmtree(here / name, ignore_errors=True)
    return found


def _left_by(out):
    """Say how far a run was when it was killed."""
    folder = out.with_name(out.name + ".segments")
    if out.with_name(out.name + ".part").exists() and not list(folder.glob("*.part")):
        return "joining"
    if not folder.exists():
        return "the file" if out.exists() else "nothing yet"
    return "some segments" if list(folder.glob("*.segment")) else "a journal"


# Told to end


@dataclass
class Signals:
    """Count exit codes; `slowest` is the longest time that a run took to end, in seconds."""

    codes: Counter = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


def signalled(count, seed, folder):
    """Send SIGINT, SIGTERM and SIGHUP at random moments, then go on to the end, and compare."""
    chance, found = random.Random(seed), Signals()
    with place(folder) as here:
        source, out = write_clip(here / "in.mp4", frames=12 * LENGTH + 7, size=SMALL), here / "out.mp4"
        for _ in range(2):
            begun = time.monotonic()
            code, told = Run(source, here / "whole.mp4", *LANCZOS, "-y", log=here / "log").end()
            seconds = time.monotonic() - begun
            assert code == 0, told
        expected = contents(here / "whole.mp4")
        for number in range(count):
            kind = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[number % 3]
            run = Run(source, out, *LANCZOS, "-y", "-q", log=here / "log")
            run.begun()
            time.sleep(chance.uniform(0, 0.7 * seconds))
            begun = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(run.process.pid, kind)
            code, told = run.end()
            found.codes[code] += 1
            if code == 0 and contents(out) != expected:
                found.wrong.append("an output that differs")
            if code:  # else it was done before
                found.slowest = max(found.slowest, time.monotonic() - begun)
                kept = bool(list((here / "out.mp4.segments").glob("*.segment")))
                said = "the same command goes on" if kept else ("nothing was written", "out.mp4 is made")[out.exists()]
                parts = [path.name for path in here.rglob("*.part")]
                if code != 128 + kind or not one_line(told) or said not in told or parts:
                    found.wrong.append(f"{kind.name}: {code} {told.strip()} {parts or ''}")
            if out.exists():
                out.unlink()
        code, told = Run(source, out, *LANCZOS, "-y", log=here / "log").end()
        if code or contents(out) != expected:
            found.wrong.append(f"at the end: {code} {told}")
    return found


# Damaged inputs


@dataclass
class Damaged:
    """Count exit codes; name hangs, crashes and tracebacks, and files that look whole and are not."""

    codes: Counter = field(default_factory=Counter)
    hangs: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)


def damaged(count, seed, folder, *, keep=None):
    """Upscale clips that break off or have bits flipped; `keep` is a folder for those that something is wrong with."""
    chance, found, frames = random.Random(seed), Damaged(), 2 * LENGTH + 5
    with place(folder) as here:
        clips = [
            write_clip(here / "a.mp4", frames=frames, size=SMALL),
            write_clip(here / "b.mkv", frames=frames, size=SMALL, options={"g": "10"}),
            write_clip(here / "c.avi", frames=frames, size=SMALL, codec="mpeg4", sound=None),
        ]
        fast = here / "d.mp4"  # its index comes first: what breaks off can be opened
        ffmpeg("-i", clips[0], "-c", "copy", "-movflags", "+faststart", fast)
        for number in range(count):
            clip = chance.choice([*clips, fast])
            source, out = here / f"in{clip.suffix}", here / "out.mp4"
            how = _damage(clip, source, chance)
            code, told = Run(source, out, *LANCZOS, log=here / "log").end()
            found.codes[code] += 1
            problem = _problem(code, told, out, frames)
            if problem:
                getattr(found, problem).append(f"{number}: {clip.name} {how}: {code} {told.strip()[-300:]}")
                if keep:
                    shutil.copy(source, Path(keep) / f"{seed}-{number}-{problem}{clip.suffix}")
            for path in (out, out.with_name("out.mp4.part")):
                path.unlink(missing_ok=True)
            shutil.rmtree(here / "out.mp4.segments", ignore_errors=True)
    return found


def _damage(clip, source, chance):
    content = bytearray(clip.read_bytes())
    if chance.random() < 0.5:
        cut = chance.randrange(len(content))
        source.write_bytes(content[:cut])
        return f"cut after {cut} of {len(content)} bytes"
    flips = chance.choice((1, 1, 4, 16, 64))
    for _ in range(flips):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    source.write_bytes(content)
    return f"{flips} bits flipped"


def _problem(code, told, out, frames):
    """Say what is wrong with a run on a damaged clip; "" where nothing is."""
    if code is None:
        return "hangs"
    if code not in (0, 2, 3, 4, 5) or "Traceback" in told:
        return "crashes"
    if (code in (0, 5)) != out.exists():
        return "halves"
    if code == 0 and len(contents(out)[0]) < 0.9 * frames:
        return "halves"
    return ""


# A full disk


@dataclass
class Full:
    """Count runs that a small disk ended; name those that ended otherwise than in a sentence, or lost something."""

    ended: int = 0
    finished: int = 0
    wrong: list[str] = field(default_factory=list)


@contextmanager
def small_disk(folder, kilobytes):
    """Mount a tmpfs; yields its folder, and what changes its size. Raises PermissionError where that is not allowed."""
    at = Path(tempfile.mkdtemp(dir=folder))

    def mount(*how):
        done = subprocess.run(["mount", *map(str, how)], capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(done.stderr.strip())

    if os.name != "posix" or os.geteuid() or not shutil.which("mount"):
        at.rmdir()
        raise PermissionError("only root mounts file systems")
    try:
        mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", at)
    except PermissionError:
        at.rmdir()
        raise
    try:
        yield at, lambda now: mount("-o", f"remount,size={now}k", at)
    finally:
        subprocess.run(["umount", at], check=True)
        at.rmdir()


def full(count, folder):
    """Run on disks of many sizes that are too small, then on a larger one; half of the runs do not check the space."""
    found = Full()
    with place(folder) as here:
        source = write_clip(here / "in.mp4", frames=6 * LENGTH + 7, size=SMALL)
        code, told = Run(source, here / "whole.mp4", *LANCZOS, "-y", log=here / "log").end()
        assert code == 0, told
        expected, most = contents(here / "whole.mp4"), 2 * (here / "whole.mp4").stat().st_size // 1024 + 20
        for number in range(count):
            room = 8 + (most - 8) * number // count
            with small_disk(here, room) as (disk, grow):
                out = disk / "out.mp4"
                out.write_bytes(b"old")
                command = [source, out, *LANCZOS, "-y", "-q"]
                code, told = Run(*command, log=here / "log", unchecked=number % 2 == 0).end()
                found.ended += code == 4
                if not (code == 0 or (code == 4 and one_line(told) and out.read_bytes() == b"old")):
                    found.wrong.append(f"{room} kB: {code} {told}")
                grow(8 * most)
                code, told = Run(*command, log=here / "log").end()
                found.finished += 1
                if code or contents(out) != expected or [path.name for path in disk.iterdir()] != ["out.mp4"]:
                    found.wrong.append(f"{room} kB, then more: {code} {told}")
    return found


# Long runs


def long_film(path, seconds, size=(320, 180), source=None):
    """Write a film of so many seconds: a clip with sound, or `source` at this size, again and again."""
    clip = path.with_name("loop.mp4")
    if source:
        scaled = ["-vf", f"scale={size[0]}:{size[1]}", "-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac"]
        ffmpeg("-i", source, *scaled, clip)
    else:
        write_clip(clip, frames=250, size=size, options={"crf": "23"})
    ffmpeg("-stream_loop", "-1", "-i", clip, "-t", seconds, "-c", "copy", path)
    clip.unlink()
    return path


def memory(minutes, folder, every=2.0):
    """Return the resident memory in MB of a long run, the mean of each minute, without the first in which it begins."""
    with place(folder) as here:
        film = long_film(here / "in.mp4", 480 * minutes)
        run = subprocess.Popen(
            command(film, here / "out.mp4", "-n", "fast", "--threads", "1", "-q"), stderr=subprocess.PIPE, text=True
        )
        samples, begun, watched = [], time.monotonic(), psutil.Process(run.pid)
        try:
            while (now := time.monotonic() - begun) < 60 * (minutes + 1) and run.poll() is None:
                samples.append((now, watched.memory_info().rss / 1e6))
                time.sleep(every)
            frames = sum(1 for _ in (here / "out.mp4.segments").glob("*.segment")) * 500
        finally:
            run.kill()
            run.communicate()
    by_minute = [[mb for at, mb in samples if minute <= at / 60 < minute + 1] for minute in range(1, minutes + 1)]
    return [statistics.mean(values) for values in by_minute if values], frames


@dataclass
class Film:
    """Say what came of a film that was killed and gone on with, beside one that was not."""

    frames: int
    kills: list[int]
    same: bool
    streams: tuple[list, list]


def film(minutes, kills, folder):
    """Upscale a film at once, and once more with kills on the way; compare frames and streams as ffmpeg reads them."""
    chance = random.Random(0)
    with place(folder) as here:
        source = long_film(here / "in.mkv", 60 * minutes)
        how = (*LANCZOS, "-q")
        subprocess.run(command(source, here / "whole.mkv", *how, long_s=0), check=True)
        out, parts = here / "out.mkv", here / "out.mkv.segments"
        total, at = -(-25 * 60 * minutes // 500), []
        for number in range(kills):
            run = subprocess.Popen(command(source, out, *how, long_s=0))
            wanted = round(total * (number + chance.uniform(0.3, 1)) / (kills + 0.5))
            while run.poll() is None and len(list(parts.glob("*.segment"))) < wanted:
                time.sleep(0.05)
            run.kill()
            run.wait()
            at.append(len(list(parts.glob("*.segment"))))
        subprocess.run(command(source, out, *how, long_s=0), check=True)
        once, again = here / "whole.mkv", out
        same, frames = contents(once) == contents(again), len(contents(again)[0])
        return Film(frames, at, same, (durations(once), durations(again)))


def durations(path):
    """Return the kind, number of packets and end of every stream, as PyAV reads them."""
    found = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                count, end = found.get((packet.stream_index, packet.stream.type), (0, 0))
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                found[packet.stream_index, packet.stream.type] = count + 1, round(end, 3)
    return sorted((*stream, *counts) for stream, counts in found.items())


def cost(pairs, folder, seconds=60, size=(320, 180), source=None):
    """Return what segments cost: by pair the share of the size, and that of the CPU time of a frame, in turn."""
    import resource

    with place(folder) as here:
        clip = long_film(here / "in.mp4", seconds, size, source)
        sizes, times = [], []
        for number in range(pairs):
            measured = {}
            for long_s in (1e9, 0) if number % 2 else (0, 1e9):
                out, before = here / "out.mp4", resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command(clip, out, *LANCZOS, "-s", "1.5", "-y", "-q", long_s=long_s), check=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                measured[bool(long_s)] = out.stat().st_size, spent
            sizes.append(measured[False][0] / measured[True][0] - 1)
            times.append(measured[False][1] / measured[True][1] - 1)
    return sizes, times


# The table


def row(what, found, wanted, good):
    """Print a line of the table."""
    print(f"| {what} | {found} | {wanted} | {'yes' if good else '**no**'} |", flush=True)
    return good


def complain(problems):
    """Print what is wrong to standard error."""
    for problem in problems:
        print(problem, file=sys.stderr, flush=True)


def tell_kills(options):
    """Kill, and print."""
    found = killed(options.kills, options.seed, options.folder)
    complain(found.wrong + found.others)
    left = ", ".join(f"{count} × {what}" for what, count in found.left.most_common())
    what = f"{found.kills} SIGKILLs at random moments ({left})"
    good = row(what, f"{len(found.wrong)} wrong files", "0", not found.wrong)
    unlike = f"{found.finished - len(found.others)} of {found.finished} are frame for frame what one run makes"
    return row("runs that went on after them", unlike, "all", not found.others) and good


def tell_signals(options):
    """Send signals, and print."""
    found = signalled(options.signals, options.seed, options.folder)
    complain(found.wrong)
    codes = ", ".join(f"{count} × exit code {code}" for code, count in found.codes.most_common())
    told = f"the slowest ended after {found.slowest:.1f} s, {len(found.wrong)} wrong"
    return row(f"{options.signals} SIGINT, SIGTERM, SIGHUP ({codes})", told, "5 s, 0 wrong", not found.wrong)


def tell_damage(options):
    """Damage clips, and print."""
    found = damaged(options.clips, options.seed, options.folder, keep=options.keep)
    complain(found.hangs + found.crashes + found.halves)
    codes = ", ".join(f"{count} × exit code {code}" for code, count in found.codes.most_common())
    told = f"{len(found.hangs)} hangs, {len(found.crashes)} tracebacks, {len(found.halves)} halves that look whole"
    good = not (found.hangs or found.crashes or found.halves)
    return row(f"{options.clips} clips cut off or with bits flipped ({codes})", told, "none", good)


def tell_disk(options):
    """Fill disks, and print."""
    try:
        found = full(options.disks, options.folder)
    except PermissionError as error:
        return row("disks that are too small", f"not measured: {error}", "", True)
    complain(found.wrong)
    told = f"{found.ended} ended in a sentence, {found.finished} went on with more space, {len(found.wrong)} wrong"
    return row(f"{options.disks} disks of 8 kB and more", told, "0 wrong", not found.wrong)


def tell_memory(options):
    """Watch the memory, and print."""
    means, frames = memory(options.minutes, options.folder)
    middle = statistics.median(means)
    spread = max(abs(mean / middle - 1) for mean in means)
    told = f"{min(means):.0f} to {max(means):.0f} MB by the minute: {spread:.1%} off the middle"
    return row(f"memory over {len(means)} minutes, {frames:,} frames", told, "5 %", spread <= 0.05)


def tell_film(options):
    """Kill a long film, and print."""
    found = film(options.minutes, 3, options.folder)
    told = f"{found.frames:,} frames {'the same' if found.same else 'differ'}; streams {found.streams[1]}"
    good = found.same and found.streams[0] == found.streams[1]
    return row(f"a film of {options.minutes} minutes, killed after {found.kills} segments", told, "the same", good)


def tell_cost(options):
    """Measure what segments cost, and print."""
    sizes, times = cost(options.pairs, options.folder, source=options.clip)
    good = row("size with segments", f"{_interval(sizes)}", "≤ +1 %", np.mean(sizes) <= 0.01)
    low = np.mean(times) - 2 * np.std(times, ddof=1) / len(times) ** 0.5
    return row("CPU time of a frame with segments", f"{_interval(times)}", "nothing to be seen", low <= 0) and good


def _interval(values):
    error = 2 * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.2%} ± {error:.2%} ({len(values)} pairs)"


TELL = {
    "kills": tell_kills,
    "signals": tell_signals,
    "damage": tell_damage,
    "disk": tell_disk,
    "cost": tell_cost,
    "film": tell_film,
    "memory": tell_memory,
}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("what", nargs="*", choices=[[], *TELL], help="what to measure (default: all)")
    add("--kills", type=int, default=200)
    add("--signals", type=int, default=60)
    add("--clips", type=int, default=500, help="damaged ones (default: 500)")
    add("--disks", type=int, default=20)
    add("--minutes", type=int, default=30, help="of the long film and of the memory (default: 30)")
    add("--pairs", type=int, default=5)
    add("--clip", type=Path, help="a film to measure the cost on (default: a synthetic one)")
    add("--seed", type=int, default=0)
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work")
    add("--keep", type=Path, metavar="DIR", help="keep damaged clips here that something is wrong with")
    options = parser.parse_args()
    print("| measured | found | wanted | held |\n| --- | --- | --- | --- |", flush=True)
    good = [TELL[what](options) for what in options.what or TELL]
    return 0 if all(good) else 1


if __name__ == "__main__":
    import faults  # so that processes find its functions by this name

    sys.exit(faults.main())
