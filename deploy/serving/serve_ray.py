import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=16)
class Upscale:
    def __init__(self):
        from same import upscale

        self.upscale = upscale

    async def __call__(self, request: Request):
        import asyncio

        large = await asyncio.to_thread(self.upscale, await request.body())
        return Response(large, media_type="image/png")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Upscale.bind(), route_prefix="/upscale", blocking=True)
