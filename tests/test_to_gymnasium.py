"""Our environments as Gymnasium's: its own checks, and our own steps to the bit."""

import dataclasses
import functools
import sys

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from helpers import assert_trees_equal

from purejaxppo import adapters, trees
from purejaxppo.adapters import gymnasium_spaces, to_gymnasium
from purejaxppo.adapters.batch import MAX_SEED
from purejaxppo.env import Box, Choice, Custom, Discrete
from purejaxppo.errors import ConfigError
from purejaxppo.registry import REGISTRY, make_env

NUM_ENVS = 3
SEED = 5
# So that episodes end within a few steps; a run of the deck is short by itself.
SHORT = {
    "hammer": {"engine": "mujoco", "max_episode_steps": 4},
    "scheduler": {"num_jobs": 2},
    "lifecycle": {},
    "deck": {},
}
NUM_STEPS = {"hammer": 6, "scheduler": 40, "lifecycle": 26, "deck": 40}


@pytest.fixture(scope="module")
def many():
    """The vector environment of a name, built and compiled once."""
    return functools.cache(
        lambda name: to_gymnasium(name, NUM_ENVS, SEED, **SHORT.get(name, {}))
    )


@pytest.mark.parametrize("name", REGISTRY)
def test_gymnasiums_check_passes(name):
    check_env(to_gymnasium(name, **SHORT[name]))


@pytest.mark.parametrize("name", REGISTRY)
def test_steps_are_our_own_to_the_bit(name, many):
    """Beside `reset` and `step` of our environment, with the same keys and actions."""
    env, envs = make_env(name, **SHORT[name]), many(name)
    limit = env.spec.max_episode_steps or 2**30
    keys = jax.vmap(jax.random.key)(np.arange(SEED, SEED + NUM_ENVS, dtype=np.uint32))
    step, where = jax.jit(jax.vmap(env.step)), jax.jit(trees.where)

    @jax.jit
    @jax.vmap
    def start(key, count):
        # The other half of the key is that of the random age that training begins with.
        return env.reset(jax.random.split(jax.random.fold_in(key, count))[0])

    count, age = np.zeros((2, NUM_ENVS), np.int32)
    ended = np.zeros(NUM_ENVS, bool)
    state = start(keys, count)
    obs, info = envs.reset(seed=SEED)
    assert_trees_equal(obs, state.obs)
    envs.action_space.seed(0)
    for _ in range(NUM_STEPS[name]):
        action = envs.action_space.sample()
        by_head = gymnasium_spaces.head_actions(env.spec.heads, action, NUM_ENVS)
        state = true = step(state, by_head)
        age += 1
        terminated, truncated = map(np.asarray, (true.terminated, true.truncated))
        truncated = (truncated | (age >= limit)) & ~terminated
        done = terminated | truncated
        if done.any():
            state = where(done, start(keys, count + 1), true)
            count, age = np.where(done, [count + 1, 0 * age], [count, age])
            ended |= done
        obs, *results, info = envs.step(action)
        assert obs in envs.observation_space
        assert_trees_equal(obs, state.obs)
        assert_trees_equal(results, [true.reward, terminated, truncated])
        _check_info(env.spec.heads, info, state)
        assert ("final_obs" in info) == done.any()
        for i in np.flatnonzero(done):
            assert_trees_equal(info["final_obs"][i], trees.take(true.obs, int(i)))
            final = {k: info["final_info"][k][i] for k in true.metrics}
            assert_trees_equal(final, {k: x[i] for k, x in true.metrics.items()})
    assert ended.all()


def _check_info(heads, info, state):
    assert_trees_equal({k: info[k] for k in state.metrics}, state.metrics)
    masks = info.get("action_mask", {})
    masks = masks if len(heads) > 1 else dict.fromkeys(state.action_mask, masks)
    for head, mask in state.action_mask.items():
        assert masks[head].dtype == np.int8
        assert_trees_equal(masks[head].astype(bool), mask)
    for head, active in state.active.items():
        assert_trees_equal(info["active"][head], active)


def test_gymnasiums_own_vector_environment_does_the_same():
    """Spaces, steps and information, of `Env`s stepped one after the other."""
    ours = to_gymnasium("probe_envs:Lottery", 2)
    build = functools.partial(to_gymnasium, "probe_envs:Lottery")
    theirs = SyncVectorEnv([build] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    for space in ("observation_space", "action_space"):
        assert getattr(ours, space) == getattr(theirs, space)
        single = f"single_{space}"
        assert getattr(ours, single) == getattr(theirs, single)
    assert_trees_equal(ours.reset(seed=3), theirs.reset(seed=3))
    num_ended = []
    for _ in range(12):
        steps = [envs.step(np.zeros(2, int)) for envs in (ours, theirs)]
        num_ended.append(int(np.sum(steps[0][2])))
        finals = [step[4].pop("final_info", {}) for step in steps]
        for name in ("episode", "_episode"):  # which no `Env` has
            assert (finals[0].pop(name, None) is None) == (num_ended[-1] == 0)
        obs = [[*step[4].pop("final_obs", [])] for step in steps]
        assert_trees_equal([*obs, *finals][::2], [*obs, *finals][1::2])
        assert_trees_equal(steps[0][1].astype(float), steps[1][1])
        assert_trees_equal(
            [*steps[0][:1], *steps[0][2:]], [*steps[1][:1], *steps[1][2:]]
        )
    assert {0, 1} <= {*num_ended}


def test_several_heads_have_masks_and_activity_by_name():
    env = to_gymnasium("probe_envs:HeadsProbe", names=("op", "slot"))
    for _, info in [env.reset() for _ in range(3)]:
        shapes = {name: mask.shape for name, mask in info["action_mask"].items()}
        assert shapes == {"op": (4,), "slot": (4, 3)}
        assert {*info["active"]} == {"op"}


def test_an_episode_that_ends_leaves_its_information():
    envs = to_gymnasium("probe_envs:Counter", 2)
    listed = DictInfoToList(envs)
    listed.reset()
    for t in range(1, 8):
        obs, reward, _, _, infos = listed.step(np.zeros(2, int))
        assert reward.tolist() == [(t - 1) % 3 + 1] * 2
        assert obs[:, 0].tolist() == [t % 3] * 2
        for info in infos:
            assert ("final_info" in info) == ("final_obs" in info) == (t % 3 == 0)
            if t % 3 == 0:
                assert info["final_info"]["episode"] == {"r": 6, "l": 3}
                assert info["final_obs"].tolist() == [3]
                assert info["final_info"]["success"] == np.float32(0.3)
                assert info["success"] == 0


@pytest.fixture(scope="module")
def envs():
    """Of the probe whose observation is a number that its start has drawn.

    Two of nine are reset at once, if their episodes end.
    """
    return to_gymnasium("probe_envs:Lottery", 9, 7)


def test_a_seed_says_all(envs):
    first = envs.reset()[0]  # with the seed that it was built with
    second = envs.reset()[0]
    assert len({*first[:, 0], *second[:, 0]}) == 18
    assert_trees_equal(envs.reset(seed=7)[0], first)
    assert_trees_equal(envs.reset()[0], second)


def test_environment_i_has_the_seed_s_plus_i(envs):
    single = to_gymnasium("probe_envs:Lottery", seed=7)
    seven, eight, last = (
        single.reset()[0],
        *(single.reset(seed=s)[0] for s in (8, MAX_SEED)),
    )
    assert_trees_equal(envs.reset(seed=7)[0][:2], np.stack([seven, eight]))
    assert_trees_equal(envs.reset(seed=[8, MAX_SEED, *[7] * 7])[0][1], last)
    assert_trees_equal(envs.reset(seed=MAX_SEED)[0][0], last)
    assert_trees_equal(envs.reset(seed=MAX_SEED)[0][8], seven)


def test_an_episode_does_not_depend_on_the_other_environments(envs):
    """Nor on how the one before it ended: here by a reset from outside."""
    envs.reset(seed=7)
    starts = [[] for _ in range(9)]
    for _ in range(8):  # an episode has at most four steps
        obs, _, terminated, _, _ = envs.step(np.zeros(9, int))
        for i in np.flatnonzero(terminated):
            starts[i].append(obs[i])
    envs.reset(seed=7)
    for k in range(max(map(len, starts))):
        again = envs.reset()[0]
        for start, own in zip(again, starts, strict=True):
            if k < len(own):
                assert_trees_equal(start, own[k])


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1", [1], [1, 2, 3], MAX_SEED + 1])
def test_others_are_refused(envs, seed):
    with pytest.raises(ConfigError, match=r"seed: got .*; allowed is a whole"):
        envs.reset(seed=seed)


def test_what_cannot_be_used_truncates_and_is_not_shown():
    envs = to_gymnasium("probe_envs:Faulty", 2, fault="obs_nan", at=2)
    single = to_gymnasium("probe_envs:Faulty", fault="obs_nan", at=2)
    envs.reset(), single.reset()
    before = envs.step(np.ones(2, int))[0]
    _, reward, terminated, truncated, info = envs.step(np.ones(2, int))
    assert reward.tolist() == [0, 0]
    assert (terminated.any(), truncated.all()) == (False, True)
    assert_trees_equal(np.stack(info["final_obs"]), before)
    assert info["final_info"]["success"].tolist() == [1, 1]
    for _ in range(2):
        obs, *_, info = single.step(1)
        assert_trees_equal(obs, before[0])
        assert info["success"] == 1


def test_arrays_are_the_callers_own():
    envs = to_gymnasium("probe_envs:Counter", 2)
    obs, _ = envs.reset()
    kept = [*envs.step(np.zeros(2, int))[:4], obs]
    copies = [x.copy() for x in kept]
    envs.step(np.zeros(2, int))
    assert_trees_equal(kept, copies)
    assert all(x.flags.writeable for x in kept)


def test_a_program_is_compiled_once(many):
    envs = many("hammer")
    for seed in (None, 3):
        envs.reset(seed=seed)
        for dtype in (np.float32, np.float64):
            envs.step(np.zeros((NUM_ENVS, 4), dtype))
    assert envs._host._step._cache_size() == envs._host._first._cache_size() == 1


def test_masks_are_what_the_spaces_sample_by(many):
    envs = many("scheduler")
    _, info = envs.reset(seed=0)
    single = envs.single_action_space
    for mask in info["action_mask"]:
        chosen = {int(single.sample(mask)) for _ in range(60)}
        assert chosen == set(np.flatnonzero(mask))
    assert envs.action_space.sample(tuple(info["action_mask"])).shape == (NUM_ENVS,)


@pytest.mark.parametrize(
    ("heads", "space"),
    [
        ({"a": Box(2)}, "Box(-1.0, 1.0, (2,), float32)"),
        ({"a": Discrete(3)}, "Discrete(3)"),
        ({"a": Choice(5, 2)}, "MultiDiscrete([5 5])"),
        ({"a": Discrete(3), "b": Choice(5, 2)}, "MultiDiscrete([3 5 5])"),
        (
            {"b": Discrete(3), "a": Box(1)},
            "Dict('a': Box(-1.0, 1.0, (1,), float32), 'b': Discrete(3))",
        ),
    ],
    ids=str,
)
def test_the_space_of_heads(heads, space):
    assert str(gymnasium_spaces.action_space(heads)) == space


def test_several_discrete_heads_are_columns_in_their_order():
    heads = {"a": Discrete(3), "b": Choice(5, 2), "c": Discrete(4)}
    rows = np.array([[2, 4, 0, 3], [1, 0, 1, 2]])
    split = gymnasium_spaces.head_actions(heads, rows, 2)
    assert {k: v.tolist() for k, v in split.items()} == {
        "a": [2, 1],
        "b": [[4, 0], [0, 1]],
        "c": [3, 2],
    }
    masks = {
        "a": np.array([[True, False, True]]),
        "c": np.array([[[True, False, False, False], [False, False, True, False]]]),
    }
    flat = gymnasium_spaces.flat_masks(heads, masks, 1)
    assert flat.astype(int).tolist() == [[1, 0, 1, *[1] * 10, 1, 0, 1, 0]]


def test_a_specification_builds_the_same_again():
    env = to_gymnasium("probe_envs:Lottery", seed=3)
    again = gymnasium.make(env.spec)
    assert env.spec.id == "purejaxppo/lottery-v1"
    assert_trees_equal(again.reset()[0], env.reset()[0])


class Odd:
    """Its only head has a distribution of the user."""

    def __init__(self):
        lottery = make_env("probe_envs:Lottery")
        heads = {"odd": Custom(2, "custom_distributions:switches")}
        self.spec = dataclasses.replace(lottery.spec, heads=heads)
        self.reset, self.step = lottery.reset, lottery.step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hamer",), "env: got 'hamer'; allowed is one of "),
        (("hammer", 0), "num_envs: got 0; allowed is a whole number from 1"),
        (("hammer", 2, -1), "seed: got -1; allowed is a whole number from 0"),
        (("test_to_gymnasium:Odd", 2), "heads.odd: got Custom.*allowed is a Box, a"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments, message):
    with pytest.raises(ConfigError, match=message):
        to_gymnasium(*arguments)


def test_a_wrong_keyword_is_one_sentence():
    with pytest.raises(ConfigError, match="engine: got 'bullet'; allowed is one of"):
        to_gymnasium("hammer", engine="bullet")


def test_a_wrong_call_is_one_sentence(many):
    envs = many("hammer")
    with pytest.raises(ConfigError, match=r"options: got .*; allowed is none"):
        envs.reset(options={"reset_mask": np.ones(NUM_ENVS, bool)})
    envs.reset()
    lifecycle = many("lifecycle")
    lifecycle.reset()
    with pytest.raises(ConfigError, match=r"arm: got .*\[3, 3\].*of shape \[3, 4\]"):
        envs.step(np.zeros((NUM_ENVS, 3)))
    with pytest.raises(ConfigError, match=r"actions: got .*\[3\].*of shape \[3, 4\]"):
        lifecycle.step(np.zeros(NUM_ENVS, int))
    with pytest.raises(gymnasium.error.ResetNeeded, match="before the first `reset`"):
        to_gymnasium("probe_envs:Counter").step(0)


@pytest.mark.parametrize(
    ("name", "package"),
    [("to_gymnasium", "gymnasium"), ("to_stable_baselines3", "stable_baselines3")],
)
def test_without_the_library_it_says_what_to_install(name, package, monkeypatch):
    for module in [*sys.modules]:
        if module.startswith("purejaxppo.adapters."):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"got '{name}'; allowed is .*pip install"):
        getattr(adapters, name)
    with pytest.raises(AttributeError, match="has no attribute 'to_nothing'"):
        adapters.to_nothing  # noqa: B018
