"""Hidden layers of a user's own: they train, and what cannot be used is a sentence."""

import jax
import jax.numpy as jnp
import pytest
from helpers import TINY, run_command, small_config, trees_differ
from probe_envs import Probe

from purejaxppo import train
from purejaxppo.env import State
from purejaxppo.errors import EXIT_OK, EXIT_USAGE, ConfigError
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.status import MAX_FIRST_RATIO_ERROR
from purejaxppo.ppo.update import as_arrays

_OWN = "custom_trunks:"


class Pictures(Probe):
    """The probe's one number, as the middle of a picture."""

    def reset(self, key: jax.Array) -> State:
        return _as_picture(super().reset(key))

    def step(self, state: State, action: dict[str, jax.Array]) -> State:
        return _as_picture(super().step(state.replace(obs=state.obs[4:5]), action))


def _as_picture(state: State) -> State:
    return state.replace(obs=jnp.zeros((9,)).at[4].set(state.obs[0]))


def make(continuous: bool = True) -> Pictures:
    return Pictures("observation", continuous=continuous)


def test_convolutions_train_under_the_ratio_contract():
    config = small_config(trunk=_OWN + "convolutions", learning_rate=0.01, core="gru")
    learner = make_learner(config, make())
    keys = jax.random.split(jax.random.key(0), 2)
    first, _ = jax.jit(jax.vmap(learner.init))(keys)
    actor = first.params.policy["actor"]["custom"]["parameters"]
    assert actor["Conv_0"]["kernel"].shape == (2, 2, 2, 1, 4)
    assert actor["Dense_0"]["kernel"].shape == (2, 36, 6)
    critic = first.params.critic["critic"]["custom"]["parameters"]
    assert critic["Dense_0"]["kernel"].shape == (2, 36, 5)
    # Each seed has a start of its own.
    assert float(jnp.max(jnp.abs(jnp.diff(actor["Conv_0"]["kernel"], axis=0)))) > 0.1
    update = jax.jit(jax.vmap(learner.update, (0, None)))
    state = first
    for _ in range(3):
        state, metrics = update(state, as_arrays(config.hypers))
        errors = metrics["ratio/first_minibatch_error"]
        assert float(jnp.max(errors)) < MAX_FIRST_RATIO_ERROR
        assert float(jnp.min(metrics["ratio/last_epoch_std"])) > 1e-3
    trained = state.params.policy["actor"]["custom"]["parameters"]
    assert trees_differ(trained["Conv_0"], actor["Conv_0"])


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("no_module", "it returns a int"),
        ("fails", "no weights for the actor"),
        ("statistics", "it has variables of the kind batch_stats"),
        ("dropout", "dropout"),
        ("scalar", r"rows give \[\]"),
        ("half", "float16"),
        ("rows", r"rows give \[1, 9\]"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(factory, reason):
    learner = make_learner(small_config(trunk=_OWN + factory), make())
    with pytest.raises(ConfigError, match=reason) as error:
        jax.eval_shape(learner.init, jax.random.key(0))
    assert "\n" not in str(error.value)
    assert f"trunk: got '{_OWN}{factory}'" in str(error.value)


def test_the_command_trains_and_evaluates(tmp_path, capsys):
    run, own = str(tmp_path / "run"), ["--trunk", _OWN + "convolutions"]
    flags = [flag for flag in TINY if flag != "kind=observation"]
    flags += ["--env", "test_custom_trunk:make"]
    assert train.main([*flags, "--trunk", "custom_trunks:gone"]) == EXIT_USAGE
    assert "trunk: got 'custom_trunks:gone'" in capsys.readouterr().err
    assert train.main([*flags, *own, "--run-dir", run]) == EXIT_OK
    said = capsys.readouterr().err
    assert "hidden_sizes has no effect with trunk custom_trunks:convolutions" in said
    env = ["--env", "test_custom_trunk:make"]
    assert run_command("purejaxppo.evaluate", run, *env) == EXIT_USAGE
    assert "--trunk custom_trunks:convolutions" in capsys.readouterr().err
    assert run_command("purejaxppo.evaluate", run, *env, *own) == EXIT_OK
    exported = run_command("purejaxppo.export", run, str(tmp_path / "x.npz"), *env)
    assert exported == EXIT_USAGE
    assert "trunk: got" in capsys.readouterr().err
