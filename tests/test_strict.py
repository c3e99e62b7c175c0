"""`--strict`: the run ends at the first fault, and is saved as it was before it."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal

from purejaxppo import train
from purejaxppo.errors import EXIT_OK, EXIT_STRICT
from purejaxppo.run import checkpoint, seeds
from purejaxppo.run.trained import load_policy

ENV = ("--env", "probe_envs:Faulty")
FLAGS = (
    "--env probe_envs:Faulty --num-envs 4 --num-steps 8 --num-minibatches 2 "
    "--num-epochs 2 --total-timesteps 256 --hidden-sizes 8 "
    "--critic-hidden-sizes 8 --num-evals 2 --eval-episodes 4 "
    "--no-tensorboard --no-report "
    "--chunk-updates 8 --reset fresh --learning-rate 0.01"
).split()


@pytest.mark.parametrize("num_seeds", [1, 2])
@pytest.mark.parametrize(("length", "ran"), [(2, 2), (3, 3), (7, 3)])
def test_a_chunk_ends_with_the_update_that_has_a_fault(num_seeds, length, ran):
    """The third has one, in the last seed."""

    def update(state, hypers):
        count = state["count"] + hypers
        key = jax.random.fold_in(state["key"], count)
        status = jnp.where(count == 3, jnp.int32(4), jnp.int32(0))
        if num_seeds > 1:
            status = jnp.stack([jnp.zeros_like(status), status])
        return {"count": count, "key": key}, {"status": status, "count": count}

    chunk = jax.jit(lambda s, n: seeds.run_chunk(update, s, jnp.int32(1), n, True))
    start = {"count": jnp.int32(0), "key": jax.random.key(0)}
    state, metrics = chunk(start, jnp.int32(length))
    expected = start
    for _ in range(2):  # the state before the fault
        expected, _ = update(expected, jnp.int32(1))
    assert_trees_equal(state, expected)
    counts = [1, 2, 3][:ran] + [0] * (4 - ran)
    np.testing.assert_array_equal(metrics["count"][:4], counts)
    assert seeds.num_run(metrics, length) == ran


def tables(path):
    """Update and status of each row of metrics, and which updates were evaluated."""
    with (path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (path / "evals.csv").open(newline="") as file:
        evaluated = [int(row["update"]) for row in csv.DictReader(file)]
    return [(int(r["update"]), int(float(r["status"]))) for r in rows], evaluated


def run(path, *flags):
    return train.main([*FLAGS, *flags, "--run-dir", str(path)])


@pytest.mark.parametrize(
    ("num_evals", "evaluated"),
    [
        (2, [0]),  # an evaluation is due after the update with the fault, the fourth
        (6, [0, 3]),  # and was right before it
    ],
)
def test_it_stops_at_the_fault_and_saves_what_was_before(
    tmp_path, num_evals, evaluated
):
    fault = 4
    kwargs = ["--env-kwargs", "fault=obs_nan", f"at={3 * 8 + 2}", "length=1000"]
    kwargs += ["--num-evals", str(num_evals)]
    path, other = tmp_path / "run", tmp_path / "other"
    assert run(path, *kwargs, "--strict") == EXIT_STRICT
    expected = [(i, 0) for i in range(1, fault)] + [(fault, 48)], evaluated
    assert tables(path) == expected
    assert checkpoint.steps(path / "checkpoints")[-1] == fault - 1
    saved = load_policy(path, "latest", env=ENV[1]).state
    assert int(saved.update_count) == fault - 1
    # A resumed run tries again from before the fault, and finds it again.
    assert train.main(["--resume", str(path), *ENV]) == EXIT_STRICT
    assert tables(path) == expected
    if num_evals == 6:  # that of a run without `strict`, to the bit; the fault is fatal
        kept = ["--checkpoint-every", "1", "--keep-checkpoints", "9"]
        assert run(other, *kwargs, *kept) == EXIT_STRICT
        state, _ = checkpoint.restore(other / "checkpoints", fault - 1, saved)
        assert_trees_equal(state, saved)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    """Some environments break in the third update, which may pass without `strict`."""
    kwargs = ["--env-kwargs", "fault=obs_nan", "share=0.5", "at=22", "length=1000"]
    path, other = tmp_path / "run", tmp_path / "other"
    assert run(path, *kwargs, "--strict") == EXIT_STRICT
    assert tables(path) == ([(1, 0), (2, 0), (3, 16)], [0])
    assert train.main(["--resume", str(path), *ENV, "--no-strict"]) == EXIT_OK
    assert run(other, *kwargs) == EXIT_OK
    assert tables(path) == tables(other)
    assert tables(path)[1] == [0, 4, 8]
    states = [
        load_policy(folder, "latest", env=ENV[1]).state for folder in (path, other)
    ]
    assert_trees_equal(*states)
