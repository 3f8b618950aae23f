"""A Ray cluster of processes on this machine, as tests start it and kill its machines."""

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
from running import until
from stack import free_port


class Cluster:
    """Start the machines of a cluster as processes; those of each know its name, by which they are killed.

    `env` has the variables by which clients find it.
    """

    def __init__(self, folder, env, *, cores):
        import ray

        self.folder, self.cores, self.nodes, port = folder, cores, {}, free_port()
        self.temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the names of sockets must be short
        # Ray gives its processes the priority 15, with which they hardly run beside others.
        ours = {"IMAGESR_CLUSTER": self.temporary, "RAY_worker_niceness": "0"}
        self.env = env | ours | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        self.address = f"{ray.util.get_node_ip_address()}:{port}"
        self.first = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.temporary}"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.nodes:
            self.kill(name)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def add(self):
        """Start a machine, wait until it has joined, and return its name."""
        name = self.begin()
        until(lambda: self.count() == len(self.nodes), self.nodes[name], seconds=300)
        return name

    def begin(self):
        """Start a machine, and return its name at once."""
        name = f"node{len(self.nodes)}"
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--num-cpus={self.cores}"]
        command += ["--disable-usage-stats", "--object-store-memory=100000000"]
        command += [f"--address={self.address}"] if self.nodes else self.first
        with (self.folder / f"{name}.log").open("wb") as log:
            env = self.env | {"IMAGESR_NODE": name}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        self.nodes[name] = process
        return name

    def raylet(self, name):
        """Tell whether the process that joins the cluster runs on a machine."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "raylet" and process.environ().get("IMAGESR_NODE") == name:
                    return True
        return False

    def count(self):
        """Return how many machines there are."""
        code = "import ray, sys\nray.init(address=sys.argv[1], logging_level=50, log_to_driver=False)\n"
        code += "print('nodes', sum(node['Alive'] for node in ray.nodes()))"
        done = subprocess.run([sys.executable, "-c", code, self.address], capture_output=True, text=True, env=self.env)
        found = re.search(r"nodes (\d+)", done.stdout)
        return int(found[1]) if found else 0

    def kill(self, name):
        """End a machine as a power cut would."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                env = process.environ()
                if (env.get("IMAGESR_NODE"), env.get("IMAGESR_CLUSTER")) == (name, self.temporary):
                    process.kill()
        self.nodes[name].wait()
