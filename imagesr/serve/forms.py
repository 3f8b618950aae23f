"""Forms (multipart/form-data): the bytes of the one file in them, as they arrive. It alone knows python-multipart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from imagesr.serve.refusal import Refusal

_MORE = 2**16  # bytes that a form may take beside its file
_ONE = "a form with one file, and the options in the query (curl -F file=@FILE 'http://…?scale=2')"


def body_schema(*kinds: str) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body: a file of one of these media types, or a form with it."""
    file = {"type": "string", "format": "binary"}
    one = {"type": "object", "properties": {"file": file}, "required": ["file"], "additionalProperties": False}
    one["description"] = "One file. Its field may have any name"
    form = {"schema": one, "encoding": {"file": {"contentType": ", ".join(kinds)}}}
    return {"required": True, "content": {kind: {"schema": file} for kind in kinds} | {"multipart/form-data": form}}


def is_form(request: Request) -> bool:
    """Tell whether a request says that its body is a form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def beside(request: Request) -> int:
    """Return how many bytes a body may have beside its file."""
    return _MORE if is_form(request) else 0


async def file_of(request: Request) -> AsyncIterator[bytes]:
    """Yield the bytes of the file that is the body, or is in the form that the body is; raises a Refusal."""
    if not is_form(request):
        async for data in request.stream():
            yield data
        return
    form, read = _Form(request.headers["content-type"]), 0
    async for data in request.stream():
        read += len(data)
        for part in form.parts(data):
            read -= len(part)
            yield part
        if read > _MORE:
            raise Refusal(413, "bytes", f"Expected a form of at most {_MORE:,} bytes beside its file. It has more")
    form.check_whole()


class _Form:
    """Parse a form piece by piece."""

    def __init__(self, content_type: str):
        try:
            from python_multipart import MultipartParser
            from python_multipart.multipart import parse_options_header
        except ModuleNotFoundError:
            hint = "it needs the package python-multipart on the server: pip install 'imagesr[serve]'"
            raise Refusal(
                415, "kind", f"Expected the bytes of the file as the body. Received: a form; {hint}"
            ) from None
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= 200:
            raise Refusal(400, "form", "Expected a form with its boundary in Content-Type. Received: none")
        self._header, self._value, self._disposition = b"", b"", b""
        self._files, self._whole, self._found = 0, False, []
        self._options_of = parse_options_header
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        self._parser = MultipartParser(boundary, {f"on_{name}": getattr(self, f"_{name}") for name in names})

    def parts(self, data: bytes) -> list[bytes]:
        """Return the bytes of the file in a piece of the form."""
        from python_multipart.exceptions import FormParserError

        self._found = []
        try:
            self._parser.write(data)
        except FormParserError:
            raise Refusal(400, "form", "Expected a whole form (multipart/form-data). Received: a damaged one") from None
        return self._found

    def check_whole(self) -> None:
        """Raise a Refusal where the form has ended before its end, or without a file."""
        if not self._files:
            raise Refusal(400, "empty", f"Expected {_ONE}. Received: none")
        if not self._whole:
            raise Refusal(400, "form", "Expected a whole form (multipart/form-data). It breaks off")

    def _part_begin(self):
        self._disposition = b""

    def _header_field(self, data, begin, end):
        self._header += data[begin:end]

    def _header_value(self, data, begin, end):
        self._value += data[begin:end]

    def _header_end(self):
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self):
        options = self._options_of(self._disposition)[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")[:50]
        if b"filename" not in options:
            raise Refusal(422, "form", f"Expected {_ONE}. Received: the field {name!r}")
        self._files += 1
        if self._files > 1:
            raise Refusal(422, "form", f"Expected {_ONE}. Received: several files")

    def _part_data(self, data, begin, end):
        self._found.append(data[begin:end])

    def _end(self):
        self._whole = True
