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
        text = "Time from the last byte of a picture to the first of its answer"
        self.pictures = Histogram("imagesr_picture_seconds", text, buckets=_SECONDS, **to)
        self.pixels = Counter("imagesr_pixels", "Pixels of pictures and results", ["of"], **to)
        self.uploads = Gauge("imagesr_uploads", "Uploads under way; they hold no place", **to)
        self.places_taken = Gauge("imagesr_places_taken", "Pictures accepted and not yet made", **to)
        self.places = Gauge("imagesr_places", "Pictures that can be accepted at a time", **to)
        self.queue_share = Gauge("imagesr_queue_share", "Part of the places that is taken, from 0 to 1", **to)
        text = "The program's version and its default model"
        self.build = Gauge("imagesr_build_info", text, ["version", "model"], **to)
        self.promotions = Counter("imagesr_promotions", "New champions that were swapped in", ["model"], **to)
        self.behind = Gauge("imagesr_champions_behind", "Models whose champion is another version than is served", **to)
        self.versions = Gauge("imagesr_model_version", "Versions served from the registry", ["model", "version"], **to)
        self.staged = Gauge("imagesr_staging_version", "Challengers behind /staging", ["model", "version"], **to)
        self.refused_models = Counter("imagesr_refused_models", "Versions that were damaged or did not run", **to)
        self.videos = Gauge("imagesr_videos", "Videos by state", ["state"], **to)
        self.video_frames = Counter("imagesr_video_frames", "Frames of the videos that were made", **to)
        self.video_cores = Counter("imagesr_video_core_seconds", "Time of all cores for those videos", **to)
        self.votes = Counter("imagesr_votes", "Votes of users on pictures", ["vote"], **to)
        text = "Population stability index of the last pictures that came against the training set"
        self.drift = Gauge("imagesr_drift_psi", text, ["of"], **to)
        text = "Votes and figures of inputs that the database did not take"
        self.feedback_failures = Counter("imagesr_feedback_failures", text, **to)
        self.open = Gauge("imagesr_open", "Requests for a picture between their first and last byte", **to)

    def count_video(self, frames: int, core_seconds: float) -> None:
        """Count a video that was made."""
        self.video_frames.inc(frames)
        self.video_cores.inc(core_seconds)

    def text(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        return generate_latest(self._registry)
