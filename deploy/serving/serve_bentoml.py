import sys
import tempfile
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

Picture = Annotated[Path, ContentType("image/png")]


@bentoml.service(workers=1, traffic={"timeout": 60, "concurrency": 16})
class Upscale:
    def __init__(self):
        from same import upscale

        self.upscale = upscale

    @bentoml.api(route="/upscale")
    def make(self, picture: Picture, ctx: bentoml.Context) -> Picture:
        out = Path(tempfile.mkstemp(suffix=".png", dir=ctx.temp_dir)[1])
        out.write_bytes(self.upscale(picture.read_bytes()))
        return out


if __name__ == "__main__":
    bentoml.serve("serve_bentoml:Upscale", host="127.0.0.1", port=int(sys.argv[1]), blocking=True)
