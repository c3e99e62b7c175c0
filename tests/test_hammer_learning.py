"""PPO adds to a cloned policy on the hammer itself, physics and all."""

import jax

from purejaxppo.config import Config
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.status import UpdateStatus
from purejaxppo.ppo.update import as_arrays


def test_ppo_raises_the_success_of_a_poor_clone():
    """A sixth of the default run of the seed whose clone is the worst of five."""
    config = Config.preset("hammer", eval_episodes=10)
    learner = make_learner(config)
    hypers = as_arrays(config.hypers)
    state, _ = jax.jit(learner.init)(jax.random.key(4), hypers)
    evaluate, update = jax.jit(learner.evaluate), jax.jit(learner.update)
    before = float(evaluate(state)["eval/episode_hammered"])
    for _ in range(20):
        state, metrics = update(state, hypers)
        assert int(metrics["status"]) == UpdateStatus.OK
    after = float(evaluate(state)["eval/episode_hammered"])
    assert before < 0.7
    assert after > before + 0.15
