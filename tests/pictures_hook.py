"""Tell schemathesis what a picture is: its document cannot."""

import schemathesis
from hostile import seeds
from hypothesis import strategies as st

for kind, ending in (("image/png", ".png"), ("image/jpeg", ".jpg")):
    pictures = [data for name, data in seeds().items() if name.endswith(ending)]
    schemathesis.openapi.media_type(kind, st.sampled_from(pictures))
