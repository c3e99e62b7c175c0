"""The deck: its rules by hand, its two heads, who takes the cards, its baselines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config

from benchmarks.learning import matches
from purejaxppo.check import check_env
from purejaxppo.config import Config, with_overrides
from purejaxppo.env import Choice, Discrete
from purejaxppo.envs.deck import baselines, env, rules
from purejaxppo.envs.deck.cards import KINDS, NUM_KINDS
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.ppo.learner import make_learner, make_train
from purejaxppo.registry import make_env, presets
from purejaxppo.run.trained import TrainedPolicy
from purejaxppo.validation import validate

LIMITS = rules.Limits()
NONE = (-1, -1)  # picks of a step in a combat


def pile(**counts):
    return jnp.asarray([counts.get(kind, 0) for kind in KINDS], jnp.int32)


def offer(*kinds):
    return jnp.asarray([kind in kinds for kind in KINDS])


def counts(cards):
    return {k: int(n) for k, n in zip(KINDS, cards, strict=True) if n}


def luck(cards=0.0, attack=0.5):
    """Cards are drawn in the order of KINDS, attacks are of their base."""
    kinds = jnp.linspace(0.0, 0.9, NUM_KINDS, dtype=jnp.float32)
    drawn = jnp.full((LIMITS.hand,), cards, jnp.float32)
    return rules.Luck(drawn, jnp.float32(attack), kinds, kinds)


def fight(foe=0, **changes):
    """A second turn of a first combat; numbers are those of the changes."""
    run = rules.new(jnp.int32(foe), luck(), LIMITS)
    fields = {"foe_hp": 20, "attack": 10, "hp": 40, "turn": 2, **changes}
    fields = {k: jnp.int32(v) if isinstance(v, int) else v for k, v in fields.items()}
    return run.replace(**fields)


@functools.cache
def _step():
    return jax.jit(functools.partial(rules.step, limits=LIMITS))


def act(run, kind=None, picks=NONE, chance=None):
    index = -1 if kind is None else KINDS.index(kind)
    picks = [p if isinstance(p, int) else KINDS.index(p) for p in picks]
    return _step()(
        run, jnp.int32(index), jnp.asarray(picks, jnp.int32), chance or luck()
    )


def changed(before, after):
    """Fields of numbers that differ -> their new values."""
    pairs = {k: (getattr(before, k), getattr(after, k)) for k in _NUMBERS}
    return {k: int(b) for k, (a, b) in pairs.items() if int(a) != int(b)}


_NUMBERS = "hp block energy power foe foe_hp poison attack combat turn".split()


# --- rules, by hand ----------------------------------------------------------------


def test_the_first_hand():
    run = rules.new(jnp.int32(1), luck(), LIMITS)
    assert counts(run.hand) == {"strike": 4, "guard": 1}
    assert counts(run.draw) == {"guard": 3}
    assert counts(run.discard) == {}
    expected = {"hp": 50, "energy": 3, "foe": 1, "foe_hp": 25, "attack": 7, "turn": 1}
    assert changed(jax.tree.map(jnp.zeros_like, run), run) == expected


@pytest.mark.parametrize(
    ("kind", "foe", "expected"),
    [
        ("strike", 0, {"energy": 2, "foe_hp": 12}),  # 6 and 2 of power
        ("strike", 1, {"energy": 2, "foe_hp": 15}),
        ("poke", 1, {"energy": 2, "foe_hp": 18}),
        ("heavy", 1, {"energy": 1, "foe_hp": 5}),
        ("guard", 0, {"energy": 2, "block": 6}),
        ("wall", 0, {"energy": 1, "block": 15}),
        ("venom", 0, {"energy": 2, "poison": 6}),
        ("venom", 2, {"energy": 2}),
        ("mend", 0, {"energy": 2, "hp": 45}),
        ("study", 0, {"energy": 2, "block": 4}),
        ("rage", 0, {"energy": 2, "power": 5}),
    ],
)
def test_what_each_card_does(kind, foe, expected):
    run = fight(foe, hand=pile(**{kind: 2}), energy=3, power=2, poison=1)
    after = act(run, kind)
    assert changed(run, after) == expected
    assert counts(after.discard) == {kind: 1}
    drawn = {"guard": 2} if kind == "study" else {}
    assert counts(after.hand) == {kind: 1, **drawn}


def test_armour_gives_no_life_back_and_mending_no_more_than_there_was():
    run = fight(1, hand=pile(poke=1, mend=1), energy=2, hp=48)
    assert int(act(run, "poke").foe_hp) == 20
    assert int(act(run, "mend").hp) == LIMITS.hp


def test_the_end_of_a_turn():
    """Poison, then the attack on what block leaves, then a new hand and threat."""
    run = fight(
        hand=pile(wound=1, heavy=1), draw=pile(poke=1), poison=3, block=4, energy=0
    )
    after = act(run)
    expected = {"foe_hp": 17, "poison": 2, "hp": 34, "block": 0, "energy": 3, "turn": 3}
    # 7 grown by a tenth for each of two turns, 8.4.
    assert changed(run, after) == {**expected, "attack": 8}
    # The pile is empty after one card: the discards are shuffled in, and all are drawn.
    assert counts(after.hand) == {"heavy": 1, "poke": 1, "wound": 1}
    assert not counts(after.draw)
    assert not counts(after.discard)


@pytest.mark.parametrize("kind", ["wound", "heavy", "venom"])
def test_what_cannot_be_played_ends_the_turn(kind):
    """No energy pays a wound, one does not pay a heavy, and there is no venom."""
    run = fight(hand=pile(wound=1, heavy=1, strike=1), energy=1)
    for a, b in zip(*map(jax.tree.leaves, (act(run, kind), act(run))), strict=True):
        np.testing.assert_array_equal(a, b)
    assert counts(rules.playable(run)) == {"strike": 1}


def test_poison_kills_before_the_attack():
    run = fight(poison=20, hp=5)
    after = act(run)
    assert int(after.combat) == 1
    assert int(after.hp) == 5 + LIMITS.rest
    assert bool(rules.at_prompt(after))
    assert bool(rules.is_lost(act(fight(poison=19, hp=5)), LIMITS))


def test_a_combat_too_long_is_lost_and_one_won_at_its_end_is_not():
    last = LIMITS.max_turns
    assert bool(rules.is_lost(act(fight(turn=last, foe_hp=90)), LIMITS))
    assert not rules.is_lost(act(fight(turn=last - 1, foe_hp=90)), LIMITS)
    assert not rules.is_lost(act(fight(turn=last, poison=20)), LIMITS)


def won(**changes):
    """The prompt after a combat; five kinds of the end of KINDS are on offer."""
    run = fight(
        hand=pile(strike=1, wound=1),
        draw=pile(guard=2),
        discard=pile(venom=3),
        energy=1,
        foe_hp=6,
        **{"block": 3, "power": 2, "poison": 2, **changes},
    )
    return run, act(run, "strike")


def test_a_combat_won_leaves_the_deck_and_a_prompt():
    _, prompt = won()
    assert counts(prompt.draw) == {"strike": 1, "guard": 2, "venom": 3, "wound": 1}
    expected = {"hp": LIMITS.hp, "combat": 1}
    assert changed(jax.tree.map(jnp.zeros_like, prompt), prompt) == expected
    assert set(counts(prompt.offer)) == {"mend", "study", "rage", "poke", "wound"}
    assert not jnp.any(rules.playable(prompt))


def test_the_first_pick_comes_in_two_copies():
    _, prompt = won()
    after = act(prompt, picks=("rage", "mend"))
    deck = {"strike": 1, "guard": 2, "venom": 3, "wound": 1, "rage": 2, "mend": 1}
    assert counts(after.draw + after.hand) == deck
    expected = {"energy": 3, "foe_hp": 40, "attack": 9, "turn": 1}
    assert changed(prompt, after) == expected
    assert int(jnp.sum(after.hand)) == LIMITS.hand
    assert not rules.at_prompt(after)


@pytest.mark.parametrize(
    "picks", [("rage", "rage"), ("rage", "strike"), (-1, "rage"), ("rage", 10)]
)
def test_picks_that_cannot_be_taken_take_nothing(picks):
    _, prompt = won()
    after = act(prompt, picks=picks)
    np.testing.assert_array_equal(after.draw + after.hand, prompt.draw)
    assert int(after.turn) == 1


def test_the_last_combat_won_is_the_end():
    _, after = won(combat=LIMITS.num_combats - 1)
    assert bool(rules.is_won(after, LIMITS))
    assert not rules.at_prompt(after)


def test_each_card_of_a_pile_is_drawn_as_often():
    """One card of six wounds, three strikes and a guard."""
    run = fight(hand=pile(), draw=pile(strike=3, guard=1, wound=6))
    u = (jnp.arange(100, dtype=jnp.float32)[:, None] + 0.5) / 100.0
    drawn = jax.vmap(lambda u: rules.draw_cards(run, u, jnp.int32(1)).hand)(u)
    assert counts(jnp.sum(drawn, axis=0)) == {"strike": 30, "guard": 10, "wound": 60}


def test_nothing_is_drawn_from_nothing():
    run = fight(hand=pile(mend=1), draw=pile(), discard=pile(rage=1))
    after = rules.draw_cards(run, luck(cards=0.99).cards, jnp.int32(5))
    assert counts(after.hand) == {"mend": 1, "rage": 1}
    assert not counts(after.draw + after.discard)


# --- random play: heads, masks, luck -----------------------------------------------


@functools.cache
def random_play(choice, num_steps=96, num_envs=64):
    """States [T, N] and actions of random allowed play, the first one a reset.

    Foes are weak, so that all of a run is seen.
    """
    limits = rules.Limits(foe_hp=(12, 18, 24, 30), foe_attack=(2, 2, 3, 3))
    made = env.Deck(choice, limits)

    def step(state, key):
        keys = jax.random.split(key, num_envs)
        choose = functools.partial(baselines.random_feasible, made)
        action = jax.vmap(choose)(state, keys)
        return jax.vmap(made.step)(state, action), (state, action)

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        state = jax.vmap(made.reset)(jax.random.split(key_reset, num_envs))
        return jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))[1]

    states, action = jax.jit(run)(jax.random.key(3))
    # An episode is up to the first state in which it ended, and that one too.
    ended = np.cumsum(np.asarray(states.terminated), axis=0)
    seen = np.concatenate([np.zeros((1, num_envs)), ended[:-1]]) == 0
    return made, states, action, seen, seen & (ended == 0)


@pytest.mark.parametrize("choice", env.CHOICES)
def test_one_head_at_a_time(choice):
    _, states, _, _, going = random_play(choice)
    play, pick = (
        np.asarray(states.active[name])[going] for name in (env.PLAY, env.PICK)
    )
    offered = np.asarray(states.action_mask[env.PICK])[going].sum(-1)
    np.testing.assert_array_equal(play, offered == 0)
    np.testing.assert_array_equal(pick, (offered == 5) & (choice == "policy"))
    assert set(offered) == {0, 5}
    assert 0.02 < np.mean(play == 0) < 0.2
    # A prompt shows no card to play, and a combat none to take.
    playable = np.asarray(states.action_mask[env.PLAY])[going]
    assert not np.any(playable[~play][:, 1:])
    assert np.all(playable[:, env.END_TURN])


def test_masks_are_what_step_accepts():
    """Every kind, and every pair of picks, in a sample of the states of random play."""
    made, states, _, _, going = random_play("policy")
    every = np.flatnonzero(going.reshape(-1))[::23]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[every], states)

    def accepted(state, play, picks):
        after = made.step(state, {env.PLAY: play, env.PICK: picks})
        return after.data.invalid == state.data.invalid

    n = 1 + NUM_KINDS
    kinds = jnp.arange(n, dtype=jnp.int32)
    pairs = jnp.stack(jnp.meshgrid(kinds[:-1], kinds[:-1], indexing="ij"), -1)
    pairs = pairs.reshape(-1, 2)
    fight = jax.vmap(jax.vmap(accepted, (None, 0, None)), (0, None, None))
    prompt = jax.vmap(jax.vmap(accepted, (None, None, 0)), (0, None, None))
    fought = np.asarray(jax.jit(fight)(flat, kinds, jnp.asarray(NONE, jnp.int32)))
    taken = np.asarray(jax.jit(prompt)(flat, jnp.int32(0), pairs))
    play, pick = (np.asarray(flat.active[name]) for name in (env.PLAY, env.PICK))
    np.testing.assert_array_equal(
        fought[play], np.asarray(flat.action_mask[env.PLAY])[play]
    )
    mask = np.asarray(flat.action_mask[env.PICK])
    both = mask[:, pairs[:, 0]] & mask[:, pairs[:, 1]]
    both &= np.asarray(pairs[:, 0] != pairs[:, 1])
    np.testing.assert_array_equal(taken[pick], both[pick])
    assert play.sum() > 50
    assert pick.sum() > 5


def test_an_inactive_head_changes_nothing():
    made, states, action, _, going = random_play("policy")
    inactive = {name: ~np.asarray(states.active[name]) & going for name in action}
    step = jax.jit(jax.vmap(made.step))
    for name, other in ((env.PLAY, 3), (env.PICK, 0)):
        where = np.nonzero(inactive[name])
        state, taken = jax.tree.map(lambda x, w=where: x[w][:40], (states, action))
        noise = {**taken, name: jnp.full_like(taken[name], other)}
        after = [step(state, a).replace(data=None) for a in (taken, noise)]
        for a, b in zip(*map(jax.tree.leaves, after), strict=True):
            np.testing.assert_array_equal(a, b)


def test_chance_takes_each_kind_on_offer_as_often_whatever_the_policy_says():
    made, states, _, _, going = random_play("random")
    prompts = np.nonzero(going & np.asarray(states.action_mask[env.PICK]).any(-1))
    state = jax.tree.map(lambda x: x[prompts][:1], states)
    state = jax.tree.map(lambda x: x[0], state)
    offered = np.asarray(state.action_mask[env.PICK])
    keys = jax.random.split(jax.random.key(0), 3000)
    data = jax.vmap(lambda key: state.data.replace(key=key))(keys)

    def taken(data, picks):
        one = state.replace(data=data)
        after = made.step(one, {env.PLAY: jnp.int32(0), env.PICK: picks}).data.run
        return after.draw + after.hand - state.data.run.draw

    f = jax.jit(jax.vmap(taken, (0, None)))
    added = [np.asarray(f(data, jnp.asarray(p, jnp.int32))) for p in (NONE, (0, 1))]
    np.testing.assert_array_equal(*added)
    assert np.all(np.sort(added[0], axis=1)[:, -3:] == [0, 1, 2])
    # Twice at a fifth and once at a fifth: three fifths on average.
    np.testing.assert_allclose(added[0].mean(0), np.where(offered, 0.6, 0.0), atol=0.06)


def test_cards_are_neither_lost_nor_made():
    """Eight cards, and three more with each prompt passed."""
    _, states, _, seen, _ = random_play("policy")
    run = states.data.run
    cards = np.asarray(jnp.sum(run.draw + run.hand + run.discard, axis=-1))
    won, prompt = np.asarray(run.combat), np.asarray(run.offer).any(-1)
    passed = np.minimum(won - prompt, LIMITS.num_combats - 1)
    np.testing.assert_array_equal(cards[seen], (8 + 3 * passed)[seen])
    assert passed[seen].max() == 3
    for part in (run.draw, run.hand, run.discard, run.energy, run.block):
        assert np.all(np.asarray(part)[seen] >= 0)


@pytest.mark.parametrize("choice", env.CHOICES)
def test_returns_and_metrics_are_those_of_the_episode(choice):
    made, states, action, seen, going = random_play(choice)
    last = seen.sum(0) - 1

    def at_end(x):
        return np.asarray(x)[last, np.arange(last.shape[0])]

    metrics = {name: at_end(x) for name, x in states.metrics.items()}
    returns = np.sum(np.where(seen, states.reward, 0.0), axis=0)
    combats = made.limits.num_combats
    np.testing.assert_allclose(returns, metrics["combats_won"] / combats, atol=1e-6)
    np.testing.assert_array_equal(metrics["success"], returns == 1.0)
    assert 0.1 < metrics["success"].mean() < 0.9
    # Steps that led to the last state that was seen, which may be no end.
    before = going & (np.arange(len(going))[:, None] < last)
    could = np.asarray(states.action_mask[env.PLAY])[..., 1:].any(-1) & before
    held = could & (np.asarray(action[env.PLAY]) == env.END_TURN)
    np.testing.assert_allclose(
        metrics["noop_frac"], held.sum(0) / could.sum(0), rtol=1e-6
    )
    assert not np.any(metrics["invalid_frac"])


def test_invalid_actions_are_counted():
    made = make_env("deck")
    run = fight(hand=pile(strike=1), energy=1)
    state = made.start(run, jax.random.key(0))
    step = jax.jit(made.step)

    def fractions(state, play, picks=NONE):
        action = {env.PLAY: jnp.int32(play), env.PICK: jnp.asarray(picks, jnp.int32)}
        after = step(state, action)
        return [float(after.metrics[f"{name}_frac"]) for name in ("invalid", "noop")]

    assert fractions(state, 1) == [0.0, 0.0]
    assert fractions(state, env.END_TURN) == [0.0, 1.0]
    assert fractions(state, 2) == [1.0, 0.0]
    assert fractions(state, 99) == [1.0, 0.0]
    prompt = made.start(won()[1], jax.random.key(0))
    assert fractions(prompt, 1, (9, 8)) == [0.0, 0.0]
    assert fractions(prompt, env.END_TURN, (9, 9)) == [1.0, 0.0]


def test_episodes_end_whatever_is_done():
    """Nothing but ended turns: at most the turns of one combat."""
    made = env.Deck("policy", rules.Limits(foe_attack=(0, 0, 0, 0)))
    figures = jax.jit(
        lambda keys: baselines.play_baseline(
            made,
            lambda *_: {env.PLAY: jnp.int32(77), env.PICK: jnp.zeros((2,), jnp.int32)},
            keys,
        )
    )(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(figures["length"], [LIMITS.max_turns] * 3)
    np.testing.assert_array_equal(figures["invalid_frac"], [1.0] * 3)


def test_observation_by_hand():
    run = fight(
        2,
        hand=pile(strike=2, wound=1),
        draw=pile(rage=1),
        discard=pile(guard=4),
        energy=1,
        power=3,
        poison=2,
        block=5,
        combat=1,
    )
    obs = np.asarray(env.observe(run, LIMITS))
    assert obs.shape == (66,)
    piles = obs[:30].reshape(3, 10)
    expected = (pile(strike=2, wound=1), pile(rage=1), pile(guard=4))
    np.testing.assert_allclose(piles, np.stack(expected) / 4.0)
    np.testing.assert_array_equal(obs[30:40], 0)  # nothing on offer
    np.testing.assert_array_equal(obs[40:50], [1] + [0] * 9)  # a strike can be played
    np.testing.assert_array_equal(obs[50:58], [0, 0, 0, 1, 0, 1, 0, 0])
    numbers = [40 / 50, 5 / 20, 1 / 3, 3 / 10, 20 / 50, 2 / 10, 10 / 20, 2 / 16]
    np.testing.assert_allclose(obs[58:], numbers, rtol=1e-6)
    prompt = np.asarray(env.observe(won()[1], LIMITS))
    np.testing.assert_array_equal(prompt[30:40], [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(prompt[40:51], [0] * 10 + [1])


# --- baselines ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores():
    made = make_env("deck")
    keys = jax.random.split(jax.random.key(1), 400)

    def play(keys):
        return {
            name: baselines.play_baseline(made, baseline, keys)
            for name, baseline in baselines.BASELINES.items()
        }

    return jax.tree.map(np.asarray, jax.jit(play)(keys))


def test_the_deck_matters_and_so_does_play(scores):
    wins = {name: float(figures["success"].mean()) for name, figures in scores.items()}
    assert wins["random_feasible"] < 0.05
    assert 0.15 < wins["greedy_random_picks"] < wins["greedy"] - 0.2


def test_baselines_choose_what_is_allowed(scores):
    for name, figures in scores.items():
        assert not np.any(figures["invalid_frac"]), name


# --- as an environment -------------------------------------------------------------


def test_random_choice_keeps_the_contract():
    """The default is in the registry, and so in test_check.py."""
    check_env(make_env("deck", choice="random"), num_steps=80)


def test_spec():
    made = make_env("deck", num_offered=4, num_taken=1)
    assert made.spec.heads == {"play": Discrete(11), "pick": Choice(10, 1)}
    assert made.spec.name == "deck_policy"
    assert made.limits.num_offered == 4


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"choice": "none"}, UnknownName, "choice: got 'none'.*policy, random"),
        ({"num_offered": 11}, ConfigError, "num_offered: got 11; allowed is .* to 10"),
        ({"num_taken": 6}, ConfigError, "num_taken: got 6; allowed is .* from 1 to 5"),
        ({"num_taken": True}, ConfigError, "num_taken: got True"),
        ({"cards": 2}, ConfigError, "env_kwargs: .*cards"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        make_env("deck", **arguments)


@pytest.mark.parametrize(("name", "choice"), [("default", "policy"), ("random",) * 2])
def test_presets_are_valid(name, choice):
    values = {**presets("deck")["default"], **presets("deck")[name]}
    config = with_overrides(Config(env="deck"), values)
    validate(config)
    assert make_env("deck", **config.env_kwargs).spec.name == f"deck_{choice}"


@pytest.mark.parametrize("choice", env.CHOICES)
def test_ppo_improves_and_reports_the_heads_that_were_active(choice):
    config = small_config(
        env="deck",
        env_kwargs={"choice": choice},
        num_envs=32,
        num_steps=64,
        num_epochs=4,
        total_timesteps=32 * 64 * 20,
        learning_rate=3e-3,
        hidden_sizes=(32,),
        critic_hidden_sizes=(32,),
        reset="fresh",
    )
    _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    returns = np.asarray(metrics["train/episode_return"])
    assert np.nanmean(returns[-5:]) > np.nanmean(returns[:2]) + 0.15
    assert not np.any(np.asarray(metrics["train/invalid_frac"]) > 0)
    assert np.all(np.asarray(metrics["ratio/first_minibatch_error"]) < 1e-4)
    picked = np.asarray(metrics["head/pick/valid"])
    kl = np.asarray(metrics["head/pick/approx_kl"])
    # Never active: no number at all, rather than a flattering 0.
    assert np.all(picked > 0 if choice == "policy" else picked == 0)
    assert np.all(np.isfinite(kl) if choice == "policy" else np.isnan(kl))
    assert np.all(np.asarray(metrics["head/play/valid"]) > picked)


# --- the benchmark -----------------------------------------------------------------

MATCH = matches.MATCHES["deck"]


def test_benchmark_trains_two_agents_and_lets_three_play(monkeypatch):
    trained = []

    def train(env, flags, seed, path):
        trained.append((env, flags, seed, path.name))
        return {}

    monkeypatch.setattr(matches, "train", train)
    monkeypatch.setattr(matches, "load_policy", lambda path, which: path.name)
    monkeypatch.setattr(matches, "play", lambda loaded: loaded)
    monkeypatch.setattr(matches, "scores", lambda *arguments: arguments)
    monkeypatch.setattr(matches.functools, "partial", lambda f, loaded: loaded)
    players = matches.run_seed(MATCH, 3, ["--num-envs", "4"])["players"]
    policy, chance = ({"deck": {"choice": choice}} for choice in ("policy", "random"))
    assert players["trained"] == (MATCH, policy, "default")
    assert players["replaced"] == (MATCH, chance, "default")
    assert players["untaught"] == (MATCH, chance, "random")
    assert trained == [
        ("deck", ["--preset", preset, "--num-envs", "4"], 3, preset)
        for preset in ("default", "random")
    ]


def test_benchmark_plays_a_policy_where_chance_takes_cards():
    """A policy as it starts, with the heads of one environment, in the other."""
    learner = make_learner(small_config(env="deck"))
    state, _ = jax.jit(learner.init)(jax.random.key(0))
    play = functools.partial(matches.play, TrainedPolicy(learner, state, print, 0))
    games = {"deck": {"choice": "random"}}
    figures = matches.scores(MATCH._replace(episodes=4), games, play)["games"]["deck"]
    assert figures["invalid_frac"] == 0.0
    assert figures["length"] > 4.0
    assert figures["return"] == figures["combats_won"] / LIMITS.num_combats
