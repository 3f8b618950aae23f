"""The answer to a client whose picture is refused."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818, a client's mistake is no error of the service
    """Hold an HTTP status, one word for the metrics, and one sentence for the client."""

    def __init__(self, status: int, why: str, sentence: str, headers: dict[str, str] | None = None):
        super().__init__(status, why, sentence, headers)  # all of them: it travels between processes
        self.status, self.why, self.sentence, self.headers = status, why, sentence, headers or {}
