"""The protocol of benchmark workers, and that a peer's packages are pinned."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.compare import REQUIREMENTS
from benchmarks.peers import ours, ours_update, worker

PINS = sorted(REQUIREMENTS.glob("*.txt"))
ROOT = Path(worker.__file__).parents[2]

# Its units only count; one prints, as libraries do.
TRIVIAL = """
from benchmarks.peers import worker

def make(config):
    done = []
    def prepare(num):
        def run():
            print("this is not for the harness")
            done.extend(range(num))
        return run
    if "broken" in config:
        raise RuntimeError("cannot\\nbe set up")
    return worker.Task(
        prepare, 10, worker.versions("nothing"), evaluate=lambda: len(done)
    )

worker.main(make)
"""


@pytest.fixture
def start(tmp_path):
    """A function: run the trivial worker on these commands; its code and answers."""
    script = tmp_path / "trivial.py"
    script.write_text(TRIVIAL)

    def run(config, *commands):
        # -S: without site-packages, as in the barest of a peer's environments.
        done = subprocess.run(
            [sys.executable, "-S", str(script), json.dumps(config)],
            input="".join(f"{command}\n" for command in commands),
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_a_worker_answers_line_by_line(start):
    code, answers = start({"block_seconds": 1e-9}, "run", "run", "finish")
    ready, first, second, last = answers
    assert code == 0
    assert ready["ready"] is True
    assert ready["versions"] == {"nothing": None}
    assert first["steps"] == second["steps"] == ready["steps_per_block"] == 10
    assert last["steps"] == ready["steps"] + 20
    assert last["seconds"] == pytest.approx(
        ready["seconds"] + first["seconds"] + second["seconds"]
    )
    # Its state went on from warming up to the last block.
    assert last["return"] * 10 == last["steps"]


def test_peak_memory_is_the_workers_own(start):
    """This process holds JAX; what it starts must not be told to hold as much."""
    _, answers = start({"block_seconds": 1e-9}, "finish")
    assert 2**20 < answers[-1]["peak_memory_bytes"] < 64 * 2**20
    assert worker.peak_memory_bytes() > 128 * 2**20


@pytest.mark.parametrize(
    ("config", "command", "sentence"),
    [
        ({"broken": 1}, "finish", "RuntimeError: cannot be set up"),
        ({"block_seconds": 1e-9}, "train", "'train'; allowed is what the task has"),
        ({"block_seconds": 1e-9}, "rnu", "'rnu'; allowed is what the task has"),
    ],
)
def test_what_goes_wrong_is_one_sentence(start, config, command, sentence):
    code, answers = start(config, command)
    assert code == 1
    assert sentence in answers[-1]["error"]


def test_a_block_lasts_about_as_long_as_asked(monkeypatch):
    """The unit takes a hundredth of a second by the clock: a block is 50 of them."""
    clock = [0.0]
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])

    def prepare(num):
        def run():
            clock[0] += 0.01 * num

        return run

    answers = []
    task = worker.Task(prepare, 4, {}, compiles=False)
    worker.serve(lambda _: task, {"block_seconds": 0.5}, ["run"], answers.append)
    assert answers[0]["compile_seconds"] is None
    assert answers[1] == {"steps": 200, "seconds": pytest.approx(0.5)}


def test_ours_reads_the_shared_keys():
    shared = {
        "env": "deck",
        "hidden_sizes": [16, 8],
        "clip_range": 0.3,
        "total_steps": 123,
        "max_grad_norm": 0.7,
        "activation": "relu",
        "ours": {"reset": "fresh", "adam_eps": 1e-8},
    }
    config = ours.make_config(shared)
    assert config.env == "deck"
    assert config.hidden_sizes == config.critic_hidden_sizes == (16, 8)
    assert (config.hypers.clip_eps, config.hypers.max_grad_norm) == (0.3, 0.7)
    assert config.total_timesteps == 123
    assert not config.critic_layer_norm
    assert (config.reset, config.hypers.adam_eps) == ("fresh", 1e-8)


@pytest.mark.parametrize("peer", [ours, ours_update])
def test_ours_runs_blocks(peer):
    config = {
        "env": "probe_envs:make",
        "num_envs": 4,
        "num_steps": 4,
        "num_epochs": 2,
        "num_minibatches": 2,
        "hidden_sizes": [4],
        "total_steps": 16,
        "block_seconds": 1e-9,
    }
    answers = []
    commands = io.StringIO("run\nrun\n")
    worker.serve(peer.make, config, commands, answers.append)
    ready, first, second = answers
    assert ready["compile_seconds"] > 0.0
    # Samples once, or as often as they are passed over.
    assert first["steps"] == second["steps"] == (16 if peer is ours else 32)
    assert second["seconds"] > 0.0


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.stem)
def test_every_package_of_a_peer_is_pinned(path):
    lines = path.read_text().splitlines()
    packages = [re.fullmatch(r"([\w.-]+)==[\w.]+", line) for line in lines]
    assert all(packages)
    assert len({match[1].lower() for match in packages}) == len(lines)
