"""A lander that must come down softly, as hard a task as Gymnasium's LunarLander.

The same four actions, eight numbers and shaping of the reward (distance, speed and
tilt, 100 for each, 10 for a leg on the ground, the price of fuel, -100 or +100 at the
end), with a rigid body in place of Box2D's and a flat ground. Lengths are in units of
half the window's width.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.env import Action, Discrete, EnvSpec, State

_SECONDS = 0.04  # of a step
_GRAVITY = 1.0
_MAIN, _SIDE, _TORQUE = 2.0, 0.3, 2.5  # accelerations of the engines
_HEIGHT = 1.4  # of the start
_SOFT, _UPRIGHT = 0.35, 0.35  # speed and tilt at which a landing is none of a crash
_FUEL = jnp.array([0.0, 0.03, 0.3, 0.03])  # price of a step with each engine


class Body(struct.PyTreeNode):
    """Position, velocity [2], tilt and its rate, and what the shaping was before."""

    position: jax.Array
    velocity: jax.Array
    tilt: jax.Array
    rate: jax.Array
    shaping: jax.Array


@dataclasses.dataclass(frozen=True)
class Lander:
    """Actions: nothing, left engine, main engine, right engine."""

    spec: EnvSpec = dataclasses.field(
        default_factory=lambda: EnvSpec("lander", {"action": Discrete(4)}, 400)
    )

    def reset(self, key: jax.Array) -> State:
        key_velocity, key_tilt = jax.random.split(key)
        body = Body(
            position=jnp.array([0.0, _HEIGHT]),
            velocity=jax.random.uniform(key_velocity, (2,), minval=-0.5, maxval=0.5),
            tilt=jax.random.uniform(key_tilt, (), minval=-0.2, maxval=0.2),
            rate=jnp.zeros(()),
            shaping=jnp.zeros(()),
        )
        body = body.replace(shaping=_shaping(body))
        none = jnp.zeros((), bool)
        return State(body, _observation(body), jnp.zeros(()), none, none)

    def step(self, state: State, action: Action) -> State:
        body, engine = state.data, action["action"]
        main = (engine == 2).astype(jnp.float32)
        side = (engine == 3).astype(jnp.float32) - (engine == 1)
        up = jnp.stack([-jnp.sin(body.tilt), jnp.cos(body.tilt)])
        right = jnp.stack([up[1], -up[0]])
        force = _MAIN * main * up + _SIDE * side * right - jnp.array([0.0, _GRAVITY])
        velocity = body.velocity + _SECONDS * force
        rate = body.rate + _SECONDS * _TORQUE * side
        body = body.replace(
            position=body.position + _SECONDS * velocity,
            velocity=velocity,
            tilt=body.tilt + _SECONDS * rate,
            rate=rate,
        )
        shaping = _shaping(body)
        on_ground = body.position[1] <= 0.0
        is_soft = jnp.linalg.norm(velocity) < _SOFT
        landed = on_ground & is_soft & (jnp.abs(body.tilt) < _UPRIGHT)
        left = jnp.abs(body.position[0]) > 1.0
        end = jnp.where(landed, 100.0, jnp.where(on_ground | left, -100.0, 0.0))
        return state.replace(
            data=body.replace(shaping=shaping),
            obs=_observation(body),
            reward=shaping - body.shaping - _FUEL[engine] + end,
            terminated=on_ground | left,
        )


def _legs(body: Body) -> jax.Array:
    """Return which legs touch the ground, [2]."""
    side = jnp.array([-0.1, 0.1])
    feet = body.position[1] + side * jnp.sin(body.tilt)
    return (feet <= 0.05).astype(jnp.float32)


def _shaping(body: Body) -> jax.Array:
    far = jnp.linalg.norm(body.position) + jnp.linalg.norm(body.velocity)
    return -100.0 * (far + jnp.abs(body.tilt)) + 10.0 * jnp.sum(_legs(body))


def _observation(body: Body) -> jax.Array:
    tilt = jnp.stack([body.tilt, body.rate])
    return jnp.concatenate([body.position, body.velocity, tilt, _legs(body)])


def make() -> Lander:
    """Make the lander; `--env faults.lander:make`."""
    return Lander()
