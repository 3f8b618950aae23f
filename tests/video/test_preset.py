"""Options from a file: the same as on the command line, which wins."""

import pytest

from imagesr.cli import NOT_STARTED
from imagesr.video.__main__ import _parser, main
from imagesr.video.preset import with_preset

TOML = (
    'size = "1080p"\ncrf = 20\nskip_existing = true\nsquare = false\nrealtime = true\naudio = "copy"\ntarget-size = 9\n'
)


def parsed(*arguments):
    return vars(_parser().parse_intermixed_args(with_preset(_parser, [*map(str, arguments)])))


@pytest.fixture
def preset(tmp_path):
    file = tmp_path / "films.toml"
    file.write_text(TOML.replace("target-size = 9\n", ""), "utf-8")
    return file


def test_a_file_says_what_the_command_line_would(preset, tmp_path):
    found = parsed("in.mp4", "--preset-file", preset, "out.mp4")
    same = parsed(
        "in.mp4", "out.mp4", "--size", "1080p", "--crf", "20", "--skip-existing", "--realtime", "--audio=copy"
    )
    assert found == same | {"preset_file": preset}
    (tmp_path / "p.json").write_text('{"size": "1080p", "crf": 20, "encoder-option": "tune=film"}', "utf-8")
    found = parsed("in.mp4", "out.mp4", "--preset-file", tmp_path / "p.json")
    assert (found["size"], found["crf"], found["encoder"]) == ((1920, 1080), 20, [("tune", "film")])


def test_the_command_line_wins_also_over_what_it_excludes(preset):
    found = parsed("in.mp4", "out.mp4", "--preset-file", preset, "-s", "2", "--bitrate", "500", "--audio", "none", "-y")
    assert (str(found["scale"]), found["size"], found["crf"], found["bitrate"]) == ("2", None, None, 500)
    assert (found["audio"], found["overwrite"], found["skip_existing"]) == ("none", True, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sacle = 2", "Expected names of options in films.toml. Received: 'sacle'; 'scale' is one"),
        ('demo = "x.mp4"', "Received: 'demo'"),
        ("crf = ", "Expected a preset file in TOML. films.toml: "),
        ("square = 2", "Expected true or false for 'square' in films.toml. Received: 2"),
        ("crf = true", "Expected a text or a number for 'crf' in films.toml. Received: true"),
        ("[video]\ncrf = 2", "Received: 'video'"),
        ('crf = "low"', "argument --crf: invalid float value: 'low'"),
        (TOML, "not allowed with argument"),
        (None, "Expected a preset file that can be read. films.toml: No such file"),
    ],
)
def test_a_wrong_file_is_one_sentence(text, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "films.toml").write_text(text, "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["in.mp4", "out.mp4", "--preset-file", "films.toml"])
    assert ended.value.code == NOT_STARTED
    told = capsys.readouterr().err
    assert says in told
    assert len(told.splitlines()) == 1
