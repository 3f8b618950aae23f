"""What commands tell Prometheus when they end."""

import pytest

from imagesr.textfile import VARIABLE, record, recorded


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def figures(folder, command="etl"):
    lines = (folder / f"imagesr_{command}.prom").read_text("utf-8").splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_figures_stay_until_they_are_written_again(folder):
    record("etl", {"rows": 8, "rejected": 0}, step="load")
    record("etl", {"rows": 3}, step="transform")
    record("etl", {"rows": 9}, step="load")
    expected = {'imagesr_etl_rows{step="load"}': 9, 'imagesr_etl_rejected{step="load"}': 0}
    assert figures(folder) == expected | {'imagesr_etl_rows{step="transform"}': 3}


def test_an_end_and_a_failure_have_their_time(folder, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.25)
    with recorded("retrain"):
        pass
    with pytest.raises(KeyError), recorded("retrain"):
        raise KeyError
    names = ("end", "failure")
    assert figures(folder, "retrain") == {
        f"imagesr_retrain_{name}_timestamp_seconds": 1_800_000_000.25 for name in names
    }


def test_a_damaged_file_is_written_anew(folder):
    (folder / "imagesr_etl.prom").write_text("no figure", "utf-8")
    record("etl", {"rows": 1})
    assert figures(folder) == {"imagesr_etl_rows": 1}


def test_a_folder_that_is_not_there_costs_a_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    record("etl", {"rows": 1})
    assert capsys.readouterr().err.count("Expected a folder that can be written in IMAGESR_METRICS") == 1


def test_nothing_is_written_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    record("etl", {"rows": 1})
    assert not list(tmp_path.iterdir())
