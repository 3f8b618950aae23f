"""Networks as shaders for mpv: the text, what is folded into it, and what players make of it."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import DATA, picture
from keras import ops

from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.engines.keras import read_network
from imagesr.export import export as exporting
from imagesr.export import playback
from imagesr.export.__main__ import main
from imagesr.export.floating import run_keras
from imagesr.export.playback import missing_player, play_shader
from imagesr.export.players import main as shaders_main
from imagesr.export.shader import write_shader
from imagesr.models import build
from imagesr.models.layers import collapsed
from imagesr.pixels import luma
from imagesr.scale import Scale


@pytest.fixture(scope="session")
def player():
    """Skip a test where no ffmpeg here runs shaders."""
    if missing := missing_player():
        pytest.skip(missing)


def lively(model):
    """Give a network weights that let a picture through."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([random.normal(0, 0.6 / w[..., 0].size ** 0.5, w.shape) for w in layer.get_weights()])
    kernel, *bias = model.get_layer("anchor").get_weights()
    kernel[:] = 0
    kernel[len(kernel) // 2, len(kernel) // 2] = 1 / kernel.shape[2]
    model.get_layer("anchor").set_weights([kernel, *bias])
    return model


def network(scale, **options):
    return lively(collapsed(build("realtime", scale, **{"filters": 8, "blocks": 2} | options)))


def gated(gate, scale_tail=None):
    """Return a network whose features are multiplied by `gate`, a function of its second input or an array."""
    lr, detail = keras.Input((None, None, 1), name="lr"), keras.Input((), name="detail")
    x = ops.space_to_depth(ops.pad(lr, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect"), 2)
    anchor = keras.layers.Conv2D(9, 3, use_bias=False, name="anchor")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="head")(x)
    if gate is not None:
        x = x * gate(detail)
    x = keras.layers.Conv2D(9, 3, padding="same", name="tail")(x)
    model = lively(keras.Model([lr, detail], ops.depth_to_space(x + anchor, 3)))
    if scale_tail is not None:
        kernel, bias = model.get_layer("tail").get_weights()
        model.get_layer("tail").set_weights([kernel * np.reshape(scale_tail, (-1, 1)), bias])
    return model


def last_four(detail):
    own = np.repeat(np.float32([[[[0, 1]]]]), 4, -1)
    gate = ops.reshape(detail, (-1, 1, 1, 1)) * ops.transpose(own, (0, 3, 1, 2)) + (1 - own).transpose(0, 3, 1, 2)
    return ops.transpose(gate, (0, 2, 3, 1))


def blocks(text):
    """Return the passes of a shader, each as (headers, code)."""
    found = []
    for block in text.split("//!HOOK LUMA\n")[1:]:
        headers = re.findall(r"^//!(\w+) (.*)$", block, re.M)
        found.append((headers, re.sub(r"^//!.*\n", "", block, flags=re.M)))
    return found


@pytest.mark.parametrize(
    ("scale", "anchor", "size"),
    [("1.5", 3, "LUMA.w 3 * 2 /"), ("1.5", 5, "LUMA.w 3 * 2 /"), ("2", 5, "LUMA.w 2 *")],
)
def test_passes_read_what_was_drawn_before(scale, anchor, size):
    shader = write_shader(network(scale, anchor=anchor), name="a-b", scale=Scale.parse(scale))
    passes, drawn = blocks(shader.text), {"LUMA"}
    assert len(passes) == shader.passes
    for headers, code in passes:
        bound = {value for key, value in headers if key == "BIND"}
        assert bound <= drawn and len(bound) <= 16
        assert set(re.findall(r"(\w+)_raw", code)) <= bound
        assert dict(headers)["WHEN"].startswith("OUTPUT.w LUMA.w /")
        drawn.add(dict(headers).get("SAVE"))
    names = [dict(headers).get("SAVE") for headers, _ in passes]
    assert names[-1] is None and None not in names[:-1] and len(set(names)) == len(names)
    assert all(name.startswith("A_B_") for name in names[:-1])
    assert dict(passes[-1][0])["WIDTH"] == size
    assert f"{shader.passes} passes, {shader.fetches:.0f} texture reads" in shader.text


def test_texture_reads_are_counted():
    shader = write_shader(network("2", anchor=5, unshuffle=1), name="x", scale=Scale(2))
    # mirroring; head and two blocks in two passes; the skip in the last of them; tail and anchor; four pixels.
    # All of the anchor's weights but one are zero, and what they would be multiplied by is not read.
    assert shader.fetches == 1 + 2 * 9 + 2 * (2 * 18) + 2 + (18 + 1) + 4
    assert shader.passes == 1 + 2 + 4 + 1 + 1


def test_a_network_with_two_ends_becomes_two_shaders(tmp_path, monkeypatch):
    network("1.5", detail=True, clean=True).save(tmp_path / "net.keras")
    monkeypatch.setattr(exporting, "missing_player", lambda: "no player")
    card = exporting.export(tmp_path / "net.keras", "net", tmp_path, also=["mpv", "ffmpeg"], detail=0.5)
    assert {"model.glsl", "model_detail0.glsl", "model_float.onnx"} <= {*card.sha256}
    passes = [blocks((card.folder / file).read_text()) for file in ("model.glsl", "model_detail0.glsl")]
    assert len(passes[0]) == len(passes[1]) + 4  # sixteen features that count nothing at detail 0


def test_a_constant_is_folded_into_the_weights():
    gate = np.float32([1] * 4 + [0.25] * 4)
    plain = write_shader(gated(None, scale_tail=gate), name="x", scale=Scale(3, 2)).text
    assert write_shader(gated(last_four), name="x", scale=Scale(3, 2), constants={"detail": 0.25}).text == plain
    none = write_shader(gated(last_four), name="x", scale=Scale(3, 2))
    assert none.passes == len(blocks(plain)) - 1  # four channels that nobody reads
    assert none.text == write_shader(gated(last_four), name="x", scale=Scale(3, 2), constants={"detail": 0}).text
    with pytest.raises(ValueError, match="strength"):
        write_shader(gated(last_four), name="x", scale=Scale(3, 2), constants={"strength": 1})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edsr_baseline", "luma network"),
        ("fsrcnn", "PReLU"),
        ("srresnet", "luma network"),
        ("vdsr", "ends in depth_to_space"),
    ],
)
def test_other_networks_are_refused_in_a_sentence(name, words):
    model = collapsed(build(name, 2))
    with pytest.raises(ValueError, match=words) as refusal:
        write_shader(model, name=name, scale=Scale(2))
    assert "\n" not in str(refusal.value)


def test_a_saved_model_gets_its_shader_and_keeps_the_rest(tmp_path, monkeypatch, capsys):
    network("1.5").save(tmp_path / "net.keras")
    monkeypatch.setattr(exporting, "missing_player", lambda: "no player")
    assert main([str(tmp_path / "net.keras"), "--name", "net", "--folder", str(tmp_path)]) == 0
    folder = tmp_path / "net_x1.5"
    before, times = ModelCard.read(folder), []
    for _ in range(2):
        assert main([str(folder), "--also", "mpv", "ffmpeg"]) == 0
        times.append((folder / "model.glsl").read_bytes())
    assert "model.glsl: not compared with Keras, no player" in capsys.readouterr().out
    after = ModelCard.read(folder)
    assert times[0] == times[1]
    assert {*after.sha256} - {*before.sha256} == {"model.glsl", "model_float.onnx"}
    assert all(after.sha256[file] == digest for file, digest in before.sha256.items())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["net_x1.5"]


def test_shaders_are_copied_with_the_lines_for_mpv(tmp_path, capsys):
    for _ in range(2):
        assert shaders_main([str(tmp_path / "a b" / "shaders")]) == 0
    files = {file.name for file in (tmp_path / "a b" / "shaders").iterdir()}
    assert files >= {"imagesr_fast_x1.5.glsl", "imagesr_balanced_x1.5.glsl"}
    assert f'glsl-shaders="{tmp_path / "a b" / "shaders" / "imagesr_fast_x1.5.glsl"}"' in capsys.readouterr().out
    assert shaders_main([str(Path(__file__))]) == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def frames():
    """Return luma of real frames, or of drawn ones, whose borders are busy too: (2, 96, 128) uint8."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
    if DATA:
        from imagesr.media.images import find_images, read_rgb

        photo = read_rgb(find_images([DATA / "photos" / "val"])[0])
        return np.stack([luma(photo[200:296, 200:328]), noise])
    return np.stack([luma(picture(128, 96)), noise])


def difference(shader, model, scale, detail=0.0):
    planes = frames()
    played = play_shader(shader, planes, scale).astype(int)
    wanted = run_keras(model, planes[..., np.newaxis], detail)[..., 0]
    assert np.ptp(wanted) > 100
    return np.abs(played - wanted).max()


@pytest.mark.stack
@pytest.mark.parametrize("name", ["fast", pytest.param("balanced", marks=pytest.mark.slow)])
def test_a_shipped_shader_is_within_one_code_of_keras(name, player):
    folder = SAVED_MODELS / f"{name}_x1.5"
    assert difference(folder / "model.glsl", read_network(folder / "model.keras"), Scale(3, 2)) <= 1


@pytest.mark.stack
@pytest.mark.parametrize(("scale", "options"), [("2", {"unshuffle": 1}), ("1.5", {"anchor": 5}), ("3", {"filters": 6})])
def test_a_shader_is_within_one_code_of_keras(scale, options, player, tmp_path):
    model, scale = network(scale, **options), Scale.parse(scale)
    (tmp_path / "it's, a [shader].glsl").write_text(write_shader(model, name="x", scale=scale).text)
    assert difference(tmp_path / "it's, a [shader].glsl", model, scale) <= 1


@pytest.mark.stack
@pytest.mark.parametrize("detail", [0, 0.5])
def test_a_shader_has_the_detail_that_it_was_written_at(detail, player, tmp_path):
    model, scale = network("1.5", anchor=3, detail=True), Scale(3, 2)
    (tmp_path / "x.glsl").write_text(write_shader(model, name="x", scale=scale, constants={"detail": detail}).text)
    assert difference(tmp_path / "x.glsl", model, scale, detail=detail) <= 1


@pytest.mark.stack
def test_a_shader_that_does_not_compile_is_an_error(player, tmp_path):
    text = write_shader(network("1.5"), name="x", scale=Scale(3, 2)).text
    (tmp_path / "x.glsl").write_text(text.replace("ivec2 p =", "ivec2 ="))
    with pytest.raises(ValueError, match="Expected ffmpeg to run"):
        play_shader(tmp_path / "x.glsl", frames(), Scale(3, 2))


def test_a_machine_without_ffmpeg_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(playback.shutil, "which", lambda name: None)
    missing_player.cache_clear()
    assert "apt install ffmpeg mesa-vulkan-drivers" in missing_player()
    missing_player.cache_clear()
