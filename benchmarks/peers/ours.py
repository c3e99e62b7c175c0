"""purejaxppo as a worker (see `worker`): whole updates, scanned inside one jit.

The JSON keys shared by all competitors set the fields of `Config` that mean the same;
what `Config` has beyond them is as in the common PPO of the peers (`_AS_PEERS`), and
the key "ours" holds fields of `Config` and `Hypers` that replace anything. The key
"defaults" takes what the command line takes where only `--env` is given.
"""

from typing import Any

import jax

import purejaxppo
from benchmarks.peers import in_jax, worker
from purejaxppo.config import Config, with_overrides
from purejaxppo.ppo.learner import make_learner, make_train
from purejaxppo.ppo.types import TrainState
from purejaxppo.ppo.update import run_updates

# What no peer has by default, switched off, so that the same work is compared.
_AS_PEERS = {
    "critic_layer_norm": False,
    "normalize_observations": "off",
    "normalize_advantages": "minibatch",
    "distribution": "normal",
}


def make_config(config: worker.Json) -> Config:
    """Make the configuration of the JSON keys; no evaluation inside training."""
    if config.get("defaults"):
        steps = config["total_steps"]
        return Config.preset(config["env"], total_timesteps=steps, num_evals=0)
    values: dict[str, Any] = {**_AS_PEERS, "num_evals": 0}
    if "hidden_sizes" in config:
        sizes = tuple(config["hidden_sizes"])
        values |= {"hidden_sizes": sizes, "critic_hidden_sizes": sizes}
    values |= worker.named(config, "ours")
    return with_overrides(Config(), values | config.get("ours", {}))


def versions() -> dict[str, str | None]:
    found = worker.versions("jax", "jaxlib", "flax", "optax", "numpy", "gymnax")
    return {"purejaxppo": purejaxppo.__version__, **found}


def make(config: worker.Json) -> worker.Task:
    settings = make_config(config)
    learner, hypers = make_learner(settings), settings.hypers
    key = jax.random.key(config.get("seed", 0))
    state, _ = jax.jit(learner.init)(key, hypers)
    prepare, latest = in_jax.in_blocks(
        lambda state, num: run_updates(learner.task, state, hypers, num), state
    )
    evaluation = jax.jit(learner.evaluate)

    def mean_return(state: TrainState) -> float:
        return float(evaluation(state)["eval/mean_return"])

    def train() -> worker.Json:
        run, steps = make_train(settings), settings.num_updates * settings.batch_size
        return in_jax.train(lambda key: run(key, hypers), key, mean_return, steps)

    return worker.Task(
        prepare=prepare,
        steps_per_unit=settings.batch_size,
        versions=versions(),
        evaluate=lambda: mean_return(latest()),
        train=train,
    )


if __name__ == "__main__":
    worker.main(make)
