"""The JSON that the service answers: its shapes, which the OpenAPI document describes, and how they are filled."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from imagesr.serve.service import Service
from imagesr.serve.uploads import MAX_BYTES
from imagesr.serve.web import RUNTIME, STATIC


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
    detail: float | None = Field(description="from 0 to 1, the default; none where it takes none", examples=[0.0])
    psnr_y_b100: float | None = Field(description="dB, as measured on B100", examples=[31.5117])
    files: dict[str, str] = Field(
        description="ONNX files, integers in and out", examples=[{"model.onnx": "/models/best-photo_x2/model.onnx"}]
    )


class Model(BaseModel):
    """Hold a model, and the native scales from which all others are composed."""

    name: str = Field(examples=["best-photo"])
    also: list[str] = Field(description="other names for it", examples=[["best"]])
    scales: list[Measured]


class Models(BaseModel):
    """Hold the models that `model` may name."""

    default: str = Field(examples=["best"])
    max_bytes: int = Field(description="of a picture", examples=[MAX_BYTES])
    max_pixels: int = Field(description="of a picture", examples=[16_000_000])
    runtime: str | None = Field(description="where ONNX Runtime for browsers is, if it is", examples=[None])
    models: list[Model]


def describe_models(service: Service) -> dict[str, Any]:
    """Return the answer of `/models`."""
    models = []
    for name, cards in service.models.items():
        scales = [
            {
                "scale": str(card.scale),
                "parameters": card.parameters,
                "multiply_accumulates": card.multiply_accumulates,
                "channels": card.channels,
                "multiple": card.multiple,
                "receptive_field": card.receptive_field,
                "detail": card.detail if card.detail is None or service.detail is None else service.detail,
                "psnr_y_b100": card.measured.get("B100", {}).get("fp32", {}).get("psnr_y"),
                "files": {file: f"/models/{card.folder.name}/{file}" for file in card.sha256 if file.endswith(".onnx")},
            }
            for card in sorted(cards, key=lambda card: card.scale)
        ]
        also = [other for other, photo in service.names.items() if photo == name != other]
        models.append({"name": name, "also": also, "scales": scales})
    return {
        "default": service.model,
        "max_bytes": MAX_BYTES,
        "max_pixels": service.most,
        "runtime": f"/{RUNTIME.relative_to(STATIC).as_posix()}/" if RUNTIME.is_dir() else None,
        "models": models,
    }


def error_response(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer that is an Error."""
    return JSONResponse({"error": re.sub(r"\s+", " ", sentence).strip()}, status, headers=headers)
