"""Warp's ways to capture a graph, which only an NVIDIA GPU has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import warp
from hammer_worlds import (
    control,
    largest,
    plain_step,
)

from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.physics import engine as physics_engine
from purejaxppo.envs.physics import warp as warp_engine


@pytest.mark.parametrize("mode", ["NONE", "JAX", "WARP", "WARP_STAGED"])
def test_warp_graph_modes_are_mj_step(mode):
    """Without what was recorded with the C engine: its programs are for a CPU."""
    env = hammer.make(engine="warp")
    model = env.engine.model
    advance = warp_engine.make_advance(model, warp.JaxCallableGraphMode[mode])
    step = jax.jit(
        jax.vmap(lambda d, c, m: physics_engine.step(model, advance, d, c, m, 5))
    )
    physics = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4)).data.physics
    # The first call captures a graph, the next ones replay it.
    for _ in range(4):
        ctrl, mocap_pos = control(physics, jnp.ones((4, 4), jnp.float32))
        after = step(physics, ctrl, mocap_pos)
        for i in range(4):
            world = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), physics)
            plain = plain_step(model, world, ctrl[i], mocap_pos[i], 5)
            assert largest(after.qpos[i], plain.qpos) < 2e-4
            assert largest(after.sensordata[i], plain.sensordata) < 2e-4
        physics = after
