"""Services: started once, found again, ended whole, and swept after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from orchestration import processes, ray_head, services
from orchestration.processes import Process


def quiet(text: str) -> None:
    """Progress that nobody reads."""


def test_a_process_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    process = processes.spawn([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", os.environ)
    assert processes.is_alive(process)
    assert not processes.is_alive(Process(process.pid, "another start"))
    assert processes.end([Process(process.pid, "another start")]) == 0
    assert processes.is_alive(process)
    assert processes.end([process]) == 1
    assert not processes.is_alive(process)


def test_what_a_process_started_ends_with_it_even_if_it_does_not_listen(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stubborn!r}])"
    process = processes.spawn([sys.executable, "-c", code], tmp_path / "log", os.environ)
    deadline = time.monotonic() + 20
    while "up" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    [child] = processes.descendants(process.pid)
    processes.end([process], grace_s=0.3)
    assert not processes.is_alive(process)
    assert not processes.is_alive(child)


def test_a_taken_port_is_not_given() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((ray_head.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ray_head.free_port(port) != port


def test_the_token_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = ray_head.write_token(tmp_path)
    first = Path(path).read_text()
    assert len(first) == 64
    assert os.stat(path).st_mode & 0o077 == 0
    assert ray_head.write_token(tmp_path) == path
    assert Path(path).read_text() == first


def test_a_root_without_services_has_none(tmp_path: Path) -> None:
    assert services.read(tmp_path / "never") == services.Services()
    assert services.down(tmp_path / "never") == []
    assert not (tmp_path / "never").exists()


def test_a_services_file_that_does_not_read_counts_as_none(tmp_path: Path) -> None:
    services.folder(tmp_path).mkdir(parents=True)
    (services.folder(tmp_path) / "services.json").write_text('{"ray": {"pid": 1}')
    assert services.read(tmp_path) == services.Services()
    assert services.down(tmp_path) == []


def test_dagster_home_keeps_its_settings(tmp_path: Path) -> None:
    home = services.dagster_home(tmp_path)
    text = (home / "dagster.yaml").read_text()
    assert "enabled: false" in text.split("telemetry:")[1].splitlines()[1]
    assert yaml.safe_load(text)["concurrency"]["pools"] == {"granularity": "op", "default_limit": 2}
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    services.dagster_home(tmp_path)
    assert (home / "dagster.yaml").read_text() == "telemetry:\n  enabled: false\n"


@pytest.mark.ray
def test_up_twice_is_once_and_down_leaves_nothing_even_of_a_killed_head(tmp_path: Path) -> None:
    head = services.up(tmp_path, num_cpus=1, say=quiet)
    try:
        assert services.up(tmp_path, num_cpus=1, say=quiet) == services.read(tmp_path).ray == head
        assert head.dashboard.startswith("http://127.0.0.1:")
        assert head.answers()
        stranger = tmp_path / "token"
        stranger.write_text("0" * 64)
        assert not dataclasses.replace(head, token_path=str(stranger)).answers()
        os.kill(head.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while services.read(tmp_path).ray is not None and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        assert services.down(tmp_path) == ["ray (what was left of it)"]
    assert not [p for p in head.family if processes.is_alive(p)]
    assert not Path(head.temp).exists()
    assert not (services.folder(tmp_path) / "services.json").exists()
    assert services.down(tmp_path) == []


@pytest.mark.dagster
@pytest.mark.slow
def test_the_ui_answers_and_ends(tmp_path: Path, toy_rooms: None) -> None:
    running = services.ui(tmp_path, say=quiet)
    try:
        import urllib.request

        with urllib.request.urlopen(f"{running.url}/server_info", timeout=10) as reply:
            assert "dagster_webserver_version" in json.loads(reply.read())
        assert services.ui(tmp_path, say=quiet) == running
    finally:
        family = [running.process, *processes.descendants(running.process.pid)]
        assert services.down(tmp_path) == ["dagster"]
    assert not [p for p in family if processes.is_alive(p)]


def test_the_command_down_says_that_nothing_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "down", "--root", str(tmp_path / "root")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nothing runs" in done.stdout
