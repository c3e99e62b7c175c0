"""Each benchmark runs a tiny case, and computes what it says from what it read."""

import functools

import helpers
import jax
import numpy as np
import pytest
from helpers import quick_jit, small_config
from probe_envs import HeadsProbe

from benchmarks import (
    hammer_learning,
    layers,
    memory,
    record,
    scheduler,
    seeds,
    stages,
    tables,
)
from purejaxppo.config import Config
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress
from purejaxppo.run.trained import TrainedPolicy


@pytest.fixture
def quick_compiler(monkeypatch):
    """What is measured here runs twice: compiled with less care, and so faster."""

    def make(progress):
        return Compiler(progress, helpers.QUICK)

    for module in (stages, layers, seeds):
        monkeypatch.setattr(module, "Compiler", make)


@pytest.mark.usefixtures("quick_compiler")
def test_layers_compares_ours_with_each_other():
    results = layers.measure(rounds=1, hidden=8, num_envs=4)
    assert set(results["passes_per_second"]) == set(layers.VARIANTS)
    assert all(r["median"] > 0 for r in results["passes_per_second"].values())
    assert set(results["ratios"]) == {
        f"ours_over_{name}" for name in layers.VARIANTS if name != "ours"
    }


@pytest.mark.usefixtures("quick_compiler")
def test_hammer_is_taken_apart_into_rates_of_the_same_work():
    config = Config.preset(
        "hammer",
        num_envs=4,
        num_steps=4,
        num_epochs=1,
        reset="cached",
        hidden_sizes=(8,),
        critic_hidden_sizes=(8,),
        num_demonstrations=0,
        critic_warmup=0,
        anchor=False,
        normalize_observations="off",
    )
    results = stages.speed(config, rounds=1)
    stage_names = {"physics", "rollout", "update", "end_to_end"}
    assert set(results["steps_per_second"]) == stage_names
    assert results["physics_is"] == "mujoco.rollout"
    rates = {n: r["median"] for n, r in results["steps_per_second"].items()}
    ratio = results["ratios"]["end_to_end_over_physics"]["median"]
    assert ratio == pytest.approx(rates["end_to_end"] / rates["physics"])
    assert set(results["compile_seconds"]["cold"]) == {"trace", "lower", "compile"}
    assert "end to end" in tables.as_text("hammer", results)


@pytest.mark.usefixtures("quick_compiler")
def test_an_environment_without_physics_is_stepped_with_allowed_actions():
    learner = make_learner(small_config(num_steps=16), HeadsProbe())
    compile = stages.Compiler(Progress())
    state = stages.first_state(learner, compile)
    _, (reward, terminated, _) = stages.environment_alone(learner, state, compile)()
    assert reward.shape == (16, 8)
    assert 0 < terminated.mean() < 1  # episodes end, and new ones begin


@pytest.mark.usefixtures("quick_compiler")
def test_ways_to_run_seeds_are_compared():
    results = seeds.measure(small_config(num_epochs=1), num_seeds=2, rounds=1)
    assert set(results["steps_per_second"]) == set(seeds.WAYS)
    assert set(results["compile_seconds"]) == set(seeds.WAYS)
    rates = {name: rate["median"] for name, rate in results["steps_per_second"].items()}
    ratio = results["ratios"]["vmap_over_one by one"]["median"]
    assert ratio == pytest.approx(rates["vmap"] / rates["one by one"])


def test_memory_reports_every_kind_and_seed(monkeypatch):
    monkeypatch.setattr(
        memory.jax, "jit", functools.partial(jax.jit, compiler_options=helpers.QUICK)
    )
    results = memory.measure(seeds=2, updates=10, delays=(1,))
    for core in memory.KINDS:
        figures = results[f"delay 1, core {core}"]
        assert np.shape(figures["curve"]) == (2, 10)
        assert figures["final"] == [curve[-1] for curve in figures["curve"]]
    assert results["delay 1, core lstm"]["steps"] == memory.NUM_ENVS * 4 * 10


def test_scheduler_compares_a_policy_with_baselines_on_the_same_episodes(monkeypatch):
    def untrained(path):
        config = small_config(env="scheduler", reset="fresh")
        learner = make_learner(config)
        state, _ = quick_jit(learner.init)(jax.random.key(0))
        return TrainedPolicy(learner, state, lambda: None, 0)

    monkeypatch.setattr(scheduler, "train", lambda *_: {"command": "none"})
    monkeypatch.setattr(scheduler, "load_policy", untrained)
    edf = {"edf": scheduler.baselines.BASELINES["edf"]}
    monkeypatch.setattr(scheduler.baselines, "BASELINES", edf)
    results = scheduler.run_case(["light", "tight"], [], num_seeds=1, episodes=8)
    (seed,) = results["seeds"]
    returns = [seed["families"][family]["return"] for family in ("light", "tight")]
    assert seed["mean_return"] == pytest.approx(sum(returns) / 2)
    assert seed["worst_family_return"] == min(returns)
    over = seed["mean_return"] - results["baselines"]["edf"]["mean_return"]
    assert results["summary"]["mean_return_over_edf"] == pytest.approx(over)
    assert over < 0  # a policy that was not trained does not beat it


def row(steps: int, mean: float, worst: float) -> dict[str, str]:
    numbers = {
        "steps": steps,
        "eval/episode_hammered": mean,
        "eval/min_block_hammered": worst,
        "eval/episode_success": mean,
        "eval/mean_return": mean,
    }
    return {name: str(number) for name, number in numbers.items()}


def test_learning_curve_leaves_the_cloned_policy_out_of_what_ppo_reached():
    rows = [row(0, 0.95, 0.95), row(100, 0.5, 0.4), row(200, 0.97, 0.949999988)]
    _, mean, worst, _ = hammer_learning.CASES["default"]
    points = hammer_learning.points_of({"rows": rows}, mean, worst, frames=2)
    curve = hammer_learning.figures_of(points)
    assert curve["before_ppo"]["mean"] == 0.95
    assert curve["best"]["steps"] == 400
    assert curve["first_worst_block_95"] == 400
    assert curve["first_mean_90"] == 400
    summary = hammer_learning.summarise([curve, curve | {"last": {**curve["best"]}}])
    assert summary["before_ppo_mean"] == {"mean": 0.95, "min": 0.95, "max": 0.95}


def test_a_record_says_where_it_came_from(tmp_path, monkeypatch):
    import json

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    written = json.loads(record.write("x", {"y": 1}).read_text())
    assert written["results"] == {"y": 1}
    assert {"command", "date", "versions", "machine", "revision"} <= set(written)
