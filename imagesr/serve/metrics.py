"""The figures of `/metrics`, for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

STAGES = ("upload", "decode", "wait", "network", "encode")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """Hold the service's counters, gauges and histograms."""

    def __init__(self) -> None:
        disable_created_metrics()  # they would add a line to every counter: the time when it began
        self._registry = CollectorRegistry()
        to = {"registry": self._registry}
        ProcessCollector(**to)
        self.requests = Counter("imagesr_requests", "Requests answered", ["path", "status"], **to)
        self.refusals = Counter("imagesr_refusals", "Pictures refused", ["reason"], **to)
        self.hang_ups = Counter("imagesr_hang_ups", "Clients that hung up before they had their picture", **to)
        self.stages = Histogram("imagesr_stage_seconds", "Time of a stage", ["stage"], buckets=_SECONDS, **to)
        self.pixels = Counter("imagesr_pixels", "Pixels of pictures and results", ["of"], **to)
        self.uploads = Gauge("imagesr_uploads", "Uploads under way; they hold no place", **to)
        self.places_taken = Gauge("imagesr_places_taken", "Pictures accepted and not yet made", **to)
        self.places = Gauge("imagesr_places", "Pictures that can be accepted at a time", **to)
        self.versions = Gauge("imagesr_model_version", "Versions served from the registry", ["model", "version"], **to)
        self.staged = Gauge("imagesr_staging_version", "Challengers behind /staging", ["model", "version"], **to)
        self.refused_models = Counter("imagesr_refused_models", "Versions that were damaged or did not run", **to)
        self.videos = Gauge("imagesr_videos", "Videos by state", ["state"], **to)
        self.open = Gauge("imagesr_open", "Requests for a picture between their first and last byte", **to)

    def text(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        return generate_latest(self._registry)
