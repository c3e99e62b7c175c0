"""An update is compiled for a mesh of TPUs by their own compiler (needs libtpu).

The compiler alone is needed, no TPU: `pip install libtpu` in the version that jax's
extra `tpu` names. Without it this file is left out (conftest.py).
"""

import os

import pytest
from helpers import small_config

from benchmarks import aot

pytestmark = pytest.mark.tpu


def test_a_minibatch_has_one_all_reduce_and_observations_stay_where_they_are():
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    config = small_config(env="gymnax:CartPole-v1", num_envs=8, num_epochs=2)
    found = aot.compile_update(config, 4)
    collectives = found["collectives"]
    assert set(collectives) <= {"all-reduce", "all-gather"}
    num_minibatches = config.epochs * config.num_minibatches
    calls = collectives["all-reduce"]["calls"]
    assert num_minibatches <= calls < 2 * num_minibatches + 16
    # Nothing of the size of a rollout's observations is gathered.
    observations = config.batch_size * 4 * 4
    assert collectives.get("all-gather", {"bytes": 0})["bytes"] < observations
    assert found["temporary_bytes"] > 0
    assert found["code_bytes"] > 0
