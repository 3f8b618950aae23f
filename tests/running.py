"""A service as a user starts it, for tests and measurements, and the memory of its processes."""

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil


def until(true, process=None, seconds=180):
    """Wait until `true` returns something true, and return that. The process may not end before, nor the time."""
    deadline = time.monotonic() + seconds
    while True:
        ended = process and process.poll()
        if found := true():
            return found
        assert ended is None, f"it has ended with {ended}"
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.02)


class Running:
    """Start `imagesr serve` on a free port and hold its process and address."""

    program = (sys.executable, "-m", "imagesr.serve")

    def __init__(self, *options, **more):
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115, until it has ended
        command = [*self.program, "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(command, stderr=self._log, **more)
        try:
            self.url = until(lambda: re.search(r"(http://\S+?)/?\n", self.log()), self.process)[1]
        except AssertionError as error:
            error.add_note(self.end()[1])
            raise

    def log(self):
        """Return what it has written to standard error."""
        return Path(self._log.name).read_text("utf-8")

    def end(self, seconds=180):
        """Wait until it has ended, and end it otherwise; returns its exit code and what it said after its address."""
        try:
            return self.process.wait(seconds), self.log().partition("\n")[2]
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()

    def tree(self):
        """Return its process and those that it has started."""
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.process.pid)
            return [main, *main.children(recursive=True)]
        return []

    def figure(self, name):
        """Return a figure of /metrics, the sum over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=90).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"imagesr_{name}[ {{]", line))

    def ready(self):
        """Wait until it takes pictures; returns itself."""
        until(lambda: httpx.get(f"{self.url}/readyz", timeout=30).status_code == 200, self.process)
        return self

    def peaks(self, *, anew=False):
        """Return the largest resident memory of every process, in bytes by its number: since it began, or since `anew`.

        Linux alone keeps it; elsewhere, and where a process has ended, nothing is returned of it.
        """
        found = {}
        for process in self.tree():
            folder = Path("/proc", str(process.pid))
            with suppress(OSError):
                if anew:
                    (folder / "clear_refs").write_text("5")
                found[process.pid] = 1024 * int(re.search(r"VmHWM:\s*(\d+)", (folder / "status").read_text())[1])
        return found


@contextmanager
def running_service(*options):
    """Run the service until the block ends; yields a Running that takes pictures. It must end well when told to."""
    service = Running(*options)
    try:
        yield service.ready()
        service.process.send_signal(signal.SIGTERM)
        code = service.process.wait(180)
        assert code in (0, -signal.SIGTERM, 143), code
    except AssertionError as error:
        error.add_note(service.log())
        raise
    finally:
        service.process.kill()
        service.end()


class PeakMemory(threading.Thread):
    """Watch the resident memory of a service's processes, in bytes: `peak`, and `before` when the block began.

    What they share is counted once (PSS), where the system tells.
    """

    def __init__(self, service, every=0.01):
        super().__init__(daemon=True)
        self._service, self._every, self._ended = service, every, threading.Event()
        self.before = self.peak = self.now()

    def now(self):
        """Return the memory of all processes together."""
        total = 0
        for process in self._service.tree():
            with suppress(psutil.Error):
                full = process.memory_full_info()
                total += getattr(full, "pss", 0) or full.rss
        return total

    def run(self):
        """Watch."""
        while not self._ended.wait(self._every):
            self.peak = max(self.peak, self.now())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
