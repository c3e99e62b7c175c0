"""One run, however it is cut: a single call, chunks, killed and resumed. To the bit."""

import csv
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from helpers import QUICK_FLAGS, assert_trees_equal, users_jit

from purejaxppo import make_train, train
from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import checkpoint, seeds
from purejaxppo.run.trained import load_policy

NUM_UPDATES = 60
FLAGS = (
    "--env probe_envs:make --env-kwargs kind=endless continuous=True --num-envs 4 "
    "--num-steps 8 --num-minibatches 2 --num-epochs 2 --hidden-sizes 8 "
    f"--critic-hidden-sizes 8 --total-timesteps {32 * NUM_UPDATES} --num-evals 4 "
    "--eval-episodes 4 --reset pool --normalize-rewards --learning-rate-schedule kl "
    "--target-kl 0.02 --seed 3 --no-tensorboard --no-report --checkpoint-every 5 "
    "--num-demonstrations 3 --cloning-steps 20 --cloning-batch 8 --anchor "
    "--kl-coef 0.1 --critic-warmup 2 --distribution truncated_normal --init-std 0.5"
).split()


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """Compiled programs are shared by the processes, which makes them start fast."""
    with pytest.MonkeyPatch.context() as patch:
        tests = str(Path(__file__).parent)
        root = str(Path(__file__).parent.parent)
        patch.setenv("PYTHONPATH", os.pathsep.join((root, tests)))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("XLA_FLAGS")  # bits are compared between programs of users
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "purejaxppo.train", *flags]


def start(path: Path, *flags: str) -> subprocess.Popen:
    return popen(command(*FLAGS, "--run-dir", str(path), *flags))


def popen(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_rows(path: Path, process: subprocess.Popen, rows: int) -> None:
    """Until so many updates are logged; -1: until the run has its configuration."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if rows < 0 and (path / "config.json").exists():
            return
        if rows >= 0 and (path / "metrics.csv").exists():
            with (path / "metrics.csv").open() as file:
                if sum(1 for _ in file) > rows:
                    return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    pytest.fail("no rows in time")


def final_state(path: Path):
    loaded = load_policy(path, "latest", env="probe_envs:make")
    assert loaded.update == NUM_UPDATES
    return loaded.state


def rows_of(path: Path, table: str) -> list[dict[str, str]]:
    """Rows of a CSV file, without what a clock says."""
    with (path / table).open(newline="") as file:
        rows = list(csv.DictReader(file))
    clock = ("seconds", "steps_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def resume(path: Path) -> str:
    """Go on to the end; what it said."""
    result = subprocess.run(
        command("--resume", str(path), "--env", "probe_envs:make"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == EXIT_OK, result.stderr
    return result.stderr


def assert_same_run(path: Path, other: Path) -> None:
    """The same final state, and every row once."""
    assert_trees_equal(final_state(path), final_state(other))
    for table in ("metrics.csv", "evals.csv"):
        assert rows_of(path, table) == rows_of(other, table)


@pytest.fixture(scope="module")
def by_ones(tmp_path_factory) -> Path:
    """The run as the command line does it, an update a call."""
    path = tmp_path_factory.mktemp("ones") / "run"
    process = start(path, "--chunk-updates", "1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == EXIT_OK, errors
    return path


def programs() -> set[str]:
    """The keys of the compilation cache for the programs of a run."""
    names = ("jit_chunk-", "jit_evaluate-", "jit_evaluate_stochastic-")
    files = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).iterdir()
    return {file.name for file in files if file.name.startswith(names)}


def test_a_damaged_checkpoint_is_left_for_the_one_before(by_ones, tmp_path):
    """As if the run had been killed at its end, and the disk were at fault.

    Before all other tests that resume, which would fill the cache: it compiles nothing
    that the start compiled.
    """
    path = tmp_path / "run"
    shutil.copytree(by_ones, path)
    (path / "summary.json").unlink()
    before, last = checkpoint.steps(path / "checkpoints")[-2:]
    state = path / "checkpoints" / f"{last:08d}" / "state"
    for file in state.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1])
    compiled = programs()
    assert len({name.split("-")[0] for name in compiled}) == 3
    said = resume(path)
    assert "is damaged" in said
    assert f"resuming {path} at {32 * before:,} steps" in said
    assert programs() == compiled
    assert_same_run(path, by_ones)


def test_one_call_equals_the_command_line(by_ones):
    config = train.parse(FLAGS)[0].config
    with pytest.warns(UserWarning, match="running with num_demonstrations"):
        run = make_train(config)
    state, _ = users_jit(run)(jax.random.key(3))
    assert_trees_equal(state, final_state(by_ones))


def test_ten_chunks_equal_single_updates(by_ones, tmp_path):
    process = start(
        tmp_path / "run", "--chunk-updates", "10", "--checkpoint-every", "0"
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == EXIT_OK, errors
    assert_same_run(tmp_path / "run", by_ones)


def test_killed_again_and_again_equals_undisturbed(by_ones, tmp_path):
    """Before the first checkpoint, and then anywhere, also while one is written."""
    path = tmp_path / "run"
    process = start(path, "--chunk-updates", "1")
    moments = [-1, random.randrange(1, NUM_UPDATES - 20)]
    for moment in moments:
        wait_for_rows(path, process, moment)
        time.sleep(random.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = popen(command("--resume", str(path), "--env", "probe_envs:make"))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == EXIT_OK, (moments, errors)
    assert_same_run(path, by_ones)


def test_interrupt_saves_and_exits_with_130(by_ones, tmp_path):
    path = tmp_path / "run"
    process = start(path, "--chunk-updates", "1")
    wait_for_rows(path, process, 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, errors
    assert f"saved; go on with --resume {path}" in errors
    last = int(rows_of(path, "metrics.csv")[-1]["update"])
    assert checkpoint.steps(path / "checkpoints")[-1] == last < NUM_UPDATES
    said = resume(path)
    assert f"resuming {path} at {32 * last:,} steps" in said
    assert_same_run(path, by_ones)


def test_run_written_by_0_1_0_resumes_to_its_end(tmp_path, monkeypatch):
    """Its arrays have the names of checkpoint format 1; see data/README.md."""
    monkeypatch.setenv("XLA_FLAGS", QUICK_FLAGS)  # no bits are compared
    path = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "data/run_0_1_0", path)
    said = resume(path)
    assert "purejaxppo: '0.1.0' then" in said
    assert f"resuming {path} at {32 * 12:,} steps" in said
    updates = [int(row["update"]) for row in rows_of(path, "metrics.csv")]
    assert updates == list(range(1, 31))
    loaded = load_policy(path, "latest", env="probe_envs:make")
    assert int(loaded.state.update_count) == 30
    # It goes on as it began: rewards had no bound.
    assert loaded.learner.task.config.hypers.reward_clip == math.inf
    assert (path / "summary.json").exists()


def test_a_chunk_of_any_length_is_the_same_executable():
    traces = []

    def update(state, hypers):
        traces.append(None)
        return state + hypers.learning_rate, {"x": state}

    config = train.parse(FLAGS)[0].config
    hypers = as_arrays(config.hypers)
    chunk = jax.jit(lambda s, h, n: seeds.run_chunk(update, s, h, n))
    for length in (1, 2, 5):
        state, metrics = chunk(
            jax.numpy.float32(0), hypers, jax.numpy.asarray(length, "int32")
        )
        assert float(state) == pytest.approx(length * float(hypers.learning_rate))
        assert metrics["x"].shape == (seeds.MAX_CHUNK,)
    assert len(traces) == 1
