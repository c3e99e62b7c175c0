"""`python -m benchmarks.sweep`: 64 trials by two workers, of which one is killed.

Counts lost and doubled trials, and compares the learning rate that is found with the
best of a grid, whose points have the same seeds. Writes results/sweep.json.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna

from benchmarks.harness import record
from benchmarks.harness.processes import environment
from purejaxppo.run.progress import Progress
from purejaxppo.sweep import command
from purejaxppo.sweep.storage import JOURNAL, Place, open_storage
from purejaxppo.sweep.training import Trainer

LOW, HIGH, TRIALS, SEEDS, KILL_AFTER = 1e-4, 0.0512, 64, 3, 20
GRID = [LOW * 2**i for i in range(10)]
# Of a short training with few optimiser steps the learning rate decides.
TRAINING = (
    "--env gymnax:CartPole-v1 --total-timesteps 16384 --num-envs 8 --num-steps 32 "
    "--num-epochs 1 --num-minibatches 1 --num-evals 5"
).split()
FLAGS = [f"--param=learning_rate=log:{LOW},{HIGH}", f"--seeds={SEEDS}", *TRAINING]


def _start(folder: Path) -> subprocess.Popen[bytes]:
    words = [*FLAGS, "--trials", str(TRIALS), "--run-dir", str(folder)]
    command = [sys.executable, "-m", "purejaxppo.sweep", *words]
    return subprocess.Popen(command, env=environment())


def _trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    if not (folder / JOURNAL).exists():
        return []
    storage = open_storage(Place(folder, "", "sweep"))
    try:
        return optuna.load_study(study_name="sweep", storage=storage).trials
    except KeyError:  # the first worker is about to begin it
        return []


def _kill_in_a_trial(worker: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill a worker with SIGKILL while it trains, after some trials of the study."""
    while worker.poll() is None:
        trials = _trials(folder)
        owners = [x.user_attrs.get("worker", "") for x in trials if x.state == 0]
        if len(trials) > KILL_AFTER and any(f"-{worker.pid}-" in x for x in owners):
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        time.sleep(0.1)


def sweep(folder: Path) -> dict[str, Any]:
    """Run the study, and count what became of its trials."""
    start = time.monotonic()
    survivor, victim = _start(folder), _start(folder)
    _kill_in_a_trial(victim, folder)
    assert survivor.wait() == 0
    trials = _trials(folder)
    ended = [x for x in trials if x.state.is_finished() and "outcome" in x.user_attrs]
    values = [x.params["learning_rate"] for x in ended]
    workers = [x.user_attrs["worker"] for x in ended]
    best = max((x for x in ended if x.state == 1), key=lambda x: x.values[0])
    return {
        "seconds": time.monotonic() - start,
        "exit_codes": [survivor.returncode, victim.returncode],
        "finished": len(ended),
        "pruned": sum(x.state == optuna.trial.TrialState.PRUNED for x in ended),
        "of_each_worker": [workers.count(name) for name in dict.fromkeys(workers)],
        "interrupted_by_the_kill": len(trials) - len(ended),
        "repeated": sum("repeats" in x.user_attrs for x in ended),
        "doubled": len(values) - len(set(values)),
        "best": {"learning_rate": best.params["learning_rate"], "return": best.value},
    }


def grid() -> list[dict[str, float]]:
    """Train each point of the grid as a trial is trained, to its end."""
    plan = command.make_plan(*command.parse(FLAGS))
    trainer, points = Trainer(plan.options, plan.metric, Progress()), []
    for rate in GRID:
        outcome = trainer.train(plan.config({"learning_rate": rate}), lambda *_: True)
        points.append({"learning_rate": rate, "return": outcome.score})
    return points


def main() -> None:
    """Measure; print and write the figures."""
    with tempfile.TemporaryDirectory() as name:
        found = sweep(Path(name) / "study")
    points = grid()
    best = max(points, key=lambda point: point["return"])["learning_rate"]
    ratio = found["best"]["learning_rate"] / best
    results = {"flags": FLAGS, "trials": TRIALS, "sweep": found, "grid": points}
    results |= {"grid_best": best, "factor": max(ratio, 1 / ratio)}
    print(json.dumps(results, indent=1))
    record.write("sweep", results)


if __name__ == "__main__":
    main()
