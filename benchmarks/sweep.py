"""`python -m benchmarks.sweep`: 64 trials by two workers, of which one is killed.

Writes results/sweep.json: lost and doubled trials, and the learning rate that is found
beside the best of a grid, whose points have the same seeds.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.harness import record
from benchmarks.harness.processes import environment
from purejaxppo.errors import StorageError
from purejaxppo.run.progress import Progress
from purejaxppo.sweep import command
from purejaxppo.sweep.storage import Place, open_storage
from purejaxppo.sweep.training import Trainer

TRIALS, SEEDS, KILL_AFTER = 64, 3, 20
GRID = [1e-4 * 2**i for i in range(10)]
# With few optimiser steps, each on a large batch, the learning rate decides.
FLAGS = (
    f"--param=learning_rate=log:{GRID[0]},{GRID[-1]} --seeds={SEEDS} "
    "--env gymnax:CartPole-v1 --total-timesteps 65536 --num-envs 64 --num-steps 32 "
    "--num-epochs 1 --num-minibatches 1 --num-evals 5"
).split()


def _trials(folder: Path) -> list[FrozenTrial]:
    try:
        storage = open_storage(Place(folder, "", "sweep"))
        return optuna.load_study(study_name="sweep", storage=storage).trials
    except (KeyError, StorageError):  # the first worker is about to begin it
        return []


def sweep(folder: Path) -> record.Json:
    """Run the study, and count what became of its trials."""
    words = [sys.executable, "-m", "purejaxppo.sweep", f"--trials={TRIALS}", *FLAGS]
    words, start = [*words, "--run-dir", str(folder)], time.monotonic()
    survivor, victim = (subprocess.Popen(words, env=environment()) for _ in range(2))
    while victim.poll() is None:  # until it is killed while it trains
        trials = _trials(folder)
        running = [x.user_attrs for x in trials if x.state == TrialState.RUNNING]
        is_in_one = any(f"-{victim.pid}-" in x.get("worker", "") for x in running)
        if is_in_one and len(trials) > KILL_AFTER:
            victim.kill()
        time.sleep(0.1)
    assert survivor.wait() == 0
    trials = _trials(folder)
    ended = [x for x in trials if "outcome" in x.user_attrs]
    values = [x.params["learning_rate"] for x in ended]
    workers = [x.user_attrs["worker"] for x in ended]
    complete = [x for x in ended if x.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.values[0])
    return {
        "seconds": time.monotonic() - start,
        "exit_codes": [survivor.returncode, victim.returncode],
        "finished": len(ended),
        "complete": len(complete),
        "of_each_worker": [workers.count(name) for name in dict.fromkeys(workers)],
        "interrupted_by_the_kill": len(trials) - len(ended),
        "repeated": sum("repeats" in x.user_attrs for x in ended),
        "doubled": len(values) - len(set(values)),
        "best": {"return": best.value, **best.params},
    }


def main() -> None:
    """Run the study, train each point of the grid to its end, and write the figures."""
    with tempfile.TemporaryDirectory() as name:
        found = sweep(Path(name) / "study")
    plan = command.make_plan(*command.parse(FLAGS))
    trainer = Trainer(plan.options, plan.metric, Progress())
    configs = {rate: plan.config({"learning_rate": rate}) for rate in GRID}
    grid = {x: trainer.train(c, lambda *_: True).score for x, c in configs.items()}
    ratio = found["best"]["learning_rate"] / max(grid, key=lambda rate: grid[rate])
    results = {"flags": FLAGS, "trials": TRIALS, "sweep": found, "grid": grid}
    results["optuna"] = optuna.__version__
    results |= {"factor_to_the_best_of_the_grid": max(ratio, 1 / ratio)}
    print(json.dumps(results, indent=1))
    record.write("sweep", results)


if __name__ == "__main__":
    main()
