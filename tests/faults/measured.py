"""What the doctor costs, and what it says of runs that are not ours."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.harness import timing
from benchmarks.prepared import prepare
from faults import table
from faults.tasks import TASKS
from purejaxppo.config import Config
from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.readers import read
from purejaxppo.ppo import update as update_lib

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
_PEER = ROOT / ".peers" / "sb3" / "bin" / "python"
_CONFIGS = {
    "hammer": Config.preset("hammer"),
    "cartpole": Config(
        env="gymnax:CartPole-v1",
        num_envs=64,
        num_steps=128,
        hidden_sizes=(64, 64),
        critic_hidden_sizes=(64, 64),
    ),
}


def cost(num_rounds: int = 21, seconds: float = 3.0) -> Json:
    """Time updates with and without ppo/diagnostics.py, in turn.

    Args:
      num_rounds: how often each is timed.
      seconds: about how long a round lasts for each.

    Returns:
      by environment: steps per second of both, and their ratio with its spread.
    """
    found = {}
    for name, config in _CONFIGS.items():
        with_them = prepare(config)
        nothing = mock.Mock(return_value={})
        with mock.patch.multiple(update_lib, diagnostics=nothing, normalizer=nothing):
            without = prepare(config)
        begin = time.perf_counter()
        _updates(with_them, 3)
        num = max(1, round(3 * seconds / (time.perf_counter() - begin)))
        amount = num * config.batch_size
        tasks = {
            "with": timing.timed(lambda p=with_them, n=num: _updates(p, n), amount),
            "without": timing.timed(lambda p=without, n=num: _updates(p, n), amount),
        }
        rates = timing.interleave(tasks, num_rounds)
        found[name] = timing.figures(rates, "without") | {"rounds": num_rounds}
    return found


def _updates(prepared: Any, num: int) -> None:
    state = prepared.state
    for _ in range(num):
        state, metrics = prepared.update(state, prepared.hypers)
    metrics["status"].block_until_ready()


def long_run(seed: int) -> Json:
    """Train for a million steps; time doctor and report, and weigh the page."""
    flags = TASKS["cartpole"].replace("100000", "1000000")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "run")
        table.run(flags, seed, 1, folder)
        seconds = {}
        for name in ("doctor", "report"):
            command = [sys.executable, "-m", f"purejaxppo.{name}", str(folder)]
            begin = time.perf_counter()
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
            seconds[name] = time.perf_counter() - begin
        size = (folder / "report.html").stat().st_size
        rows = sum(1 for _ in open(folder / "metrics.csv")) - 1
    return {"flags": flags, "updates": rows, "seconds": seconds, "report_bytes": size}


def foreign(seed: int, num_seeds: int) -> Json:
    """Train Stable-Baselines3 with two learning rates; return what is said of them.

    Raises:
      FileNotFoundError: .peers/sb3 is missing, see benchmarks/README.md.
    """
    script, found = Path(__file__).with_name("sb3_run.py"), {}
    for rate in (3e-4, 0.1):
        runs = found[f"{rate:g}"] = []
        for number in range(seed, seed + num_seeds):
            with tempfile.TemporaryDirectory() as temporary:
                options = f"--learning-rate {rate} --seed {number}".split()
                command = [_PEER, script, temporary, *options]
                subprocess.run(command, check=True, capture_output=True)
                both = [Path(temporary, "progress.csv"), Path(temporary)]
                logs = [log for path in both for log in read(path)]
                runs.append([[x.fault for x in diagnose(log)] for log in logs])
    return found
