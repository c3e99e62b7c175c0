"""Every sentence about a configuration that cannot be used."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import HeadsProbe

from purejaxppo import defaults
from purejaxppo.config import Config, Hypers, resolve, with_overrides
from purejaxppo.errors import CheckpointError, ConfigError, PurejaxppoError, UnknownName
from purejaxppo.ppo.learner import make_train
from purejaxppo.ranges import (
    Number,
    PerHead,
    Range,
    Traced,
    Whole,
    Widths,
    check_ranges,
    ranges_of,
)
from purejaxppo.registry import make_env, presets
from purejaxppo.run.options import Options
from purejaxppo.validation import (
    advice,
    validate,
    validate_first_policy,
    validate_heads,
)

# Field -> a value of it, and the sentence.
_WHOLE = "allowed is a whole number of at least 1 and below 2**"
_COUNT = "allowed is a whole number of at least 0 and below 2**"
_STD = "allowed is a number in [1e-5, 1000]"
_SENTENCES = [
    ({"num_envs": 0}, f"num_envs: got 0; {_WHOLE}"),
    ({"num_steps": -1}, f"num_steps: got -1; {_WHOLE}"),
    ({"num_epochs": 1.5}, f"num_epochs: got 1.5; {_COUNT}"),
    ({"num_minibatches": True}, f"num_minibatches: got True; {_WHOLE}"),
    ({"total_timesteps": "many"}, f"total_timesteps: got 'many'; {_WHOLE}"),
    ({"core_size": 0}, f"core_size: got 0; {_WHOLE}"),
    ({"num_starts": 0}, f"num_starts: got 0; {_WHOLE}"),
    ({"cloning_batch": 0}, f"cloning_batch: got 0; {_WHOLE}"),
    ({"eval_blocks": 0}, f"eval_blocks: got 0; {_WHOLE}"),
    ({"eval_episodes": 0}, f"eval_episodes: got 0; {_WHOLE}"),
    ({"sequence_length": -1}, f"sequence_length: got -1; {_COUNT}"),
    ({"train_episode_steps": -1}, f"train_episode_steps: got -1; {_COUNT}"),
    ({"num_demonstrations": -1}, f"num_demonstrations: got -1; {_COUNT}"),
    ({"cloning_steps": -1}, f"cloning_steps: got -1; {_COUNT}"),
    ({"critic_warmup": -1}, f"critic_warmup: got -1; {_COUNT}"),
    ({"learning_rate_warmup": -1}, f"learning_rate_warmup: got -1; {_COUNT}"),
    ({"num_evals": -1}, f"num_evals: got -1; {_COUNT}"),
    ({"eval_seed": 0.5}, f"eval_seed: got 0.5; {_COUNT}"),
    (
        {"hidden_sizes": ()},
        "hidden_sizes: got (); "
        "allowed is one or more whole numbers of at least 1 and below 2**16",
    ),
    (
        {"critic_hidden_sizes": (8, 0)},
        "critic_hidden_sizes: got (8, 0); "
        "allowed is one or more whole numbers of at least 1 and below 2**16",
    ),
    (
        {"core": "lstm", "num_steps": 128, "sequence_length": 48},
        "sequence_length: got 48; allowed is a divisor of num_steps 128",
    ),
    (
        {"num_envs": 4, "num_steps": 8, "num_minibatches": 5},
        "num_minibatches: got 5; allowed is a divisor of the 32 training sequences of "
        "an update (num_envs 4 * num_steps 8 / sequence length 1)",
    ),
    (
        {"num_envs": 4, "num_steps": 8, "num_minibatches": 8, "core": "gru"},
        "num_minibatches: got 8; allowed is a divisor of the 4 training sequences of "
        "an update (num_envs 4 * num_steps 8 / sequence length 8)",
    ),
    (
        {"total_timesteps": 100},
        "total_timesteps: got 100; allowed is at least one update of "
        "num_envs * num_steps = 8192",
    ),
    ({"core": "rnn"}, "core: got 'rnn'; allowed is one of none, lstm, gru"),
    (
        {"reset": "warm"},
        "reset: got 'warm'; allowed is one of fresh, pool, cached",
    ),
    (
        {"activation": "gelu"},
        "activation: got 'gelu'; allowed is one of tanh, relu, swish, elu",
    ),
    (
        {"distribution": "beta"},
        "distribution: got 'beta'; "
        "allowed is one of truncated_normal, tanh_normal, normal, "
        "package.module:factory",
    ),
    (
        {"normalize_advantages": True},
        "normalize_advantages: got True; allowed is one of batch, minibatch, off",
    ),
    (
        {"entropy_schedule": "kl"},
        "entropy_schedule: got 'kl'; "
        "allowed is one of constant, linear, exponential, cosine",
    ),
    ({"num_envs": 2**31}, f"num_envs: got 2147483648; {_WHOLE}31"),
    ({"total_timesteps": 10**10}, f"total_timesteps: got 10000000000; {_WHOLE}31"),
    ({"eval_seed": 2**32}, f"eval_seed: got 4294967296; {_COUNT}32"),
    ({"min_std": 1e-6}, f"min_std: got 1e-06; {_STD}"),
    ({"init_std": math.nan}, f"init_std: got nan; {_STD}"),
    (
        {"init_std": 2.0},
        "min_std, init_std, max_std: got (0.01, 2.0, 1.0); "
        "allowed is three numbers with min_std <= init_std <= max_std",
    ),
    ({"min_std": 0.7}, "min_std, init_std, max_std: got (0.7, 0.5, 1.0)"),
    (
        {"demonstration_noise": math.nan},
        "demonstration_noise: got nan; allowed is a number in [0, 1000]",
    ),
    (
        {"demonstration_noise": math.inf},
        "demonstration_noise: got inf; allowed is a number in [0, 1000]",
    ),
    (
        {"cloning_learning_rate": 0.0},
        "cloning_learning_rate: got 0.0; allowed is a number in [1e-9, 1]",
    ),
    ({"stagger": 1}, "stagger: got 1; allowed is True or False"),
    ({"env": None}, "env: got None; allowed is a string"),
    (
        {"env_kwargs": {1: 2}},
        "env_kwargs: got {1: 2}; "
        "allowed is a dictionary from names of arguments to values",
    ),
    ({"hypers": None}, "hypers: got None; allowed is an instance of Hypers"),
    (
        {"learning_rate_schedule": "kl"},
        "target_kl: got inf; allowed is a finite number with schedule kl",
    ),
]


@pytest.mark.parametrize(("changes", "sentence"), _SENTENCES)
def test_each_sentence(changes, sentence):
    with pytest.raises(ConfigError) as error:
        validate(dataclasses.replace(Config(), **changes))
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"anchor": True}, "anchor: got True; allowed is False without"),
        (
            {"normalize_observations": "fixed"},
            "normalize_observations: got 'fixed'; allowed is running or off without",
        ),
    ],
)
def test_what_is_kept_from_the_start_needs_a_first_policy(changes, sentence):
    config = dataclasses.replace(Config(), **changes)
    with pytest.raises(ConfigError) as error:
        validate_first_policy(config, is_given=False)
    assert str(error.value).startswith(sentence)
    assert str(error.value).endswith("num_demonstrations or a policy of init_from")
    validate_first_policy(config, is_given=True)
    cloned = dataclasses.replace(config, num_demonstrations=1)
    validate_first_policy(cloned, is_given=False)


# Hyperparameter -> values outside its range, and what is allowed.
_LIMIT = "a number in [1e-9, 1e9], or inf for none"
_HYPERS = {
    "learning_rate": ([-1e-3, 1.5, math.inf], "a number in [0, 1]"),
    "learning_rate_final": ([-0.1, math.inf], "a number in [0, 1e6]"),
    "gamma": ([-0.1, 1.01], "a number in [0, 1]"),
    "gae_lambda": ([-0.1, 1.01], "a number in [0, 1]"),
    "clip_eps": ([0.0, -0.2, math.inf], "a number in [1e-9, 1e6]"),
    "dual_clip": ([0.5], "a number in [1, 1e9], or inf for none"),
    "value_coef": ([-0.5, math.inf], "a number in [0, 1e6]"),
    "value_clip": ([0.0, -math.inf], _LIMIT),
    "entropy_coef": ([math.inf, -math.inf, 2e6], "a number in [-1e6, 1e6]"),
    "entropy_coef_final": ([-1.0, math.inf], "a number in [0, 1e6]"),
    "entropy_floor": ([math.inf], "a number in [-1e6, 1e6], or -inf for none"),
    "entropy_limit": ([0.0], _LIMIT),
    "kl_coef": ([-1.0, math.inf], "a number in [0, 1e6]"),
    "kl_coef_final": ([-1.0, math.inf], "a number in [0, 1e6]"),
    "reward_clip": ([0.0, -math.inf], _LIMIT),
    "target_kl": ([0.0, -1.0], _LIMIT),
    "max_grad_norm": ([0.0, 1e300], _LIMIT),
    "adam_eps": ([-1e-8], "a number in [0, 1]"),
    "critic_weight_decay": ([-0.1, 2.0], "a number in [0, 1]"),
}
_PER_HEAD = ("entropy_coef", "entropy_coef_final", "entropy_floor")


def test_every_hyperparameter_has_a_range():
    own = {f"head_{field}" for field in _PER_HEAD}
    fields = {field.name for field in dataclasses.fields(Hypers)}
    assert set(_HYPERS) | own == fields == set(ranges_of(Hypers))


def _outside(range_: Range) -> list[object]:
    """Values outside a range, next to its bounds where it has bounds."""
    values: list[object] = [object(), None, b"bytes"]
    if isinstance(range_, Whole):
        values += [range_.low - 1, range_.below, float(range_.low), True]
    if isinstance(range_, Number):
        values += [
            math.nan,
            range_.low - 1 - abs(range_.low),
            2 * range_.high,
            "1",
            True,
        ]
    return values


@pytest.mark.parametrize(
    ("cls", "field"),
    [(c, f) for c in (Config, Hypers, Options) for f in ranges_of(c)],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_every_field_refuses_what_is_outside_in_one_sentence(cls, field):
    range_ = ranges_of(cls)[field]
    for value in _outside(range_):
        bad = dataclasses.replace(cls(), **{field: value})
        with pytest.raises(ConfigError) as error:
            check_ranges(bad)
        sentence = str(error.value)
        assert sentence.startswith(f"{field}: got {value!r}; allowed is ")
        allowed = sentence.rpartition("allowed is ")[2]
        nouns = "number|whole number|string|dictionary|instance"
        forms = rf"an? ({nouns})\b.*|one of [\w.:]+(, [\w.:]+)+|one or more whole .*"
        assert re.fullmatch(rf"{forms}|True or False", allowed), allowed
        assert not re.search(r"[.\n]$|  ", sentence)
    check_ranges(cls())


def test_a_field_without_a_range_is_a_fault_of_ours():
    @dataclasses.dataclass
    class Unbounded:
        size: int = 1

    with pytest.raises(TypeError, match="the field size has no range"):
        check_ranges(Unbounded())


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (Whole(1, 10), [1, 9], [0, 10, 1.0, True]),
        (Number(0.0, 1.0), [0, 1, 0.5], [-1e-9, 1.0001, math.inf, "0", True]),
        (Number(0.0, 1.0, off=math.inf), [0.5, math.inf], [2.0, -math.inf]),
        (Traced(0.0, 1.0), [0.5, jnp.ones(3)], [2.0, np.float64(2.0), [0.5]]),
        (Widths(), [(1,), (3, 4)], [(), (0,), [3], (2**16,), 3]),
        (PerHead(Number(0.0, 1.0)), [{}, {"op": 1}], [{1: 1}, []]),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Range) else "",
)
def test_ranges_by_hand(range_, inside, outside):
    assert all(range_.holds(value) for value in inside)
    assert not any(range_.holds(value) for value in outside)


@pytest.mark.parametrize(
    ("range_", "allowed"),
    [
        (Whole(), "a whole number of at least 0 and below 2**31"),
        (Whole(2, 100), "a whole number of at least 2 and below 100"),
        (Number(1e-9, 1e6), "a number in [1e-9, 1e6]"),
        (Number(-1.5, 20.0, off=-math.inf), "a number in [-1.5, 20], or -inf for none"),
    ],
)
def test_ranges_in_words(range_, allowed):
    assert range_.allowed == allowed


def test_presets_of_an_environment_that_has_none():
    with pytest.raises(ConfigError) as error:
        Config.preset("probe_envs:make", "fast")
    sentence = "preset: got 'fast'; allowed is none: probe_envs:make has no presets"
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("continuous", "kind", "values"),
    [(True, "continuous", defaults.CONTINUOUS), (False, "discrete", defaults.DISCRETE)],
)
def test_without_presets_the_heads_choose_the_defaults(continuous, kind, values):
    given = {"env_kwargs": {"kind": "observation", "continuous": continuous}}
    config, sources = resolve("probe_envs:make", "", {**given, "num_epochs": 3})
    own = {n: x for n, x in values.items() if n != "num_epochs"}
    assert config == with_overrides(
        Config(env="probe_envs:make"), {**given, **own, "num_epochs": 3}
    )
    source = f"default of {kind} actions"
    assert {sources[name] for name in own} == {source}
    assert sources["num_epochs"] == "flag"
    assert sources["gamma"] == "default"
    spec = make_env(config.env, **config.env_kwargs).spec
    assert advice(config, spec) == []
    recurrent = resolve("probe_envs:make", "", {**given, "core": "gru"}).config
    assert recurrent.epochs == 1


def test_presets_beside_an_environment_and_in_it(tmp_path, monkeypatch):
    (tmp_path / "single.py").write_text(
        "PRESETS = {'default': {'gamma': 0.5}}\ndef make(): ...\n"
    )
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("def make(): ...\n")
    (tmp_path / "package" / "presets.py").write_text("PRESETS = {'big': {}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert presets("single:make") == {"default": {"gamma": 0.5}}
    assert presets("package:make") == {"big": {}}
    assert Config.preset("single:make").hypers.gamma == 0.5


def test_values_over_presets_over_defaults():
    values = {"num_envs": 8, "env_kwargs": {"reward": "dense"}}
    config, sources = resolve("hammer", "cs224r", values)
    assert config == Config.preset("hammer", "cs224r", **values)
    assert config.num_envs == 8
    assert config.env_kwargs == {"protocol": "cs224r", "reward": "dense"}
    assert (sources["num_envs"], sources["num_starts"]) == ("flag", "default")
    assert sources["num_demonstrations"] == 'preset "cs224r"'
    assert sources["target_kl"] == 'preset "default"'


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Hypers)])
def test_every_hyperparameter_can_be_vmapped(field):
    own = field.startswith("head_")
    one, two = ({"op": 1.0}, {"op": 2.0}) if own else (1.0, 2.0)
    both = jax.tree.map(
        lambda *x: jnp.stack(x), Hypers(**{field: one}), Hypers(**{field: two})
    )
    doubled = jax.vmap(lambda h: jax.tree.map(lambda x: 2 * x, getattr(h, field)))(both)
    (leaf,) = jax.tree.leaves(doubled)
    np.testing.assert_array_equal(leaf, [2.0, 4.0])


def test_a_heads_own_values_have_the_same_ranges():
    for field in _PER_HEAD:
        hypers = Hypers(**{f"head_{field}": {"op": math.nan}})
        with pytest.raises(ConfigError) as error:
            validate(Config(hypers=hypers))
        allowed = _HYPERS[field][1]
        assert str(error.value) == f"head_{field}.op: got nan; allowed is {allowed}"
    with pytest.raises(ConfigError, match=r"head_entropy_coef\.op: got 'x'"):
        validate(Config(hypers=Hypers(head_entropy_coef={"op": "x"})))


def test_a_value_of_a_head_that_is_not_there():
    hypers = Hypers(head_entropy_coef={"slot": 0.1})
    with pytest.raises(ConfigError) as error:
        validate_heads(Config(hypers=hypers), ["op", "aim"])
    sentence = "head_entropy_coef: got 'slot'; allowed is one of aim, op"
    assert str(error.value) == sentence


def test_a_floor_needs_a_coefficient_that_it_can_raise():
    validate(Config(hypers=Hypers(entropy_floor=0.5, entropy_coef=0.01)))
    own = {"head_entropy_floor": {"op": 0.5}, "head_entropy_coef": {"op": 0.1}}
    validate(Config(hypers=Hypers(**own)))
    for hypers in (
        Hypers(entropy_floor=0.5),
        Hypers(head_entropy_floor={"op": 0.5}),
        Hypers(entropy_coef=0.1, **(own | {"head_entropy_coef": {"op": 0.0}})),
    ):
        with pytest.raises(ConfigError, match="with an entropy_coef of 0 or less"):
            validate(Config(hypers=hypers))


def test_epochs_of_a_recurrent_core_are_one_unless_asked_for():
    assert (Config().epochs, Config(core="gru").epochs) == (4, 1)
    assert not advice(Config()) + advice(Config(core="lstm"))
    stale = Config(core="lstm", num_epochs=3)
    assert stale.epochs == 3
    (sentence,) = advice(stale)
    assert "num_epochs is 3 with core lstm" in sentence


# Values that have no effect beside the others, and how the sentence begins.
_UNUSED = [
    ({"kl_coef": 0.1}, "kl_coef is 0.1 without anchor"),
    ({"anchor": True, "num_demonstrations": 1}, "anchor with a kl_coef of 0"),
    ({"critic_warmup": 10}, "critic_warmup is 10 of 10 updates"),
    ({"sequence_length": 4}, "sequence_length is 4 without a recurrent core"),
    ({"normalize_entropy": True}, "normalize_entropy without a Discrete head"),
    ({"entropy_coef_final": 0.5}, "entropy_coef_final with a constant entropy_sch"),
    (
        {"head_entropy_coef_final": {"cards": 0.5}},
        "head_entropy_coef_final with a constant entropy_schedule",
    ),
    ({"train_episode_steps": 8}, "train_episode_steps is 8, and the environment's own"),
    ({"num_demonstrations": 1, "cloning_steps": 0}, "cloning_steps is 0"),
    (
        {"num_demonstrations": 1, "normalize_observations": "running"},
        "normalize_observations is running with num_demonstrations",
    ),
]
_CARDS = HeadsProbe(("cards",)).spec


def _ten_updates(**values):
    sizes = {"num_envs": 8, "num_steps": 8, "total_timesteps": 640}
    quiet = (
        {"normalize_observations": "fixed"} if "num_demonstrations" in values else {}
    )
    return with_overrides(Config(), {**sizes, **quiet, **values})


@pytest.mark.parametrize(("values", "sentence"), _UNUSED)
def test_what_has_no_effect_is_said(values, sentence):
    assert advice(_ten_updates(), _CARDS) == []
    (found,) = advice(_ten_updates(**values), _CARDS)
    assert found.startswith(sentence)


# Names that were given, what else is set, and what they have no effect without.
_GIVEN = [
    ("demonstration_noise", {}, "without num_demonstrations"),
    ("cloning_steps", {}, "without num_demonstrations"),
    ("cloning_batch", {}, "without num_demonstrations"),
    ("cloning_learning_rate", {}, "without num_demonstrations"),
    ("cloning_batch", {"num_demonstrations": 1, "core": "gru"}, "with a recurrent"),
    ("kl_schedule", {}, "without anchor"),
    ("kl_coef_final", {}, "without anchor"),
    ("learning_rate_final", {}, "with learning_rate_schedule constant"),
    ("num_starts", {"reset": "fresh"}, "with reset fresh"),
    ("reward_clip", {}, "without normalize_rewards"),
    ("core_size", {}, "without a recurrent core"),
    ("critic_hidden_sizes", {"shared_trunk": True}, "with shared_trunk"),
    ("critic_layer_norm", {"shared_trunk": True}, "with shared_trunk"),
    ("activation", {"trunk": "module:make"}, "with trunk module:make"),
    ("distribution", {}, "without a Box head"),
    ("init_std", {}, "without a Box head"),
    ("min_std", {}, "without a Box head"),
    ("max_std", {}, "without a Box head"),
]


@pytest.mark.parametrize(("name", "values", "without"), _GIVEN)
def test_what_is_given_and_has_no_effect_is_said(name, values, without):
    config = _ten_updates(**values)
    assert advice(config, _CARDS) == []
    (found,) = advice(config, _CARDS, given=[name, "gamma"])
    assert found.startswith(f"{name} has no effect {without}")


def test_presets_and_defaults_need_no_advice():
    assert advice(Config()) == []
    for env in ("hammer", "scheduler", "lifecycle", "deck"):
        for name in presets(env):
            config = Config.preset(env, name)
            spec = make_env(env, **config.env_kwargs).spec
            assert advice(config, spec) == [], (env, name)


def test_a_floor_does_not_raise_a_coefficient_that_lowers_entropy():
    for hypers in (
        Hypers(entropy_floor=0.5, entropy_coef=-0.1),
        Hypers(head_entropy_floor={"op": 0.5}, head_entropy_coef={"op": -0.1}),
    ):
        with pytest.raises(ConfigError, match="with an entropy_coef of 0 or less"):
            validate(Config(hypers=hypers))


def test_pairs_are_merged_and_everything_else_is_replaced():
    first = with_overrides(Config(), {"env_kwargs": {"a": 1, "b": 2}})
    second = with_overrides(first, {"env_kwargs": {"b": 3}, "num_envs": 8})
    assert second.env_kwargs == {"a": 1, "b": 3}
    own = {"head_entropy_coef": {"op": 0.1}}
    assert with_overrides(second, own).hypers.head_entropy_coef == {"op": 0.1}
    assert first.hypers.head_entropy_coef == {}


@pytest.mark.parametrize("field", _HYPERS)
def test_hyperparameters_outside_their_range(field):
    values, allowed = _HYPERS[field]
    for value in [*values, math.nan]:
        config = Config(hypers=Hypers(**{field: value}))
        with pytest.raises(ConfigError) as error:
            validate(config)
        assert str(error.value) == f"{field}: got {value!r}; allowed is {allowed}"


def test_the_defaults_and_limits_switched_off_are_valid():
    validate(Config())
    limits = ("dual_clip", "value_clip", "entropy_limit", "target_kl", "max_grad_norm")
    validate(Config(hypers=Hypers(**dict.fromkeys(limits, math.inf))))
    validate(Config(hypers=Hypers(entropy_floor=-math.inf)))


def test_traced_hyperparameters_pass():
    """An array is one value per member of a sweep: it is not for the host to judge."""
    several = jnp.asarray([1e-3, 1e-4])
    validate(Config(hypers=Hypers(learning_rate=several)))
    validate(Config(hypers=Hypers(target_kl=several), learning_rate_schedule="kl"))
    floors = Hypers(entropy_floor=several, head_entropy_floor={"op": several})
    validate(Config(hypers=floors))


def test_sequence_length_is_ignored_without_a_core():
    config = Config(num_steps=8, sequence_length=3)
    validate(config)
    assert config.window == 1
    assert dataclasses.replace(config, core="gru", sequence_length=4).window == 4
    assert dataclasses.replace(config, core="gru", sequence_length=0).window == 8


def test_sizes_by_hand():
    config = Config(num_envs=4, num_steps=8, total_timesteps=350)
    assert (config.batch_size, config.num_updates) == (32, 10)


@pytest.mark.parametrize(
    ("num_updates", "num_evals", "points"),
    [
        (10, 2, (5, 10)),
        (10, 3, (4, 7, 10)),  # updates that fill no gap come first
        (10, 10, tuple(range(1, 11))),
        (3, 10, (1, 2, 3)),
        (10, 0, ()),
        (1, 1, (1,)),
    ],
)
def test_evaluations_are_evenly_spaced_and_end_at_the_end(
    num_updates, num_evals, points
):
    config = Config(
        num_envs=1, num_steps=1, total_timesteps=num_updates, num_evals=num_evals
    )
    assert config.eval_points == points


def test_overrides_reach_both_kinds_of_field():
    config = with_overrides(Config(), {"num_envs": 32, "gamma": 0.9})
    assert (config.num_envs, config.hypers.gamma) == (32, 0.9)
    assert config.hypers.clip_eps == 0.2
    with pytest.raises(ConfigError) as error:
        with_overrides(Config(), {"gama": 0.9})
    assert str(error.value) == (
        "configuration: got 'gama'; allowed is a field of Config or Hypers"
    )


def test_overrides_of_all_hyperparameters_and_of_one():
    values = {"hypers": Hypers(gamma=0.5, clip_eps=0.3), "clip_eps": 0.1}
    hypers = with_overrides(Config(), values).hypers
    assert hypers == Hypers(gamma=0.5, clip_eps=0.1)


def test_bad_configurations_fail_before_anything_is_built():
    with pytest.raises(ConfigError, match="num_envs"):
        make_train(Config(env="no_such_environment", num_envs=0))


def test_unknown_environments():
    with pytest.raises(ConfigError) as error:
        make_env("hamer")
    known = "env: got 'hamer'; allowed is one of "
    assert str(error.value).startswith(known)
    assert "hammer" in str(error.value).removeprefix(known)
    with pytest.raises(ConfigError, match=r"allowed is a module that can be imported"):
        make_env("no_such_module:make")
    with pytest.raises(ConfigError, match=r"a factory that exists in probe_envs"):
        make_env("probe_envs:no_such_factory")
    with pytest.raises(ConfigError, match=r"env_kwargs: got .*speed.*; allowed is"):
        make_env("probe_envs:make", speed=3)


def test_a_missing_dependency_is_not_called_a_typo(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"imports are installed .*no_such_depend"):
        make_env("needs_more:make")


def test_a_fault_inside_a_factory_is_said_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text("def make():\n    return None + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = r"TypeError: unsupported operand .* at .*faulty\.py:2\)"
    with pytest.raises(ConfigError, match=sentence) as info:
        make_env("faulty:make")
    assert isinstance(info.value.__cause__, TypeError)


def test_environments_by_module_and_factory():
    env = make_env("probe_envs:make", kind="cue", delay=4)
    assert (env.kind, env.delay) == ("cue", 4)
    assert presets("probe_envs:make") == {}


def test_an_unknown_name_where_there_are_none():
    sentence = "head: got 'op'; allowed is none, because there are no names"
    assert str(UnknownName("head", "op", [])) == sentence


def test_errors_have_one_base_and_one_line():
    errors = [
        ConfigError("field", 1, "2"),
        CheckpointError("/a/b", "is half written", "a whole one"),
    ]
    for error in errors:
        assert isinstance(error, PurejaxppoError)
        assert "allowed is" in str(error)
        assert "\n" not in str(error)
