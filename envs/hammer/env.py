"""The hammer environment: pick up a hammer with a Sawyer arm and drive a nail in.

The task and its sources are described in README.md.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Action, Box, EnvSpec, State
from purejaxppo.errors import ConfigError, UnknownName

from ..physics.engine import make_engine, sensor_slices
from ..physics.types import Data, Engine
from . import contact, demonstrator, observation, reward, scene, start
from .contact import Sensors
from .protocol import GOAL, PROTOCOLS, Protocol

REWARDS = ("sparse", "dense", "success")

ACTION_SCALE = 0.01  # metres that the mocap body moves for an action of 1
CONTROL_SECONDS = 0.0125  # of a control step
DRIVEN = 0.09  # metres of the nail's slide, at most 0.1, for Meta-World's success
HAMMER_LOW, HAMMER_HIGH = (-0.1, 0.4), (0.1, 0.5)


class HammerData(struct.PyTreeNode):
    """The internal state of the environment.

    Attributes:
      physics: the engine's state.
      block: [18], the present half of the observation, before clipping.
      struck: bool [], the nail is touched by the hammer's face, or still moves from it.
      hammer_start: [3], the hammer's position at reset, for the dense reward.
      tcp_start: [3], the middle of the finger tips at reset, for the dense reward.
    """

    physics: Data
    block: jax.Array
    struck: jax.Array
    hammer_start: jax.Array
    tcp_start: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class HammerEnv:
    """The environment; `make` builds it.

    Attributes:
      engine: the physics engine.
      sensors: sensor name -> slice of `sensordata`.
      starts: the start states.
      protocol: the variant of the task.
      reward: one of REWARDS.
      max_episode_steps: the time limit in decisions.
    """

    engine: Engine
    sensors: dict[str, slice]
    starts: start.Starts[np.ndarray]
    protocol: Protocol
    reward: str
    max_episode_steps: int

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "hammer",
            {"arm": Box(4)},
            self.max_episode_steps,
            self.protocol.outcome,
            version=2,
            action_repeat=self.protocol.action_repeat,
        )

    def demonstrator(self, state: State) -> Action:
        """Return the scripted expert's action."""
        assert not isinstance(state.obs, dict)
        return {"arm": demonstrator.act(state.obs)}

    @property
    def seconds_per_step(self) -> float:
        """The time for which a video shows a decision: twice the real one."""
        return 2.0 * self.protocol.action_repeat * CONTROL_SECONDS

    def render(
        self, states: State, actions: Action, steps: Sequence[int]
    ) -> Iterable[np.ndarray]:
        """Draw the arm, the hammer and the nail; see `RenderedEnv`.

        Args:
          states, actions, steps: see `RenderedEnv`.
        """
        from . import render  # only where pictures are drawn: training needs no OpenGL

        del actions
        return render.draw(states.data.physics.qpos[step] for step in steps)

    def reset(self, key: jax.Array) -> State:
        """Take a precomputed start state, and move the hammer to a random place."""
        key_start, key_hammer = jax.random.split(key)
        index = jax.random.randint(key_start, (), 0, len(self.starts.qpos))
        starts = jax.tree.map(jnp.asarray, self.starts)
        begin: start.Starts[jax.Array] = trees.take(starts, index)
        low = jnp.asarray(HAMMER_LOW, jnp.float32)
        high = jnp.asarray(HAMMER_HIGH, jnp.float32)
        place = jax.random.uniform(key_hammer, (2,), minval=low, maxval=high)
        shift = place - jnp.asarray(start.HAMMER_AT, jnp.float32)

        physics = self._place(begin, shift)
        block = observation.observe(self._read(physics.sensordata), physics.qpos)
        previous = observation.observe(
            self._read(begin.previous_sensordata),
            begin.previous_qpos.at[9:11].add(shift),
        )
        zero, false = jnp.zeros((), jnp.float32), jnp.zeros((), bool)
        return State(
            data=HammerData(
                physics=physics,
                block=block,
                struck=false,
                hammer_start=jnp.concatenate([place, zero[None]]),
                tcp_start=begin.tcp,
            ),
            obs=observation.join(block, previous, self.protocol.goal),
            reward=zero,
            terminated=false,
            truncated=false,
            metrics={"success": zero, "hammered": zero, "unstable": zero},
        )

    def _place(self, begin: start.Starts[jax.Array], shift: jax.Array) -> Data:
        """Return the physics of a start, the hammer moved by `shift` [2], metres."""
        physics = self.engine.init(
            begin.qpos.at[9:11].add(shift),
            begin.qvel,
            begin.mocap_pos,
            jnp.asarray((start.MOCAP_QUAT,), jnp.float32),
            begin.sensordata,
        )
        face = jnp.arange(self.engine.model.nsensordata)[self.sensors["face"]]
        moved = physics.sensordata.at[face[:2]].add(shift)
        return physics.replace(sensordata=moved)

    def _read(self, sensordata: jax.Array) -> Sensors:
        return {name: sensordata[where] for name, where in self.sensors.items()}

    def step(self, state: State, action: Action) -> State:
        """Take one decision: `action_repeat` control steps of 12.5 ms."""
        arm = action["arm"]
        chex.assert_shape(arm, (4,))
        data = previous_data = state.data
        hammered = jnp.zeros((), bool)
        unstable = jnp.zeros((), bool)
        for _ in range(self.protocol.action_repeat):
            previous_data = data
            data, hit = self._control_step(data, arm)
            hammered |= hit
            unstable |= data.physics.unstable

        shown = observation.clip_block(data.block)
        previous = observation.clip_block(previous_data.block)
        obs = observation.join(shown, previous, self.protocol.goal)
        value, terminated = self._reward(state, data, shown, arm[3], hammered)
        return State(
            data=data,
            obs=trees.where(unstable, state.obs, obs),
            reward=jnp.where(unstable, 0.0, value),
            terminated=terminated & ~unstable,
            truncated=unstable,
            metrics=self._metrics(state, data, hammered, unstable),
        )

    def _reward(
        self,
        state: State,
        data: HammerData,
        shown: jax.Array,
        effort: jax.Array,
        hammered: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Return the reward of a decision, and whether it terminates the episode."""
        no_end = jnp.zeros((), bool)
        if self.reward == "dense":
            sensors = self._read(data.physics.sensordata)
            return dense_reward(data, shown, sensors, effort), no_end
        if self.reward == "success":
            return _is_driven(data.physics).astype(jnp.float32), no_end
        first_time = hammered & (state.metrics["hammered"] == 0)
        return first_time.astype(jnp.float32), first_time

    def _metrics(
        self, state: State, data: HammerData, hammered: jax.Array, unstable: jax.Array
    ) -> dict[str, jax.Array]:
        success = _is_driven(data.physics).astype(jnp.float32)

        def running_max(name: str, now: jax.Array) -> jax.Array:
            return jnp.maximum(state.metrics[name], now.astype(jnp.float32))

        sticky = self.protocol.sticky_success
        return {
            "success": running_max("success", success) if sticky else success,
            "hammered": running_max("hammered", hammered),
            "unstable": running_max("unstable", unstable),
        }

    def _control_step(
        self, data: HammerData, arm: jax.Array
    ) -> tuple[HammerData, jax.Array]:
        """Move the mocap body and step the physics.

        The second result is whether the nail was hammered in, bool []: its slide passes
        DRIVEN, pushed by the hammer's face or moving on from its blow, and no finger is
        near. A nail that is struck at 1 m/s is a centimetre ahead of the face when it
        passes; once it stops, or a finger comes near, the blow is over.
        """
        arm = jnp.clip(arm, -1.0, 1.0)
        low = jnp.asarray((scene.MOCAP_LOW,), jnp.float32)
        high = jnp.asarray((scene.MOCAP_HIGH,), jnp.float32)
        mocap = data.physics.mocap_pos + ACTION_SCALE * arm[None, :3]
        physics = self.engine.step(
            data.physics,
            jnp.stack([arm[3], -arm[3]]),
            jnp.clip(mocap, low, high),
            scene.N_SUBSTEPS,
        )
        sensors, slide = self._read(physics.sensordata), physics.qpos[scene.NAIL_QPOS]
        moves = slide - data.physics.qpos[scene.NAIL_QPOS] > contact.MOVING
        struck = contact.face_on_nail(sensors, slide) | (data.struck & moves)
        struck &= contact.fingers_clear(sensors, slide)
        hit = ~_is_driven(data.physics) & _is_driven(physics) & struck
        block = observation.observe(sensors, physics.qpos)
        return data.replace(physics=physics, block=block, struck=struck), hit


def _is_driven(physics: Data) -> jax.Array:
    return physics.qpos[scene.NAIL_QPOS] > DRIVEN


def dense_reward(
    data: HammerData, block: jax.Array, sensors: Sensors, effort: jax.Array
) -> jax.Array:
    """Compute Meta-World's reward of a control step, float32 [].

    Args:
      data: the internal state after the step.
      block: [18], the present half of the observation after the step, clipped.
      sensors: the sensors after the step.
      effort: [], the gripper's action, before clipping.
    """
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
    goal = jnp.asarray(GOAL, jnp.float32)
    return reward.dense(hammer, block[7:11], grab, goal, _is_driven(data.physics))


def make(
    reward: str | None = None,
    protocol: str = "v3",
    engine: str = "auto",
    max_episode_steps: int | None = None,
) -> HammerEnv:
    """Build the environment, and compute its start states.

    Args:
      reward: "sparse": 1 at the step that hammers the nail in, which ends the episode.
        "dense": Meta-World's, 0 to 10 per step. "success": Meta-World's success flag.
        None: "sparse", or with cs224r "success".
      protocol: "v3" (Meta-World's) or "cs224r" (of the Stanford homework).
      engine: "auto", "mujoco", "mjx" or "warp".
      max_episode_steps: time limit in decisions; None: 500, or with cs224r 50.

    Raises:
      ConfigError: an argument is not allowed.
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
    return HammerEnv(
        engine=make_engine(engine, model),
        sensors=sensor_slices(model),
        starts=rules.starts(model),
        protocol=rules,
        reward=reward,
        max_episode_steps=limit,
    )
