"""The contract of environments: kept by the registry and the probes, each breach seen.

The breaches are planted in a sound environment, one at a time.
"""

import dataclasses
import textwrap

import jax
import jax.numpy as jnp
import pytest
from probe_envs import Counter, HeadsProbe, Probe

from purejaxppo import env as env_module
from purejaxppo.check import check_env
from purejaxppo.env import Box, Choice, Discrete
from purejaxppo.errors import ConfigError
from purejaxppo.registry import REGISTRY, make_env

_SOUND = [
    Probe("delayed"),
    Probe("both", continuous=True),
    Probe("endless"),
    Counter("truncated"),
    HeadsProbe(privileged=True),
]


@pytest.mark.parametrize("env", _SOUND, ids=lambda env: env.spec.name)
def test_probes_keep_the_contract(env):
    check_env(env)


@pytest.mark.parametrize("name", REGISTRY)
def test_registered_environments_keep_the_contract(name):
    check_env(make_env(name))


def test_the_example_of_the_documentation_keeps_the_contract():
    assert env_module.__doc__
    lines = env_module.__doc__.splitlines()
    code = "\n".join(x for x in lines if x.startswith("    ") or not x)
    names = {**vars(env_module)}
    exec(textwrap.dedent(code), names)
    env = names["Shelves"]()
    check_env(env)
    full = env.state(jnp.zeros((3,), jnp.int32), 0, jax.random.key(0), jnp.zeros(()))
    assert bool(full.terminated)
    assert full.action_mask["op"].tolist() == [True, False]


class Broken:
    """A sound environment with one function replaced."""

    def __init__(self, env, **changes):
        self.spec, self.reset, self.step = env.spec, env.reset, env.step
        if hasattr(env, "demonstrator"):
            self.demonstrator = env.demonstrator
        for name, value in changes.items():
            setattr(self, name, value)


def _after_reset(env, **changes):
    """Replaces fields of the state that reset returns, by value or by function."""

    def reset(key):
        state = env.reset(key)
        return state.replace(
            **{k: v(state) if callable(v) else v for k, v in changes.items()}
        )

    return Broken(env, reset=reset)


def _after_step(env, **changes):
    def step(state, action):
        state = env.step(state, action)
        return state.replace(
            **{k: v(state) if callable(v) else v for k, v in changes.items()}
        )

    return Broken(env, step=step)


def _with_spec(env, **changes):
    return Broken(env, spec=dataclasses.replace(env.spec, **changes))


_ENV, _MANY, _CARDS = Probe("both"), HeadsProbe(("op", "slot")), HeadsProbe(("cards",))
_TRACED = {
    "int reward": (
        _after_reset(_ENV, reward=jnp.zeros((), jnp.int32)),
        "probe_both.reward: got 'int32 []'; allowed is float32 []",
    ),
    "int flag": (
        _after_reset(_ENV, terminated=jnp.zeros((), jnp.int32)),
        "probe_both.terminated: got 'int32 []'; allowed is bool []",
    ),
    "obs rank": (
        _after_reset(_ENV, obs=jnp.zeros((2, 2))),
        "probe_both.obs: got 'float32 [2, 2]'; allowed is float32 [D]",
    ),
    "obs dict": (
        _after_reset(_ENV, obs={"state": jnp.zeros((2,))}),
        "probe_both.obs: got ['state']; allowed is an array, or actor and critic",
    ),
    "shape changes": (
        _after_step(_ENV, obs=jnp.zeros((2,))),
        "probe_both.step: state.obs: got 'float32 [2]'; "
        "allowed is what reset gives, float32 [1]",
    ),
    "dtype changes": (
        _after_step(_ENV, reward=jnp.zeros((), jnp.int32)),
        "probe_both.step: state.reward: got 'int32 []'; "
        "allowed is what reset gives, float32 []",
    ),
    "weak type": (
        _after_step(_ENV, reward=lambda state: jnp.asarray(1.0)),
        "probe_both.step: state.reward: got 'float32 [] (weakly typed)'; "
        "allowed is what reset gives, float32 []",
    ),
    "weak type throughout": (
        _after_step(
            _after_reset(_ENV, reward=lambda state: jnp.asarray(0.0)),
            reward=lambda state: jnp.asarray(1.0),
        ),
        "probe_both.step: state.reward: got 'float32 [] (weakly typed)'; "
        "allowed is float32 with its type stated",
    ),
    "metric appears": (
        _after_step(_ENV, metrics={"new": jnp.zeros(())}),
        "probe_both.step",
    ),
    "unknown success": (
        _with_spec(_ENV, success="won"),
        "probe_both.spec.success: got 'won'; allowed is one of the metrics ['success']",
    ),
    "no heads": (_with_spec(_ENV, heads={}), "at least one head"),
    "limit": (_with_spec(_ENV, max_episode_steps=0), "None or a whole number above 0"),
    "late parent": (
        _with_spec(_ENV, heads={"a": Discrete(2, parent="b"), "b": Discrete(2)}),
        "a parent that is a Discrete head before it",
    ),
    "active_when": (
        _with_spec(_ENV, heads={"a": Discrete(2), "b": Discrete(2, "a", (2,))}),
        "active_when within 0 to 1",
    ),
    "choice": (_with_spec(_ENV, heads={"a": Choice(2, 3)}), "1 <= k <= n"),
    "mask of nobody": (
        _after_reset(_ENV, action_mask={"jump": jnp.ones((2,), bool)}),
        "probe_both.action_mask, active: got 'jump'; allowed is a head's name",
    ),
    "mask shape": (
        _after_reset(_ENV, action_mask={"move": jnp.ones((3,), bool)}),
        "probe_both.action_mask.move: got 'bool [3]'; allowed is bool [2]",
    ),
    "mask of a box": (
        _after_reset(
            _with_spec(_ENV, heads={"move": Box(1)}),
            action_mask={"move": jnp.ones((1,), bool)},
        ),
        "no mask on a continuous head",
    ),
}


@pytest.mark.parametrize("case", _TRACED)
def test_breaches_that_tracing_shows(case):
    env, sentence = _TRACED[case]
    with pytest.raises(ConfigError) as error:
        check_env(env)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


_CALLS = []


def _impure(state):
    """Another result in each trace."""
    _CALLS.append(None)
    return state.obs + len(_CALLS)


def _no_slots(state):
    return {**state.action_mask, "slot": jnp.zeros((4, 3), bool)}


_PLAYED = {
    "constant start": (
        Broken(_ENV, reset=lambda key: _ENV.reset(jax.random.key(0))),
        "got 'one state for all keys'; allowed is a state that depends on the key",
    ),
    "ended start": (
        _after_reset(_ENV, truncated=jnp.ones((), bool)),
        "probe_both.reset: truncated: got True; allowed is False",
    ),
    "paid start": (
        _after_reset(_ENV, reward=jnp.ones(())),
        "probe_both.reset: reward",
    ),
    "nan": (
        _after_step(_ENV, obs=jnp.full((1,), jnp.nan, jnp.float32)),
        "probe_both.step: obs: got 'NaN or inf'; allowed is finite numbers",
    ),
    "nan metric": (
        _after_step(_ENV, metrics={"success": jnp.full((), jnp.inf, jnp.float32)}),
        "probe_both.step: metrics['success']",
    ),
    "two ends": (
        _after_step(_ENV, truncated=lambda state: state.terminated),
        "terminated and truncated at once",
    ),
    "empty mask": (
        _after_reset(_MANY, action_mask=_no_slots),
        "probe_heads.reset: action_mask.slot: got 'fewer allowed actions than the "
        "head takes'; allowed is at least 1 where the head is active",
    ),
    "impure": (_after_reset(_ENV, obs=_impure), "reset and step are pure functions"),
    "demonstrator's heads": (
        Broken(_ENV, demonstrator=lambda state: {"jump": jnp.int32(0)}),
        "probe_both.demonstrator: got ['jump']; allowed is ['move']",
    ),
    "demonstrator's type": (
        Broken(_ENV, demonstrator=lambda state: {"move": jnp.float32(0)}),
        "probe_both.demonstrator: move: got 'float32 [8]'; allowed is int32 [8]",
    ),
    "demonstrator's range": (
        Broken(_ENV, demonstrator=lambda state: {"move": jnp.int32(2)}),
        "allowed is numbers within 0 to 1",
    ),
    "demonstrator's mask": (
        Broken(
            _CARDS,
            demonstrator=lambda state: {"cards": jnp.asarray([0, 4], jnp.int32)},
        ),
        "probe_heads.demonstrator: cards: got 'a masked action'",
    ),
}


@pytest.mark.parametrize("case", _PLAYED)
def test_breaches_that_playing_shows(case):
    env, sentence = _PLAYED[case]
    with pytest.raises(ConfigError) as error:
        check_env(env, num_steps=4)
    assert sentence in str(error.value)


def test_an_environment_may_always_start_alike():
    env = Broken(_ENV, reset=lambda key: _ENV.reset(jax.random.key(0)))
    check_env(env, num_steps=4, random_start=False)


def test_empty_masks_of_heads_that_do_not_matter_are_allowed():
    def asleep(state):
        return {name: jnp.zeros((), bool) for name in state.active}

    env = _after_reset(_MANY, action_mask=_no_slots, active=asleep)
    check_env(env, num_steps=4)
