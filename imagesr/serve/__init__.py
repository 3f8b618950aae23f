"""The HTTP service and its client: `imagesr serve`, `imagesr send`, `imagesr serve.web`.

Here are the routes, the limits of uploads, the scheduler of the engine, and the processes that decode. How a picture is
upscaled is in `image`, how a video is in `video`. `feedback` and `votes` keep what users say, and figures of inputs.
FastAPI, uvicorn, pebble, httpx, prometheus-client, python-multipart and psycopg2 are known here alone.
"""
