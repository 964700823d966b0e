"""A real Dagster daemon and web server on PostgreSQL, spoken to as the UI speaks to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from toolcall_pipeline.defs.instance import settings_environment
from toolcall_pipeline.settings import REPOSITORY_ROOT, Settings

MODULE = "toolcall_pipeline_tests.defs.standin"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": MODULE}
_PATIENCE_SECONDS = 400

T = TypeVar("T")


class Services:
    """The GraphQL interface of the running web server."""

    def __init__(self, client: httpx.Client, logs: Path) -> None:
        self._client = client
        self._logs = logs

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        answer = self._client.post("/graphql", json={"query": text, "variables": variables})
        answer.raise_for_status()
        body = answer.json()
        assert "errors" not in body, body["errors"]
        return body["data"]

    def is_up(self) -> bool:
        try:
            self._client.get("/server_info").raise_for_status()
        except httpx.HTTPError:
            return False
        return True

    def is_loaded(self) -> bool:
        data = self.query(
            "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
        )
        entries = data["workspaceOrError"]["locationEntries"]
        if all((entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries):
            return True
        self.query("mutation { reloadWorkspace { __typename } }")
        return False

    def add_partition(self, key: str) -> None:
        data = self.query(
            """mutation($selector: RepositorySelector!, $key: String!) {
              addDynamicPartition(repositorySelector: $selector, partitionsDefName: "backfill_run_id", partitionKey: $key)
              { __typename ... on PythonError { message } } }""",
            selector=REPOSITORY,
            key=key,
        )
        assert data["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess", data

    def launch_backfill(self, assets: list[str], partitions: list[str]) -> str:
        data = self.query(
            """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params)
              { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": partitions},
        )
        return data["launchPartitionBackfill"]["backfillId"]

    def reexecute_from_failure(self, run_id: str) -> str:
        data = self.query(
            """mutation($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params)
              { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={"parentRunId": run_id, "strategy": "FROM_FAILURE"},
        )
        return data["launchRunReexecution"]["run"]["runId"]

    def launch_assets(self, assets: list[str], partition: str) -> str:
        """Materialise assets of a partition without any check, as the asset's page does with checks deselected."""
        selector = {
            **REPOSITORY,
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [asset]} for asset in assets],
            "assetCheckSelection": [],
        }
        tags = [{"key": "dagster/partition", "value": partition}]
        data = self.query(
            """mutation($params: ExecutionParams!) { launchRun(executionParams: $params)
              { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={"selector": selector, "runConfigData": "{}", "executionMetadata": {"tags": tags}},
        )
        return data["launchRun"]["run"]["runId"]

    def report_materialisation(self, asset: str, partition: str) -> None:
        """Do what "Report materialization events" on the asset's page does."""
        data = self.query(
            """mutation($params: ReportRunlessAssetEventsParams!) { reportRunlessAssetEvents(eventParams: $params)
              { __typename ... on PythonError { message } } }""",
            params={"eventType": "ASSET_MATERIALIZATION", "assetKey": {"path": [asset]}, "partitionKeys": [partition]},
        )
        assert data["reportRunlessAssetEvents"]["__typename"] == "ReportRunlessAssetEventsSuccess", data

    def report_passed_check(self, asset: str, gate: str) -> None:
        """Post a check result to the web server's own endpoint, which asks for nothing but the names."""
        answer = self._client.post(f"/report_asset_check/{asset}", json={"check_name": gate, "passed": True})
        answer.raise_for_status()

    def runs(self) -> dict[str, dict[str, Any]]:
        data = self.query(
            "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }",
        )
        return {run["runId"]: run for run in data["runsOrError"]["results"]}

    def run_of(self, partition: str) -> dict[str, Any] | None:
        """Return the newest finished run of a partition."""
        for run in self.runs().values():
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            if tags.get("dagster/partition") == partition and run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
                return run
        return None

    def logs(self) -> str:
        return "\n".join(
            path.read_text(encoding="utf-8", errors="replace")[-4000:] for path in self._logs.glob("*.log")
        )

    def wait(self, what: str, question: Callable[[], T | None]) -> T:
        """Ask until there is an answer; an answer that never comes is an error with the services' own words."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answer = question()
            if answer:
                return answer
            time.sleep(0.25)
        raise AssertionError(f"waited {_PATIENCE_SECONDS} s for {what}\n{self.logs()}")


@contextmanager
def running_services(settings: Settings, folder: Path) -> Iterator[Services]:
    """Run a web server and a daemon over the stand-in chain, and end both for certain."""
    environment = {
        **os.environ,
        **settings_environment(settings),
        "TOOLCALL_PIPELINE_TEST_LOCATION": "standin",
        "PYTHONPATH": str(REPOSITORY_ROOT),
    }
    port, code_port = _free_port(), _free_port()
    workspace = folder / "workspace.yaml"
    # One code server for both services, as `dagster dev` has it: every further one imports everything again.
    workspace.write_text(
        f"load_from:\n  - grpc_server:\n      host: 127.0.0.1\n      port: {code_port}\n      location_name: {MODULE}\n",
        encoding="utf-8",
    )
    commands = {
        "code": ["dagster", "api", "grpc", "-m", MODULE, "-h", "127.0.0.1", "-p", str(code_port)],
        "webserver": ["dagster_webserver", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)],
        "daemon": ["dagster._daemon", "run", "-w", str(workspace)],
    }
    processes = []
    try:
        for name, command in commands.items():
            log = (folder / f"{name}.log").open("wb")
            with log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-W", "ignore", "-m", *command],
                        env=environment,
                        cwd=folder,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            services = Services(client, folder)
            services.wait("the web server", services.is_up)
            services.wait("the code server", services.is_loaded)
            yield services
    finally:
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    import signal

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
