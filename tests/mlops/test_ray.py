"""Videos and pictures on a Ray cluster: the same files as in one place, also where a machine is lost in the middle."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster
from conftest import picture, run_command, write_clip
from faults import contents
from PIL import Image
from running import until

CORES = 2
# Commands and machines of the cluster run this before anything else: segments are short, and their makers leave a name.
SITE = """
import os, sys
def short():
    from imagesr.video import segments
    segments.LENGTH, segments.LONG_S = 20, 0
    finish = segments.SegmentWriter.finish
    def told(self):
        finish(self)
        with open(os.environ["IMAGESR_MADE"], "a") as file:
            file.write(f"{self.path.name} {os.environ.get('IMAGESR_NODE', 'here')}\\n")
    segments.SegmentWriter.finish = told
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "imagesr.video.shares":
            sys.meta_path.remove(self)
            short()
sys.meta_path.insert(0, Finder())
"""


def test_a_folder_of_a_command_knows_no_cluster(tmp_path, capsys):
    from imagesr.image.__main__ import main

    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    assert main([str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--ray", "local"]) == 2
    assert "Expected --ray of the command imagesr" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["video", "image"])
def test_without_ray_it_says_what_to_install(command, monkeypatch):
    monkeypatch.delitem(sys.modules, "imagesr.mlops.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run_command(command, "in.mp4", "out.mp4", "--ray", "local")
    assert (done.returncode, done.stderr.strip()[-6:]) == (2, "[ray]'")


@pytest.mark.parametrize("more", [["-", "--ray", "x"], ["out.mp4", "--ray", "x", "--dry-run"]])
def test_a_cluster_needs_files(more):
    done = run_command("video", "in.mp4", *more)
    assert done.returncode == 2 and "expected --ray with files" in done.stderr


class Executor:
    """Make items here, as a cluster would."""

    parts = 2

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, items):
        return map(function, [*items])


def test_folders_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setattr("imagesr.__main__._executor_on", lambda address: Executor())
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_clip(tmp_path / "in" / f"{name}.mp4", frames=5, size=(64, 48), sound=None)
        Image.fromarray(picture(32, 24)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "c.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    done = run_command("video", tmp_path / "in", tmp_path / "out", "-n", "lanczos", "--ray", "x")
    assert done.returncode == 1, done.stderr
    assert f"2 of 3 made, in {tmp_path / 'out'}" in done.stderr and "c.mp4: Expected" in done.stderr
    assert len(re.findall("frames", done.stdout)) >= 2
    done = run_command("image", tmp_path / "in", tmp_path / "large", "--ray", "x", "-n", "fast")
    assert done.returncode == 1, done.stderr
    assert "2 of 3 made" in done.stderr and "c.png: Expected" in done.stderr and "1/3" in done.stderr
    run_command("image", tmp_path / "in", tmp_path / "here", "-n", "fast")
    for name in ("a.png", "b.png"):
        assert np.array_equal(Image.open(tmp_path / "large" / name), Image.open(tmp_path / "here" / name))


@pytest.fixture
def cluster(tmp_path):
    """Return a cluster without machines; makers of segments are told in made.txt."""
    pytest.importorskip("ray", reason="needs Ray (pip install 'imagesr[ray]')")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", str(Path(__file__).parents[2]))])
    env = os.environ | {"PYTHONPATH": path, "IMAGESR_MADE": str(tmp_path / "made.txt")}
    with Cluster(tmp_path, env, cores=CORES) as cluster:
        yield cluster


@pytest.mark.stack
@pytest.mark.slow
def test_a_machine_that_dies_while_it_joins_costs_nothing(tmp_path, cluster):
    film = write_clip(tmp_path / "in.mp4", frames=240, size=(320, 180))
    command = [sys.executable, "-m", "imagesr", "video", str(film), "-q", "-n", "balanced"]
    cluster.add()
    shared = [*command, str(tmp_path / "out.mp4"), "--ray", cluster.address]
    process = subprocess.Popen(shared, env=cluster.env, stderr=subprocess.PIPE, text=True)
    second = cluster.begin()
    until(lambda: cluster.raylet(second), cluster.nodes[second], seconds=300)
    cluster.kill(second)
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said
    makers = (tmp_path / "made.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in makers) == [f"{number:06}.segment" for number in range(12)]
    subprocess.run([*command, str(tmp_path / "here.mp4")], env=cluster.env, check=True)
    assert contents(tmp_path / "here.mp4") == contents(tmp_path / "out.mp4")


@pytest.mark.stack
@pytest.mark.slow
def test_a_machine_that_is_lost_costs_its_segments_once(tmp_path, cluster):
    made = tmp_path / "made.txt"
    film = write_clip(tmp_path / "in.mp4", frames=480, size=(320, 180))
    model = os.environ.get("IMAGESR_TEST_RAY_MODEL", "balanced")
    command = [sys.executable, "-m", "imagesr", "video", str(film), "-n", model]

    def begin(out, *more):
        made.write_text("")
        return subprocess.Popen(
            [*command, str(out), "-q", *more], env=cluster.env, stderr=subprocess.PIPE, text=True
        ), time.monotonic()

    def ended(process, begun):
        said = process.communicate(timeout=900)[1]
        assert process.returncode == 0, said
        return time.monotonic() - begun

    here, there, lost = (tmp_path / f"{name}.mp4" for name in ("here", "there", "lost"))
    alone = ended(*begin(here))
    cluster.add()
    one = ended(*begin(tmp_path / "one.mp4", "--ray", cluster.address))
    second = cluster.add()
    both = ended(*begin(there, "--ray", cluster.address))
    makers = [line.split()[1] for line in made.read_text().splitlines()]
    assert set(makers) == {"node0", "node1"} and len(makers) == 24
    process, begun = begin(lost, "--ray", cluster.address)
    until(lambda: "node1" in made.read_text(), process, seconds=600)
    cluster.kill(second)
    killed = ended(process, begun)
    segments = [line.split()[0] for line in made.read_text().splitlines()]
    assert sorted(segments) == [f"{number:06}.segment" for number in range(24)], "each was finished once"
    assert contents(here) == contents(there) == contents(lost)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".segments"]
    print(f"\nalone {alone:.1f} s; Ray, one machine {one:.1f} s, two {both:.1f} s, one of two lost {killed:.1f} s")


@pytest.mark.stack
def test_a_cluster_that_there_is_not(tmp_path):
    pytest.importorskip("ray", reason="needs Ray (pip install 'imagesr[ray]')")
    done = run_command("video", "in.mp4", tmp_path / "out.mp4", "--ray", "127.0.0.1:1")
    assert done.returncode == 4 and "Expected a Ray cluster that answers" in done.stderr
