"""The hammer environment: pick up a hammer with a Sawyer arm and drive a nail in.

Facts and sources are in README.md beside this file; what is said here is why the
code is as it is.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.env import Action, Box, EnvSpec, State
from purejaxppo.errors import ConfigError, UnknownName

from ..physics.engine import make_engine, sensor_slices
from ..physics.types import Data, Engine
from . import demonstrator, reward, scene, start

REWARDS = ("sparse", "dense", "success")

ACTION_SCALE = 0.01  # metres that the mocap body moves for an action of 1
MAX_CLAW_DISTANCE = 0.1
HAND_LOW = (-0.525, 0.348, -0.0525)
HAND_HIGH = (0.525, 1.025, 0.7)
GOAL = (0.24, 0.74, 0.11)

HAMMER_LOW, HAMMER_HIGH = (-0.1, 0.4), (0.1, 0.5)

NAIL_AT = (0.24, 0.64, 0.11)  # the nail's own origin before it moves along +y
DRIVEN = 0.09  # of 0.1: Meta-World's success
NAIL_RADIUS, NAIL_HALF_HEIGHT = 0.03, 0.009
DISC_RADIUS = 0.038
PAD_HALF_SIZE = (0.015, 0.003, 0.045)  # along the world's axes, fingers pointing down

# How near counts as touching. Contacts give by up to a millimetre and states are
# seen at 80 Hz only.
TOUCHING = 0.002
CLEAR = 0.002
LIFTED = 0.01  # the head's lowest point, above the table
FACING = 0.9  # cosine between the face's normal and the nail's way


class Protocol(NamedTuple):
    """What the two ways of posing the task differ in."""

    action_repeat: int
    max_episode_steps: int
    reward: str
    goal_visible: bool
    sticky_success: bool
    outcome: str  # the metric that says whether an episode succeeded
    starts: Callable


PROTOCOLS = {
    "v3": Protocol(1, 500, "sparse", False, True, "hammered", start.official),
    "cs224r": Protocol(2, 50, "success", True, False, "success", start.course),
}


class HammerData(struct.PyTreeNode):
    """What the environment carries from step to step.

    Attributes:
      physics: the engine's state.
      block: [18], the current half of the observation, before clipping.
      touching: bool [], the hammer's face was on the nail's head at the last look.
      hammer_start: [3] and tcp_start: [3], which the dense reward measures from.
    """

    physics: Data
    block: jax.Array
    touching: jax.Array
    hammer_start: jax.Array
    tcp_start: jax.Array


class HammerEnv(NamedTuple):
    """The environment; see `purejaxppo.env.Env`."""

    spec: EnvSpec
    reset: Callable[[jax.Array], State]
    step: Callable[[State, Action], State]
    demonstrator: Callable[[State], Action]
    engine: Engine


def observe(sensors: dict[str, jax.Array], qpos: jax.Array) -> jax.Array:
    """The half of the observation that is about one moment, float32 [18]."""
    distance = jnp.linalg.norm(sensors["rightclaw"] - sensors["leftclaw"])
    gripper = jnp.clip(distance / MAX_CLAW_DISTANCE, 0.0, 1.0)
    nail = nail_position(qpos[scene.NAIL_QPOS])
    upright = jnp.asarray((1.0, 0.0, 0.0, 0.0), jnp.float32)
    hammer = qpos[scene.HAMMER_QPOS]
    return jnp.concatenate([sensors["hand"], gripper[None], hammer, nail, upright])


def stack(block: jax.Array, previous: jax.Array, goal: tuple) -> jax.Array:
    """The observation [39]: now, one step ago, goal."""
    return jnp.concatenate([block, previous, jnp.asarray(goal, jnp.float32)])


def clip_block(block: jax.Array) -> jax.Array:
    """Meta-World clips hand and gripper, in what it shows but not in what it keeps."""
    low = jnp.asarray((*HAND_LOW, -1.0), jnp.float32)
    high = jnp.asarray((*HAND_HIGH, 1.0), jnp.float32)
    return block.at[:4].set(jnp.clip(block[:4], low, high))


def nail_position(slide: jax.Array) -> jax.Array:
    """The nail's origin in the world [3], after it moved in by `slide`."""
    return jnp.stack([jnp.float32(NAIL_AT[0]), NAIL_AT[1] + slide, NAIL_AT[2]])


def face_on_nail(sensors: dict[str, jax.Array], slide: jax.Array) -> jax.Array:
    """Is the hammer's striking face, off the table, against the nail's head? bool [].

    From positions alone, so that every engine answers alike: contacts and forces are
    an engine's internals.
    """
    face, normal = sensors["face"], sensors["face_normal"]
    apart = nail_position(slide - NAIL_HALF_HEIGHT) - face
    # From the face's plane to the nearest corner of the nail's head: of a tilted
    # face, that corner is what touches.
    tilt = jnp.abs(normal[0]) + jnp.abs(normal[2])
    gap = jnp.dot(apart, normal) - NAIL_RADIUS * tilt
    reach = DISC_RADIUS + NAIL_RADIUS
    return (
        (gap < TOUCHING)
        & (gap > -NAIL_HALF_HEIGHT)
        & (jnp.abs(apart[0]) < reach)
        & (jnp.abs(apart[2]) < reach)
        & (normal[1] > FACING)
        & (face[2] > DISC_RADIUS + LIFTED)
    )


def fingers_clear(sensors: dict[str, jax.Array], slide: jax.Array) -> jax.Array:
    """Is there air between both fingers and the nail's head? bool []."""
    head = jnp.asarray((NAIL_RADIUS, NAIL_HALF_HEIGHT, NAIL_RADIUS), jnp.float32)
    reach = head + jnp.asarray(PAD_HALF_SIZE, jnp.float32) + CLEAR
    nail = nail_position(slide)
    right = jnp.any(jnp.abs(sensors["rightpad"] - nail) > reach)
    left = jnp.any(jnp.abs(sensors["leftpad"] - nail) > reach)
    return right & left


def dense_reward(
    data: HammerData, block: jax.Array, sensors: dict[str, jax.Array], effort: jax.Array
) -> jax.Array:
    """Meta-World's reward of a step that led to `block`, which is clipped: []."""
    hand, hammer = block[:3], block[4:7]
    grab = reward.caging(
        effort,
        reward.grab_target(hand, hammer),
        data.hammer_start,
        sensors["leftpad"],
        sensors["rightpad"],
        (sensors["righttip"] + sensors["lefttip"]) / 2,
        data.tcp_start,
    )
    success = data.physics.qpos[scene.NAIL_QPOS] > DRIVEN
    goal = jnp.asarray(GOAL, jnp.float32)
    return reward.dense(hammer, block[7:11], grab, goal, success)


def make(
    reward: str | None = None,
    protocol: str = "v3",
    engine: str = "auto",
    max_episode_steps: int | None = None,
) -> HammerEnv:
    """Builds the environment; computes its start states, which takes a moment.

    Args:
      reward: "sparse": 1 at the step on which the nail is in by the hammer, and the
        episode ends. "dense": Meta-World's, 0 to 10 at each step. "success":
        Meta-World's success flag. None: "sparse", in cs224r "success".
      protocol: "v3", Meta-World's, or "cs224r", the Stanford homework's.
      engine: "auto", "mujoco", "mjx" or "warp".
      max_episode_steps: the time limit; None: 500, in cs224r 50.

    Raises:
      ConfigError: a value that is not among these.
    """
    if protocol not in PROTOCOLS:
        raise UnknownName("protocol", protocol, PROTOCOLS)
    rules = PROTOCOLS[protocol]
    reward = rules.reward if reward is None else reward
    if reward not in REWARDS:
        raise UnknownName("reward", reward, REWARDS)
    limit = rules.max_episode_steps if max_episode_steps is None else max_episode_steps
    if not isinstance(limit, int) or limit < 1:
        raise ConfigError("max_episode_steps", limit, "an integer of at least 1")

    model = scene.load()
    physics_engine = make_engine(engine, model)
    slices = sensor_slices(model)
    starts = rules.starts(model)
    goal = GOAL if rules.goal_visible else (0.0, 0.0, 0.0)

    def read(sensordata):
        return {name: sensordata[where] for name, where in slices.items()}

    def bound_reset(key: jax.Array) -> State:
        return reset(physics_engine, read, starts, goal, key)

    def bound_step(state: State, action: Action) -> State:
        return step(physics_engine, read, rules, reward, goal, state, action)

    return HammerEnv(
        spec=EnvSpec("hammer", {"arm": Box(4)}, limit, rules.outcome),
        reset=bound_reset,
        step=bound_step,
        demonstrator=lambda state: {"arm": demonstrator.act(state.obs)},
        engine=physics_engine,
    )


Read = Callable[[jax.Array], dict[str, jax.Array]]


def reset(
    engine: Engine, read: Read, starts: start.Starts, goal: tuple, key: jax.Array
) -> State:
    """A baked start with the hammer somewhere else. No physics."""
    key_start, key_hammer = jax.random.split(key)
    index = jax.random.randint(key_start, (), 0, len(starts.qpos))
    begin = jax.tree.map(lambda x: jnp.asarray(x)[index], starts)
    low = jnp.asarray(HAMMER_LOW, jnp.float32)
    high = jnp.asarray(HAMMER_HIGH, jnp.float32)
    place = jax.random.uniform(key_hammer, (2,), minval=low, maxval=high)
    shift = place - jnp.asarray(start.HAMMER_AT, jnp.float32)

    physics = engine.init(
        begin.qpos.at[9:11].add(shift),
        begin.qvel,
        begin.mocap_pos,
        jnp.asarray((start.MOCAP_QUAT,), jnp.float32),
        begin.sensordata,
    )
    face = read(jnp.arange(engine.model.nsensordata))["face"]
    sensordata = physics.sensordata.at[face[:2]].add(shift)
    physics = physics.replace(sensordata=sensordata)
    block = observe(read(sensordata), physics.qpos)
    previous_qpos = begin.previous_qpos.at[9:11].add(shift)
    previous = observe(read(begin.previous_sensordata), previous_qpos)
    zero = jnp.zeros((), jnp.float32)
    false = jnp.zeros((), bool)
    return State(
        data=HammerData(
            physics=physics,
            block=block,
            touching=false,
            hammer_start=jnp.concatenate([place, zero[None]]),
            tcp_start=begin.tcp,
        ),
        obs=stack(block, previous, goal),
        reward=zero,
        terminated=false,
        truncated=false,
        metrics={"success": zero, "hammered": zero, "unstable": zero},
    )


def step(
    engine: Engine,
    read: Read,
    rules: Protocol,
    reward_name: str,
    goal: tuple,
    state: State,
    action: Action,
) -> State:
    """One decision: `action_repeat` control steps of 12.5 ms."""
    arm = action["arm"]
    chex.assert_shape(arm, (4,))
    data = state.data
    hammered = jnp.zeros((), bool)
    unstable = jnp.zeros((), bool)
    for _ in range(rules.action_repeat):
        previous = data.block
        data, hit = control_step(engine, read, data, arm)
        hammered |= hit
        unstable |= data.physics.unstable

    sensors = read(data.physics.sensordata)
    slide = data.physics.qpos[scene.NAIL_QPOS]
    success = slide > DRIVEN
    shown = clip_block(data.block)
    obs = stack(shown, clip_block(previous), goal)

    sparse = hammered & (state.metrics["hammered"] == 0)
    if reward_name == "sparse":
        value, terminated = sparse.astype(jnp.float32), sparse
    elif reward_name == "dense":
        value = dense_reward(data, shown, sensors, arm[3])
        terminated = jnp.zeros((), bool)
    else:
        value, terminated = success.astype(jnp.float32), jnp.zeros((), bool)

    def running(name, now):
        return jnp.maximum(state.metrics[name], now.astype(jnp.float32))

    metrics = {
        "success": running("success", success)
        if rules.sticky_success
        else success.astype(jnp.float32),
        "hammered": running("hammered", hammered),
        "unstable": running("unstable", unstable),
    }
    return State(
        data=data,
        obs=jnp.where(unstable, state.obs, obs),
        reward=jnp.where(unstable, 0.0, value),
        terminated=terminated & ~unstable,
        truncated=unstable,
        metrics=metrics,
    )


def control_step(
    engine: Engine, read: Read, data: HammerData, arm: jax.Array
) -> tuple[HammerData, jax.Array]:
    """Moves the mocap body, runs the physics; also tells if the nail went in just now.

    It counts as hammered when the slide passes DRIVEN with the face on the head,
    now or at the last look, and no finger near: at a speed of 0.7 m/s the nail may
    be a millimetre ahead of the face that drove it at either look, hardly at both.
    """
    arm = jnp.clip(arm, -1.0, 1.0)
    low = jnp.asarray((scene.MOCAP_LOW,), jnp.float32)
    high = jnp.asarray((scene.MOCAP_HIGH,), jnp.float32)
    mocap = data.physics.mocap_pos + ACTION_SCALE * arm[None, :3]
    physics = engine.step(
        data.physics,
        jnp.stack([arm[3], -arm[3]]),
        jnp.clip(mocap, low, high),
        scene.N_SUBSTEPS,
    )
    sensors = read(physics.sensordata)
    before, after = data.physics.qpos[scene.NAIL_QPOS], physics.qpos[scene.NAIL_QPOS]
    touching = face_on_nail(sensors, after)
    hit = (
        (before <= DRIVEN)
        & (after > DRIVEN)
        & (touching | data.touching)
        & fingers_clear(sensors, after)
    )
    block = observe(sensors, physics.qpos)
    return data.replace(physics=physics, block=block, touching=touching), hit
