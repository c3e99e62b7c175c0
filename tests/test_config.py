"""Every sentence about a configuration that cannot be used."""

import dataclasses
import math

import jax.numpy as jnp
import pytest

from purejaxppo.config import (
    PER_HEAD,
    Config,
    Hypers,
    with_overrides,
)
from purejaxppo.env import make_env, presets
from purejaxppo.errors import CheckpointError, ConfigError, PurejaxppoError
from purejaxppo.ppo.learner import make_train
from purejaxppo.validation import advice, validate, validate_heads

# Field -> a value of it, and the sentence.
_WHOLE = "allowed is a whole number of at least 1"
_COUNT = "allowed is a whole number of at least 0"
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
        "hidden_sizes: got (); allowed is one or more whole numbers of at least 1",
    ),
    (
        {"critic_hidden_sizes": (8, 0)},
        "critic_hidden_sizes: got (8, 0); "
        "allowed is one or more whole numbers of at least 1",
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
    (
        {"min_std": 1e-6},
        "min_std, init_std, max_std: got (1e-06, 0.5, 1.0); "
        "allowed is three numbers with 1e-5 <= min_std <= init_std <= max_std",
    ),
    ({"init_std": 2.0}, "min_std, init_std, max_std: got (0.01, 2.0, 1.0)"),
    ({"init_std": math.nan}, "min_std, init_std, max_std: got (0.01, nan, 1.0)"),
    (
        {"demonstration_noise": math.nan},
        "demonstration_noise: got nan; allowed is a number of at least 0",
    ),
    (
        {"cloning_learning_rate": 0.0},
        "cloning_learning_rate: got 0.0; allowed is a number above 0",
    ),
    ({"anchor": True}, "anchor: got True; allowed is False without num_demonstrations"),
    (
        {"normalize_observations": "fixed"},
        "normalize_observations: got 'fixed'; "
        "allowed is running or off without num_demonstrations",
    ),
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


# Hyperparameter -> values outside its range, and what is allowed.
_HYPERS = {
    "learning_rate": ([-1e-3, 1.5, math.inf], "a number in [0, 1]"),
    "learning_rate_final": ([-0.1, math.inf], "a finite number of at least 0"),
    "gamma": ([-0.1, 1.01], "a number in [0, 1]"),
    "gae_lambda": ([-0.1, 1.01], "a number in [0, 1]"),
    "clip_eps": ([0.0, -0.2, math.inf], "a number above 0"),
    "dual_clip": ([0.5], "a number of at least 1, inf for none"),
    "value_coef": ([-0.5, math.inf], "a number of at least 0"),
    "value_clip": ([0.0], "a number above 0, inf for none"),
    "entropy_coef": ([math.inf, -math.inf], "a finite number"),
    "entropy_coef_final": ([-1.0], "a finite number of at least 0"),
    "entropy_floor": ([], "a number, -inf for none"),
    "entropy_limit": ([0.0], "a number above 0, inf for none"),
    "kl_coef": ([-1.0, math.inf], "a number of at least 0"),
    "kl_coef_final": ([-1.0], "a finite number of at least 0"),
    "target_kl": ([0.0, -1.0], "a number above 0, inf for none"),
    "max_grad_norm": ([0.0], "a number above 0, inf for none"),
    "adam_eps": ([-1e-8], "a number in [0, 1]"),
    "critic_weight_decay": ([-0.1, 2.0], "a number in [0, 1]"),
}


def test_every_hyperparameter_has_a_range():
    own = {f"head_{field}" for field in PER_HEAD}
    fields = {field.name for field in dataclasses.fields(Hypers)}
    assert set(_HYPERS) | own == fields


def test_a_heads_own_values_have_the_same_ranges():
    for field in PER_HEAD:
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
        with pytest.raises(ConfigError, match="with an entropy_coef of 0"):
            validate(Config(hypers=hypers))


def test_epochs_of_a_recurrent_core_are_one_unless_asked_for():
    assert (Config().epochs, Config(core="gru").epochs) == (4, 1)
    assert not advice(Config()) + advice(Config(core="lstm"))
    stale = Config(core="lstm", num_epochs=3)
    assert stale.epochs == 3
    (sentence,) = advice(stale)
    assert "num_epochs is 3 with core lstm" in sentence


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
    validate(Config(hypers=Hypers(learning_rate=jnp.asarray([1e-3, 1e-4]))))


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


def test_a_fault_inside_a_factory_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text("def make():\n    return None + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match="unsupported operand"):
        make_env("faulty:make")


def test_environments_by_module_and_factory():
    env = make_env("probe_envs:make", kind="cue", delay=4)
    assert (env.kind, env.delay) == ("cue", 4)
    assert presets("probe_envs:make") == {}


def test_errors_have_one_base_and_one_line():
    errors = [
        ConfigError("field", 1, "2"),
        CheckpointError("/a/b", "is half written", "a whole one"),
    ]
    for error in errors:
        assert isinstance(error, PurejaxppoError)
        assert "allowed is" in str(error)
        assert "\n" not in str(error)
