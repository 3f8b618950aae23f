"""What starts a retraining: a workflow, a timer and a CronJob call one command."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from imagesr.mlops.retrain import Plan, _parser

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/retrain.yml"
UNITS = [ROOT / f"deploy/imagesr-retrain.{kind}" for kind in ("service", "timer")]
CRONJOB = ROOT / "deploy/retrain-cronjob.yaml"


def commands():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    steps = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["retrain"]["steps"]
    yield shlex.split(steps[-1]["run"].replace("${{ inputs.retry && '--retry' || '' }}", "--retry"))
    (line,) = [line for line in UNITS[0].read_text("utf-8").splitlines() if line.startswith("ExecStart=")]
    yield shlex.split(line.removeprefix("ExecStart="))
    job = yaml.safe_load(CRONJOB.read_text("utf-8"))
    yield job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]


def test_they_all_call_one_command():
    for program, name, *arguments in commands():
        assert (program.rpartition("/")[2], name) == ("imagesr", "retrain")
        options = _parser().parse_args(arguments)
        assert options.if_changed and options.config.name == "retrain.toml"


def test_the_example_is_a_plan():
    plan = Plan.read(ROOT / "deploy/retrain.toml")
    assert (plan.name, plan.train["scale"]) == ("mine", "2")
    config = pytest.importorskip("imagesr.train.config", reason="needs pydantic (pip install 'imagesr[train]')")
    config.Config(**plan.train)


def test_the_workflow_starts_by_the_clock_by_hand_and_by_new_data():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    triggers = yaml.safe_load(WORKFLOW.read_text("utf-8"))[True]  # YAML reads `on` as a truth
    assert triggers.keys() == {"schedule", "workflow_dispatch", "repository_dispatch"}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path):
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/imagesr/bin/imagesr", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / unit.name for unit in UNITS)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_the_mount_is_a_script(tmp_path):
    script = ROOT / "script/setup_rclone_mnt.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    done = subprocess.run(["bash", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode and "Expected BUCKET/PREFIX" in done.stderr
