"""Tracking: run folders mirrored to MLflow, and where a model comes from; `imagesr track`.

The run folder is the truth, the server its mirror: what the server lacks is sent again. `server` alone knows MLflow,
its registry of models too. `mirror` sends a run folder, `follow` does so in a process of its own while training goes
on, and `lineage` writes down data, code and parents, and checks them. What a run is, is in `train`.
"""

from __future__ import annotations

import os
from pathlib import Path

URI = "MLFLOW_TRACKING_URI"  # MLflow's own name; an address may hold a password, and options are seen by all users


def address(uri: str | None, runs: Path) -> str:
    """Return a tracking server's address: the one given, the environment's, or an SQLite file in the folder `runs`."""
    return uri or os.environ.get(URI) or f"sqlite:///{(runs / 'mlflow.db').absolute()}"


def is_local(uri: str) -> bool:
    """Tell whether an address needs no other machine or process."""
    return uri.startswith(("sqlite:", "file:")) or "://" not in uri
