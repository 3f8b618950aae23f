"""Tell schemathesis what its document cannot: pictures, a video, options that exclude each other or need a model."""

import tempfile
from contextlib import suppress
from pathlib import Path

import schemathesis
from conftest import write_clip
from hostile import seeds
from hypothesis import strategies as st

for kind, ending in (("image/png", ".png"), ("image/jpeg", ".jpg")):
    pictures = [data for name, data in seeds().items() if name.endswith(ending)]
    schemathesis.openapi.media_type(kind, st.sampled_from(pictures))
with tempfile.TemporaryDirectory() as folder:
    clip = write_clip(Path(folder, "clip.mp4"), size=(32, 32), frames=2, sound=None).read_bytes()
schemathesis.openapi.media_type("video/mp4", st.just(clip))


@schemathesis.hook
def before_call(context, case, kwargs):
    with suppress(TypeError, ValueError, KeyError):
        if 0 <= float(case.query["detail"]) <= 1:
            del case.query["detail"]
    if case.path == "/video" and "scale" in (case.query or {}):
        case.query.pop("size", None)
    with suppress(TypeError, ValueError, KeyError):
        if 0 <= float(case.query["start"]) < float("inf"):  # the clip is short
            del case.query["start"]
