"""The lifecycle: its rules by hand, masks and activity, what hides, its baselines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config

from benchmarks.learning import matches
from purejaxppo.config import Config
from purejaxppo.env import Discrete
from purejaxppo.envs.lifecycle import baselines, env, rules
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.learner import make_learner, make_train
from purejaxppo.registry import make_env, presets
from purejaxppo.run.trained import TrainedPolicy
from purejaxppo.validation import validate

LIMITS = rules.Limits(num_slots=3)
HEADS = ("op", "slot", "blueprint", "blend")


def bed(*rows):
    """Seeds from rows of vigour, worth, progress, rate; a row of zeros is empty."""
    columns = jnp.asarray(rows, jnp.float32).T
    return rules.Seeds(columns[1] > 0, *columns)


def action(op, slot=0, blueprint=0, blend=0):
    values = (op, slot, blueprint, blend)
    return dict(zip(HEADS, map(jnp.int32, values), strict=True))


def assert_seeds(seeds, *rows):
    expected = bed(*rows)
    for name in ("occupied", "vigour", "worth", "progress", "rate"):
        np.testing.assert_allclose(
            getattr(seeds, name), getattr(expected, name), rtol=1e-6, err_msg=name
        )


@functools.cache
def random_play(num_envs=64):
    """States and actions [T, N] of random allowed play; the last state [N] apart."""
    made = make_env("lifecycle")

    def step(state, key):
        choose = functools.partial(baselines.random_feasible, made)
        keys = jax.random.split(key, num_envs)
        chosen, _ = jax.vmap(choose, (0, None, 0))(state, baselines.blank(made), keys)
        return jax.vmap(made.step)(state, chosen), (state, chosen)

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        state = jax.vmap(made.reset)(jax.random.split(key_reset, num_envs))
        return jax.lax.scan(step, state, jax.random.split(key_steps, 25))

    last, (states, actions) = jax.jit(run)(jax.random.key(3))
    return made, states, actions, last


def sample(states, every=23):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[::every], states)


# --- rules, by hand ----------------------------------------------------------------

_OLD = (0.8, 2.0, 0.6, 0.2)
_DUD = (-0.4, 4.0, 0.2, 0.1)
_NONE = (0.0, 0.0, 0.0, 0.0)


def test_a_blend_is_worth_more_and_a_dud_spoils_it():
    """Vigour 3/4 * -.4 + 1/4 * .8; worth 2 + 4 and the lesser, 2, on top."""
    blended = rules.blend(bed(_OLD, _NONE, _DUD), jnp.int32(1), LIMITS)
    assert_seeds(blended, (-0.1, 8.0, 0.4, 0.15), _NONE, _NONE)
    assert LIMITS.pairs[1] == (0, 2)


def test_culling_empties_one_slot():
    after = rules.cull(bed(_OLD, _DUD, _OLD), jnp.int32(1), LIMITS)
    assert_seeds(after, _OLD, _NONE, _OLD)


def test_germination_takes_the_blueprints_numbers():
    after = rules.germinate(
        bed(_OLD, _NONE, _NONE), jnp.int32(2), jnp.int32(1), jax.random.key(0), LIMITS
    )
    kind = LIMITS.blueprints[1]
    vigour = float(after.vigour[2])
    assert 0.4 <= abs(vigour) <= 1.0
    assert_seeds(after, _OLD, _NONE, (vigour, kind.worth, 0.0, 1.0 / kind.growth))


def test_duds_are_as_frequent_as_the_blueprint_says():
    keys = jax.random.split(jax.random.key(0), 4000)
    put = functools.partial(rules.germinate, rules.empty(LIMITS), limits=LIMITS)
    every = jax.jit(jax.vmap(put, (None, None, 0)))
    for index, kind in enumerate(LIMITS.blueprints):
        vigour = np.asarray(every(jnp.int32(0), jnp.int32(index), keys).vigour[:, 0])
        assert np.mean(vigour < 0) == pytest.approx(kind.duds, abs=0.03)
        assert np.mean(np.abs(vigour)) == pytest.approx(0.7, abs=0.02)
        assert np.abs(vigour).min() >= 0.4
        assert np.abs(vigour).max() <= 1.0


def test_the_mature_pay_and_leave_their_slot():
    """At progress 1 worth times vigour is paid; a step is at most twice the rate."""
    ripe, young = (-0.5, 4.0, 1.0, 0.1), (0.9, 1.0, 0.0, 0.4)
    after, paid = rules.grow(bed(ripe, young, _NONE), jax.random.key(0))
    np.testing.assert_allclose(paid, [-2.0, 0.0, 0.0])
    assert after.occupied.tolist() == [False, True, False]
    assert 0.0 < float(after.progress[1]) < 0.8


def test_growth_is_the_rate_on_average():
    seeds = bed((0.5, 1.0, 0.0, 0.25), _OLD, _NONE)
    keys = jax.random.split(jax.random.key(1), 4000)
    after, _ = jax.jit(jax.vmap(rules.grow, (None, 0)))(seeds, keys)
    assert float(jnp.mean(after.progress[:, 0])) == pytest.approx(0.25, abs=0.01)
    assert float(jnp.std(after.progress[:, 0])) == pytest.approx(
        0.5 / 12**0.5, abs=0.01
    )
    assert not np.any(after.progress[:, 2])


def test_readings_are_noise_around_the_truth():
    seeds = bed(_OLD, _NONE, _DUD)
    keys = jax.random.split(jax.random.key(2), 4000)
    read = jax.vmap(functools.partial(rules.readings, seeds, limits=LIMITS))
    shown = np.asarray(jax.jit(read)(keys))
    np.testing.assert_allclose(
        shown.mean(0), [[0.8, 0, -0.4], [0.6, 0, 0.2]], atol=0.06
    )
    np.testing.assert_allclose(
        shown.std(0), [[1, 0, 1], [0.25, 0, 0.25]], rtol=0.05, atol=1e-9
    )


def test_an_episode_by_hand():
    """A germinated seed costs its price, a culled one too; then nothing happens."""
    made = make_env("lifecycle", num_slots=2, noise=0.0)
    step = jax.jit(made.step)
    state = made.reset(jax.random.key(5))
    np.testing.assert_array_equal(state.obs["actor"], np.zeros(9))
    state = step(state, action(env.GERMINATE, slot=1, blueprint=2))
    assert float(state.reward) == pytest.approx(-0.2 / env.SCALE)
    seeds = state.data.seeds
    np.testing.assert_allclose(
        state.obs["actor"],
        [0, 1, 0, 4, 0, seeds.vigour[1], 0, seeds.progress[1], 1 / 25],
    )
    np.testing.assert_array_equal(state.obs["critic"][:9], state.obs["actor"])
    np.testing.assert_allclose(
        state.obs["critic"][9:],
        [0, seeds.vigour[1], 0, seeds.progress[1], 0, 0.1],
    )
    state = step(state, action(env.CULL, slot=1))
    assert float(state.reward) == pytest.approx(-env.CULL_PRICE / env.SCALE)
    for time in range(2, 25):
        assert not state.terminated
        assert int(state.data.time) == time
        state = step(state, action(env.WAIT))
        assert float(state.reward) == 0.0
    assert state.terminated
    metrics = {name: float(value) for name, value in state.metrics.items()}
    assert metrics.pop("noop_frac") == pytest.approx(23 / 25)
    assert metrics.pop("culled") == 1.0
    assert not any(metrics.values())


# --- masks, activity, invalid actions ----------------------------------------------


def test_masks_are_what_step_accepts():
    """Every op, with every slot and every pair, in states of random play."""
    made, states, _, _ = random_play()
    flat = sample(states)
    limits = made.limits

    def accepted(state, op, slot, blend):
        chosen = dict(zip(HEADS, (op, slot, jnp.int32(1), blend), strict=True))
        after = made.step(state, chosen)
        return after.data.counts["invalid"] == state.data.counts["invalid"]

    each = jax.vmap(jax.vmap(accepted, (None, None, 0, 0)), (None, 0, None, None))
    each = jax.jit(jax.vmap(each, (0, None, None, None)))
    ops, pairs = jnp.arange(4), jnp.arange(len(limits.pairs))
    by_pair = np.asarray(each(flat, ops, jnp.zeros_like(pairs), pairs))
    slots = jnp.arange(limits.num_slots)
    by_slot = np.asarray(each(flat, ops, slots, jnp.zeros_like(slots)))
    mask = flat.action_mask
    np.testing.assert_array_equal(by_pair[:, env.BLEND], mask["blend"])
    np.testing.assert_array_equal(flat.active["blend"], mask["op"][:, env.BLEND])
    for op in (env.GERMINATE, env.CULL):
        np.testing.assert_array_equal(by_slot[:, op], mask["slot"][:, op])
        np.testing.assert_array_equal(mask["op"][:, op], by_slot[:, op].any(1))
        assert 0.1 < by_slot[:, op].mean() < 0.9
    assert by_slot[:, env.WAIT].all()
    assert 0.02 < by_pair[:, env.BLEND].mean() < 0.98


def test_heads_that_are_inactive_change_nothing_and_active_ones_do():
    made, states, actions, _ = random_play()
    flat, chosen = sample(states), sample(actions)
    step = jax.jit(jax.vmap(made.step))
    spec = made.spec.heads
    after = step(flat, chosen)
    for name in HEADS[1:]:
        other = {**chosen, name: (chosen[name] + 1) % spec[name].n}
        changed = step(flat, other)
        same = np.ones(chosen["op"].shape, bool)
        for a, b in zip(
            jax.tree.leaves(after.data.seeds),
            jax.tree.leaves(changed.data.seeds),
            strict=True,
        ):
            same &= np.all(np.asarray(a) == np.asarray(b), axis=1)
        active = np.isin(chosen["op"], spec[name].active_when)
        assert same[~active].all(), name
        assert not same[active].all(), name
        assert active.any()


@pytest.mark.parametrize(
    "wrong",
    [
        action(env.CULL, slot=0),
        action(env.GERMINATE, slot=1),
        action(env.GERMINATE, slot=4),
        action(env.GERMINATE, slot=-1),
        action(env.GERMINATE, blueprint=3),
        action(env.BLEND),
        action(env.BLEND, blend=6),
        action(4),
    ],
)
def test_an_invalid_action_is_a_counted_no_op(wrong):
    """Slot 1 alone holds a seed: time passes as it would with WAIT."""
    made = make_env("lifecycle")
    step = jitted_step()
    state = step(made.reset(jax.random.key(0)), action(env.GERMINATE, slot=1))
    after, right = step(state, wrong), step(state, action(env.WAIT))
    assert float(after.metrics["invalid_frac"]) == 0.5
    assert float(right.metrics["invalid_frac"]) == 0.0
    assert float(after.reward) == float(right.reward)
    np.testing.assert_array_equal(after.obs["critic"], right.obs["critic"])


@functools.cache
def jitted_step():
    return jax.jit(make_env("lifecycle").step)


# --- random play against another way to count --------------------------------------


def test_seeds_and_rewards_add_up():
    """What germinated has matured, was culled, went into a blend, or is still there."""
    _, states, actions, last = random_play()
    ops = np.asarray(actions["op"])
    germinated = (ops == env.GERMINATE).sum(0)
    metrics = {name: np.asarray(value) for name, value in last.metrics.items()}
    left = np.asarray(last.data.seeds.occupied).sum(1)
    gone = metrics["matured"] + metrics["culled"] + metrics["blended"]
    np.testing.assert_array_equal(germinated, gone + left)
    np.testing.assert_array_equal(metrics["culled"], (ops == env.CULL).sum(0))
    np.testing.assert_array_equal(metrics["blended"], (ops == env.BLEND).sum(0))
    np.testing.assert_allclose(metrics["noop_frac"], (ops == env.WAIT).mean(0))
    assert not metrics["invalid_frac"].any()
    rewards = np.concatenate([states.reward[1:], last.reward[None]])
    np.testing.assert_allclose(rewards.sum(0), last.data.total, atol=1e-5)
    np.testing.assert_array_equal(metrics["success"], last.data.total >= env.SUCCESS)
    assert np.asarray(last.terminated).all()
    assert not np.asarray(states.terminated).any()
    assert metrics["matured"].any()
    assert ((metrics["dud_frac"] >= 0) & (metrics["dud_frac"] <= 1)).all()


def test_an_observation_hides_what_it_should():
    """The actor has one reading of each vigour and progress, the critic the truth."""
    _, states, _, _ = random_play()
    actor, critic = (np.asarray(states.obs[part]) for part in ("actor", "critic"))
    np.testing.assert_allclose(critic[..., :17], actor, rtol=1e-4, atol=1e-6)
    full = np.asarray(states.data.seeds.occupied)
    vigour = np.asarray(states.data.seeds.vigour)
    r = np.corrcoef(actor[..., 8:12][full], vigour[full])[0, 1]
    # Variance .5 under noise of variance 1: a reading explains a third of it.
    assert r**2 == pytest.approx(1 / 3, abs=0.08)
    np.testing.assert_allclose(critic[..., 17:21], vigour, atol=1e-6)


# --- baselines ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores():
    made = make_env("lifecycle")
    keys = jax.random.split(jax.random.key(1), 500)

    def play(keys):
        return {
            name: baselines.play_baseline(made, baseline, keys)
            for name, baseline in baselines.BASELINES.items()
        }

    figures = jax.jit(play)(keys)
    return jax.tree.map(lambda x: float(np.mean(x)), figures)


def test_baselines_are_ordered_sensibly(scores):
    mean = {name: figures["return"] for name, figures in scores.items()}
    assert mean["random_feasible"] < -0.05
    assert 0.5 < mean["gardener"] < mean["informed"] - 0.1
    assert all(figures["invalid_frac"] == 0.0 for figures in scores.values())
    assert scores["gardener"]["dud_frac"] < scores["random_feasible"]["dud_frac"] / 2


def test_the_gardeners_average_is_the_posterior():
    """Prior of blueprint 0: mean .14, variance .5004. Readings of noise 1."""
    made = make_env("lifecycle", num_slots=2)
    state = made.reset(jax.random.key(0))
    notes = baselines._write(made, baselines.blank(made), action(env.GERMINATE))
    assert float(notes.vigour[0]) == pytest.approx(0.7 * 0.2, abs=1e-6)
    prior = 0.49 + 0.36 / 12 - 0.14**2
    assert float(notes.variance[0]) == pytest.approx(prior, abs=1e-5)
    for reading in (1.0, -0.5, 2.0):
        obs = jnp.asarray([1, 0, 1, 0, reading, 0, 0.3, 0, 0.1], jnp.float32)
        state = state.replace(obs={"actor": obs})
        notes = baselines._read(made, state, notes)
    precision = 1.0 / prior + 3.0
    expected = (0.14 / prior + 2.5) / precision
    assert float(notes.vigour[0]) == pytest.approx(expected, abs=1e-4)
    assert float(notes.variance[0]) == pytest.approx(1.0 / precision, abs=1e-4)
    assert float(notes.vigour[1]) == 0.0


# --- as an environment -------------------------------------------------------------


def test_spec():
    assert make_env("lifecycle").spec.heads == {
        "op": Discrete(4),
        "slot": Discrete(4, "op", (env.GERMINATE, env.CULL)),
        "blueprint": Discrete(3, "op", (env.GERMINATE,)),
        "blend": Discrete(6, "op", (env.BLEND,)),
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_slots": 1}, "num_slots: got 1; allowed is .* from 2 to 16"),
        ({"num_slots": True}, "num_slots: got True"),
        ({"noise": -1.0}, "noise: got -1.0; allowed is a finite number"),
        ({"noise": float("nan")}, "noise: got nan"),
        ({"pots": 2}, "env_kwargs: .*pots"),
    ],
)
def test_bad_arguments_are_named(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_env("lifecycle", **arguments)


def test_presets_differ_in_the_core_alone():
    assert presets("lifecycle")["feedforward"] == {"core": "none"}
    for name in ("default", "feedforward"):
        validate(Config.preset("lifecycle", name))
    default = Config.preset("lifecycle")
    assert default.core != "none"
    # A training sequence is an episode: it starts with the zero state.
    assert default.window == rules.Limits().horizon


def test_recurrent_ppo_improves_over_an_untrained_policy():
    config = small_config(
        env="lifecycle",
        num_envs=64,
        num_steps=25,
        num_epochs=1,
        num_minibatches=4,
        total_timesteps=64 * 25 * 60,
        learning_rate=5e-3,
        gae_lambda=0.85,
        gamma=1.0,
        hidden_sizes=(32,),
        critic_hidden_sizes=(32,),
        core="gru",
        core_size=16,
        reset="fresh",
    )
    _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    returns = np.asarray(metrics["train/episode_return"])
    assert returns[-5:].mean() > returns[:5].mean() + 0.15
    assert returns[-5:].mean() > 0.02  # who only waits gets 0
    assert not np.any(np.asarray(metrics["train/invalid_frac"]) > 0)
    assert np.nanmax(metrics["ratio/first_minibatch_error"]) < 1e-4


# --- benchmark ---------------------------------------------------------------------

MATCH = matches.MATCHES["lifecycle"]


def test_benchmark_plays_policies_with_and_without_memory(monkeypatch):
    def untrained(path, which):
        assert which == "latest"
        core = {"default": "gru", "feedforward": "none"}[path.name]
        config = small_config(env="lifecycle", core=core, reset="fresh")
        learner = make_learner(config)
        state, _ = jax.jit(learner.init)(jax.random.key(0))
        return TrainedPolicy(learner, state, lambda: None, 0)

    monkeypatch.setattr(matches, "train", lambda *_: {"command": "none"})
    monkeypatch.setattr(matches, "load_policy", untrained)
    monkeypatch.setattr(baselines, "BASELINES", {"gardener": baselines.gardener})
    (results,) = matches.measure(MATCH._replace(episodes=20), 1, [])
    summary, players = results["summary"], results["players"]
    with_memory, without = (players[name][0]["mean"] for name in MATCH.players)
    assert with_memory != without
    with_memory = players["recurrent"][0]["mean"]
    assert summary["players"]["recurrent"]["mean"]["mean"] == with_memory
    assert "gardener" in results["baselines"]["recurrent"]
    assert summary["invalid_frac"] == 0.0


def test_benchmark_summarises_players_over_seeds():
    def seeds(*returns):
        games = [{"lifecycle": {"return": r, "invalid_frac": r / 100}} for r in returns]
        return [matches.totals(MATCH, game) for game in games]

    players = {"recurrent": seeds(0.7, 0.9), "feedforward": seeds(0.3, 0.4)}
    summary = matches.summarise({"players": players})
    recurrent = summary["players"]["recurrent"]["mean"]
    assert recurrent["mean"] == pytest.approx(0.8)
    assert recurrent["std"] == pytest.approx(0.1 * 2**0.5)  # of a sample
    assert (recurrent["min"], recurrent["max"]) == (0.7, 0.9)
    assert summary["invalid_frac"] == pytest.approx(0.009)
