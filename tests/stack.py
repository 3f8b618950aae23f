"""PostgreSQL, an S3 server and an MLflow server, as tests start and kill them."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

PATIENCE = 300  # seconds: the machine may be busy
BUCKET = "imagesr"


def missing(tracking, store=True):
    """Return what the stack lacks on this machine, "" where it can start."""
    packages, programs = (["obstore", "boto3"], ["weed"]) if store else ([], [])
    if tracking or not store:
        packages, programs = [*packages, "psycopg2"], [*programs, "initdb", "postgres"]
    if tracking:
        packages.append("mlflow")
    lacking = [name for name in packages if not find_spec(name)]
    return ", ".join(lacking + [name for name in programs if not _program(name)])


def _program(name):
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Program:
    """Run a program; `kill` it as a power cut would, and `start` it again."""

    def __init__(self, command, log, *, answers, user=None, env=None):
        self.command, self.log, self.answers = [str(word) for word in command], log, answers
        self.options = {"start_new_session": True, "env": env or os.environ}
        if user:
            self.options["user"] = user
        self.process = None
        self.start()

    def start(self):
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, **self.options)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < deadline, f"{self.command[0]} did not answer within {PATIENCE} s"
            time.sleep(0.1)

    def kill(self):
        """End it, and the processes that it has started, without a warning."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Stack:
    """Hold the three servers: `store`, `database` and `tracking` are programs, `bucket` and `uri` addresses.

    Without `tracking` there is the store alone, and without that, too, the database alone.
    """

    def __init__(self, folder, *, tracking=True, store=True):
        if lacking := missing(tracking, store):
            pytest.skip(f"needs {lacking}")
        self.folder, self.programs, self.made = folder, [], []
        self.key, self.secret = secrets.token_hex(8), secrets.token_hex(16)
        self.reader = {"AWS_ACCESS_KEY_ID": secrets.token_hex(8), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
        try:
            if store:
                self.store = self._add(self._start_store)
            if tracking or not store:
                self.database = self._add(self._start_database)
            if tracking:
                self.tracking = self._add(self._start_tracking)
        except BaseException:
            self.end()
            raise

    def _add(self, start):
        self.programs.append(start())
        return self.programs[-1]

    @property
    def env(self):
        """Return the variables by which clients find the S3 server."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _start_store(self):
        ports = [free_port() for _ in range(8)]
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        place = self.folder / "s3"
        place.mkdir()
        identity = {"accessKey": self.key, "secretKey": self.secret}
        account = {"name": "test", "credentials": [identity], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        identity = {"accessKey": self.reader["AWS_ACCESS_KEY_ID"], "secretKey": self.reader["AWS_SECRET_ACCESS_KEY"]}
        reader = {"name": "reader", "credentials": [identity], "actions": ["Read", "List"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [account, reader]}))
        names = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port", "webdav.port")
        command = [_program("weed"), "mini", f"-dir={place}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-{name}={port}" for name, port in zip(names, ports, strict=False)]
        command += [f"-s3.config={self.folder / 's3.json'}"]
        program = Program(command, self.folder / "s3.log", answers=lambda: _http(self.endpoint))
        import boto3

        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                options = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret}
                client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **options)
                client.create_bucket(Bucket=BUCKET)
                self.bucket = f"s3://{BUCKET}/data"
                return program
            except Exception:  # it answers before it can do anything
                assert time.monotonic() < deadline, (self.folder / "s3.log").read_text("utf-8", "replace")[-2000:]
                time.sleep(0.5)

    def _start_database(self):
        user = "postgres" if os.geteuid() == 0 else None
        # Not in pytest's folder: pytest closes that to other users, and PostgreSQL does not run as root.
        place, port = Path(tempfile.mkdtemp(prefix="imagesr-postgres-")), free_port()
        self.made.append(place)
        if user:
            shutil.chown(place, user)
        command = [_program("initdb"), "-D", place, "-U", "test", "-A", "trust", "-N", "--no-instructions"]
        made = subprocess.run([*map(str, command)], capture_output=True, text=True, user=user)
        assert made.returncode == 0, made.stderr
        self.database_uri = f"postgresql://test@127.0.0.1:{port}/postgres"
        command = [_program("postgres"), "-D", place, "-p", port, "-h", "127.0.0.1", "-k", place, "-c", "fsync=off"]

        def answers():
            import psycopg2

            try:
                psycopg2.connect(self.database_uri).close()
            except psycopg2.OperationalError:
                return False
            return True

        return Program(command, self.folder / "pg.log", answers=answers, user=user)

    def _start_tracking(self):
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1]
        command += ["--backend-store-uri", self.database_uri.replace("://", "+psycopg2://"), "--serve-artifacts"]
        command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
        off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        env = os.environ | self.env | off
        return Program(command, self.folder / "mlflow.log", answers=lambda: _http(f"{self.uri}/health"), env=env)

    def end(self):
        """End all of them."""
        for program in reversed(self.programs):
            program.kill()
        for place in self.made:
            shutil.rmtree(place, ignore_errors=True)


def _http(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False
    return True
