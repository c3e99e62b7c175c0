"""Each benchmark runs a tiny case, and computes what it says from what it read."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import small_config
from probe_envs import HeadsProbe

from benchmarks import aot, export_latency, stages
from benchmarks.harness import record, tables
from benchmarks.learning import curves, matches, memory, peers
from benchmarks.prepared import prepare
from purejaxppo.config import Config
from purejaxppo.envs.scheduler import baselines
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run.trained import TrainedPolicy


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
    assert tables.stages(results).rows[-1][0] == "end to end"


def test_an_environment_without_physics_is_stepped_with_allowed_actions():
    prepared = prepare(small_config(num_steps=16), HeadsProbe())
    _, (reward, terminated, _) = stages.physics_alone(prepared)()
    assert reward.shape == (16, 8)
    assert 0 < terminated.mean() < 1  # episodes end, and new ones begin


def test_every_way_to_an_action_is_timed_on_the_same_one(monkeypatch):
    config = small_config(env_kwargs={"kind": "observation", "continuous": True})
    ways = export_latency.actors(config)
    ours, _ = ways["NumPy"]()
    assert np.abs(ours["move"]).max() > 0
    for theirs in (ways["JAX"]()[0]["move"], ways["ONNX Runtime"]()[0][0]):
        np.testing.assert_allclose(theirs, ours["move"], atol=1e-6)
    monkeypatch.setattr(export_latency, "CALLS", 2)
    monkeypatch.setattr(export_latency, "CASES", {"tiny": "probe"})
    monkeypatch.setattr(export_latency, "config_of", lambda _: config)
    monkeypatch.setattr(export_latency, "actors", lambda _: ways)
    figures = export_latency.measure(rounds=1)
    assert set(figures["microseconds"]["tiny"]) == set(ways)
    assert len(next(tables.tables_of(figures)).rows) == 2


def test_memory_reports_every_kind_and_seed(monkeypatch):
    monkeypatch.setattr(memory, "NUM_ENVS", 16)
    monkeypatch.setattr(memory, "CORES", ("none",))
    results = memory.measure(num_seeds=2, num_updates=10, delays=(2,))
    assert [case["delay"] for case in results["cases"]] == [2]
    for case in results["cases"]:
        assert np.shape(case["curve"]) == (2, 10)
        assert case["final"] == [curve[-1] for curve in case["curve"]]
        assert case["steps"] == memory.NUM_ENVS * 2 * (case["delay"] + 1) * 10


def test_seeds_that_solved_it_are_counted():
    cases = [{"delay": 8, "core": "gru", "final": [0.95, 0.9, 1.0]}]
    assert memory.solved(cases) == {"8": {"gru": 2}}


def untrained(path, which):
    """A policy as it starts, of the environment in the run's path."""
    config = small_config(env=path.parent.name, reset="fresh")
    learner = make_learner(config)
    state, _ = jax.jit(learner.init)(jax.random.key(0))
    return TrainedPolicy(learner, state, lambda: None, 0)


def test_a_policy_is_compared_with_baselines_on_the_same_episodes(monkeypatch):
    match = matches.MATCHES["scheduler"]
    families = {family: {"family": family} for family in ("light", "tight")}
    player = match.players["mix"]._replace(games=families)
    match = match._replace(players={"mix": player}, hosts=("mix",), episodes=8)
    monkeypatch.setattr(baselines, "BASELINES", {"edf": baselines.BASELINES["edf"]})
    monkeypatch.setattr(matches, "train", lambda *_: {"command": "none"})
    monkeypatch.setattr(
        matches,
        "load_policy",
        lambda path, which: untrained(path.parent / "scheduler" / "run", which),
    )
    (results,) = matches.measure(match, num_seeds=1, flags=[])
    (seed,) = results["players"]["mix"]
    returns = [seed["games"][family]["return"] for family in families]
    assert seed["mean"] == pytest.approx(sum(returns) / 2)
    assert seed["worst"] == min(returns)
    (summary,) = results["summary"]["players"].values()
    assert summary["mean"]["mean"] == seed["mean"]
    over = seed["mean"] - results["baselines"]["mix"]["edf"]["mean"]
    assert over < 0  # a policy that was not trained does not beat it
    assert len(list(tables.tables_of(results))) == 2


@pytest.mark.parametrize("name", curves.CURVES)
def test_stored_figures_of_a_curve_are_those_of_its_points(name):
    results = record.results(f"learning_{name}")
    for seed in results["seeds"]:
        assert seed == seed | curves.figures_of(seed["curve"], results["marks"])
    assert results["summary"] == curves.summarise(results)


@pytest.mark.parametrize("name", matches.MATCHES)
def test_stored_figures_of_a_match_are_those_of_its_games(name):
    match, results = matches.MATCHES[name], record.results(f"learning_{name}")
    players = itertools.chain(*results["players"].values())
    others = [found.values() for found in results["baselines"].values()]
    for scored in itertools.chain(players, *others):
        assert scored == scored | matches.totals(match, scored["games"])
    assert results["summary"] == matches.summarise(results)


@pytest.mark.parametrize("name", ["seeds", "layers", "physics_scene"])
def test_a_settled_study_says_how_it_was_made(name):
    stored = record.load(name)
    assert stored is not None
    assert f"benchmarks/{name}.py at " in stored["how"]


def row(steps: int, mean: float, worst: float) -> dict[str, str]:
    numbers = {
        "steps": steps,
        "seconds": steps / 100,
        "eval/episode_hammered": mean,
        "eval/min_block_hammered": worst,
        "eval/episode_success": mean,
        "eval/mean_return": mean,
    }
    return {name: str(number) for name, number in numbers.items()}


def test_learning_curve_leaves_the_cloned_policy_out_of_what_ppo_reached():
    rows = [row(0, 0.95, 0.95), row(100, 0.5, 0.4), row(200, 0.97, 0.949999988)]
    points = curves.points_of(rows, curves.CURVES["hammer"]._replace(frames=2))
    curve = curves.figures_of(points, (0.95, 0.9))
    assert curve["before_ppo"]["mean"] == 0.95
    assert curve["best"]["steps"] == 400
    assert curve["best"]["seconds"] == 2.0
    assert curve["first_worst_block"] == 400
    assert curve["first_mean"] == 400
    seeds = [curve, curve | {"last": {**curve["best"]}}]
    summary = curves.summarise({"seeds": seeds})
    assert summary["before_ppo_mean"] == {
        "mean": 0.95,
        "std": 0.0,
        "min": 0.95,
        "max": 0.95,
    }
    assert summary["steps_to_mean"] == 400


def test_each_seed_is_a_training_by_the_command_line(monkeypatch):
    commands = []

    def run(command, check):
        assert check
        commands.append(command)
        folder = learning_folder(command)
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text('{"steps_per_second": 1, "faults": []}')
        rows = [row(0, 0.1, 0.0), row(100, 0.9, 0.8)]
        lines = [",".join(line) for line in (rows[0], *(r.values() for r in rows))]
        (folder / "evals.csv").write_text("\n".join(lines) + "\n")

    monkeypatch.setattr("benchmarks.learning.runs.subprocess.run", run)
    study = curves.CURVES["dense"]._replace(metric="hammered")
    *_, results = curves.measure(study, num_seeds=2, flags=["--num-envs", "4"])
    for seed, command in enumerate(commands):
        text = " ".join(command)
        assert "purejaxppo.train --env hammer --preset dense --num-envs 4" in text
        assert f"--seed {seed} " in text
    assert [seed["best"]["mean"] for seed in results["seeds"]] == [0.9, 0.9]
    assert next(tables.tables_of(results)).rows[-1][0] == "mean (min to max)"


def learning_folder(command: list[str]) -> Path:
    return Path(command[command.index("--run-dir") + 1])


def _against(ours, untrained=0.0, **theirs):
    stacks = {name: {"returns": returns} for name, returns in theirs.items()}
    return {"untrained": untrained, "stacks": {"ours": {"returns": ours}, **stacks}}


def test_returns_are_scaled_by_the_best_peer_of_each_task():
    tasks = {
        "half": _against([5.0, 5.0], rejax=[8.0, 12.0], brax=[1.0, 1.0]),
        "better": _against([30.0, 30.0], untrained=-10.0, rejax=[0.0, 0.0]),
        "alone": _against([1.0, 1.0]),
    }
    tasks["broken"] = _against([1.0, 1.0]) | {"stacks": {"rejax": {"error": "gone"}}}
    summary = peers.summarise(tasks)
    assert summary["num_tasks"] == 2
    # Half of the best peer's progress on one task, and no more than 1 on the other.
    assert summary["interquartile_mean"] == pytest.approx(0.75)
    assert summary["interval"] == pytest.approx((0.75, 0.75))
    assert summary["probability_of_improvement"] == pytest.approx(0.5)


def test_a_task_that_no_peer_learns_asks_to_be_as_good_as_they_are():
    tasks = {"hard": _against([-200.0, -199.0], untrained=-190.0, rejax=[-200.0] * 2)}
    assert peers.summarise(tasks)["interquartile_mean"] == 1.0
    tasks = {"hard": _against([-201.0] * 2, untrained=-190.0, rejax=[-200.0] * 2)}
    assert peers.summarise(tasks)["interquartile_mean"] == 0.0


def test_every_task_of_the_peers_names_published_configurations():
    study = peers.STUDY
    for task in study["tasks"].values():
        published = {peer: name for peer, name in task.items() if peer != "env"}
        assert published
        for peer, name in published.items():
            assert peer.partition("-")[0] in study["workers"]
            assert name in study["configurations"]


def test_chips_wait_for_their_collectives():
    collectives = {"all-reduce": {"calls": 10, "bytes": 800}}
    waiting = 10 * 3 * aot.LATENCY + 2 * 7 / 8 * 800 / 1e6
    share = aot.efficiency(collectives, 8, bandwidth=1e6, seconds=waiting)
    assert share == pytest.approx(0.5)
    assert aot.efficiency({}, 8, bandwidth=1e6, seconds=1.0) == 1.0


def test_a_program_that_does_not_compile_leaves_its_reason(monkeypatch):
    def compile_update(config, chips):
        if chips == 4:
            raise RuntimeError("too large\nand more")
        counts = {"all-reduce": {"calls": 3, "bytes": 8}} if chips > 1 else {}
        return {
            "seconds": {"trace": 1.0, "lower": 1.0, "compile": 2.0},
            "temporary_bytes": 2_000_000,
            "argument_bytes": 1_000_000,
            "code_bytes": 500_000,
            "collectives": counts,
        }

    monkeypatch.setattr(aot, "compile_update", compile_update)
    results = aot.measure(["cartpole"], [1, 4, 8])
    assert results["programs"]["cartpole"]["4"] == {"error": "too large"}
    assert "cartpole, 4 chips: too large" in results["notes"]
    assert [row[1] for row in results["table"][1:]] == ["1", "8"]
    assert results["table"][1][-1] == "none"
    assert set(results["efficiency"]) == {"cartpole"}


def test_a_record_says_where_it_came_from(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    written = json.loads(record.write("x", {"y": 1}).read_text())
    assert written["results"] == {"y": 1}
    assert {"command", "date", "versions", "machine", "revision"} <= set(written)
