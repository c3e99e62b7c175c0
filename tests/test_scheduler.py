"""The scheduler: its rules by hand, its masks, the toy's optimum, its baselines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config

from purejaxppo.check import check_env
from purejaxppo.config import Config, with_overrides
from purejaxppo.env import Discrete
from purejaxppo.envs.scheduler import baselines, env, generator, rules
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.ppo.learner import make_train
from purejaxppo.registry import make_env, presets
from purejaxppo.validation import validate

FAMILIES = ("mix", "toy", *generator.FAMILIES)
SMALL = rules.Limits(
    num_machines=2, capacity=4, num_slots=3, max_duration=4, patience=2, horizon=12
)


def instance(*jobs, bound=1.0):
    """From rows of arrival, duration, deadline, need, weight."""
    columns = [jnp.asarray(column, jnp.float32) for column in zip(*jobs, strict=True)]
    return generator.by_deadline(*columns, bound=bound)


def shop(*jobs, limits=SMALL):
    """Environment and first state of one instance, jobs by ascending deadline."""
    small = env.Scheduler("scheduler_test", limits, lambda key: instance(*jobs))
    return small, small.start(instance(*jobs))


def act(small, state, *actions):
    """The states after each of those actions."""
    step, states = jax.jit(small.step), []
    for action in actions:
        state = step(state, {env.HEAD: jnp.int32(action)})
        states.append(state)
    return states


@functools.cache
def random_play(family="mix", num_steps=90, num_envs=32):
    """States [T, N] of random allowed actions, the first one a reset."""
    made = make_env("scheduler", family=family)

    def step(state, key):
        keys = jax.random.split(key, num_envs)
        choose = functools.partial(baselines.random_feasible, made)
        action = jax.vmap(choose)(state, keys)
        after = jax.vmap(made.step)(state, action)
        return after, (state, action)

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        state = jax.vmap(made.reset)(jax.random.split(key_reset, num_envs))
        return jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))[1]

    states, action = jax.jit(run)(jax.random.key(3))
    return made, states, action


# --- rules, by hand ----------------------------------------------------------------

# arrival, duration, deadline, need, weight
_DAY = [(0, 2, 2, 3, 1), (0, 2, 4, 2, 2), (0, 1, 5, 4, 3), (1, 3, 9, 1, 4)]


def test_a_day_by_hand():
    """Job 0 and 1 start at 0 on a machine each, job 2 waits for an empty one."""
    small, state = shop(*_DAY)
    first, second, tick, tock, third, last = act(small, state, 1, 1, 0, 0, 1, 1)
    assert state.action_mask[env.HEAD].tolist() == [True, True, True, True]
    np.testing.assert_array_equal(first.data.board.used, [[3, 3, 0, 0], [0] * 4])
    # The first job left the queue, so the one behind it is in slot 0 now.
    np.testing.assert_array_equal(second.data.board.used[1], [2, 2, 0, 0])
    assert second.action_mask[env.HEAD].tolist() == [True, False, False, False]
    # At tick 1 job 3 arrives; it fits into the one unit beside job 0.
    np.testing.assert_array_equal(tick.data.board.used, [[3, 0, 0, 0], [2, 0, 0, 0]])
    assert tick.action_mask[env.HEAD].tolist() == [True, False, True, False]
    assert tock.action_mask[env.HEAD].tolist() == [True, True, True, False]
    assert int(tock.data.board.time) == 2
    assert third.data.board.start.tolist() == [0, 0, 2, rules.WAITING]
    assert last.data.board.start.tolist() == [0, 0, 2, 2]
    rewards = [float(s.reward) for s in (first, second, tick, tock, third, last)]
    np.testing.assert_allclose(rewards, [0.1, 0.2, 0, 0, 0.3, 0.4], atol=1e-6)
    assert [bool(s.terminated) for s in (third, last)] == [False, True]


def test_best_fit_takes_the_fullest_machine():
    """3 and 2 are in use, each on its machine; 1 goes beside the 3, 2 beside the 2."""
    jobs = [(0, 2, 3, 3, 1), (0, 2, 4, 2, 1), (0, 2, 5, 1, 1), (0, 2, 6, 2, 1)]
    small, state = shop(*jobs)
    state = act(small, state, 1, 1, 1, 1)[-1]
    np.testing.assert_array_equal(state.data.board.used[:, 0], [4, 4])
    np.testing.assert_array_equal(state.data.board.start, [0, 0, 0, 0])


def test_late_is_charged_by_the_tick_and_lost_in_full():
    """Patience 2: one tick late costs half the weight, two as much as never."""
    small, state = shop((0, 1, 2, 4, 1), (0, 1, 2, 4, 3), (0, 1, 2, 4, 6))
    noop, again, late, lost = act(small, state, 0, 0, 1, 0)
    assert float(again.reward) == 0.0
    assert float(late.reward) == pytest.approx(-0.5 * 0.1)
    # At tick 3 the other two cannot end before tick 4, two ticks behind.
    assert float(lost.reward) == pytest.approx(-0.9)
    assert lost.data.board.start.tolist() == [2, rules.LOST, rules.LOST]
    assert bool(lost.terminated)
    assert not noop.terminated
    assert float(lost.metrics["on_time"]) == 0.0
    assert float(lost.metrics["tardiness"]) == pytest.approx(0.95)


def test_the_shop_closes_at_the_horizon():
    """What waits then, or is yet to come, is lost, however far its deadline."""
    small, state = shop((0, 1, 50, 1, 1), (40, 1, 60, 1, 1))
    states = act(small, state, *[0] * SMALL.horizon)
    assert not any(s.terminated for s in states[:-1])
    assert bool(states[-1].terminated)
    assert float(states[-1].reward) == -1.0


def test_slots_show_the_earliest_deadlines():
    """Four wait and three are seen; the fourth moves up once a slot is free."""
    jobs = [(0, 1, 4 + i, 1, 1) for i in range(4)]
    small, state = shop(*jobs)
    line = rules.queue(state.data.board, SMALL)
    assert line.deadline.tolist() == [4, 5, 6]
    after = act(small, state, 2)[0]
    line = rules.queue(after.data.board, SMALL)
    assert line.deadline.tolist() == [4, 6, 7]
    assert after.data.board.start.tolist() == [-1, 0, -1, -1]


def test_observation_by_hand():
    small, state = shop(*_DAY)
    obs = np.asarray(act(small, state, 2)[0].obs)
    assert obs.shape == (38,)
    slots = obs[:21].reshape(7, 3)
    np.testing.assert_array_equal(slots[0], [1, 1, 0])  # present
    np.testing.assert_array_equal(slots[1], [1, 1, 0])  # startable
    np.testing.assert_allclose(slots[2], [0.5, 0.25, 0])  # duration / 4
    np.testing.assert_allclose(slots[3], [0.75, 1, 0])  # need / 4
    np.testing.assert_allclose(slots[4], [0, 2, 0])  # slack / 2
    np.testing.assert_allclose(slots[5], [0.1, 0.3, 0])  # weight / mean weight / 4
    np.testing.assert_allclose(slots[6], [0.4 / 6, 1.2 / 4, 0], rtol=1e-6)  # density
    # Free resource now, in 1, 2 and 3 ticks; the second job runs on machine 0.
    np.testing.assert_allclose(obs[21:29].reshape(2, 4), [[0.5, 0.5, 1, 1], [1] * 4])
    # Job 3, area 3 and weight 4 of 10, comes within 1 to 2 ticks.
    np.testing.assert_allclose(obs[29:32], [3 / 16, 0, 0])
    np.testing.assert_allclose(obs[32:35], [1.6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(obs[35:], [0, 0.5, 0.25])  # time, waiting, to come


# --- masks and invalid actions -----------------------------------------------------


@pytest.mark.parametrize("family", ["mix", "toy"])
def test_mask_is_what_step_accepts(family):
    """Every action, in every state of random play."""
    made, states, _ = random_play(family)
    num_actions = made.spec.heads[env.HEAD].n
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[::7], states)

    def accepted(state, action):
        after = made.step(state, {env.HEAD: action})
        return after.data.invalid == state.data.invalid

    actions = jnp.arange(num_actions, dtype=jnp.int32)
    f = jax.vmap(jax.vmap(accepted, (None, 0)), (0, None))
    got = jax.jit(f)(flat, actions)
    np.testing.assert_array_equal(got, flat.action_mask[env.HEAD])
    assert np.all(got[:, 0])
    assert 0.05 < np.mean(got[:, 1:]) < 0.95


@pytest.mark.parametrize("action", [2, 3, 4, -1, 99])
def test_an_invalid_action_is_a_counted_no_op(action):
    """Too large, empty, or no slot at all: time passes, and it is reported."""
    small, state = shop((0, 1, 2, 4, 1), (0, 1, 3, 4, 1), (3, 1, 9, 1, 1))
    state = act(small, state, 1, 1)[-1]  # both machines are full
    wrong, right = act(small, state, action)[0], act(small, state, 0)[0]
    assert float(wrong.metrics["invalid_frac"]) == pytest.approx(1 / 3)
    assert float(right.metrics["invalid_frac"]) == 0.0
    np.testing.assert_array_equal(wrong.obs, right.obs)
    for a, b in zip(
        jax.tree.leaves(wrong.data.board),
        jax.tree.leaves(right.data.board),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert float(wrong.reward) == float(right.reward)


# --- random play against another way to count --------------------------------------


def test_schedules_keep_capacity_and_pay_what_they_should():
    """Every schedule, recounted tick by tick from its starts alone."""
    made, states, _ = random_play()
    limits = made.limits
    last = jax.tree.map(lambda x: np.asarray(x[-1]), states)
    assert np.all(last.terminated)
    totals = np.sum(np.where(states.terminated[:-1], 0.0, states.reward[1:]), axis=0)
    for i in range(last.reward.shape[0]):
        jobs = jax.tree.map(lambda x, i=i: x[i], last.data.board.instance)
        start = last.data.board.start[i]
        ran = start >= 0
        assert np.all(start[ran] >= jobs.arrival[ran])
        use = np.zeros(200)
        for s, d, r in zip(start[ran], jobs.duration[ran], jobs.need[ran], strict=True):
            use[s : s + d] += r
        assert use.max() <= limits.num_machines * limits.capacity
        late = np.clip(start + jobs.duration - jobs.deadline, 0, limits.patience)
        worth = np.where(late > 0, -late / limits.patience, 1.0)
        worth = np.where(ran, worth, -1.0)
        expected = np.sum(jobs.weight * worth) / np.sum(jobs.weight)
        assert totals[i] == pytest.approx(expected, abs=1e-5)
    assert np.all(np.asarray(states.data.board.used) <= limits.capacity)


def test_metrics_are_those_of_the_episode():
    made, states, action = random_play()
    del made
    going = ~np.asarray(states.terminated)
    startable = np.asarray(states.action_mask[env.HEAD])[..., 1:].any(-1) & going
    held = startable & (np.asarray(action[env.HEAD]) == env.NO_OP)
    last = {name: np.asarray(x[-1]) for name, x in states.metrics.items()}
    np.testing.assert_allclose(
        last["noop_frac"], held.sum(0) / startable.sum(0), rtol=1e-6
    )
    assert not np.any(last["invalid_frac"])
    np.testing.assert_array_equal(last["success"], last["on_time"] >= env.SUCCESS)
    returns = np.sum(np.where(going[:-1], states.reward[1:], 0.0), axis=0)
    np.testing.assert_allclose(last["on_time"] - last["tardiness"], returns, atol=1e-5)


# --- generators --------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_instances_are_sound(family):
    made = make_env("scheduler", family=family)
    keys = jax.random.split(jax.random.key(0), 200)
    jobs = jax.tree.map(np.asarray, jax.jit(jax.vmap(made.draw))(keys))
    limits = made.limits
    assert np.all(np.diff(jobs.deadline, axis=1) >= 0)
    assert np.all((jobs.duration >= 1) & (jobs.duration <= limits.max_duration))
    assert np.all((jobs.need >= 1) & (jobs.need <= limits.capacity))
    assert np.all(jobs.arrival + jobs.duration <= jobs.deadline)
    assert np.all(jobs.arrival < limits.horizon)
    assert np.all(jobs.weight > 0)
    assert len(np.unique(jobs.duration)) > 3


def test_families_differ_as_their_names_say():
    keys = jax.random.split(jax.random.key(0), 200)
    jobs = {
        name: jax.vmap(make_env("scheduler", family=name).draw)(keys)
        for name in generator.FAMILIES
    }
    slack = {
        n: float(jnp.mean(j.deadline - j.arrival - j.duration)) for n, j in jobs.items()
    }
    load = {
        n: float(jnp.mean(jnp.sum(j.duration * j.need, 1) / jnp.max(j.arrival, 1)))
        for n, j in jobs.items()
    }
    assert min(slack, key=slack.get) == "tight"
    assert min(load, key=load.get) == "light"
    long = {
        n: float(jnp.mean((j.duration >= 12).astype(jnp.float32)))
        for n, j in jobs.items()
    }
    assert max(long, key=long.get) == "heavy"
    assert len(np.unique(jobs["bursty"].arrival)) == generator.FAMILIES["bursty"].bursts


# --- the toy -----------------------------------------------------------------------


def test_known_schedule_reaches_the_toys_optimum():
    made = make_env("scheduler", family="toy")
    keys = jax.random.split(jax.random.key(5), 200)
    figures = jax.jit(
        lambda k: baselines.play_baseline(made, baselines.toy_schedule, k)
    )(keys)
    bound = env.optimal_return(jax.jit(jax.vmap(made.reset))(keys))
    np.testing.assert_allclose(figures["return"], bound, atol=1e-5)
    assert 0.85 < float(jnp.mean(bound)) < 1.0


def brute_force(jobs, limits):
    """Best return of any schedule, on any machines: all of them are tried."""
    rows = list(
        zip(
            jobs.arrival.tolist(),
            jobs.duration.tolist(),
            jobs.deadline.tolist(),
            jobs.need.tolist(),
            jobs.weight.tolist(),
            strict=True,
        )
    )

    @functools.cache
    def best(time, left, machines):
        if not left or time >= limits.horizon:
            return -sum(rows[i][4] for i in left)
        later = tuple(
            sorted(tuple((n, e) for n, e in m if e > time + 1) for m in machines)
        )
        scores = [best(time + 1, left, later)]
        for i in left:
            arrival, duration, deadline, need, weight = rows[i]
            late = min(max(time + duration - deadline, 0), limits.patience)
            worth = weight * (1.0 if late == 0 else -late / limits.patience)
            for m, running in enumerate(machines):
                if (
                    arrival > time
                    or sum(n for n, _ in running) + need > limits.capacity
                ):
                    continue
                with_job = tuple(sorted([*running, (need, time + duration)]))
                others = machines[:m] + machines[m + 1 :]
                after = tuple(sorted([*others, with_job]))
                scores.append(worth + best(time, left - {i}, after))
        return max(scores)

    whole = sum(row[4] for row in rows)
    return best(0, frozenset(range(len(rows))), ((),) * limits.num_machines) / whole


@pytest.mark.parametrize(
    ("toy", "changes"),
    [
        (generator.Toy(2, 3, 2), {"num_machines": 1, "patience": 2}),
        (generator.Toy(1, 3, 2), {"num_machines": 2, "patience": 1}),
    ],
)
def test_toys_optimum_is_that_of_brute_force(toy, changes):
    limits = rules.Limits(capacity=4, num_slots=6, max_duration=4, horizon=9, **changes)
    for seed in range(4):
        jobs = toy.draw(jax.random.key(seed), limits)
        assert brute_force(jobs, limits) == pytest.approx(float(jobs.bound), abs=1e-5)


# --- baselines ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores():
    made = make_env("scheduler")
    keys = jax.random.split(jax.random.key(1), 200)

    def play(keys):
        return {
            name: baselines.play_baseline(made, baseline, keys)
            for name, baseline in baselines.BASELINES.items()
        }

    return jax.tree.map(np.asarray, jax.jit(play)(keys))


def test_baselines_are_ordered_sensibly(scores):
    mean = {name: float(figures["return"].mean()) for name, figures in scores.items()}
    assert mean["random_feasible"] + 0.05 < mean["random_job"]
    assert mean["random_job"] + 0.03 < mean["edf"]
    assert mean["plain_edf"] < mean["edf"]
    assert mean["random_job"] + 0.03 < mean["densest"]


def test_baselines_choose_what_is_allowed(scores):
    for name, figures in scores.items():
        assert not np.any(figures["invalid_frac"]), name
        assert np.any(figures["noop_frac"]) == (name == "random_feasible")


def test_edf_serves_what_can_be_on_time_before_what_cannot():
    small, state = shop((0, 3, 2, 1, 1), (0, 1, 4, 1, 1), (0, 1, 3, 1, 1))
    choices = {
        name: int(baselines.BASELINES[name](small, state, jax.random.key(0))[env.HEAD])
        for name in ("edf", "plain_edf")
    }
    assert choices == {"edf": 2, "plain_edf": 1}


# --- as an environment -------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_contract(family):
    check_env(make_env("scheduler", family=family), num_steps=80)


def test_spec():
    made = make_env("scheduler", num_slots=5)
    assert made.spec.heads == {"job": Discrete(6)}
    assert made.spec.name == "scheduler_mix"


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"family": "idle"}, UnknownName, "family: got 'idle'.*bursty, heavy, light"),
        ({"num_jobs": 0}, ConfigError, "num_jobs: got 0; allowed is .* from 1"),
        ({"capacity": 8.5}, ConfigError, "capacity: got 8.5"),
        ({"num_slots": True}, ConfigError, "num_slots: got True"),
        ({"family": "toy", "num_slots": 9}, ConfigError, "num_slots: .*at least 10"),
        ({"machines": 2}, ConfigError, "env_kwargs: .*machines"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        make_env("scheduler", **arguments)


@pytest.mark.parametrize("name", ["default", "toy"])
def test_presets_are_valid(name):
    values = {**presets("scheduler")["default"], **presets("scheduler")[name]}
    config = with_overrides(Config(env="scheduler"), values)
    validate(config)
    made = make_env("scheduler", **config.env_kwargs)
    assert made.spec.name == f"scheduler_{'toy' if name == 'toy' else 'mix'}"


def test_ppo_improves_over_an_untrained_policy():
    config = small_config(
        env="scheduler",
        env_kwargs={"num_jobs": 12, "num_slots": 6},
        num_envs=32,
        num_steps=32,
        num_epochs=4,
        total_timesteps=32 * 32 * 40,
        learning_rate=3e-3,
        hidden_sizes=(32,),
        critic_hidden_sizes=(32,),
        reset="pool",
        num_starts=64,
    )
    _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    returns = np.asarray(metrics["train/episode_return"])
    assert np.nanmean(returns[-10:]) > np.nanmean(returns[:4]) + 0.05
    assert not np.any(np.asarray(metrics["train/invalid_frac"]) > 0)
