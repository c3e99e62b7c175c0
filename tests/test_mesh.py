"""One training on one, two and four devices: the same numbers up to rounding.

The devices are threads of one CPU, in a process of their own; see `mesh_worker`.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mesh_worker
import numpy as np
import pytest
from helpers import QUICK_FLAGS, small_config

from purejaxppo.env import EnvSpec
from purejaxppo.errors import ConfigError
from purejaxppo.ppo import mesh
from purejaxppo.run import devices
from purejaxppo.run.options import Options

TESTS = Path(__file__).parent
SPEC = EnvSpec("one", {}, None)


def start(*words: str, num_devices: int = 1, cache: str) -> subprocess.Popen:
    """Start `mesh_worker` with so many devices."""
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count={num_devices}"
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    variables = {"PYTHONPATH": path, "XLA_FLAGS": flags, "XDG_CACHE_HOME": cache}
    return subprocess.Popen(
        [sys.executable, str(TESTS / "mesh_worker.py"), *words],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outputs(processes: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Wait for processes; return the last line and the messages of each."""
    found = [process.communicate() for process in processes]
    for process, (_, stderr) in zip(processes, found, strict=True):
        assert process.returncode == 0, stderr
    return [(stdout.splitlines()[-1], stderr) for stdout, stderr in found]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, Any]:
    """What one process with four devices has measured."""
    root = str(tmp_path_factory.mktemp("mesh"))
    ((line, stderr),) = outputs([start(root, num_devices=4, cache=root)])
    found = json.loads(line)
    assert found["devices"] == 4
    return found | {"stderr": stderr}


@pytest.mark.parametrize("env", mesh_worker.TESTED)
def test_parameters_do_not_depend_on_the_number_of_devices(env, measured):
    """In the C engine's program, with memory and several heads, under `jax.vmap`."""
    for figures in measured[env].values():
        assert figures["params"] < 1e-4
        assert figures["ratio_error"] < 1e-4


@pytest.mark.parametrize("env", mesh_worker.TESTED)
def test_counts_are_those_of_all_devices(env, measured):
    for figures in measured[env].values():
        for name, (one, several) in figures["counts"].items():
            np.testing.assert_allclose(several, one, rtol=1e-5, err_msg=name)
    which = "two devices for each"
    assert max(measured["cartpole"][which]["counts"]["train/distinct_starts"][0]) > 1


def test_a_minibatch_has_one_call_between_devices(measured):
    """And a step of the rollout none."""
    assert measured["loops"]["1"] == []
    assert measured["loops"]["2"] == ["psum"]
    assert measured["loops"]["3"] == []


def test_a_run_goes_on_with_another_number_of_devices(measured):
    """To the bit where it is the same number."""
    resumed = measured["runs"]
    assert resumed["2"]["bits"]
    assert resumed["1"]["params"] < 1e-4
    assert resumed["4"]["params"] < 1e-4
    assert measured["stderr"].count("saved on 2 and resumed on 1 devices: ") == 1
    assert measured["stderr"].count("saved on 2 and resumed on 4 devices: ") == 1
    assert "saved on 2 and resumed on 2" not in measured["stderr"]


def test_seeds_on_devices_of_their_own_are_those_of_single_runs(measured):
    assert measured["seeds"] < 1e-4
    assert "devices of the seeds: 2\n" in measured["stderr"]


def test_two_processes_train_one_policy(measured, tmp_path):
    """With a device each: to the bit what one process with both devices trains."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    cache = str(tmp_path)
    pair = [start(address, "process", number, cache=cache) for number in ("0", "1")]
    assert [line for line, _ in outputs(pair)] == [measured["shared"]] * 2


def test_a_mesh_that_does_not_fit_is_refused(measured):
    said = measured["sentences"]
    assert said["three"].startswith("mesh: got 3; allowed is 1, 2, 4 or 8, the divi")
    assert said["axis"] == (
        "mesh: got ('data',); allowed is a mesh with an axis \"envs\""
    )


# --- the choice of devices ----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, [1, 2, 4, 8]),
        ({"num_envs": 12, "num_steps": 8}, [1, 2, 3, 4, 6, 12]),
        # One sequence of each environment, in two minibatches: groups of two.
        ({"core": "gru", "num_minibatches": 2}, [1, 2, 4]),
        ({"num_envs": 1}, [1]),
    ],
)
def test_devices_have_whole_groups(changes, allowed):
    config = small_config(**changes)
    assert mesh.allowed_devices(config) == allowed
    assert mesh.allowed_devices(config, 3) == [n for n in allowed if n <= 3]


@pytest.mark.parametrize(
    ("available", "options", "expected"),
    [
        (1, {}, None),
        (2, {}, ("envs", 2)),
        (6, {}, ("envs", 4)),
        (8, {"num_devices": 2}, ("envs", 2)),
        (8, {"num_devices": 1, "num_seeds": 8}, None),
        (4, {"num_seeds": 8}, ("seeds", 4)),
        (8, {"num_seeds": 3}, ("envs", 8)),
        (3, {"num_seeds": 6}, ("seeds", 3)),
    ],
)
def test_as_many_devices_as_divide_seeds_or_environments(
    available, options, expected, monkeypatch
):
    monkeypatch.setattr(devices.jax, "device_count", lambda: available)
    monkeypatch.setattr(mesh, "make_mesh", lambda num, axis=mesh.ENVS: (axis, num))
    assert devices.choose(small_config(), SPEC, Options(**options)) == expected


@pytest.mark.parametrize(
    ("num", "spec", "sentence"),
    [
        (9, SPEC, "num_devices: got 9; allowed is at most 8, the number of devices"),
        (3, SPEC, "num_devices: got 3; allowed is 1, 2, 4 or 8, the divisors of"),
        (
            2,
            EnvSpec("host", {}, None, can_resume=False),
            "num_devices: got 2; allowed is 1, because the environments of host live",
        ),
    ],
)
def test_a_number_of_devices_that_does_not_fit_is_refused(
    num, spec, sentence, monkeypatch
):
    monkeypatch.setattr(devices.jax, "device_count", lambda: 8)
    with pytest.raises(ConfigError, match=sentence):
        devices.choose(small_config(), spec, Options(num_devices=num))


@pytest.mark.parametrize(
    ("available", "asked", "axis", "num", "said"),
    [
        (1, 0, None, 1, []),
        (2, 1, None, 1, []),
        (2, 0, "envs", 2, ["devices of the environments: 2"]),
        (3, 0, "seeds", 3, ["devices of the seeds: 3"]),
        (6, 4, "envs", 4, ["devices of the environments: 4"]),
        (6, 0, "envs", 4, ["devices of the environments: 4 of 6, for no more can share "
                           "them evenly"]),
    ],
)  # fmt: skip
def test_a_run_says_how_many_devices_it_has(
    available, asked, axis, num, said, monkeypatch
):
    monkeypatch.setattr(devices.jax, "device_count", lambda: available)
    chosen = SimpleNamespace(axis_names=(axis,), size=num) if axis else None
    assert devices.sentences(chosen, Options(num_devices=asked)) == said


def test_environments_on_the_host_have_one_device():
    spec = EnvSpec("host", {}, None, can_resume=False)
    task: Any = SimpleNamespace(config=small_config(), env=SimpleNamespace(spec=spec))
    pair: Any = SimpleNamespace(axis_names=("envs",), shape={"envs": 2})
    with pytest.raises(ConfigError, match="mesh: got 2; allowed is 1, because the env"):
        mesh.shard(task, pair, lambda: None, (), ())
