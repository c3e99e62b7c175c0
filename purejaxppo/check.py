"""`check_env`: the contract that every environment keeps, ours and yours.

    from purejaxppo.check import check_env
    check_env(MyEnv())

It raises one sentence about the first thing that is wrong, and returns None.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.env import Action, Box, Choice, Custom, Discrete, Env, Head, State
from purejaxppo.errors import ConfigError
from purejaxppo.policy import custom
from purejaxppo.policy.distributions import Categorical, PlackettLuce

_FLAGS = ("terminated", "truncated")


def check_env(
    env: Env,
    *,
    num_envs: int = 8,
    num_steps: int = 32,
    seed: int = 0,
    random_start: bool = True,
) -> None:
    """Check specification, types, values and purity of an environment.

    Args:
      env: what to check.
      num_envs, num_steps: how many environments are stepped side by side, and how
        far, with random allowed actions.
      seed: of the keys.
      random_start: False for an environment that always starts in one state.

    Raises:
      ConfigError: the first breach of the contract: where, what it is, what is allowed.
    """
    name = env.spec.name
    _check_spec(name, env)
    _check_types(name, env)
    key_reset, key_steps = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(key_reset, num_envs)

    @jax.jit
    def play(keys: jax.Array, key: jax.Array) -> tuple[State, State, Action]:
        """The starts, and each step's state and the action that led to it, [T, N]."""
        start = jax.vmap(env.reset)(keys)

        def one_step(state: State, key: jax.Array):
            key_action, key_start = jax.random.split(key)
            action = jax.vmap(lambda s, k: random_action(env, s, k))(
                state, jax.random.split(key_action, num_envs)
            )
            after = jax.vmap(env.step)(state, action)
            fresh = jax.vmap(env.reset)(jax.random.split(key_start, num_envs))
            done = after.terminated | after.truncated
            following = jax.tree.map(lambda a, b: _where(done, a, b), fresh, after)
            return following, (after, action)

        _, (after, action) = jax.lax.scan(
            one_step, start, jax.random.split(key, num_steps)
        )
        return start, after, action

    played = play(keys, key_steps)
    start, after, action = played
    _check_starts(name, start, random_start)
    _check_states(name, "reset", env, start)
    _check_states(name, "step", env, after)
    _check_same(name, "the same key", played, play(keys, key_steps))
    one = jax.jit(env.reset)(keys[0])
    first = jax.tree.map(lambda x: x[0], start)
    _check_same(name, "reset with and without vmap", one, first, rtol=1e-4, atol=1e-4)
    first_action = jax.tree.map(lambda x: x[0, 0], action)
    stepped = jax.jit(env.step)(first, first_action)
    _check_same(
        name,
        "step with and without vmap",
        stepped,
        jax.tree.map(lambda x: x[0, 0], after),
        rtol=1e-3,
        atol=1e-3,
    )
    if hasattr(env, "demonstrator"):
        _check_demonstrator(name, env, start)
        flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), after)
        _check_demonstrator(name, env, flat)


# --- specification ---------------------------------------------------------------


def _check_spec(name: str, env: Env) -> None:
    spec = env.spec
    if not spec.heads:
        raise ConfigError(f"{name}.spec.heads", dict(spec.heads), "at least one head")
    seen: dict[str, Head] = {}
    for head_name, head in spec.heads.items():
        _check_head(f"{name}.spec.heads.{head_name}", head, seen)
        seen[head_name] = head
    limit = spec.max_episode_steps
    if limit is not None and not (isinstance(limit, int) and limit >= 1):
        raise ConfigError(
            f"{name}.spec.max_episode_steps", limit, "None or a whole number above 0"
        )


def _check_head(where: str, head: Head, seen: Mapping[str, Head]) -> None:
    if isinstance(head, Box):
        if head.size < 1:
            raise ConfigError(where, head, "a Box of at least one number")
    elif isinstance(head, Choice):
        if not 1 <= head.k <= head.n:
            raise ConfigError(where, head, "a Choice with 1 <= k <= n")
    elif isinstance(head, Discrete):
        _check_discrete(where, head, seen)
    elif isinstance(head, Custom):
        if head.num_outputs < 1:
            raise ConfigError(where, head, "a Custom of at least one number")
        custom.describe(where, head.distribution, (head.num_outputs,))
    else:
        raise ConfigError(where, head, "a Box, a Discrete, a Choice or a Custom")


def _check_discrete(where: str, head: Discrete, seen: Mapping[str, Head]) -> None:
    if head.n < 1:
        raise ConfigError(where, head, "a Discrete of at least one value")
    if head.parent is None:
        if head.active_when is not None:
            raise ConfigError(where, head, "active_when with a parent alone")
        return
    parent = seen.get(head.parent)
    if not isinstance(parent, Discrete):
        raise ConfigError(where, head, "a parent that is a Discrete head before it")
    if any(not 0 <= value < parent.n for value in head.active_when or ()):
        raise ConfigError(where, head, f"active_when within 0 to {parent.n - 1}")


# --- types -----------------------------------------------------------------------


def _describe(x: Any) -> str:
    weak = " (weakly typed)" if getattr(x, "weak_type", False) else ""
    return f"{x.dtype} {list(x.shape)}{weak}"


def _check_types(name: str, env: Env) -> None:
    """Shapes and types, from tracing alone."""
    key = jax.random.key(0)
    reset = jax.eval_shape(env.reset, key)
    if not isinstance(reset, State):
        raise ConfigError(f"{name}.reset", type(reset).__name__, "an env.State")
    _check_fields(name, env, reset)
    action = jax.eval_shape(lambda s, k: random_action(env, s, k), reset, key)
    step = jax.eval_shape(env.step, reset, action)
    if jax.tree.structure(reset) != jax.tree.structure(step):
        raise ConfigError(
            f"{name}.step", jax.tree.structure(step), "the structure that reset has"
        )
    before, after = (jax.tree_util.tree_leaves_with_path(x) for x in (reset, step))
    for (path, a), (_, b) in zip(before, after, strict=True):
        where = f"{name}.step: state{jax.tree_util.keystr(path)}"
        if _describe(a) != _describe(b):
            raise ConfigError(where, _describe(b), f"what reset gives, {_describe(a)}")
        if getattr(b, "weak_type", False):
            raise ConfigError(where, _describe(b), f"{b.dtype} with its type stated")


def _check_fields(name: str, env: Env, state: State) -> None:
    obs = state.obs if isinstance(state.obs, dict) else {"obs": state.obs}
    if isinstance(state.obs, dict) and set(obs) != {"actor", "critic"}:
        raise ConfigError(f"{name}.obs", sorted(obs), "an array, or actor and critic")
    for part, x in obs.items():
        if x.dtype != jnp.float32 or x.ndim != 1:
            raise ConfigError(f"{name}.{part}", _describe(x), "float32 [D]")
    _expect(f"{name}.reward", state.reward, "float32", ())
    for flag in _FLAGS:
        _expect(f"{name}.{flag}", getattr(state, flag), "bool", ())
    for metric, x in state.metrics.items():
        _expect(f"{name}.metrics.{metric}", x, "float32", ())
    success = env.spec.success
    if success is not None and success not in state.metrics:
        raise ConfigError(
            f"{name}.spec.success", success, f"one of the metrics {[*state.metrics]}"
        )
    _check_masks(name, env.spec.heads, state)


def _expect(where: str, x: Any, dtype: str, shape: tuple[int, ...]) -> None:
    if x.dtype != dtype or x.shape != shape:
        raise ConfigError(where, _describe(x), f"{dtype} {list(shape)}")


def _check_masks(name: str, heads: Mapping[str, Head], state: State) -> None:
    for head_name in (*state.action_mask, *state.active):
        if head_name not in heads:
            raise ConfigError(f"{name}.action_mask, active", head_name, "a head's name")
    for head_name, active in state.active.items():
        _expect(f"{name}.active.{head_name}", active, "bool", ())
    for head_name, mask in state.action_mask.items():
        head, where = heads[head_name], f"{name}.action_mask.{head_name}"
        if isinstance(head, (Box, Custom)):
            kind = "continuous" if isinstance(head, Box) else "custom"
            raise ConfigError(where, _describe(mask), f"no mask on a {kind} head")
        rows = ()
        if isinstance(head, Discrete) and head.parent is not None and mask.ndim == 2:
            rows = (heads[head.parent].n,)
        _expect(where, mask, "bool", (*rows, head.n))


# --- values ----------------------------------------------------------------------


def random_action(env: Env, state: State, key: jax.Array) -> Action:
    """Uniform over what the masks allow; a custom head's as from a network of zeros."""
    action: Action = {}
    for index, (name, head) in enumerate(env.spec.heads.items()):
        key_head = jax.random.fold_in(key, index)
        if isinstance(head, Box):
            action[name] = jax.random.uniform(
                key_head, (head.size,), jnp.float32, -1.0, 1.0
            )
            continue
        if isinstance(head, Custom):
            action[name] = custom.untrained(head).sample(key_head)
            continue
        mask = state.action_mask.get(name)
        if mask is not None and mask.ndim == 2:
            assert isinstance(head, Discrete)
            assert head.parent is not None
            mask = mask[action[head.parent]]
        logits = jnp.zeros((head.n,), jnp.float32)
        noise = Categorical.noise(key_head, logits.shape)
        if isinstance(head, Choice):
            action[name] = PlackettLuce(logits, head.k, mask).sample(noise)
        else:
            action[name] = Categorical(logits, mask).sample(noise)
    return action


def _where(done: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        data = _where(done, jax.random.key_data(new), jax.random.key_data(old))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(new))
    return jnp.where(done.reshape(done.shape + (1,) * (new.ndim - 1)), new, old)


def _numpy(x: jax.Array) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)


def _check_starts(name: str, start: State, random_start: bool) -> None:
    for flag in _FLAGS:
        if np.any(getattr(start, flag)):
            raise ConfigError(f"{name}.reset: {flag}", True, "False")
    if np.any(start.reward):
        raise ConfigError(f"{name}.reset: reward", start.reward.tolist(), "0")
    drawn = [_numpy(x) for x in jax.tree.leaves((start.obs, start.data))]
    if random_start and all(np.array_equal(x[1:], x[:-1]) for x in drawn):
        raise ConfigError(
            f"{name}.reset", "one state for all keys", "a state that depends on the key"
        )


def _check_states(name: str, when: str, env: Env, state: State) -> None:
    """States with any leading axes."""
    where = f"{name}.{when}"
    visible = (state.obs, state.reward, state.metrics)
    for path, x in jax.tree_util.tree_leaves_with_path(visible):
        if not np.all(np.isfinite(x)):
            part = ("obs", "reward", "metrics")[path[0].idx]
            place = part + jax.tree_util.keystr(path[1:])
            raise ConfigError(f"{where}: {place}", "NaN or inf", "finite numbers")
    if np.any(state.terminated & state.truncated):
        raise ConfigError(where, "terminated and truncated at once", "one of the two")
    done = np.asarray(state.terminated | state.truncated)
    for head_name, head in env.spec.heads.items():
        mask = state.action_mask.get(head_name)
        if mask is None:
            continue
        # Nothing is chosen in a state that ended.
        used = ~done & _may_be_active(head_name, env.spec.heads, state)
        needed = head.k if isinstance(head, Choice) else 1
        enough = np.sum(mask, axis=-1) >= needed
        if enough.ndim > used.ndim:  # rows: those that the parent can choose
            enough = np.all(enough | ~_rows_in_use(head, state, enough.shape), axis=-1)
        if np.any(used & ~enough):
            raise ConfigError(
                f"{where}: action_mask.{head_name}",
                "fewer allowed actions than the head takes",
                f"at least {needed} where the head is active",
            )


def _may_be_active(name: str, heads: Mapping[str, Head], state: State) -> np.ndarray:
    active = np.ones(np.shape(state.reward), bool)
    link: str | None = name
    while link is not None:
        active &= np.asarray(state.active.get(link, active))
        link = getattr(heads[link], "parent", None)
    return active


def _rows_in_use(head: Head, state: State, shape: tuple[int, ...]) -> np.ndarray:
    assert isinstance(head, Discrete)
    assert head.parent is not None
    allowed = np.asarray(state.action_mask.get(head.parent, np.ones(shape, bool)))
    if allowed.ndim > len(shape):  # the parent has a parent: any of its rows
        allowed = np.any(allowed, axis=-2)
    if head.active_when is None:
        return allowed
    return allowed & np.isin(np.arange(shape[-1]), head.active_when)


def _check_same(name: str, what: str, a: Any, b: Any, **tolerance: float) -> None:
    """Bit for bit without a tolerance; NaN equals NaN."""
    leaves = jax.tree_util.tree_leaves_with_path(a)
    for (path, x), y in zip(leaves, jax.tree.leaves(b), strict=True):
        x, y = _numpy(x), _numpy(y)
        if tolerance and np.issubdtype(x.dtype, np.floating):
            same = np.allclose(x, y, equal_nan=True, **tolerance)
        else:
            same = np.array_equal(x, y, equal_nan=np.issubdtype(x.dtype, np.floating))
        if not same:
            raise ConfigError(
                f"{name}: {what}",
                f"two results at {jax.tree_util.keystr(path)}",
                "one result: reset and step are pure functions",
            )


# --- demonstrator ----------------------------------------------------------------


def _check_demonstrator(name: str, env: Env, state: State) -> None:
    """Its actions in states [B]; what it does in one that ended is free."""
    where = f"{name}.demonstrator"
    action = jax.jit(jax.vmap(env.demonstrator))(state)
    going = ~np.asarray(state.terminated | state.truncated)
    if set(action) != set(env.spec.heads):
        raise ConfigError(where, sorted(action), f"{sorted(env.spec.heads)}")
    for head_name, head in env.spec.heads.items():
        value, place = action[head_name], f"{where}: {head_name}"
        num = value.shape[:1]
        if isinstance(head, Box):
            _expect(place, value, "float32", (*num, head.size))
            if not np.all(np.abs(value[going]) <= 1.0):
                raise ConfigError(place, value.tolist(), "numbers in [-1, 1]")
            continue
        if isinstance(head, Custom):
            expected = custom.action_type(head)
            _expect(place, value, str(expected.dtype), (*num, *expected.shape))
            continue
        tail = (head.k,) if isinstance(head, Choice) else ()
        _expect(place, value, "int32", (*num, *tail))
        chosen = np.asarray(value).reshape((*num, -1))
        _check_chosen(place, head, chosen[going])
        if head_name not in state.action_mask:
            continue
        mask = np.asarray(state.action_mask[head_name])
        if mask.ndim == 3:
            mask = mask[np.arange(num[0]), np.asarray(action[head.parent])]
        allowed = np.all(np.take_along_axis(mask, chosen, axis=-1), axis=-1)
        used = going & _may_be_active(head_name, env.spec.heads, state)
        if isinstance(head, Discrete) and head.active_when is not None:
            used = used & np.isin(action[head.parent], head.active_when)
        if np.any(used & ~allowed):
            raise ConfigError(place, "a masked action", "what the mask allows")


def _check_chosen(place: str, head: Discrete | Choice, chosen: np.ndarray) -> None:
    if not np.all((chosen >= 0) & (chosen < head.n)):
        raise ConfigError(place, chosen.tolist(), f"numbers within 0 to {head.n - 1}")
    if any(len(set(row)) < len(row) for row in chosen.tolist()):
        raise ConfigError(
            place, chosen.tolist(), f"{head.k} different ones of {head.n}"
        )
