"""Brax's environments under our protocol.

    python -m purejaxppo.train --env brax:inverted_pendulum --env-kwargs backend=mjx

Without Brax's wrappers: those restart an environment inside `step` and so hide the
observation that an episode ended with. The time limit is the specification's, and a
truncation.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from purejaxppo import trees
from purejaxppo.env import Action, Box, EnvSpec, Obs, State
from purejaxppo.errors import ConfigError, UnknownName, whole_number
from purejaxppo.numerics import import_mjx, permissive_numerics, strongly_typed

if TYPE_CHECKING:  # Brax is optional
    from brax.envs import Env as BraxEnvironment
    from brax.envs import State as BraxState

BACKENDS = ("generalized", "spring", "positional", "mjx")
HEAD = "action"
EPISODE_STEPS = 1000  # what Brax's own `create` cuts episodes at
MAX_STEPS = 2**31 - 1  # an episode's age is an int32


@dataclasses.dataclass(frozen=True, eq=False)
class BraxEnv:
    """An environment of Brax under our protocol; `make` builds it.

    Attributes:
      spec: one Box head, "action", and the time limit.
      backend: which of Brax's physics; "none" where it has no physics.
      brax: the environment inside.
    """

    spec: EnvSpec
    backend: str
    brax: "BraxEnvironment"

    def reset(self, key: jax.Array) -> State:
        """A first state; its metrics are sums over the episode, as Brax's are."""
        with permissive_numerics():
            # Brax writes for untyped keys.
            inner = self.brax.reset(jax.random.key_data(key))
        # Brax's types are weak in places, and a step's others than a reset's.
        inner: BraxState = jax.tree.map(strongly_typed, inner)
        zero, false = jnp.zeros((), jnp.float32), jnp.zeros((), bool)
        return State(
            data=inner,
            obs=observe(inner),
            reward=zero,
            terminated=false,
            truncated=false,
            metrics={name: zero for name in (*inner.metrics, "unstable")},
        )

    def step(self, state: State, action: Action) -> State:
        """Brax's step; where it blows up, the state before it, truncated."""
        before: BraxState = state.data
        with permissive_numerics():
            after = self.brax.step(before, action[HEAD])
        after = jax.tree.map(
            lambda new, old: strongly_typed(new, old.dtype), after, before
        )
        # A selection, not a product: 0 * NaN is NaN, and one NaN is one in every mean.
        sane = _all_finite((after.obs, after.reward, after.metrics))
        inner = trees.where(sane, after, before)
        added = {**inner.metrics, "unstable": (~sane).astype(jnp.float32)}
        return State(
            data=inner,
            obs=observe(inner),
            reward=jnp.where(sane, after.reward, 0.0),
            terminated=sane & (after.done > 0),
            truncated=~sane,
            metrics={name: x + added[name] for name, x in state.metrics.items()},
        )


def observe(inner: "BraxState") -> Obs:
    """Its observation; of a dict the state, and for the critic what is privileged."""
    if not isinstance(inner.obs, Mapping):
        return inner.obs
    actor = inner.obs["state"]
    return {"actor": actor, "critic": inner.obs.get("privileged_state", actor)}


def _all_finite(tree: object) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def make(
    name: str | None = None,
    backend: str | None = None,
    max_episode_steps: int = EPISODE_STEPS,
    **kwargs: object,
) -> BraxEnv:
    """Builds Brax's environment of that name, and wraps it.

    Args:
      name: as Brax registers it, such as "inverted_pendulum".
      backend: the physics: "generalized", "spring", "positional" or "mjx"; None is
        that environment's own choice.
      max_episode_steps: the time limit.
      **kwargs: what else its constructor takes.

    Raises:
      ConfigError: Brax is not installed, or a value that is not among these.
    """
    limit = whole_number("max_episode_steps", max_episode_steps, 1, MAX_STEPS)
    if backend is not None:
        if backend not in BACKENDS:
            raise UnknownName("backend", backend, BACKENDS)
        kwargs["backend"] = backend
    known = _registered(name)
    if name not in known:
        raise UnknownName("brax", name, known)
    with permissive_numerics():
        brax = known[name](**kwargs)
        size = brax.action_size
        obs = jax.eval_shape(brax.reset, jax.random.PRNGKey(0)).obs
    if isinstance(obs, Mapping) and "state" not in obs:
        raise ConfigError("obs", sorted(obs), 'an array, or a dict with "state"')

    return BraxEnv(
        spec=EnvSpec(f"brax:{name}", {HEAD: Box(size)}, limit),
        # Not every environment has physics.
        backend=getattr(brax, "backend", "none"),
        brax=brax,
    )


def _registered(name: str | None) -> dict[str, Callable[..., "BraxEnvironment"]]:
    """Brax's environments by name."""
    import_mjx()  # before Brax does, whatever the backend
    try:
        from brax import envs
    except ModuleNotFoundError as error:
        raise ConfigError(
            "env",
            f"brax:{name}",
            f'what is installed: pip install "brax==0.14.2" ({error})',
        ) from None
    return envs._envs
