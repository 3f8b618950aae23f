"""The JSON that the service answers: its shapes, which the OpenAPI document describes, and how they are filled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from imagesr.card import ModelCard
from imagesr.scale import Scale
from imagesr.serve.uploads import MAX_BYTES
from imagesr.serve.videos import Video
from imagesr.serve.web import RUNTIME, STATIC

VIDEO_MODELS = {
    "default": "balanced",
    "models": ["fast", "balanced", "best", "lanczos"],
    "tuned": ["balanced", "best"],
}


class Error(BaseModel):
    """Hold an error message of one sentence."""

    error: str = Field(examples=["Expected a PNG or JPEG picture. Received: something else"])


class Measured(BaseModel):
    """Hold one model at one scale."""

    scale: str = Field(examples=["2"])
    parameters: int = Field(examples=[15336])
    multiply_accumulates: float = Field(description="per pixel of the picture", examples=[15221.0])
    channels: int = Field(description="1 where it takes luma, 3 where it takes RGB", examples=[1])
    multiple: int = Field(
        description="height and width of the input of its files must be multiples of it", examples=[1]
    )
    receptive_field: int = Field(description="in pixels of the picture", examples=[15])
    detail: float | None = Field(description="from 0 to 1, the default; none where it takes none")
    clean: float | None = Field(description="from 0 to 1, the default; none where it takes none")
    psnr_y_b100: float | None = Field(description="dB, as measured on B100", examples=[31.5117])
    files: dict[str, str] = Field(
        description="ONNX files, integers in and out", examples=[{"model.onnx": "/models/best-photo_x2/model.onnx"}]
    )


class Model(BaseModel):
    """Hold a model, and the native scales from which all others are composed."""

    name: str = Field(examples=["best-photo"])
    also: list[str] = Field(description="other names for it", examples=[["best"]])
    clean: float | None = Field(
        description="a number where a network of scale 1 cleans a picture before scales that take no clean; "
        "none where no network does it",
        examples=[0.0],
    )
    scales: list[Measured]


class Videos(BaseModel):
    """Hold what `POST /video` takes."""

    max_bytes: int = Field(description="of a video", examples=[2_000_000_000])
    default: str = Field(examples=["balanced"])
    models: list[str] = Field(examples=[["fast", "balanced", "best", "lanczos"]])
    tuned: list[str] = Field(description="those that take `detail` and `clean`", examples=[["balanced", "best"]])


class VideoState(BaseModel):
    """Hold how far a video is."""

    id: str = Field(description="unguessable: it is all that is needed to fetch or delete the video")
    state: str = Field(description="waiting, running, done or failed", examples=["running"])
    frames: int = Field(description="that are done", examples=[120])
    expected: int | None = Field(description="frames in all, where it is known", examples=[720])
    fps: float | None = Field(description="frames that are made a second", examples=[24.5])
    left_s: float | None = Field(description="seconds that are left", examples=[24.4])
    size: list[int] = Field(description="width and height of the video that was sent", examples=[[640, 360]])
    bytes: int | None = Field(description="of the result", examples=[None])
    expires: float | None = Field(description="when it is deleted, in seconds since 1970", examples=[None])
    missing: str = Field(description="what a damaged video lacks", examples=[""])
    error: str = Field(description="why it failed, in one sentence", examples=[""])


class Kept(BaseModel):
    """Hold for how long pictures are kept that come with a vote."""

    days: float = Field(examples=[30])


class Vote(BaseModel, extra="forbid"):
    """Hold a vote on a picture of `/supersizeme`."""

    request: str = Field(description="the header Imagesr-Request of the answer", max_length=1000)
    vote: Literal["up", "down"]
    words: str = Field("", description="at most 1,000 characters", max_length=1000)


class VoteTaken(BaseModel):
    """Hold the answer to a vote."""

    request: str
    picture: str = Field(description="where the picture may be sent that the vote is on, if its sender wants")


class PictureKept(BaseModel):
    """Hold the answer to a picture."""

    expires: float = Field(description="when it is deleted, in seconds since 1970", examples=[1796000000.0])


class Models(BaseModel):
    """Hold the models that `model` may name."""

    default: str = Field(examples=["best"])
    max_bytes: int = Field(description="of a picture", examples=[MAX_BYTES])
    max_pixels: int = Field(description="of a picture", examples=[16_000_000])
    runtime: str | None = Field(description="where ONNX Runtime for browsers is, if it is", examples=[None])
    models: list[Model]
    videos: Videos | None = Field(description="none where the service takes no videos")
    feedback: Kept | None = Field(description="none where the service takes no votes")


def describe_models(
    cards_by_name: Mapping[str, Sequence[ModelCard]],
    names: Mapping[str, str],
    *,
    default: str,
    most: int,
    detail: float | None = None,
    video_bytes: int | None = None,
    feedback_days: float | None = None,
) -> dict[str, Any]:
    """Return the answer of `/models`: the models by name, and what else they are called.

    `most` is the largest picture, in pixels; `video_bytes` the largest video, None where none is taken. `detail` is
    the default of models that take one, None each model's own.
    """
    models = []
    for name, cards in cards_by_name.items():
        scales = [
            {
                "scale": str(card.scale),
                "parameters": card.parameters,
                "multiply_accumulates": card.multiply_accumulates,
                "channels": card.channels,
                "multiple": card.multiple,
                "receptive_field": card.receptive_field,
                "detail": card.detail if card.detail is None or detail is None else detail,
                "clean": card.clean,
                "psnr_y_b100": card.measured.get("B100", {}).get("fp32", {}).get("psnr_y"),
                "files": {file: f"/models/{card.folder.name}/{file}" for file in card.sha256 if file.endswith(".onnx")},
            }
            for card in sorted((card for card in cards if card.name == name), key=lambda card: card.scale)
        ]
        also = [other for other, photo in names.items() if photo == name != other]
        cleaner = next((card.clean for card in cards if card.scale == Scale(1)), None)
        models.append({"name": name, "also": also, "clean": cleaner, "scales": scales})
    return {
        "default": default,
        "max_bytes": MAX_BYTES,
        "max_pixels": most,
        "runtime": f"/{RUNTIME.relative_to(STATIC).as_posix()}/" if RUNTIME.is_dir() else None,
        "models": models,
        "videos": video_bytes and {"max_bytes": video_bytes, **VIDEO_MODELS},
        "feedback": feedback_days and {"days": feedback_days},
    }


def describe_video(video: Video) -> dict[str, Any]:
    """Return the answer of `/video/{id}`."""
    return {name: getattr(video, name) for name in VideoState.model_fields} | {"size": [*video.size]}


def error_response(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer that is an Error."""
    return JSONResponse({"error": re.sub(r"\s+", " ", sentence).strip()}, status, headers=headers)
