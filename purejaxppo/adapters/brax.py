"""Brax's environments with the protocol of `purejaxppo.env`.

    python -m purejaxppo.train --env brax:inverted_pendulum --env-kwargs backend=mjx

Brax's wrappers are not used, because they reset an environment inside `step` and so
hide the last observation of an episode. The time limit is part of the specification,
and is a truncation.
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
KEY = "rng"  # the entry of `info` that holds a random key in some environments
EPISODE_STEPS = 1000  # the default time limit of Brax's `create`
MAX_STEPS = 2**31 - 1  # an episode's age is an int32


@dataclasses.dataclass(frozen=True, eq=False)
class BraxEnv:
    """A Brax environment with the protocol of `purejaxppo.env`; `make` builds it.

    Attributes:
      spec: one Box head, "action", and the time limit.
      backend: name of Brax's physics; "none" if the environment has no physics.
      brax: Brax's environment.
    """

    spec: EnvSpec
    backend: str
    brax: "BraxEnvironment"

    def reset(self, key: jax.Array) -> State:
        """Start an episode. Metrics are sums over the episode, as in Brax's wrapper."""
        with permissive_numerics():
            # Brax expects untyped keys.
            inner = _with_typed_key(self.brax.reset(jax.random.key_data(key)))
        # Some of Brax's dtypes are weak, and differ between reset and step.
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
        """Step Brax's environment; if the result is not finite, truncate the episode.

        Then the state before the step is kept.
        """
        old: BraxState = state.data
        with permissive_numerics():
            new = _with_typed_key(self.brax.step(_with_raw_key(old), action[HEAD]))
        new = jax.tree.map(lambda x, like: strongly_typed(x, like.dtype), new, old)
        # A selection, not a product: 0 * NaN is NaN, and would make every mean NaN.
        is_finite = _all_finite((new.obs, new.reward, new.metrics))
        inner = trees.where(is_finite, new, old)
        added = {**inner.metrics, "unstable": (~is_finite).astype(jnp.float32)}
        return State(
            data=inner,
            obs=observe(inner),
            reward=jnp.where(is_finite, new.reward, 0.0),
            terminated=is_finite & (new.done > 0),
            truncated=~is_finite,
            metrics={name: x + added[name] for name, x in state.metrics.items()},
        )


def _with_typed_key(inner: "BraxState") -> "BraxState":
    """Convert the raw key in `info["rng"]`, if there is one, to a typed key.

    The auto-reset then recognises it, and episodes from one start have different luck.
    A raw key in another place looks like any other numbers, and is not converted.
    """
    key = inner.info.get(KEY)
    if not isinstance(key, jax.Array) or (key.shape, key.dtype) != ((2,), jnp.uint32):
        return inner
    info = {**inner.info, KEY: jax.random.wrap_key_data(key)}
    return dataclasses.replace(inner, info=info)


def _with_raw_key(inner: "BraxState") -> "BraxState":
    """Undo `_with_typed_key`."""
    key = inner.info.get(KEY)
    if not isinstance(key, jax.Array) or key.dtype == jnp.uint32:
        return inner
    info = {**inner.info, KEY: jax.random.key_data(key)}
    return dataclasses.replace(inner, info=info)


def observe(inner: "BraxState") -> Obs:
    """Return the observation of a Brax state.

    Of a dictionary the actor gets "state", and the critic "privileged_state" if there
    is one.
    """
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
    """Build an environment of Brax.

    Args:
      name: its name in Brax's registry, such as "inverted_pendulum".
      backend: the physics: "generalized", "spring", "positional" or "mjx"; None for
        the environment's default.
      max_episode_steps: the time limit in steps.
      **kwargs: further arguments of the environment's constructor.

    Raises:
      ConfigError: Brax is not installed, or an argument is not allowed.
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
    """Return Brax's registry: name -> environment."""
    import_mjx()  # before Brax imports MJX, so that the patch applies
    try:
        from brax import envs
    except ModuleNotFoundError as error:
        raise ConfigError(
            "env",
            f"brax:{name}",
            f'what is installed: pip install "brax==0.14.2" ({error})',
        ) from None
    return envs._envs
