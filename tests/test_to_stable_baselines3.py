"""Our environments under Stable-Baselines3; left out where it is not installed."""

import numpy as np
import pytest
from helpers import assert_trees_equal
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env

from purejaxppo.adapters import to_gymnasium, to_stable_baselines3
from purejaxppo.errors import ConfigError
from purejaxppo.registry import REGISTRY


@pytest.mark.parametrize("name", REGISTRY)
def test_its_check_passes(name):
    check_env(to_gymnasium(name))


def test_steps_are_those_of_our_vector_environment():
    name, kwargs = "probe_envs:HeadsProbe", {"names": ("op", "slot")}
    theirs = to_stable_baselines3(name, 3, 7, **kwargs)
    ours = to_gymnasium(name, 3, 7, **kwargs)
    obs, info = ours.reset()
    assert_trees_equal(theirs.reset(), obs)
    ours.action_space.seed(0)
    num_ended, total = 0, np.zeros(3)
    for _ in range(20):
        masks = theirs.env_method("action_masks", indices=[0, 2])
        op, slot = (info["action_mask"][name][0] for name in ("op", "slot"))
        assert masks[0].tolist() == [*map(bool, op), *map(bool, slot.any(axis=0))]
        assert len(masks) == 2
        action = ours.action_space.sample()
        obs, reward, terminated, truncated, info = ours.step(action)
        seen, paid, done, infos = theirs.step(action)
        total += reward
        assert_trees_equal((seen, paid, done), (obs, reward, terminated | truncated))
        assert [i for i in range(3) if infos[i]] == [*np.flatnonzero(done)]
        for i in np.flatnonzero(done):
            assert_trees_equal(infos[i]["terminal_observation"], info["final_obs"][i])
            assert infos[i]["TimeLimit.truncated"] == truncated[i]
            assert infos[i]["is_success"] == info["final_info"]["success"][i]
            assert infos[i]["episode"]["l"] == info["final_info"]["episode"]["l"][i]
            assert infos[i]["episode"]["r"] == pytest.approx(total[i], abs=1e-5)
            num_ended, total[i] = num_ended + 1, 0
    assert num_ended > 5


def test_seeds_and_attributes():
    envs = to_stable_baselines3("probe_envs:Lottery", 2, 7)
    first, second = envs.reset(), envs.reset()
    envs.seed(7)
    assert_trees_equal((envs.reset(), envs.reset()), (first, second))
    assert envs.has_attr("action_masks")
    assert envs.get_attr("render_mode") == [None, None]
    assert envs.env_is_wrapped(object) == [False, False]
    with pytest.raises(AttributeError, match="no method 'jump'"):
        envs.env_method("jump")


def test_it_learns():
    """To move right, which pays 1 in an episode of one step and else -1."""
    envs = to_stable_baselines3("probe_envs:make", 8, kind="action")
    sizes = {"n_steps": 16, "batch_size": 64, "n_epochs": 8, "learning_rate": 0.01}
    model = PPO("MlpPolicy", envs, **sizes, device="cpu", seed=1)
    model.learn(8 * 16 * 6)
    assert np.mean([info["r"] for info in list(model.ep_info_buffer)[-30:]]) > 0.8


def test_heads_without_a_policy_are_refused():
    with pytest.raises(ConfigError, match=r"heads: got .*aim.*; allowed is one head"):
        to_stable_baselines3("probe_envs:HeadsProbe", 2)
    with pytest.raises(ConfigError, match="num_envs: got 0"):
        to_stable_baselines3("probe_envs:Lottery", 0)


def test_the_actors_observation_is_shown():
    envs = to_stable_baselines3("probe_envs:Faulty", 2, privileged=True)
    assert envs.observation_space.shape == (1,)
    assert envs.reset().tolist() == [[1.0], [1.0]]
