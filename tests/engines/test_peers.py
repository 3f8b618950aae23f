"""Networks of other authors, made up in small: each is computed again by NumPy."""

import numpy as np
import pytest
from torchfile import write_weights

from imagesr.engines.peers import load_peer
from imagesr.errors import ModelError
from imagesr.scale import Scale

RANDOM = np.random.default_rng(0)
LR = RANDOM.integers(0, 256, (1, 6, 8, 3), np.uint8)


def drawn(name, outputs, inputs, side):
    kernel = RANDOM.normal(0, 0.7 / side / inputs**0.5, (outputs, inputs, side, side))
    return {f"{name}.weight": kernel.astype("<f4"), f"{name}.bias": RANDOM.normal(0, 0.1, outputs).astype("<f4")}


def conv(x, weights, name):
    kernel = weights[f"{name}.weight"]
    edge = kernel.shape[2] // 2
    wide = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, kernel.shape[2:], (1, 2))
    return np.einsum("oikl,ihwkl->ohw", kernel, windows) + weights[f"{name}.bias"][:, None, None]


def prelu(x, weights, name):
    return np.where(x > 0, x, x * weights[f"{name}.weight"][:, None, None])


def shuffled(x):
    """Do what PyTorch's PixelShuffle(2) does."""
    channels, height, width = len(x) // 4, *x.shape[1:]
    return x.reshape(channels, 2, 2, height, width).transpose(0, 3, 1, 4, 2).reshape(channels, 2 * height, 2 * width)


def ecbsr(x):
    weights = drawn("backbone.0.0", 4, 3, 3) | {"backbone.0.1.weight": RANDOM.random(4).astype("<f4")}
    weights |= drawn("backbone.1.0", 12, 4, 3)
    features = prelu(conv(x, weights, "backbone.0.0"), weights, "backbone.0.1")
    return weights, shuffled(conv(features, weights, "backbone.1.0") + np.repeat(x, 4, 0))


def etds(x):
    weights = drawn("conv_first", 4, 3, 3) | drawn("backbone_convs.0", 4, 4, 3)
    weights |= drawn("conv_last", 12, 4, 3) | drawn("conv_clip", 12, 12, 1)
    for name in ("conv_first", "backbone_convs.0", "conv_last", "conv_clip"):
        x = np.maximum(conv(x, weights, name), 0)
    return weights, shuffled(x)


def espcn(x):
    weights = drawn("conv1", 4, 3, 5) | drawn("conv2", 4, 4, 3) | drawn("conv3", 12, 4, 3)
    x = np.tanh(conv(np.tanh(conv(x, weights, "conv1")), weights, "conv2"))
    return weights, shuffled(1 / (1 + np.exp(-conv(x, weights, "conv3"))))


def fsrcnn(x):
    weights = drawn("first_part.0", 4, 3, 5) | drawn("mid_part.0", 2, 4, 1) | drawn("mid_part.2", 4, 2, 1)
    for name, length in (("first_part.1", 4), ("mid_part.1", 2), ("mid_part.3", 4)):
        weights[f"{name}.weight"] = RANDOM.random(length).astype("<f4")
    weights |= {"last_part.weight": RANDOM.normal(0, 0.1, (4, 3, 9, 9)).astype("<f4")}
    weights |= {"last_part.bias": np.full(3, 0.5, "<f4")}
    for name, slope in (("first_part.0", "first_part.1"), ("mid_part.0", "mid_part.1"), ("mid_part.2", "mid_part.3")):
        x = prelu(conv(x, weights, name), weights, slope)
    _, height, width = x.shape
    result = np.zeros((3, 2 * height + 8, 2 * width + 8))  # a transposed convolution adds its kernel at every place
    for i in range(height):
        for j in range(width):
            kernel = np.einsum("i,iokl->okl", x[:, i, j], weights["last_part.weight"])
            result[:, 2 * i : 2 * i + 9, 2 * j : 2 * j + 9] += kernel
    return weights, result[:, 4 : 4 + 2 * height, 4 : 4 + 2 * width] + 0.5


@pytest.mark.parametrize("network", [ecbsr, etds, espcn, fsrcnn], ids=lambda network: network.__name__)
def test_weights_run_as_their_authors_network(network, tmp_path):
    weights, expected = network(LR[0].transpose(2, 0, 1) / 255)
    write_weights(tmp_path / "net_x2.pth", weights)
    engine = load_peer(tmp_path / "net_x2.pth")
    assert (engine.card.scale, engine.card.channels, engine.card.name) == (Scale(2), 3, "net_x2")
    expected = np.rint(np.clip(255 * expected, 0, 255)).transpose(1, 2, 0)
    assert expected.std() > 5
    assert np.abs(engine(LR)[0].astype(int) - expected).max() <= 1


def test_the_multiply_accumulates_are_counted_per_lr_pixel(tmp_path):
    weights, _ = espcn(LR[0].transpose(2, 0, 1) / 255)
    write_weights(tmp_path / "net.pth", weights)
    macs = load_peer(tmp_path / "net.pth").card.multiply_accumulates
    assert macs == sum(w.size for name, w in weights.items() if name.endswith("weight"))


def written_onnx(file, channels, kernel):
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [make.make_tensor_value_info(name, kind, [1, channels, None, None]) for name in ("in", "out")]
    weights = onnx.numpy_helper.from_array(kernel, "w")
    nodes = [make.make_node("Conv", ["in", "w"], ["four"]), make.make_node("DepthToSpace", ["four"], ["out"])]
    nodes[1].attribute.append(make.make_attribute("blocksize", 2))
    graph = make.make_graph(nodes, "net", ends[:1], ends[1:], [weights])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]), file)


def test_an_onnx_file_of_luma_runs_as_it_is(tmp_path):
    written_onnx(tmp_path / "nearest.onnx", 1, np.ones((4, 1, 1, 1), np.float32))
    engine = load_peer(tmp_path / "nearest.onnx")
    assert (engine.card.scale, engine.card.channels) == (Scale(2), 1)
    np.testing.assert_array_equal(engine(LR[..., :1]), LR[..., :1].repeat(2, 1).repeat(2, 2))


def test_what_is_no_such_network_is_refused_in_one_line(tmp_path):
    write_weights(tmp_path / "other.pth", {"a.weight": np.ones((2, 3, 3, 3), "<f4")})
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    written_onnx(tmp_path / "two.onnx", 2, np.ones((8, 2, 1, 1), np.float32))
    for name in ("other.pth", "x.onnx", "two.onnx", "missing.pth"):
        with pytest.raises(ModelError, match=r"Expected a network as .pth \(ECBSR") as refused:
            load_peer(tmp_path / name)
        assert name in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
    weights, _ = fsrcnn(LR[0].transpose(2, 0, 1) / 255)
    write_weights(tmp_path / "fsrcnn.pth", weights)
    with pytest.raises(ModelError, match="does not end in _x2"):
        load_peer(tmp_path / "fsrcnn.pth")
