"""MLflow, the server and its files by address: runs, and the registry of models. Only this module imports it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from imagesr.errors import OutputError
from imagesr.store import without_secrets
from imagesr.tracking import is_local

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
os.environ |= _ENVIRONMENT | {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}

import mlflow.artifacts  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

EXPERIMENT = "imagesr"
_BATCH = 1000  # metrics in a call, MLflow's limit
_LONGEST = 500  # characters of a parameter, MLflow's old limit
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the latter for an alias that there is not


class Version(NamedTuple):
    """Name a version of a registered model; `tags` are what the registry says about it."""

    name: str
    number: str
    tags: Mapping[str, str]


class Server:
    """Talk to an MLflow server, or to its database; methods raise OutputError where it does not answer.

    `seconds` is the patience with one call, and `tries` how often it is repeated.
    """

    def __init__(self, uri: str, *, seconds: float = 30, tries: int = 2):
        self.uri, self.shown = uri, without_secrets(uri)
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(seconds))
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(tries)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with self._asking():
            self._client = MlflowClient(uri, registry_uri=uri)

    def find_run(self, key: str, *, name: str, started: int) -> str:
        """Return the id of the run with a key of ours, which is made where there is none; `started` is in ms."""
        with self._asking():
            experiment = self._experiment()
            found = self._client.search_runs([experiment], f"tags.`imagesr.key` = '{key}'", max_results=1)
            if found:
                return found[0].info.run_id
            return self._client.create_run(experiment, started, {"imagesr.key": key}, name).info.run_id

    def _experiment(self):
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        place = None
        if self.uri.startswith("sqlite:///"):  # MLflow would put files into the folder where the command runs
            place = (Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts").absolute().as_uri()
        try:
            return self._client.create_experiment(EXPERIMENT, artifact_location=place)
        except MlflowException:  # somebody else has made it meanwhile
            return self._client.get_experiment_by_name(EXPERIMENT).experiment_id

    def read_run(self, run: str) -> tuple[dict[str, str], dict[str, str], str]:
        """Return the parameters, the tags and the status of a run."""
        with self._asking():
            found = self._client.get_run(run)
        return dict(found.data.params), dict(found.data.tags), found.info.status

    def log(
        self,
        run: str,
        *,
        metrics: Iterable[tuple[str, float, int, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        """Log metrics (name, value, ms, step), parameters and tags; repeated, it changes nothing.

        `sent` is called after every call of the server.
        """
        entries = [Metric(*metric) for metric in metrics]
        given = [Param(key, value[:_LONGEST]) for key, value in (params or {}).items()]
        told = [RunTag(key, value) for key, value in (tags or {}).items()]
        for start in range(0, max(len(entries), 1), _BATCH):
            with self._asking():
                self._client.log_batch(run, entries[start : start + _BATCH], given, told, synchronous=True)
            given, told = [], []
            sent()

    def history(self, run: str, name: str) -> dict[int, float]:
        """Return the values of a metric by their steps."""
        with self._asking():
            return {metric.step: metric.value for metric in self._client.get_metric_history(run, name)}

    def upload(self, run: str, file: Path, folder: str = "") -> None:
        """Keep a file, or what a folder holds, with a run."""
        with self._asking():
            if file.is_dir():
                self._client.log_artifacts(run, str(file), folder or None)
            else:
                self._client.log_artifact(run, str(file), folder or None)

    def end(self, run: str, status: str) -> None:
        """Give a run its last status: FINISHED, FAILED or KILLED."""
        with self._asking():
            self._client.set_terminated(run, status)

    def register(self, name: str, run: str, folder: str, tags: Mapping[str, str]) -> Version:
        """Register what a run keeps in `folder` as a new version of a model."""
        with self._asking():
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            return _version(self._client.create_model_version(name, f"runs:/{run}/{folder}", run, dict(tags)))

    def alias(self, name: str, alias: str) -> Version | None:
        """Return the version that an alias names, None where there is none."""
        with self._asking():
            try:
                return _version(self._client.get_model_version_by_alias(name, alias))
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def version(self, name: str, number: str) -> Version | None:
        """Return a version by its number, None where there is none."""
        with self._asking():
            try:
                return _version(self._client.get_model_version(name, number))
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def set_alias(self, version: Version, alias: str) -> None:
        """Let an alias name a version."""
        with self._asking():
            self._client.set_registered_model_alias(version.name, alias, version.number)

    def set_tag(self, version: Version, key: str, value: str) -> None:
        """Say something about a version."""
        with self._asking():
            self._client.set_model_version_tag(version.name, version.number, key, value)

    def versions(self, name: str) -> list[Version]:
        """List the versions of a model, the newest first."""
        with self._asking():
            found = self._client.search_model_versions(f"name='{name}'")
        return sorted(map(_version, found), key=lambda version: -int(version.number))

    def download(self, version: Version, folder: Path) -> None:
        """Fetch the files of a version into a folder."""
        with self._asking(), tempfile.TemporaryDirectory(prefix="imagesr-download-") as scratch:
            source = self._client.get_model_version_download_uri(version.name, version.number)
            how = {"dst_path": scratch, "tracking_uri": self.uri}
            found = mlflow.artifacts.download_artifacts(artifact_uri=source, **how)  # within folders of its own
            shutil.copytree(found, folder, dirs_exist_ok=True)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            known = isinstance(error, MlflowException | OSError)  # that of requests is an OSError
            if not known and not type(error).__module__.startswith("sqlalchemy"):
                raise
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            code = getattr(error, "error_code", "INTERNAL_ERROR")
            away = not is_local(self.uri) and code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
            reason = "no answer" if away else f"{told:.200}"
            raise OutputError(f"Expected a tracking server that answers. Received: {self.shown} ({reason})") from None


def _version(found):
    return Version(found.name, str(found.version), dict(found.tags or {}))
