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


def until(true, process=None, seconds=90):
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
    """Hold the process of a service and its address."""

    def __init__(self, process, url, log):
        self.process, self.url, self._log = process, url, log

    def log(self):
        """Return what it has written to standard error."""
        return Path(self._log.name).read_text("utf-8")

    def tree(self):
        """Return its process and those that it has started."""
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.process.pid)
            return [main, *main.children(recursive=True)]
        return []

    def gauge(self, name):
        """Return a figure of /metrics."""
        text = httpx.get(f"{self.url}/metrics", timeout=10).text
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])

    def ready(self):
        """Wait until it takes pictures."""
        until(lambda: httpx.get(f"{self.url}/readyz", timeout=30).status_code == 200, self.process)

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
    """Run `imagesr serve` on a free port until the block ends; yields a Running. It must end well when told to."""
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        command = [sys.executable, "-m", "imagesr.serve", "--port", "0", *map(str, options)]
        process = subprocess.Popen(command, stderr=log)
        try:
            line = until(lambda: re.search(r"(http://\S+?)/?\n", Path(log.name).read_text("utf-8")), process)
            service = Running(process, line[1], log)
            service.ready()
            yield service
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(90)
                assert process.returncode in (0, -signal.SIGTERM, 143), process.returncode
        except AssertionError as error:
            error.add_note(Path(log.name).read_text("utf-8"))
            raise
        finally:
            process.kill()
            process.wait()


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
