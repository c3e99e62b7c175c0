"""Trained players against baselines, and against each other, on the same episodes.

These episodes are not those that chose a run's best policy: their seed is another one.
"""

import functools
import importlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.learning.runs import STUDIES, Json, over_seeds, train
from purejaxppo.env import Env
from purejaxppo.envs.scheduler.env import optimal_return
from purejaxppo.ppo import evaluation
from purejaxppo.registry import make_env
from purejaxppo.run.trained import TrainedPolicy, Which, load_policy

Outcome = dict[str, jax.Array]  # figure -> [E] episodes
EVAL_SEED = 777  # no evaluation in training plays these episodes


class Player(NamedTuple):
    """A policy and the games that it plays once it is trained.

    Attributes:
      about: for the reader.
      preset: of the command line; players of one preset are one training.
      games: name -> arguments of the environment.
      which: the run's best policy by its own evaluations, or its last.
    """

    about: str
    preset: str
    games: dict[str, Json]
    which: Which = "best"


class Match(NamedTuple):
    """A study of trained players and of baselines on the same episodes.

    Attributes:
      env: its name.
      title: for the reader.
      metric: of an episode, among the figures of `play`.
      episodes: of each game.
      hosts: players whose games the baselines play too.
      players: trained ones.
    """

    env: str
    title: str
    metric: str
    episodes: int
    hosts: Sequence[str]
    players: dict[str, Player]


def _match(env: str, study: Json) -> Match:
    players = {name: Player(**player) for name, player in study["players"].items()}
    return Match(env, **{**study, "players": players})


MATCHES = {name: _match(name, study) for name, study in STUDIES["matches"].items()}
# (start states) -> the best return that there is, where it is known.
OPTIMA: dict[str, Callable[[Any], jax.Array]] = {"scheduler": optimal_return}


def play(loaded: TrainedPolicy, env: Env, keys: jax.Array) -> Outcome:
    """Play a trained policy, deterministic: return, length and metrics.

    Args:
      loaded: the policy.
      env: where it plays; its heads are those of its training.
      keys: [E], one for each episode.
    """
    policy, state = loaded.learner.task.policy, loaded.state
    parameters = state.params, state.obs_stats

    def run(keys: jax.Array) -> Outcome:
        return evaluation.play_policy(env, policy, *parameters, keys).figures()

    return jax.jit(run)(keys)


def scores(
    match: Match, games: dict[str, Json], play_game: Callable[[Env, jax.Array], Outcome]
) -> Json:
    """Play games: means over the episodes of each, the mean and the worst game.

    Args:
      match: for its environment, metric and episodes.
      games: name -> arguments of the environment.
      play_game: (environment, keys [E]) -> figures of each episode.
    """
    # The same episodes for every seed and every baseline.
    keys, found = jax.random.split(jax.random.key(EVAL_SEED), match.episodes), {}
    for game, arguments in games.items():
        env = make_env(match.env, **arguments)
        outcome = play_game(env, keys)
        figures = {name: float(np.mean(values)) for name, values in outcome.items()}
        error = np.std(outcome[match.metric]) / np.sqrt(match.episodes)
        figures[f"{match.metric}_standard_error"] = float(error)
        if match.env in OPTIMA:
            best = float(np.mean(OPTIMA[match.env](jax.vmap(env.reset)(keys))))
            figures["of_optimum"] = figures[match.metric] / best
        found[game] = figures
    return totals(match, found)


def totals(match: Match, games: Json) -> Json:
    """Compute the mean and the worst of games, and keep the games."""
    values = {game: figures[match.metric] for game, figures in games.items()}
    worst = min(values, key=lambda game: values[game])
    mean = sum(values.values()) / len(values)
    return {"mean": mean, "worst": values[worst], "worst_game": worst, "games": games}


def summarise(results: Json) -> Json:
    """Summarise each player over seeds, and the largest share of invalid actions."""
    players = results["players"]
    seeds = itertools.chain(*players.values())
    return {
        "players": {
            name: {
                figure: over_seeds([seed[figure] for seed in of_player])
                for figure in ("mean", "worst")
            }
            for name, of_player in players.items()
        },
        "invalid_frac": max(
            game["invalid_frac"] for seed in seeds for game in seed["games"].values()
        ),
    }


def run_seed(match: Match, seed: int, flags: list[str]) -> Json:
    """Train one seed of every preset, and score the players.

    Args:
      match: who is trained, and plays what.
      seed: of the runs.
      flags: of the command line, after the preset.
    """
    presets = dict.fromkeys(player.preset for player in match.players.values())
    with tempfile.TemporaryDirectory() as folder:
        paths = {preset: Path(folder) / preset for preset in presets}
        runs = {
            preset: train(match.env, ["--preset", preset, *flags], seed, path)
            for preset, path in paths.items()
        }
        players = {}
        for name, player in match.players.items():
            loaded = load_policy(paths[player.preset], player.which)
            play_game = functools.partial(play, loaded)
            players[name] = scores(match, player.games, play_game)
    return {"runs": runs, "players": players}


def score_baselines(match: Match, games: dict[str, Json]) -> Json:
    """Score every baseline of the environment in these games."""
    module = importlib.import_module(f"purejaxppo.envs.{match.env}.baselines")

    def score(baseline: Callable[..., Any]) -> Json:
        def play_game(env: Env, keys: jax.Array) -> Outcome:
            return jax.jit(functools.partial(module.play_baseline, env, baseline))(keys)

        return scores(match, games, play_game)

    return {name: score(baseline) for name, baseline in module.BASELINES.items()}


def measure(match: Match, num_seeds: int, flags: list[str]) -> Iterator[Json]:
    """Measure baselines and players; yield the results after each seed.

    Args:
      match: who plays what.
      num_seeds: trainings of each preset.
      flags: of the command line, after the preset.
    """
    results: Json = {
        "metric": match.metric,
        "episodes": match.episodes,
        "about": {name: player.about for name, player in match.players.items()},
        "baselines": {
            host: score_baselines(match, match.players[host].games)
            for host in match.hosts
        },
        "players": {name: [] for name in match.players},
        "runs": [],
    }
    for seed in range(num_seeds):
        found = run_seed(match, seed, flags)
        results["runs"].append(found["runs"])
        for name, figures in found["players"].items():
            results["players"][name].append({"seed": seed, **figures})
        yield results | {"summary": summarise(results)}
