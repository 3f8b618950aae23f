"""The files of deploy/: they parse, name the same parts, and every alert has its runbook, its test and its figures."""

import ast
import json
import re
import runpy
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from imagesr.serve.__main__ import _parser
from imagesr.serve.follow import Champions

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PARTS = {"service-1", "service-2", "front", "mlflow", "database", "s3", "prometheus", "alertmanager", "machine"}
PARTS |= {"probe", "pager"}
yaml = pytest.importorskip("yaml", reason="needs PyYAML (pip install 'imagesr[dev]')")


# By which a scrape tells the figures of each kind.
ENDS = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}


def read(name):
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


def rules(name):
    return [rule for group in read(f"prometheus/{name}.yml")["groups"] for rule in group["rules"]]


def figures_of_the_program():
    """Return the names of all figures that the program's sources make."""
    text = (ROOT / "imagesr/serve/metrics.py").read_text("utf-8")
    found = set()
    for call in ast.walk(ast.parse(text)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ENDS:
            found |= {call.args[0].value + end for end in ENDS[call.func.id]}
    times = {f"imagesr_{command}_{end}_timestamp_seconds" for command in ("etl", "retrain") for end in ("end", "run")}
    return found | times | {"imagesr_etl_rows", "imagesr_etl_rejected"}


@pytest.mark.parametrize(
    "file", sorted(p for p in DEPLOY.rglob("*") if p.suffix in (".yml", ".yaml", ".json", ".toml")), ids=str
)
def test_it_parses(file):
    read = {".json": json.loads, ".toml": tomllib.loads}.get(file.suffix, lambda text: [*yaml.safe_load_all(text)])
    assert read(file.read_text("utf-8"))


def test_processes_containers_targets_and_the_diagram_name_the_same_parts():
    procfile = {line.split(":")[0] for line in (DEPLOY / "Procfile").read_text("utf-8").splitlines()}
    compose = {*read("compose.yaml")["services"]}
    page = (DEPLOY / "README.md").read_text("utf-8")
    diagram = re.search(r"```mermaid\n(.*?)```", page, re.S)[1]
    drawn = {*re.findall(r"\b([a-z][a-z0-9-]*)[\[(]", diagram)}
    assert procfile == PARTS
    assert compose == PARTS | {"grafana", "etl"}
    assert drawn == compose | {"users"}
    local = {target["labels"]["part"] for target in json.loads((DEPLOY / "targets.json").read_text("utf-8"))}
    held = {target["labels"]["part"] for target in json.loads((DEPLOY / "compose/targets.json").read_text("utf-8"))}
    assert local == PARTS - {"probe", "pager"} and held == local | {"grafana"}


def test_nobody_is_woken_by_a_start_and_a_first_start_waits_for_the_registry(tmp_path):
    up = runpy.run_path(str(DEPLOY / "up"))
    last = {"prometheus": PARTS - {"prometheus"}}
    assert up["followers"](tmp_path, "-n fast") == last
    first = up["followers"](tmp_path, "--follow mine_x2")
    assert first == last | {"service-1": {"mlflow"}, "service-2": {"mlflow"}}
    assert {*up["checks"](defaultdict(str))} == PARTS, "each is waited for"
    parts = re.findall(r"^\[program:(\S+)\]$.*?^autostart=(\w+)$", up["supervisor"](tmp_path, first), re.M | re.S)
    assert dict(parts) == {name: str(name not in first).lower() for name in PARTS}
    champions = Champions(None, ["mine_x2"], tmp_path / "cache/models/mlflow")
    (champions.folder / "mine_x2/3").mkdir(parents=True)
    champions.keep("mine_x2/3")
    assert up["followers"](tmp_path, "--follow mine_x2") == last, "it serves what it had"


def test_every_alert_has_a_line_of_the_runbook_and_a_test_for_firing_and_clearing():
    book = (DEPLOY / "runbook.md").read_text("utf-8")
    tests = [test for name in ("alerts", "days") for test in read(f"prometheus/tests/{name}.yml")["tests"]]
    for rule in rules("alerts"):
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{name.lower()}"
        assert f'| <a id="{name.lower()}"></a>`{name}` |' in book
        looked = [
            [bool(one["exp_alerts"]) for one in test.get("alert_rule_test", []) if one["alertname"] == name]
            for test in tests
        ]
        assert [False, True, False] in looked, f"{name} is not tested before, during and after its fault"


def test_rules_and_panels_name_figures_that_there_are():
    recorded = {rule["record"] for name in ("slo", "rules") for rule in rules(name)}
    panels = [json.loads(file.read_text("utf-8"))["panels"] for file in (DEPLOY / "grafana/dashboards").glob("*.json")]
    texts = [target["expr"] for board in panels for panel in board for target in panel["targets"]]
    texts += [rule["expr"] for name in ("rules", "alerts") for rule in rules(name)]
    named = {name for text in texts for name in re.findall(r"\bimagesr[:_][a-z0-9_:]+", text)}
    assert named - recorded - figures_of_the_program() == set()
    slo = {rule["record"] for rule in rules("slo")}
    assert slo <= named, "what nobody reads is no promise"


def test_no_secret_is_in_a_file_and_every_image_of_others_is_pinned():
    compose = read("compose.yaml")
    ours = {service["image"] for service in compose["services"].values() if "build" in service and "image" in service}
    for name, service in compose["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|KEY", key):
                assert str(value).startswith("${") and ":?" in value, f"{name}: {key}"
        if "image" in service and service["image"] not in ours:
            assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", service["image"])
        for volume in service.get("volumes", []):
            assert volume.startswith(("./", "/:", "${BLOCK:-/mnt/block}")), volume


def test_nginx_refuses_names_that_are_not_its_own():
    """It tells the service `Host: localhost`, so the service itself cannot."""
    other, own = re.findall(r"^    server \{\n(.*?)^    \}", (DEPLOY / "nginx.conf").read_text("utf-8"), re.S | re.M)
    assert "default_server" in other and "return 421;" in other and "proxy_pass" not in other
    names = {*re.search(r"server_name (.*);", own)[1].split()}
    assert {"localhost", "127.0.0.1", "[::1]"} <= names and "default_server" not in own
    targets = json.loads((DEPLOY / "compose/targets.json").read_text("utf-8"))
    asked = {target["labels"].get("__param_target", "") for target in targets if target["labels"]["part"] == "front"}
    assert {re.sub("http://(.*):.*", r"\1", address) for address in asked} <= names


def test_no_video_lies_in_the_memory_of_a_container():
    services = read("compose.yaml")["services"]
    for name in ("service-1", "service-2"):
        command = services[name]["command"].split()
        mounted = [volume.rsplit(":", 1)[1] for volume in services[name]["volumes"]]
        if "--video-folder" in command:
            assert command[command.index("--video-folder") + 1] in mounted
        else:
            assert command[command.index("--videos") + 1] == "0"
        assert services[name]["environment"]["IMAGESR_CACHE"] in mounted, "champions outlast a container"
    assert "--video-folder" in services["service-1"]["command"], "nginx sends all videos there"


def test_containers_follow_the_registry_as_processes_do():
    """Both services take further options from one variable, and their image has what --registry needs."""
    services = read("compose.yaml")["services"]
    for name in ("service-1", "service-2"):
        assert services[name]["command"].endswith(" ${IMAGESR_SERVE:-}")
        assert "track" in services[name]["build"]["args"]["EXTRAS"].split(",")
    assert re.search(r"^ARG EXTRAS=[\w,]+$", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
    page = (DEPLOY / "README.md").read_text("utf-8")
    given = re.search(r"IMAGESR_SERVE='([^']*)' docker compose", page)[1]
    options = _parser().parse_args(given.split())
    assert options.follow and options.registry == services["etl"]["environment"]["MLFLOW_TRACKING_URI"]


def test_the_image_that_trains_has_the_libraries_of_opencv():
    """Slim images have none of them, and `import cv2` fails, which looks for leaks."""
    etl = read("compose.yaml")["services"]["etl"]
    assert re.search("apt-get install .*libgl1 .*libglib2.0-0", etl["build"]["dockerfile_inline"])
    job = read("retrain-cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert job["image"].partition(":")[0] == etl["image"]


def test_folders_of_containers_that_are_not_root_are_made_by_the_page():
    """Docker would make a folder that is missing, for root alone."""
    page = (DEPLOY / "README.md").read_text("utf-8")
    made = {name for names in re.findall(r"mkdir -p BLOCK/\{([\w,]+)\}", page) for name in names.split(",")}
    owned = [(user, names.strip("{}")) for user, names in re.findall(r"chown (\d+) BLOCK/(\S+?)`", page)]
    assert {name for _, names in owned for name in names.split(",")} == made
    ours = {name for user, names in owned if user == "10001" for name in names.split(",")}
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    used = {*re.findall(r"\$\{BLOCK:-/mnt/block\}/(\w+)", text)}
    assert used - made == {"database", "s3"}, "these two run as root"
    commands = re.findall(r"docker compose [^\n]*run [^\n]*", page)
    written = {*re.findall(r"/block/(\w+)", " ".join(re.sub("=/block/in/", "=", line) for line in commands))}
    assert written and written <= ours


def test_the_bucket_is_mounted_from_any_endpoint():
    """Debian's rclone does not read AWS_ENDPOINT_URL by itself."""
    unit = (DEPLOY / "ansible/templates/imagesr-rclone.service.j2").read_text("utf-8")
    [command] = re.findall("^ExecStart=(.*)$", unit, re.M)
    assert "--s3-endpoint=${AWS_ENDPOINT_URL} " in command and "--read-only" in command


def test_nothing_of_it_is_in_the_wheel():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert (wheel["packages"], {*wheel["force-include"]}) == (["imagesr"], {"saved_models", "extractors"})
