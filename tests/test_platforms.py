"""Updates are lowered for accelerators that are not here."""

import re

import jax
import pytest
from helpers import small_config

from purejaxppo import platforms
from purejaxppo.envs.physics import engine
from purejaxppo.policy.dense import matmul
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.update import as_arrays

# The factorisations that orthogonal initialisation needs. An update calls nothing that
# is not XLA's own: no engine on the host, no library.
_FACTORISATIONS = {
    "cuda": {"cusolver_geqrf_ffi", "cusolver_orgqr_ffi"},
    "tpu": {"Qr", "ProductOfElementaryHouseholderReflectors"},
}
_PROGRAMS = {
    "cartpole": {"env": "gymnax:CartPole-v1"},
    "lifecycle": {"env": "lifecycle", "core": "gru"},
}


def _calls(function, platform, *arguments) -> set[str]:
    traced = jax.jit(function).trace(*arguments)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return set(re.findall(r"custom_call @([\w.]+)", text))


@pytest.mark.parametrize(
    ("platform", "program"), [("cuda", "cartpole"), ("tpu", "lifecycle")]
)
def test_a_program_is_lowered_for_what_is_not_here(platform, program):
    config = small_config(**_PROGRAMS[program])
    with platforms.compiled_for(platform):
        learner, key = make_learner(config), jax.random.key(0)
        assert _calls(learner.init, platform, key) == _FACTORISATIONS[platform]
        state, _ = jax.eval_shape(learner.init, key)
        hypers = jax.eval_shape(lambda: as_arrays(config.hypers))
        assert _calls(learner.update, platform, state, hypers) == set()


def test_choices_are_those_of_the_platform():
    def barriers(platform):
        x = jax.ShapeDtypeStruct((4, 4), "float32")
        loss = jax.grad(lambda x: matmul(x, x).sum())
        lowered = jax.jit(loss).trace(x).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("optimization_barrier")

    here = platforms.backend()
    for platform, name, num_barriers in (("cuda", "gpu", 0), ("tpu", "tpu", 0)):
        with platforms.compiled_for(platform):
            assert platforms.backend() == name
            assert engine.choose_engine() == "mjx"
            assert barriers(platform) == num_barriers
    with platforms.compiled_for("cpu"):
        assert engine.choose_engine() == "mujoco"
        assert barriers("cpu") == 1
    assert platforms.backend() == here
