"""Config: what a training run is, as it stands in the run's `config.json`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, model_validator

from imagesr.errors import cause
from imagesr.files import write_whole
from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras

SMALLEST_PATCH = 24  # HR pixels a side: a smaller crop is all border
# The default weight of each part of a loss. Their gradients are then about alike at the start (MAE, `photos`, bce).
WEIGHTS = {"pixel": 1.0, "perceptual": 0.01, "adversarial": 0.01}

# The default weight of each part of the loss of a second end (`train.detail`): of one with texture, and of a sharp one.
DETAIL = {"pixel": 0.3, "texture": 300.0, "structure": 2.0, "mesh": 0.1, "grit": 50.0}
SHARP = {"sharp": 1.0, "mesh": 0.1}

Texts = Annotated[tuple[str, ...], Field(strict=False)]  # a list is accepted too
Record = TypeVar("Record", bound="RunConfig")


class RunConfig(BaseModel):
    """Hold the settings of a run: frozen, without unknown keys, saved as JSON; errors are one line."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __init__(self, **settings):
        """Raise ValueError for settings that no run can have."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError(_one_line(error, type(self))) from None

    @classmethod
    def read(cls: type[Record], file: Path) -> Record:
        """Read a run's `config.json`; raises ValueError for a file that is not one, or has an unknown key."""
        try:
            record = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"Expected the config of a run in {file}. Received: {cause(error)}") from None
        if not isinstance(record, dict):
            raise ValueError(f"Expected the config of a run in {file}. Received: {record}")
        return cls(**record)

    def write(self, file: Path) -> None:
        """Write the config, whole or not at all."""
        write_whole(file, json.dumps(self.model_dump(), indent=1) + "\n")

    def changed(self: Record, **settings: Any) -> Record:
        """Return the config with other settings, which are checked."""
        return type(self)(**dict(self) | settings)


def _one_line(error, config):
    """Return the first of pydantic's errors as `Expected …. Received: …`."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "value_error":  # of a validator of ours
        return str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        return f"Expected a config with the keys {', '.join(sorted(config.model_fields))}. Received: {name}"
    if first["type"] == "missing":
        return f"Expected a config with {name}. Received: none"
    what = f"the keys of {name}" if first["loc"][-1] == "[key]" else name
    return f"Expected {what} to be {first['msg'].removeprefix('Input should be ')}. Received: {first['input']!r}"


class Config(RunConfig):
    """Hold the settings of a training run; `config.json` in its folder, by which it is resumed or repeated."""

    data: Annotated[Texts, Field(description="training data, NAME=DIR or NAME=DIR@WEIGHT")]
    val: Annotated[Texts, Field(description="validation data, in the same form")]
    model: str = "realtime"
    scale: Annotated[str, Field(strict=False, coerce_numbers_to_str=True)] = "1.5"
    architecture: Annotated[dict[str, Any], Field(description="options of the network's builder")] = {}
    degrade: Annotated[Texts, Field(description="see `Degradation.parse`")] = ("kernel=bicubic",)
    steps: Annotated[int, Field(ge=0, description="in all")] = 20_000
    batch: Annotated[int, Field(ge=1, description="crops per step")] = 32
    patch: Annotated[int, Field(ge=SMALLEST_PATCH, description="side of a crop in HR pixels")] = 96
    loss: Literal["mse", "log_mse", "log_mse_ssim", "film", "mae", "charbonnier", "ssim"] = "mse"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    strategy: Literal["mirrored"] | None = None
    init: Annotated[str | None, Field(description="the run or weights to start from")] = None
    seed: Annotated[int, Field(ge=0)] = 0
    gan: Annotated[
        dict[Literal["filters", "relativistic"], Any] | None,
        Field(description="makes the run stage two of SRGAN; options of its discriminator"),
    ] = None
    from_scratch: Annotated[bool, Field(description="let a GAN start from random weights")] = False
    perceptual: Annotated[str, Field(description="an extractor, see `load_extractor`, or none")] = "none"
    weights: Annotated[
        dict[Literal["pixel", "perceptual", "adversarial"], NonNegativeFloat],
        Field(description="of the parts of the loss; `pixel` is the weight of `loss`"),
    ] = {}
    curriculum: Annotated[
        float, Field(ge=0, le=1, description="share of the steps over which degradations reach full frequency")
    ] = 0.0
    depth: Annotated[Texts, Field(description="folders of depth maps, which the network takes too")] = ()
    depth_model: Annotated[str | None, Field(description="an ONNX file that estimates depth, instead")] = None
    depth_dropout: Annotated[float, Field(ge=0, le=1, description="share of crops without depth")] = 0.2
    edge_weight: Annotated[float, Field(gt=0, description="weight of errors where depth jumps")] = 1.0
    detail: Annotated[
        dict[Literal["sharp", "pixel", "texture", "structure", "mesh", "grit"], NonNegativeFloat] | None,
        Field(description="trains a second end, sharp=1 or with HR's texture; weights of the parts of its loss"),
    ] = None
    features: Annotated[str | None, Field(description="EfficientNet-Lite0's weights; None is its package's")] = None

    @model_validator(mode="after")
    def _check(self):
        self._check_detail()
        if self.edge_weight != 1 and not self.takes_depth:
            raise ValueError(f"Expected depth or depth_model for an edge_weight. Received: {self.edge_weight}")
        if self.architecture.get("channels", 1) not in (1, 3):
            raise ValueError(f"Expected channels of 1 or 3. Received: {self.architecture['channels']}")
        if self.gan is not None and not (self.init or self.from_scratch):
            raise ValueError("Expected --init RUN, a GAN's stage one, or --from-scratch. Received: none")
        if self.gan is not None and self.strategy:
            raise ValueError(f"Expected no strategy for a GAN: it trains on one device. Received: {self.strategy}")
        cleans = self.architecture.get("clean") or self.model == "ffdnet"
        if cleans and (self.takes_depth or self.gan is not None or self.perceptual != "none"):
            raise ValueError("Expected a network with clean without depth, GAN and perceptual. Received both")
        if self.takes_depth and (self.gan is not None or self.perceptual != "none"):
            raise ValueError("Expected depth without a GAN and without perceptual. Received both")
        return self

    def _check_detail(self):
        if self.detail is None:
            if self.features:
                raise ValueError(f"Expected a detail with features. Received: {self.features} alone")
            return
        if self.model != "realtime" or self.architecture.get("channels", 1) != 1:
            raise ValueError(f"Expected the model realtime, for luma, with a detail. Received: {self.model}")
        if not self.init:
            raise ValueError("Expected --init RUN, the network of one end that gets a second. Received: none")
        others = {"gan": self.gan is not None, "depth": self.takes_depth, "strategy": bool(self.strategy)}
        others |= {"perceptual": self.perceptual != "none"}
        if odd := [name for name, given in others.items() if given]:
            raise ValueError(f"Expected a detail without {', '.join(others)}. Received: {odd[0]}")

    @property
    def takes_depth(self) -> bool:
        """Say whether the network takes depth beside LR."""
        return bool(self.depth or self.depth_model)

    def build(self) -> keras.Model:
        """Return the untrained network; raises ValueError for options that it does not have."""
        from imagesr.models import builder

        build = builder(self.model)
        known = set(inspect.signature(build).parameters) - {"scale", "detail"}
        if unknown := set(self.architecture) - known:
            raise ValueError(
                f"Expected options of {self.model} ({', '.join(sorted(known))}). Received: {unknown.pop()}"
            )
        try:
            ends = {} if self.detail is None else {"detail": True}
            model = build(self.scale, **self.architecture, **ends)
        except TypeError as error:
            raise ValueError(f"Expected options that {self.model} can be built with. Received: {error}") from None
        if not self.takes_depth:
            return model
        from imagesr.depth.network import with_depth

        return with_depth(model, Scale.parse(self.scale))
