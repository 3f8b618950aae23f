"""The files of deploy/ pass their own validators, and a broken copy of each does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]
DEPLOY = Path(__file__).parents[2] / "deploy"
KEYS = dict.fromkeys(("POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GRAFANA_PASSWORD"), "x")
QUIET = {"TF_CLI_CONFIG_FILE": "/dev/null", "CHECKPOINT_DISABLE": "1"}


def run(name, *arguments, env=None, cwd=None):
    """Run a program, beside this Python or in PATH; returns exit code and output. Skips where there is none."""
    beside = Path(sys.executable).with_name(name)
    program = beside if beside.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not program:
        pytest.skip(f"needs {name}")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, env=os.environ | (env or {}), cwd=cwd
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    """Return a function that copies deploy/ with one text replaced."""

    def copy(name, old, new):
        shutil.copytree(DEPLOY, tmp_path / "deploy", dirs_exist_ok=True)
        file = tmp_path / "deploy" / name
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1))
        return tmp_path / "deploy"

    return copy


def test_compose(copy):
    def check(folder, env=KEYS):
        return run("docker-compose", "-f", folder / "compose.yaml", "--profile", "etl", "config", "-q", env=env)

    assert check(DEPLOY) == (0, "")
    code, said = check(copy("compose.yaml", "restart: unless-stopped", "restarts: always"))
    assert code and "restarts" in said
    code, said = check(DEPLOY, KEYS | {"GRAFANA_PASSWORD": ""})
    assert code and "Expected GRAFANA_PASSWORD in the environment" in said


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("autoscaler.yaml", "  maxReplicas: 8\n", ""), ("deployment.yaml", "readinessProbe", "readyProbe")],
)
def test_kubernetes(name, old, new, copy, tmp_path):
    def check(folder):
        code, text = run("kubectl", "kustomize", folder / "kubernetes")
        assert code == 0, text
        (tmp_path / "all.yaml").write_text(text)
        return run("kubernetes-validate", "-k", "1.36", "--strict", tmp_path / "all.yaml")[0]

    assert check(DEPLOY) == 0
    assert check(copy(f"kubernetes/{name}", old, new)) != 0
    assert run("kubernetes-validate", "-k", "1.36", "--strict", DEPLOY / "retrain-cronjob.yaml")[0] == 0


def test_ansible(copy):
    def check(folder, *how):
        local = ["-i", "localhost,", "-c", "local", "-e", "ansible_python_interpreter=/usr/bin/python3"]
        return run("ansible-playbook", *how, *local, "-e", "device=/dev/sdb", folder / "ansible/site.yml")

    assert check(DEPLOY, "--syntax-check")[0] == 0
    assert check(copy("ansible/site.yml", "ansible.builtin.file:", "ansible.builtin.fils:"), "--syntax-check")[0] != 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        code, said = check(DEPLOY, "--check")
        assert code == 0, said
        assert check(copy("ansible/site.yml", "src: options.conf.j2", "src: none.j2"), "--check")[0] != 0


def test_prometheus(copy):
    for name in ("alerts", "days"):
        code, said = run("promtool", "test", "rules", DEPLOY / f"prometheus/tests/{name}.yml")
        assert code == 0, said
    broken = copy("prometheus/alerts.yml", "imagesr:disk_free_share <", "imagesr:disk_free_share >")
    assert run("promtool", "test", "rules", broken / "prometheus/tests/alerts.yml")[0] != 0
    assert run("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml")[0] == 0
    broken = copy("prometheus/rules.yml", "sum(rate(", "sum(rate((")
    assert run("promtool", "check", "config", broken / "prometheus/prometheus.yml")[0] != 0


def test_alertmanager(copy, tmp_path):
    def check(folder):
        text = (folder / "alertmanager.yml").read_text("utf-8").replace("${PAGER}", "127.0.0.1:9099")
        (tmp_path / "filled.yml").write_text(text)
        return run("amtool", "check-config", tmp_path / "filled.yml")[0]

    assert check(DEPLOY) == 0
    assert check(copy("alertmanager.yml", "receiver: pager", "receiver: nobody")) != 0


def test_nginx(copy, tmp_path):
    def check(folder):
        values = {
            "BLOCK": str(tmp_path),
            "FRONT": "127.0.0.1:1",
            "SERVICE_1": "127.0.0.1:2",
            "SERVICE_2": "127.0.0.1:3",
        }
        text = (folder / "nginx.conf").read_text("utf-8")
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        (tmp_path / "tmp").mkdir(exist_ok=True)
        (tmp_path / "nginx.conf").write_text(text.replace("listen 127.0.0.1:1", "listen 127.0.0.1:48591"))
        return run("nginx", "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf")[0]

    assert check(DEPLOY) == 0
    assert check(copy("nginx.conf", "least_conn;", "least_con;")) != 0


@pytest.fixture
def terraform(tmp_path):
    """Return a function that runs Terraform on a copy of a folder's files, with the provider of this machine."""
    plugins = Path(os.environ.get("TERRAFORM_PLUGINS", "/opt/tf-plugins"))
    if not plugins.is_dir():
        pytest.skip("needs Terraform's AWS provider in a folder (TERRAFORM_PLUGINS)")

    def terraform(folder, word, *arguments, env=None):
        place = tmp_path / folder.parent.name / "terraform-run"
        if not place.exists():
            place.mkdir(parents=True)
            shutil.copy(folder / "terraform/main.tf", place)
            code, said = run("terraform", f"-chdir={place}", "init", f"-plugin-dir={plugins}", "-no-color", env=QUIET)
            assert code == 0, said
        return run("terraform", f"-chdir={place}", word, "-no-color", *arguments, env=QUIET | (env or {}))

    return terraform


def test_terraform(copy, terraform):
    assert run("terraform", "fmt", "-check", DEPLOY / "terraform", env=QUIET)[0] == 0
    assert terraform(DEPLOY, "validate")[0] == 0
    assert terraform(copy("terraform/main.tf", "var.bucket\n", "var.buckets\n"), "validate")[0] != 0


def test_terraform_has_nothing_to_change_after_it_was_applied(tmp_path, terraform):
    if shutil.which("terraform") is None:
        pytest.skip("needs terraform")
    stack = Stack(tmp_path, tracking=False)
    try:
        given = ["-input=false", f"-var=s3_endpoint={stack.endpoint}"]
        made, other = [*given, "-var=bucket=made"], [*given, "-var=bucket=other"]
        changes = lambda values: terraform(DEPLOY, "plan", "-detailed-exitcode", *values, env=stack.env)[0]  # noqa: E731
        assert changes(made) == 2
        code, said = terraform(DEPLOY, "apply", "-auto-approve", *made, env=stack.env)
        assert code == 0, said
        assert changes(made) == 0
        assert changes(other) == 2, "a plan that changes something says so"
        code, said = terraform(DEPLOY, "destroy", "-auto-approve", *made, env=stack.env)
        assert code == 0, said
        assert changes(made) == 2
    finally:
        stack.end()
