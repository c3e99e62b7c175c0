"""Gymnasium's environments through the adapter: our contract, and their own numbers."""

import re
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from purejaxppo import autoreset, episodes, evaluate, train
from purejaxppo.adapters import gymnasium_heads
from purejaxppo.adapters.gymnasium_env import seed_of
from purejaxppo.adapters.gymnasium_host import ENDED, NOT_BEGUN, Instances
from purejaxppo.check import check_env
from purejaxppo.env import Box, Discrete
from purejaxppo.errors import ConfigError, EnvironmentFault, fault_behind
from purejaxppo.registry import make_env

LIMIT = 6


class Drift(gymnasium.Env):
    """A point that is pushed, and drifts by luck; it falls off where it is above 3."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Box(np.float32([0.0, -1.0]), np.float32([2.0, 3.0]))
    made = 0

    def __init__(self, fails_in="", after=0):
        self.fails_in, self.after = fails_in, after
        Drift.made += 1
        if fails_in == "make":
            raise OSError("the motor is missing")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fails_in == "reset" or (self.fails_in == "later_reset" and seed):
            raise ValueError("the motor is stuck\nas it often is")
        self.x, self.t = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32), 0
        return self.x, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.t += 1
        if self.fails_in == "step" and self.t > self.after:
            raise ValueError("the motor burns\nwith a smell")
        self.x = self.x + action + np.float32(self.np_random.normal(0.0, 0.3))
        return self.x, float(self.x.sum()), bool(self.x[0] > 3.0), False, {}


class Keys(gymnasium.Env):
    """Only the key that the mask names opens; two dials of other sizes come with it."""

    observation_space = spaces.Dict(
        {
            "key": spaces.Discrete(3, start=5),
            "dial": spaces.Box(0, 255, (1, 2), "uint8"),
        }
    )
    action_space = spaces.Discrete(3, start=5)

    def _observe(self):
        self.key = int(self.np_random.integers(3))
        mask = np.eye(3, dtype=np.int8)[self.key]
        dial = np.full((1, 2), 200, np.uint8)
        return {"key": 5 + self.key, "dial": dial}, {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe()

    def step(self, action):
        if action != 5 + self.key:
            raise ValueError(f"{action} does not open")
        obs, info = self._observe()
        return obs, 1.0, False, False, info


gymnasium.register("Drift-v0", entry_point=Drift, max_episode_steps=LIMIT)
gymnasium.register("Keys-v0", entry_point=Keys, max_episode_steps=4)


# --- the same numbers as Gymnasium's ----------------------------------------------


@pytest.mark.parametrize("kind", ["fresh", "pool"])
def test_plays_as_gymnasium_does(kind):
    """Against instances stepped by hand, over several ends of both kinds.

    In a pool the luck after the start is the episode's own.
    """
    env, num_envs, num_steps = make_env("gymnasium:Drift-v0"), 3, 16
    pushes = np.random.default_rng(0).uniform(-1, 0.4, (num_steps, num_envs, 2))

    @jax.jit
    def play(key, pushes):
        starts = autoreset.draw_starts(env, kind, 4, key)
        keys = jax.random.split(jax.random.fold_in(key, 1), num_envs)
        first = jax.vmap(lambda k: autoreset.init(env, kind, LIMIT, False, k))(keys)

        def step(episode, inputs):
            key, push = inputs
            following = jax.vmap(lambda k: autoreset.draw_next(env, kind, starts, k))(
                jax.random.split(key, num_envs)
            )
            after, out = jax.vmap(
                lambda e, a, n: autoreset.step(env, e, {"action": a}, starts, LIMIT, n)
            )(episode, push, following)
            return after, (episode.state, out)

        keys = jax.random.split(jax.random.fold_in(key, 2), num_steps)
        return jax.lax.scan(step, first, (keys, pushes))[1]

    before, out = play(jax.random.key(3), jnp.asarray(pushes, jnp.float32))
    lucks = np.asarray(jax.vmap(jax.vmap(seed_of))(before.data.luck))
    seeds, numbers = np.asarray(before.data.seed), np.asarray(before.data.number)
    for i in range(num_envs):
        byhand = gymnasium.make("Drift-v0")
        for t in range(num_steps):
            if numbers[t, i] == NOT_BEGUN:
                obs, _ = byhand.reset(seed=int(seeds[t, i]))
                if kind == "pool" and t > 0:
                    assert lucks[t, i] != seeds[t, i]
                    byhand.unwrapped.np_random = np.random.default_rng(lucks[t, i])
            np.testing.assert_array_equal(before.obs[t, i], obs)
            push = np.float32([0, -1]) + (np.float32(pushes[t, i]) + 1) * [1, 2]
            obs, reward, terminated, truncated, _ = byhand.step(push.astype(np.float32))
            np.testing.assert_allclose(out.final_obs[t, i], obs, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(out.reward[t, i], reward, rtol=1e-5, atol=1e-5)
            assert out.terminated[t, i] == terminated
            assert out.truncated[t, i] == (truncated and not terminated)
            obs = before.obs[t + 1, i] if t + 1 < num_steps else None
    assert np.any(out.terminated)
    assert np.any(out.truncated)
    assert len(np.unique(seeds)) > num_envs


def test_a_start_can_be_stepped_again():
    env = make_env("gymnasium:Drift-v0")
    start, action = env.reset(jax.random.key(7)), {"action": jnp.zeros(2)}
    np.testing.assert_array_equal(start.obs, Drift().reset(seed=7)[0])
    step = jax.jit(env.step)
    once, again = step(start, action), step(start, action)
    np.testing.assert_array_equal(once.obs, again.obs)
    assert not np.array_equal(step(once, action).obs, once.obs)


def test_loops_of_a_batch_end_one_by_one():
    """The loop of one seed stands still, repeating a step, until the others end."""
    env = make_env("gymnasium:Drift-v0")

    def play(keys):
        def act(carry, states, start, keys):
            # The episodes of one seed fall off at once, those of the other never do.
            return {"action": jnp.where(carry[:, None], 1.0, states.obs * 0 - 1)}, carry

        falls = jnp.full((4,), jax.random.key_data(keys[0])[1] == 7)
        return episodes.play(env, act, keys, falls).figures()

    keys = jax.vmap(lambda s: jax.vmap(lambda i: _key(i, s))(jnp.arange(4)))(
        jnp.arange(7, 9)
    )
    together = jax.jit(jax.vmap(play))(keys)
    assert np.ptp(together["length"]) > 1
    alone = jax.jit(play)
    for i in range(2):
        for name, values in alone(keys[i]).items():
            np.testing.assert_allclose(together[name][i], values, rtol=1e-5)


def _key(i, seed):
    words = jnp.stack([i.astype(jnp.uint32), seed.astype(jnp.uint32)])
    return jax.random.wrap_key_data(words)


# --- heads, masks and observations -------------------------------------------------


def test_keeps_the_contract_with_masks():
    """The environment raises an error at an action that its mask forbids."""
    env = make_env("gymnasium:Keys-v0")
    assert env.spec.heads == {"action": Discrete(3)}
    assert env.spec.max_episode_steps == 4
    check_env(env, num_envs=2, num_steps=9)
    start = env.reset(jax.random.key(1))
    np.testing.assert_array_equal(start.obs[:2], [200, 200])
    np.testing.assert_array_equal(start.obs[2:], start.action_mask["action"])


BYTES = spaces.Box(0, 255, (2, 2), np.uint8)
DIALS = spaces.MultiDiscrete(np.array([[3, 2]]), start=np.array([[4, 0]]))


@pytest.mark.parametrize(
    ("space", "heads", "row", "action"),
    [
        (spaces.Box(-2, 4, (2,)), {"action": Box(2)}, [-1.0, 0.5], [-2.0, 2.5]),
        (BYTES, {"action": Box(4)}, [-1, 1, 0.1, 0.0], [[0, 255], [140, 128]]),
        (spaces.Discrete(3, start=5), {"action": Discrete(3)}, [2], 7),
        (
            DIALS,
            {"action_0": Discrete(3), "action_1": Discrete(2)},
            [2, 1],
            [[6, 1]],
        ),
        (
            spaces.MultiBinary(2),
            {"action_0": Discrete(2), "action_1": Discrete(2)},
            [0, 1],
            [0, 1],
        ),
    ],
)
def test_actions(space, heads, row, action):
    assert gymnasium_heads.heads("x", space) == heads
    is_box = isinstance(space, spaces.Box)
    made = gymnasium_heads.decoder(space)(
        np.asarray(row, np.float32 if is_box else np.int32)
    )
    assert space.contains(made)
    np.testing.assert_array_equal(made, action)


def test_a_bound_is_not_exceeded_by_rounding():
    space = spaces.Box(np.float32(-0.3), np.float32(0.1), (1,))
    decode = gymnasium_heads.decoder(space)
    for x in (-1.0, 1.0):
        assert space.contains(decode(np.float32([x])))


@pytest.mark.parametrize(
    ("obs", "action", "sentence"),
    [
        (None, spaces.Box(-np.inf, 1, (2,)), "actions: got .*finite bounds"),
        (None, spaces.Box(-3e38, 3e38, (2,)), "actions: got .*finite bounds"),
        (None, spaces.Tuple([spaces.Discrete(2)]), "actions: got .*MultiBinary"),
        (spaces.Text(5), None, "observations: got Text.*allowed is a Box"),
        (
            spaces.Dict({"a": spaces.Tuple([spaces.Sequence(spaces.Discrete(2))])}),
            None,
            r"observations\['a'\]\[0\]: got Sequence",
        ),
    ],
)
def test_what_cannot_be_learned_with_is_one_sentence(obs, action, sentence):
    def make():
        env = Drift()
        env.observation_space = obs or env.observation_space
        env.action_space = action or env.action_space
        return env

    with pytest.raises(ConfigError, match=sentence):
        Instances("some", make)


# --- instances -------------------------------------------------------------------


def _step(instances, number, steps, action, seed=3):
    """Step episodes of one seed; the numbers and observations after it."""
    num = len(number)
    actions = np.full((num, 2), action, np.float32)
    out = instances.step(number, [steps] * num, [seed] * num, [seed] * num, actions)
    return out[0], out[1]


def test_a_step_can_be_repeated_but_not_changed():
    instances = Instances("some", Drift)
    number, _ = _step(instances, [NOT_BEGUN], 0, 0.0)
    after, obs = _step(instances, number, 1, -1.0)
    again, same = _step(instances, number, 1, -1.0)
    np.testing.assert_array_equal(after, again)
    np.testing.assert_array_equal(obs, same)
    for steps, action in ((1, 0.0), (0, 0.0), (3, 0.0)):
        with pytest.raises(EnvironmentFault, match="some can step only the newest"):
            _step(instances, number, steps, action)
    _, later = _step(instances, number, 2, -1.0)
    assert not np.array_equal(obs, later)


def test_the_step_that_ended_an_episode_can_be_repeated():
    instances = Instances("some", Drift)
    number, _ = _step(instances, [NOT_BEGUN], 0, 1.0)
    steps, ended = 1, number
    while ended[0] != ENDED:
        ended, obs = _step(instances, number, steps, 1.0)
        steps += 1
    other, _ = _step(instances, [NOT_BEGUN], 0, 0.0, seed=4)  # takes the instance
    assert other[0] != number[0]
    np.testing.assert_array_equal(_step(instances, number, steps - 1, 1.0)[1], obs)
    np.testing.assert_array_equal(_step(instances, [ENDED], steps, 1.0)[0], [ENDED])


def test_episodes_that_are_cut_off_do_not_pile_up():
    Drift.made = 0
    instances = Instances("some", Drift)
    kept, _ = _step(instances, [NOT_BEGUN], 0, 0.0)
    first, _ = _step(instances, [NOT_BEGUN] * 2, 0, 0.0)
    for i in range(60):  # of each batch nothing more is heard
        _step(instances, [NOT_BEGUN] * 2, 0, 0.0)
        _step(instances, kept, i + 1, -1.0)
    assert Drift.made == 1 + 4 * 2 + 64
    with pytest.raises(EnvironmentFault, match="some can step only the newest"):
        _step(instances, first, 1, 0.0)


# --- the command line --------------------------------------------------------------

SMALL = (
    "--num-envs 4 --num-steps 8 --num-minibatches 2 --num-epochs 1 --num-seeds 2 "
    "--total-timesteps 64 --hidden-sizes 8 --critic-hidden-sizes 8 --num-starts 4 "
    "--num-evals 1 --eval-episodes 4 --eval-blocks 2 --no-tensorboard --no-report"
).split()


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        (
            "fails_in=step after=3",
            "env: gymnasium:Drift-v0 failed in step: ValueError: the motor burns at ",
        ),
        ("fails_in=reset", "failed in reset: ValueError: the motor is stuck at "),
        ("fails_in=make", "failed in gymnasium.make: OSError: the motor is missing at"),
        ("speed=3", "failed in gymnasium.make: TypeError: .*'speed'"),
    ],
)
def test_a_crash_is_one_sentence(kwargs, sentence, tmp_path, capfd):
    argv = ["--env", "gymnasium:Drift-v0", "--env-kwargs", *kwargs.split()]
    code = train.main([*argv, *SMALL, "--run-dir", str(tmp_path / "run")])
    out, err = capfd.readouterr()
    assert code == 2
    assert re.search(sentence, err.splitlines()[-1])
    assert "Traceback" not in out + err
    assert "jax" not in out + err


def test_a_crash_of_a_later_reset_is_one_sentence(capfd):
    env = make_env("gymnasium:Drift-v0", fails_in="later_reset")
    with pytest.raises(jax.errors.JaxRuntimeError) as info:
        env.reset(jax.random.key(1))
    assert "Drift-v0 failed in reset: ValueError: the " in fault_behind(info.value)
    assert fault_behind(ValueError("another")) is None
    assert capfd.readouterr().err == ""


def test_a_run_is_evaluated_and_not_resumed(tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["--env", "gymnasium:Drift-v0", "--normalize-observations", "off"]
    assert train.main([*argv, *SMALL, "--run-dir", str(run)]) == 0
    names, *rows = (x.split(",") for x in (run / "evals.csv").read_text().splitlines())
    logged = dict(zip(names, rows[-1], strict=True))
    assert logged["seed"] == "1"
    for name, value in evaluate(run, "latest", seed_index=1).items():
        assert float(logged[name]) == pytest.approx(value, rel=1e-4)
    (run / "summary.json").unlink()
    capsys.readouterr()
    assert train.main(["--resume", str(run)]) == 2
    out, err = capsys.readouterr()
    assert "compiling" not in out
    assert err.startswith(f"resume: got '{run}'; allowed is a run whose environments")
    assert f"--init-from {run}" in err
    assert len(err.splitlines()) == 1


def test_without_gymnasium_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ConfigError, match=r"got .*Any.*pip install gymnasium"):
        make_env("gymnasium:Any")
