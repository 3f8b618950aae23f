"""Write a luma network as a shader for mpv and other players on libplacebo: text from a Keras graph.

A feature map of C channels becomes C/4 textures, each drawn by a pass of its own. Keras's arithmetic is kept, borders
included: a texture has the size that Keras gives the map, pixels beyond the picture are mirrored where Keras mirrors
them, and count nothing where Keras reads zeros. What players store between two passes is float16.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from imagesr.scale import Scale

MOST_BOUND = 16  # textures that one pass may read, in mpv and in libplacebo
FROM = 1.2  # a picture that is shown less enlarged than this is left alone


@dataclass(frozen=True)
class Luma:
    """Stand for the picture: mirrored by `border` pixels at its edges, one channel."""

    border: int = 0
    channels, cell = 1, 1

    @property
    def margin(self) -> int:
        """Return how far the map reaches beyond the picture, in cells."""
        return self.border


@dataclass(frozen=True)
class Stored:
    """Stand for a map in textures of four channels each; one cell is `cell` pixels of LR wide and high."""

    names: tuple[str, ...]
    channels: int
    cell: int
    margin: int


@dataclass(frozen=True, eq=False)
class Convolved:
    """Stand for a convolution without its bias, of `kernel` (k, k, inputs, outputs); `zeros` lie around its source."""

    source: Stored
    kernel: np.ndarray
    zeros: bool

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return self.kernel.shape[3]

    @property
    def cell(self) -> int:
        """Return the width of a cell in LR pixels."""
        return self.source.cell

    @property
    def margin(self) -> int:
        """Return how far the map reaches beyond the picture, in cells."""
        return self.source.margin - (0 if self.zeros else len(self.kernel) // 2)


@dataclass(frozen=True, eq=False)
class Sum:
    """Stand for a weighted sum of maps, (node, weight per channel), and a bias; with `relu`, nothing below zero."""

    terms: tuple[tuple[Node, np.ndarray], ...]
    bias: np.ndarray
    relu: bool = False

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return len(self.bias)

    @property
    def cell(self) -> int:
        """Return the width of a cell in LR pixels."""
        return self.terms[0][0].cell

    @property
    def margin(self) -> int:
        """Return how far the map reaches beyond the picture, in cells."""
        return self.terms[0][0].margin


@dataclass(frozen=True)
class Shuffled:
    """Stand for the picture that `depth_to_space` makes of a map."""

    source: Sum
    factor: int


Node = Luma | Stored | Convolved | Sum | Shuffled


@dataclass
class Pass:
    """Hold one pass: what it draws, into which texture, what it reads, and how often per pixel that it draws."""

    title: str
    save: str | None
    bound: list[str]
    size: tuple[str, str]
    components: int
    body: list[str]
    fetches: int
    area: float  # pixels drawn per LR pixel


@dataclass
class Shader:
    """Hold a shader: its text, and what it costs. `fetches` are texture reads per LR pixel, all passes together."""

    text: str
    passes: int
    fetches: float


def write_shader(
    model: keras.Model, *, name: str, scale: Scale, constants: Mapping[str, float] | None = None
) -> Shader:
    """Return a network as an mpv user shader that replaces the luma plane by an upscaled one.

    `constants` fix what the network takes beside the picture, e.g. {"detail": 0.5}; others are 0. They are folded into
    the weights, and channels that they multiply by zero are left out.

    Raises ValueError, in one sentence, for a network with operations that the shader does not have.
    """
    picture, *others = model.inputs
    if picture.shape[-1] != 1 or len(picture.shape) != 4:
        raise ValueError(f"Expected a luma network for a shader. Received: an input of {tuple(picture.shape)}")
    given = dict(constants or {})
    values = {
        other.name: np.full([n or 1 for n in other.shape], given.pop(other.name, 0.0), np.float32) for other in others
    }
    if given:
        raise ValueError(f"Expected constants for inputs of the network. Received: {', '.join(given)}")
    writer = _Writer(re.sub(r"\W", "_", name).upper())
    end = _trace(model, writer, values)
    if not isinstance(end, Shuffled):
        raise ValueError("Expected a network that ends in depth_to_space for a shader")
    writer.finish(end, scale)
    return writer.shader(f"imagesr {name} x{scale}", own_size=scale == Scale(1))


def _trace(model, writer, values):
    """Follow the graph from the picture to its end, and return the node of what comes out."""
    originals = {operation.name: operation for operation in model.operations}
    inputs = [keras.Input(batch_shape=entry.shape, dtype=entry.dtype, name=entry.name) for entry in model.inputs]
    nodes = {id(inputs[0]): Luma()} | {id(entry): values[entry.name] for entry in inputs[1:]}
    kept = list(inputs)  # an id stays a tensor's own only while the tensor lives

    def call(operation, *args, **kwargs):
        result = operation(*args, **kwargs)
        kept.append(result)
        known, named = keras.tree.map_structure(lambda x: nodes.get(id(x), x), (args, kwargs))
        given = keras.tree.flatten((known, named))
        original = originals[operation.name]
        if any(isinstance(x, Node) for x in given):
            node = writer.apply(original, known, named)
        else:
            node = keras.ops.convert_to_numpy(original(*known, **named))
        nodes[id(result)] = node
        return result

    def copy(operation):
        return type(operation).from_config(operation.get_config())

    structure = inputs[0] if len(inputs) == 1 else inputs
    bare = keras.Model(model.inputs if len(inputs) > 1 else model.inputs[0], model.outputs[0], name=model.name)
    clone = keras.models.clone_model(bare, input_tensors=structure, clone_function=copy, call_function=call)
    return nodes[id(clone.outputs[0])]


@dataclass
class _Writer:
    """Turn operations into nodes, and nodes into passes as soon as a texture of theirs is read."""

    prefix: str
    passes: list[Pass] = field(default_factory=list)
    stored: dict[tuple, Stored] = field(default_factory=dict)
    alive: list = field(default_factory=list)

    def apply(self, operation, args, kwargs):
        """Return the node of what an operation makes of nodes and constants."""
        kind = type(operation).__name__
        apply = getattr(self, f"_{kind.lower()}", None)
        if apply is None:
            raise ValueError(
                f"Expected a network of convolutions, ReLU, sums, products with constants and shuffles for a shader. "
                f"Received: {kind} {operation.name}"
            )
        return apply(operation, *args, **kwargs)

    def _inputlayer(self, operation, source):
        return source

    def _pad(self, operation, source, constant_values=None):
        widths = np.array(operation.pad_width)
        border = int(widths.max())
        plain = (widths == [[0, 0], [border, border], [border, border], [0, 0]]).all()
        if not (isinstance(source, Luma) and operation.mode == "reflect" and plain):
            raise ValueError(f"Expected a picture mirrored at its edges for a shader. Received: {operation.name}")
        return Luma(source.border + border)

    def _spacetodepth(self, operation, source):
        if not isinstance(source, Luma) or operation.block_size != 2 or source.border % 2:
            raise ValueError(f"Expected space_to_depth of the picture, by 2, for a shader. Received: {operation.name}")
        return self._read_luma(source, 2)

    def _depthtospace(self, operation, source):
        return Shuffled(_as_sum(source), operation.block_size)

    def _conv2d(self, layer, source):
        kernel, *bias = layer.get_weights()
        side, config = len(kernel), layer.get_config()
        usual = {"strides": (1, 1), "dilation_rate": (1, 1), "groups": 1, "data_format": "channels_last"}
        square = side == kernel.shape[1] and side % 2
        if not square or any(config[key] not in (value, list(np.atleast_1d(value))) for key, value in usual.items()):
            raise ValueError(f"Expected square convolutions without strides for a shader. Received: {layer.name}")
        source, kernel = self._source(source, kernel, layer.name)
        convolved = Convolved(source, kernel, layer.padding == "same")
        channels = kernel.shape[3]
        result = Sum(((convolved, np.ones(channels)),), bias[0] if bias else np.zeros(channels))
        return self._activation(layer, result)

    def _activation(self, layer, source):
        name = getattr(layer.activation, "__name__", str(layer.activation))
        if name not in ("linear", "relu"):
            raise ValueError(f"Expected ReLU or no activation for a shader. Received: {name} in {layer.name}")
        source = source if isinstance(source, Shuffled) else _as_sum(source)
        if name == "linear":
            return source
        if isinstance(source, Shuffled):
            raise ValueError(f"Expected a network that ends in depth_to_space for a shader. Received: {layer.name}")
        return Sum(((source, np.ones(source.channels)),), np.zeros(source.channels), relu=True)

    def _relu(self, operation, source):
        source = _as_sum(source)
        return Sum(((source, np.ones(source.channels)),), np.zeros(source.channels), relu=True)

    def _cast(self, operation, source):
        return source

    def _add(self, operation, *sources):
        first, second = sources[0] if len(sources) == 1 else sources
        if isinstance(first, Shuffled) and isinstance(second, Shuffled) and first.factor == second.factor:
            return Shuffled(self._add(operation, first.source, second.source), first.factor)
        if isinstance(second, Node) and not isinstance(first, Node):
            first, second = second, first
        first = self._known(first)
        ones = np.ones(first.channels)
        if not isinstance(second, Node):
            return Sum(_terms(first, ones), _bias(first) + np.reshape(second, -1))
        second = self._known(second)
        return Sum((*_terms(first, ones), *_terms(second, ones)), _bias(first) + _bias(second))

    def _multiply(self, operation, *sources):
        first, second = sources[0] if len(sources) == 1 else sources
        if isinstance(second, Node):
            first, second = second, first
        if isinstance(second, Node):
            raise ValueError(f"Expected products of a map and a constant for a shader. Received: {operation.name}")
        first = self._known(first)
        factor = np.ones(first.channels) * np.reshape(second, -1)
        return Sum(_terms(first, factor), _bias(first) * factor)

    def _source(self, source, kernel, name):
        """Return the textures that a convolution reads, and its kernel with what was to be multiplied folded in."""
        if isinstance(source, Luma):
            return self._read_luma(source, 1), kernel
        if isinstance(source, Shuffled):
            raise ValueError(f"Expected a network that ends in depth_to_space for a shader. Received: {name}")
        source = _as_sum(source)
        if len(source.terms) == 1 and not source.relu and not source.bias.any():
            (inner, factor), *_ = source.terms
            if isinstance(inner, Stored) and factor.all():
                return inner, kernel * factor[:, np.newaxis]
            if isinstance(inner, Sum):
                keep = np.flatnonzero(factor)
                return self.store(inner, keep), kernel[:, :, keep] * factor[keep, np.newaxis]
        return self.store(source, np.arange(source.channels)), kernel

    def _known(self, node) -> Sum:
        """Return a node as a sum: of its textures, where they are drawn already."""
        node = _as_sum(node)
        stored = self.stored.get((id(node), *range(node.channels)))
        return _as_sum(stored) if stored else node

    def _read_luma(self, source, cell):
        """Store the picture, mirrored at its edges, with cells of one pixel or of 2×2."""
        key = ("luma", source.border, cell)
        if key not in self.stored:
            margin = source.border // cell
            stored = Stored((f"{self.prefix}_LR{source.border}_{cell}",), cell**2, cell, margin)
            mirror = f"ivec2 last = ivec2(LUMA_size) - 1, p = ivec2(gl_FragCoord.xy) * {cell} - {source.border};"
            macro = "#define L(i, j) (LUMA_mul * texelFetch(LUMA_raw, last - abs(last - abs(p + ivec2(i, j))), 0).x)"
            reads = ", ".join(f"L({i % cell}, {i // cell})" for i in range(cell**2))
            body = [macro, "vec4 hook() {", mirror, f"return vec4({reads}{', 0, 0, 0' if cell == 1 else ''});", "}"]
            self._draw("mirror the edges", stored.names[0], ["LUMA"], stored, cell**2, body, cell**2)
            self.stored[key] = stored
        return self.stored[key]

    def store(self, node: Sum, keep: Sequence[int]) -> Stored:
        """Draw channels of a node into textures, once, and return these."""
        key = (id(node), *map(int, keep))
        if key not in self.stored:
            self.alive.append(node)  # so that its id stays its own
            base = f"{self.prefix}_{len(self.passes)}"
            blocks = [list(map(int, keep[i : i + 4])) for i in range(0, len(keep), 4)]
            stored = Stored(tuple(f"{base}_{i}" for i in range(len(blocks))), len(keep), node.cell, node.margin)
            for block, name in zip(blocks, stored.names, strict=True):
                code = _Code(node.margin)
                result = code.value(node, block)
                body = ["vec4 hook() {", "ivec2 p = ivec2(gl_FragCoord.xy);", *code.lines]
                body += [f"return {result if len(block) > 1 else f'vec4({result}, 0, 0, 0)'};", "}"]
                self._draw(_title(node), name, code.bound, stored, len(block), body, code.fetches)
            self.stored[key] = stored
        return self.stored[key]

    def finish(self, end: Shuffled, scale: Scale) -> None:
        """Draw the picture: the channels of a map, side by side."""
        source, factor = end.source, end.factor
        if source.channels != factor**2 or source.margin or factor * scale.down != scale.up * source.cell:
            raise ValueError(f"Expected a network from luma to luma of scale {scale} for a shader")
        stored = self.store(source, np.arange(source.channels))
        choice = f"texelFetch({stored.names[-1]}_raw, cell, 0)"
        for i in reversed(range(len(stored.names) - 1)):
            choice = f"(c < {4 * i + 4} ? texelFetch({stored.names[i]}_raw, cell, 0) : {choice})"
        body = [
            "vec4 hook() {",
            f"ivec2 p = ivec2(gl_FragCoord.xy), cell = p / {factor}, phase = p - cell * {factor};",
            f"int c = phase.y * {factor} + phase.x;",
            f"vec4 v = {choice};",
            "return vec4(clamp(v[c & 3], 0.0, 1.0), 0, 0, 1);",
            "}",
        ]
        size = tuple(f"LUMA.{side} {scale.up} *{f' {scale.down} /' if scale.down > 1 else ''}" for side in "wh")
        last = Pass("shuffle", None, ["LUMA", *stored.names], size, 1, body, 1, float(scale) ** 2)
        self._check(last)

    def _draw(self, title, save, bound, stored, components, body, fetches):
        cell, margin = stored.cell, stored.margin
        whole = f"LUMA.{{}} {cell} /" if cell > 1 else "LUMA.{}"
        size = tuple((whole + (f" {2 * margin} +" if margin else "")).format(side) for side in "wh")
        components = 1 if components == 1 else 4
        self._check(Pass(title, save, list(bound), size, components, body, fetches, 1 / cell**2))

    def _check(self, drawn):
        if len(drawn.bound) > MOST_BOUND:
            raise ValueError(f"Expected at most {MOST_BOUND} textures in a pass. Received: {len(drawn.bound)}")
        self.passes.append(drawn)

    def shader(self, title: str, *, own_size: bool) -> Shader:
        """Return the whole text; one of `own_size` runs however large the picture is shown."""
        fetches = sum(drawn.fetches * drawn.area for drawn in self.passes)
        text = [
            f"// {title}: an upscaler of luma for mpv and players on libplacebo. Made by `imagesr export --also mpv`.",
            f"// {len(self.passes)} passes, {fetches:.0f} texture reads per pixel of the film. Licence: Apache-2.0.",
        ]
        for drawn in self.passes:
            text += ["", "//!HOOK LUMA", *(f"//!BIND {name}" for name in drawn.bound)]
            text += [f"//!SAVE {drawn.save}"] if drawn.save else []
            text += [f"//!WIDTH {drawn.size[0]}", f"//!HEIGHT {drawn.size[1]}", f"//!COMPONENTS {drawn.components}"]
            text += [] if own_size else [f"//!WHEN OUTPUT.w LUMA.w / {FROM} > OUTPUT.h LUMA.h / {FROM} > *"]
            text += [f"//!DESC {title}: {drawn.title}", *drawn.body]
        return Shader("\n".join(text) + "\n", len(self.passes), fetches)


@dataclass
class _Code:
    """Collect the statements that compute some channels at the pixel `p` of a texture with `margin` cells around."""

    margin: int
    lines: list[str] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    fetches: int = 0
    places: set = field(default_factory=set)

    def value(self, node: Sum, channels: list[int]) -> str:
        """Return the name of a variable that holds channels of a node: a float if it is one, else a vec4."""
        kind, name = ("float" if len(channels) == 1 else "vec4"), f"v{len(self.lines)}"
        self.lines.append(f"{kind} {name} = {_vector(node.bias[channels])};")
        for inner, factor in node.terms:
            factor = factor[channels]
            if not factor.any():
                continue
            if isinstance(inner, Convolved):
                self._convolve(name, inner, inner.kernel[..., channels] * factor)
                continue
            term = self._pixel(inner, channels) if isinstance(inner, Stored) else self.value(inner, channels)
            self.lines.append(f"{name} += {term if (factor == 1).all() else f'{_vector(factor)} * {term}'};")
        if node.relu:
            self.lines.append(f"{name} = max({name}, 0.0);")
        return name

    def _read(self, texture, place):
        self.fetches += 1
        if texture not in self.bound:
            self.bound.append(texture)
        return f"texelFetch({texture}_raw, {place}, 0)"

    def _pixel(self, stored, channels):
        """Return channels of a map at the pixel itself."""
        shift = stored.margin - self.margin
        place = f"p + {shift}" if shift else "p"
        textures = sorted({channel // 4 for channel in channels})
        if len(textures) == 1 and channels == list(range(4 * textures[0], 4 * textures[0] + len(channels))):
            read = self._read(stored.names[textures[0]], place)
            return f"{read}.x" if len(channels) == 1 else read
        reads = {i: self._read(stored.names[i], place) for i in textures}
        parts = [f"{reads[channel // 4]}.{'xyzw'[channel % 4]}" for channel in channels]
        if len(parts) == 1:
            return parts[0]
        return f"vec4({', '.join(parts + ['0'] * (4 - len(parts)))})"

    def _convolve(self, name, node, kernel):
        """Add what a convolution with `kernel` (k, k, inputs, outputs) gives at the pixel."""
        side = len(kernel)
        for y, x in np.ndindex(side, side):
            place = self._place(node, x - side // 2, y - side // 2)
            products = [
                _product(kernel[y, x, 4 * i : 4 * i + 4], self._read(texture, place))
                for i, texture in enumerate(node.source.names)
                if kernel[y, x, 4 * i : 4 * i + 4].any()
            ]
            if not products:
                continue
            total = " + ".join(products)
            inside = [f"{axis}{_sign(step)}" for axis, step in (("u", x - side // 2), ("w", y - side // 2)) if step]
            if node.zeros and inside:
                total = f"{' * '.join(inside)} * ({total})"
            self.lines.append(f"{name} += {total};")

    def _place(self, node, x, y):
        """Return the code of a source's pixel; with zeros around the source, one inside it and weights 0 or 1."""
        if not node.zeros:
            shift = node.source.margin - self.margin
            return f"p + ivec2({x + shift}, {y + shift})"
        first = node.source.names[0]
        for axis, weight, part, step in (("x", "u", "x", x), ("y", "w", "y", y)):
            if (axis, step) in self.places:
                continue
            self.places.add((axis, step))
            moved = f"p.{part} + {step}"
            last = f"int({first}_size.{part}) - 1"
            inside = f"clamp({moved}, 0, {last})" if step else f"p.{part}"
            self.lines.append(f"int {axis}{_sign(step)} = {inside};")
            if step:
                self.lines.append(f"float {weight}{_sign(step)} = {axis}{_sign(step)} == {moved} ? 1.0 : 0.0;")
        return f"ivec2(x{_sign(x)}, y{_sign(y)})"


def _sign(step):
    return f"{'m' if step < 0 else 'p'}{abs(step)}"


def _as_sum(node) -> Sum:
    """Return a node as a sum of which it is the only term."""
    if isinstance(node, Sum):
        return node
    if isinstance(node, Stored):
        return Sum(((node, np.ones(node.channels)),), np.zeros(node.channels))
    raise ValueError("Expected a network that computes on feature maps for a shader, not on the picture itself")


def _terms(node: Sum, factor: np.ndarray) -> tuple:
    """Return the terms of a node times a factor per channel; a ReLU is one term."""
    if node.relu:
        return ((node, factor),)
    return tuple((inner, own * factor) for inner, own in node.terms)


def _bias(node: Sum) -> np.ndarray:
    return np.zeros(node.channels) if node.relu else node.bias


def _title(node: Sum) -> str:
    """Say what a pass computes: the sides of its convolutions, and their inputs."""
    found: list[str] = []
    for inner, _ in node.terms:
        if isinstance(inner, Convolved):
            side = len(inner.kernel)
            found.append(f"{side}x{side} of {inner.source.channels}")
        elif isinstance(inner, Sum):
            found.append(_title(inner))
    return " and ".join(found) or "sum"


def _product(weights: np.ndarray, read: str) -> str:
    """Return the code of (inputs, outputs) weights times what was read of up to four channels."""
    inputs, outputs = weights.shape
    if inputs == 1:
        return f"{_vector(weights[0])} * {read}.x"
    whole = np.zeros((4, 4 if outputs > 1 else 1))
    whole[:inputs, :outputs] = weights
    if outputs == 1:
        return f"dot({_vector(whole[:, 0])}, {read})"
    return f"mat4({_numbers(whole.ravel())}) * {read}"  # column by column: one per input


def _vector(values: np.ndarray) -> str:
    """Return the code of up to four numbers: a float for one, else a vec4."""
    if len(values) == 1:
        return f"float({_numbers(values)})"
    return f"vec4({_numbers([*values, *[0] * (4 - len(values))])})"


def _numbers(values: Iterable[float]) -> str:
    # Six digits: a hundred times finer than the float16 between passes.
    return ", ".join(f"{float(value):.6g}" for value in values)
