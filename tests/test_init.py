"""The first state of training: what observations are normalised by at first."""

import jax
import numpy as np
import pytest
from helpers import small_config
from probe_envs import HeadsProbe, Probe

from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.rollout import policy_input


def _first_state(env, **changes):
    config = small_config(**{"normalize_observations": "running", **changes})
    learner = make_learner(config, env)
    return jax.jit(learner.init)(jax.random.key(0))[0]


@pytest.mark.parametrize("changes", [{}, {"reset": "cached", "core": "gru"}])
def test_the_first_rollout_is_normalised_by_one_before_it(changes):
    """Observations of the probe are 100 and more: raw they were all clipped to 10."""
    state = _first_state(HeadsProbe(("op", "aim")), **changes)
    assert normalize.num_samples(state.obs_stats) == 64
    np.testing.assert_allclose(state.obs_stats.mean, 100.0, atol=5.0)
    seen = np.asarray(policy_input(state.episodes, state.obs_stats).obs)
    assert np.max(np.abs(seen)) < 3.0
    # Training begins at the starts of episodes, as without it.
    assert np.all(state.episodes.start)
    assert not np.any(state.episodes.length)


def test_statistics_of_demonstrations_and_none_stay_as_they_are():
    assert _first_state(Probe("both"), normalize_observations="off").obs_stats is None
    cloned = _first_state(
        Probe("endless", continuous=True), num_demonstrations=2, cloning_steps=1
    )
    assert normalize.num_samples(cloned.obs_stats) <= 2 * 5
