"""The database of feedback, SQLite or PostgreSQL by its address: votes, pictures that were given, figures of inputs."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imagesr.errors import OutputError
from imagesr.store import without_secrets

PROPERTIES = ("size", "sharpness", "noise", "jpeg_quality")  # of a picture that comes
MOST_BYTES = 10**9  # of all pictures that are kept
VALID_S = 24 * 3600  # from a picture to its vote
_MOST_INPUTS = 10_000  # pictures whose figures are kept
_WAIT = 5  # seconds, for a connection, a lock or an answer
_LOCK = 7_163_207  # of PostgreSQL: two processes that start at a time make the tables once
_OPEN = "open"  # the name of the one signal that is not answered

# Both databases understand every statement of this file. MLflow may share the database, and has a table `inputs`, too.
_TABLES = f"""
CREATE TABLE IF NOT EXISTS feedback_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, at DOUBLE PRECISION NOT NULL);
CREATE TABLE IF NOT EXISTS feedback_votes (request TEXT PRIMARY KEY, model TEXT NOT NULL, up INTEGER NOT NULL,
    words TEXT NOT NULL, at DOUBLE PRECISION NOT NULL);
CREATE TABLE IF NOT EXISTS feedback_pictures (request TEXT PRIMARY KEY, kind TEXT NOT NULL, data BYTES NOT NULL,
    expires DOUBLE PRECISION NOT NULL);
CREATE TABLE IF NOT EXISTS feedback_inputs (at DOUBLE PRECISION NOT NULL,
    {", ".join(f"{name} DOUBLE PRECISION NOT NULL" for name in PROPERTIES)});
CREATE TABLE IF NOT EXISTS feedback_signals (name TEXT PRIMARY KEY, model TEXT NOT NULL, reason TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL, answered DOUBLE PRECISION NOT NULL)
"""


class Count(NamedTuple):
    """Count the votes on a version of a model; `at` is the time of the last one."""

    model: str
    up: int
    votes: int
    at: float


class Signal(NamedTuple):
    """Hold a call for retraining; `model` is "" where it is for the pictures that come."""

    model: str
    reason: str
    at: float


class Votes:
    """Hold the connection to a database; its tables are made where they are missing.

    Every method raises OutputError where the database does not answer, is full or is locked; nothing is written then.
    It is used by one thread. Raises ValueError for an address that is none, and ModuleNotFoundError without a driver.
    """

    def __init__(self, url: str):
        self._told = without_secrets(url)
        self._sqlite = url.startswith("sqlite:///")
        self._connection, self._error = self._connected(url)
        blob = "BLOB" if self._sqlite else "BYTEA"
        with self._transaction() as run:
            if not self._sqlite:
                run("SELECT pg_advisory_xact_lock(?)", _LOCK)
            for table in _TABLES.replace(" BYTES ", f" {blob} ").split(";"):
                run(table)

    def _connected(self, url):
        if self._sqlite:
            file = Path(url.removeprefix("sqlite:///"))
            try:
                connection = sqlite3.connect(file, timeout=_WAIT, check_same_thread=False)
                connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is not left in the file
            except sqlite3.Error as error:
                raise self._failed(error) from None
            return connection, sqlite3.Error
        scheme, separator, rest = url.partition("://")
        if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
            raise ValueError(f"Expected sqlite:///FILE or postgresql://…. Received: {self._told}")
        import psycopg2

        limit = f"-c statement_timeout={1000 * _WAIT} -c lock_timeout={1000 * _WAIT}"
        try:
            return psycopg2.connect(f"postgresql://{rest}", connect_timeout=_WAIT, options=limit), psycopg2.Error
        except psycopg2.Error as error:
            raise self._failed(error) from None

    def _failed(self, error):
        # The texts of PostgreSQL's driver may hold the address, with its password.
        reason = f"{type(error).__name__}: {error}" if isinstance(error, sqlite3.Error) else type(error).__name__
        return OutputError(f"Expected a database that takes feedback. Received: {self._told} ({reason})")

    def _transaction(self):
        return _Transaction(self)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def setting(self, name: str, value: str) -> str:
        """Return a setting; where it is missing, it becomes `value`. Of several callers, all get the same."""
        statement = "INSERT INTO feedback_settings VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING"
        with self._transaction() as run:
            run(statement, name, value, time.time())
            return run("SELECT value FROM feedback_settings WHERE name = ?", name)[0][0]

    def secret(self) -> bytes:
        """Return the key by which all processes on this database know requests as their own."""
        return bytes.fromhex(self.setting("secret", secrets.token_hex(32)))

    def inputs_record(self) -> tuple[str, float] | None:
        """Return the record of the training set and when it was made, None where there is none."""
        with self._transaction() as run:
            return next(iter(run("SELECT value, at FROM feedback_settings WHERE name = ?", "inputs")), None)

    def set_inputs_record(self, text: str) -> None:
        """Replace the record of the training set."""
        with self._transaction() as run:
            run("DELETE FROM feedback_settings WHERE name = ?", "inputs")
            run("INSERT INTO feedback_settings VALUES (?, ?, ?)", "inputs", text, time.time())

    def add(self, request: str, model: str, up: bool, words: str, at: float) -> bool:
        """Add a vote; return False, and change nothing, where the request has one."""
        statement = "INSERT INTO feedback_votes VALUES (?, ?, ?, ?, ?) ON CONFLICT (request) DO NOTHING"
        with self._transaction() as run:
            return run(statement, request, model, int(up), words, at, count=True) > 0

    def has_vote(self, request: str) -> bool:
        """Tell whether a request has a vote."""
        with self._transaction() as run:
            return bool(run("SELECT 1 FROM feedback_votes WHERE request = ? AND model != ''", request))

    def keep(self, request: str, kind: str, data: bytes, expires: float) -> bool:
        """Keep the picture of a request that has a vote; return False where all pictures would take too much room."""
        query = "SELECT COALESCE(SUM(LENGTH(data)), 0) FROM feedback_pictures WHERE request != ?"
        with self._transaction() as run:
            if run(query, request)[0][0] + len(data) > MOST_BYTES:
                return False
            run("DELETE FROM feedback_pictures WHERE request = ?", request)
            run("INSERT INTO feedback_pictures VALUES (?, ?, ?, ?)", request, kind, data, expires)
        return True

    def forget(self, request: str) -> bool:
        """Remove the vote, the words and the picture of a request; return False where there is none.

        The id alone stays for a day, so that it cannot vote again.
        """
        with self._transaction() as run:
            run("DELETE FROM feedback_pictures WHERE request = ?", request)
            statement = "UPDATE feedback_votes SET model = '', up = 0, words = '' WHERE request = ? AND model != ''"
            return run(statement, request, count=True) > 0

    def expire(self, now: float) -> int:
        """Remove pictures whose time is over and the oldest figures of inputs; return the number of those pictures."""
        with self._transaction() as run:
            gone = run("DELETE FROM feedback_pictures WHERE expires <= ?", now, count=True)
            run("DELETE FROM feedback_votes WHERE model = '' AND at <= ?", now - VALID_S)
            edge = run("SELECT at FROM feedback_inputs ORDER BY at DESC LIMIT 1 OFFSET ?", _MOST_INPUTS)
            if edge:
                run("DELETE FROM feedback_inputs WHERE at <= ?", edge[0][0])
        return gone

    def pictures(self, now: float) -> list[tuple[str, str, str, int, str]]:
        """Return (request, kind, model, up, words) of every picture whose time is not over, the oldest vote first."""
        query = """SELECT p.request, p.kind, v.model, v.up, v.words FROM feedback_pictures p
            JOIN feedback_votes v ON v.request = p.request WHERE p.expires > ? ORDER BY v.at"""
        with self._transaction() as run:
            return run(query, now)

    def picture(self, request: str) -> bytes:
        """Return a picture that is kept."""
        with self._transaction() as run:
            return bytes(run("SELECT data FROM feedback_pictures WHERE request = ?", request)[0][0])

    def note_input(self, figures: Sequence[float], at: float) -> None:
        """Add the figures of a picture that came, in the order of PROPERTIES."""
        with self._transaction() as run:
            run("INSERT INTO feedback_inputs VALUES (?, ?, ?, ?, ?)", at, *map(float, figures))

    def inputs(self, most: int, since: float = 0) -> list[tuple[float, ...]]:
        """Return the figures of the last pictures that came after a time, the newest first."""
        query = f"SELECT {', '.join(PROPERTIES)} FROM feedback_inputs WHERE at > ? ORDER BY at DESC LIMIT ?"
        with self._transaction() as run:
            return run(query, since, most)

    def counts(self, since: float = 0) -> list[Count]:
        """Return the votes on every version after a time, the version with the newest vote first."""
        query = """SELECT model, SUM(up), COUNT(*), MAX(at) FROM feedback_votes WHERE at > ? AND model != ''
            GROUP BY model ORDER BY MAX(at) DESC"""
        with self._transaction() as run:
            return [Count(model, int(up), int(votes), at) for model, up, votes, at in run(query, since)]

    def signal(self, model: str, reason: str, at: float) -> bool:
        """Raise the signal; return False where one is raised already. Of several callers one gets True."""
        with self._transaction() as run:
            row = _OPEN, model, reason, at, 0
            statement = "INSERT INTO feedback_signals VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING"
            return run(statement, *row, count=True) > 0

    def open_signal(self) -> Signal | None:
        """Return the signal that is raised, None where there is none."""
        with self._transaction() as run:
            rows = run("SELECT model, reason, at FROM feedback_signals WHERE name = ?", _OPEN)
        return Signal(*rows[0]) if rows else None

    def answer(self, at: float) -> bool:
        """Take the signal as answered; return False where none is raised."""
        statement = "UPDATE feedback_signals SET name = ?, answered = ? WHERE name = ?"
        with self._transaction() as run:
            return run(statement, secrets.token_hex(8), at, _OPEN, count=True) > 0

    def answered_at(self) -> float:
        """Return when the last signal was answered, 0 where none was."""
        with self._transaction() as run:
            return run("SELECT COALESCE(MAX(answered), 0) FROM feedback_signals")[0][0]


class _Transaction:
    """Yield a function that runs a statement and returns its rows, or with `count` how many it changed."""

    def __init__(self, votes: Votes):
        self._votes = votes

    def __enter__(self):
        return self._run

    def _run(self, statement: str, *values: Any, count: bool = False) -> Any:
        votes = self._votes
        try:
            cursor = votes._connection.cursor()
            cursor.execute(statement if votes._sqlite else statement.replace("?", "%s"), values)
            return cursor.rowcount if count else cursor.fetchall() if cursor.description else []
        except votes._error as error:
            raise votes._failed(error) from None

    def __exit__(self, kind, error, _):
        votes = self._votes
        try:
            if kind is None:
                votes._connection.commit()
            else:
                votes._connection.rollback()
        except votes._error as failure:
            if kind is None:
                raise votes._failed(failure) from None
