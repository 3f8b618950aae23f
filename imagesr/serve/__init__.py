"""The HTTP service and its client: `imagesr serve`, `imagesr send`, `imagesr serve.web`.

Here are the routes, the limits of uploads, the scheduler of the engine, and the processes that decode. How a picture is
upscaled is in `image`. FastAPI, uvicorn, pebble, httpx and prometheus-client are known here alone.
"""
