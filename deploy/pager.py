"""Write the alerts that Alertmanager sends to a file, a line each: `python pager.py HOST:PORT FILE`.

It stands for whatever wakes someone, and needs nothing but Python.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MOST = 2**20  # bytes of a notice


class Pager(BaseHTTPRequestHandler):
    """Take notices as JSON by POST."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        try:
            lines = [line_of(alert) for alert in json.loads(self.rfile.read(min(length, MOST)))["alerts"]]
        except (ValueError, KeyError, TypeError):
            self.send_error(400, "Expected a notice of Alertmanager")
            return
        with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
            file.write("".join(lines))
        self.send_response(204)
        self.end_headers()

    def do_GET(self):
        """Say that it is there."""
        self.send_error(405, "Expected POST")

    def log_message(self, *arguments):
        """Say nothing: the file says it."""


def line_of(alert):
    labels = {key: value for key, value in alert["labels"].items() if key not in ("alertname", "severity")}
    where = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    when = time.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{when} {alert['status']} {alert['labels']['alertname']} {where} {alert['annotations'].get('summary')}\n"


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    ThreadingHTTPServer((host, int(port)), Pager).serve_forever()
