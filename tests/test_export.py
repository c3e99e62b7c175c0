"""An exported policy chooses what JAX chooses, where there is no JAX."""

import ast
import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from helpers import run_command, small_config
from probe_envs import HeadsProbe

from purejaxppo import make_env
from purejaxppo.check import random_action
from purejaxppo.env import executed
from purejaxppo.envs.hammer.protocol import PROTOCOLS
from purejaxppo.errors import EXIT_OK, EXIT_STORAGE, EXIT_USAGE, ConfigError
from purejaxppo.export import numpy_policy, onnx, writer
from purejaxppo.export.writer import Exported
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Stored
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.run.trained import TrainedPolicy, load_policy

EXPORT = "purejaxppo.export"
ENV = ("--env", "probe_envs:make")
LOADER = Path(numpy_policy.__file__)
NUM_STEPS, NUM_ENVS = 12, 16
TOLERANCE = 1e-5

# Between them: every kind of head, distribution, core, activation and mask.
CASES = {
    "truncated_normal": {"env": "hammer"},
    "normal": {"env": "hammer", "distribution": "normal", "hidden_sizes": (8, 6)},
    "tanh_normal": {
        "env": "hammer",
        "distribution": "tanh_normal",
        "normalize_observations": "off",
    },
    "masked": {"env": "op", "activation": "relu"},
    "gru": {"env": "lifecycle", "core": "gru", "activation": "elu"},
    "lstm": {"env": "lifecycle", "core": "lstm", "shared_trunk": True},
    "k_of_n": {"env": "deck", "activation": "swish"},
    "every_head": {"env": "every_head"},
}


def perturbed(learner, obs, mask, active):
    """Random parameters, whose outputs are not all the same; statistics of `obs`."""
    start = np.zeros((NUM_STEPS, NUM_ENVS), bool)
    inputs = jax.tree.map(lambda x: x[0], PolicyInput(obs, start, mask, active))
    shapes = jax.eval_shape(learner.task.policy.init, jax.random.key(0), inputs)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0.0, 0.5, x.shape).astype(np.float32), shapes
    )
    stats = None
    if learner.task.config.normalize_observations != "off":
        mean, variance = (
            jax.tree.map(functools.partial(moment, axis=(0, 1)), obs)
            for moment in (np.mean, np.var)
        )
        # So that some normalised observations are clipped.
        narrow = jax.tree.map(lambda x: np.float32(0.04) * x, variance)
        stats = Statistics(np.ones(2, np.uint32), mean, narrow)
    return SimpleNamespace(params=params, obs_stats=stats)


@functools.cache
def wander(env):
    """Real states: obs, masks and activity along random allowed actions, [T, E]."""

    def step(states, key):
        keys = jax.random.split(key, NUM_ENVS)
        action = jax.vmap(lambda s, k: random_action(env, s, k))(states, keys)
        kept = states.obs, states.action_mask, states.active
        return jax.vmap(env.step)(states, action), kept

    @jax.jit
    def play(key):
        key_start, key_steps = jax.random.split(key)
        start = jax.vmap(env.reset)(jax.random.split(key_start, NUM_ENVS))
        return jax.lax.scan(step, start, jax.random.split(key_steps, NUM_STEPS))[1]

    return jax.device_get(play(jax.random.key(3)))


def chosen(learner, state, obs, mask, active):
    """JAX's actions and activity, [T, E]; the first states are those of episodes."""
    policy, params = learner.task.policy, state.params

    @jax.jit
    def choose(obs):
        start = jnp.zeros((NUM_STEPS, NUM_ENVS), bool).at[0].set(True)
        inputs = PolicyInput(normalize.apply(state.obs_stats, obs), start, mask, active)
        carry = policy.initial_carry(NUM_ENVS)

        def step(carry, inputs):
            action, carry = policy.mode(params, inputs, carry)
            return carry, action

        _, action = jax.lax.scan(step, carry, inputs)
        terms = policy.log_prob(params, Stored(inputs, action, carry))
        return executed(learner.task.env.spec, action), terms.active

    return choose(obs)


class Case(NamedTuple):
    """An exported policy, what it is given, and what JAX makes of it: [T, E, ...]."""

    exported: Exported
    obs: np.ndarray
    mask: dict[str, np.ndarray]
    given_active: dict[str, np.ndarray]
    action: dict[str, np.ndarray]
    active: dict[str, np.ndarray]


@functools.cache
def env_of(name):
    probes = {"op": HeadsProbe(("op",)), "every_head": HeadsProbe(privileged=True)}
    return probes.get(name) or make_env(name)


def made(name):
    values = CASES[name]
    env = env_of(values["env"])
    learner = make_learner(small_config(**values), env)
    obs, mask, active = wander(env)
    state = perturbed(learner, obs, mask, active)
    expected = chosen(learner, state, obs, mask, active)
    policy = TrainedPolicy(learner, state, lambda *_: None, 7)
    exported = writer.export(policy, {"seed": 3})
    seen = obs["actor"] if isinstance(obs, dict) else obs
    return Case(exported, *jax.device_get((seen, mask, active, *expected)))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return made(request.param)


# Runs where nothing of JAX, and nothing of ours but the copied file, can be imported.
ELSEWHERE = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "purejaxppo"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
import numpy as np, numpy_policy

policy = numpy_policy.load("policy.npz")
given = dict(np.load("given.npz"))
carry, found = policy.initial(given["obs"].shape[1:2]), {}
for step, obs in enumerate(given["obs"]):
    now = {n: x[step] for n, x in given.items()}
    mask, active = ({n[5:]: x for n, x in now.items() if n[:5] == kind}
                    for kind in ("mask/", "live/"))
    action, carry = policy.act(obs, carry, mask)
    is_active = policy.active(action, active)
    for kind, values in (("action/", action), ("active/", is_active)):
        for name, value in values.items():
            shape = np.broadcast_shapes(value.shape, obs.shape[:1] + value.shape[1:])
            found.setdefault(kind + name, []).append(np.broadcast_to(value, shape))
np.savez("found.npz", **found)
"""


def same(found, expected):
    """Same numbers to the tolerance, same choices, same types."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_numpy_chooses_what_jax_chooses(case, tmp_path):
    (tmp_path / "policy.npz").write_bytes(writer.to_npz(case.exported))
    shutil.copy(LOADER, tmp_path)
    (tmp_path / "run.py").write_text(ELSEWHERE)
    masks = {f"mask/{n}": x for n, x in case.mask.items()}
    lives = {f"live/{n}": x for n, x in case.given_active.items()}
    np.savez(tmp_path / "given.npz", obs=case.obs, **masks, **lives)
    subprocess.run([sys.executable, "run.py"], cwd=tmp_path, check=True, timeout=60)
    found = np.load(tmp_path / "found.npz")
    for name, expected in case.action.items():
        assert (
            np.ptp(expected) > 0.1
        )  # a policy that always does the same shows nothing
        same(found[f"action/{name}"], expected)
        np.testing.assert_array_equal(found[f"active/{name}"], case.active[name])


def test_onnx_runtime_chooses_what_jax_chooses(case):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx.to_onnx(case.exported), options)
    wanted = [x.name for x in session.get_outputs()]
    kinds = {x.name: x for x in session.get_inputs()}
    size = case.exported.metadata["core_size"]
    carry = {n: np.zeros((NUM_ENVS, size), np.float32) for n in kinds if "carry/" in n}
    for step in range(NUM_STEPS):
        given = {"obs": case.obs[step]} | carry
        given |= {f"mask/{n}": x[step] for n, x in case.mask.items()}
        given |= {f"active/{n}": x[step] for n, x in case.given_active.items()}
        found = dict(zip(wanted, session.run(None, given), strict=True))
        carry = {n: found[f"next_{n}"] for n in carry}
        for name, expected in case.action.items():
            same(found[f"action/{name}"], expected[step])
            ours = found.get(f"is_active/{name}", np.ones(NUM_ENVS, bool))
            np.testing.assert_array_equal(ours, case.active[name][step])
    told = session.get_modelmeta().custom_metadata_map["metadata"]
    assert json.loads(told) == case.exported.metadata


# --- the command --------------------------------------------------------------------


def test_the_command_writes_what_evaluation_plays(tiny_run, tmp_path, capsys):
    path = tmp_path / "policy.npz"
    assert run_command(EXPORT, str(tiny_run), str(path), *ENV) == EXIT_OK
    assert str(path) in capsys.readouterr().out
    policy, loaded = numpy_policy.load(path), load_policy(tiny_run, env=ENV[1])
    assert policy.metadata["update"] == loaded.update
    assert policy.metadata["env"] == ENV[1]
    assert policy.metadata["action_repeat"] == 1
    state = loaded.learner.task.env.reset(jax.random.key(1))
    (name,) = loaded.learner.task.env.spec.heads
    expected, _ = loaded.act(state)
    found, _ = policy.act(state.obs)
    np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=TOLERANCE)


def refusal(run, output, capsys, *flags):
    """What the command says on refusing, one sentence."""
    assert run_command(EXPORT, str(run), str(output), *flags) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("policy.pt", "a file that ends in .npz or .onnx"),
        ("policy", "a file that ends in .npz or .onnx"),
        ("nowhere/policy.npz", "a file in a folder that can be written"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    name, sentence, tiny_run, tmp_path, capsys
):
    assert sentence in refusal(tiny_run, tmp_path / name, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_none_is_refused(tmp_path, capsys):
    said = refusal(tmp_path / "run", tmp_path / "policy.npz", capsys)
    assert said.startswith("run: got")


def test_onnx_that_is_not_installed_is_asked_for(
    tiny_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = refusal(tiny_run, tmp_path / "policy.onnx", capsys, *ENV)
    assert "purejaxppo[onnx] is installed" in said


def test_a_distribution_of_the_users_is_refused(tiny_run, tmp_path, capsys):
    """Before the flag is asked for that would trust it."""
    run = tmp_path / "run"
    run.mkdir()
    record = json.loads((tiny_run / "config.json").read_text())
    record["config"]["distribution"] = "custom_distributions:beta"
    (run / "config.json").write_text(json.dumps(record))
    said = refusal(run, tmp_path / "policy.npz", capsys, *ENV)
    assert said.startswith("distribution: got 'custom_distributions:beta'; allowed")


def test_a_head_of_the_users_is_refused():
    task = SimpleNamespace(config=small_config(), env=HeadsProbe(("op", "switches")))
    policy = SimpleNamespace(learner=SimpleNamespace(task=task))
    with pytest.raises(ConfigError, match=r"heads\.switches: got .*switches"):
        writer.export(policy, {})


def test_a_file_that_cannot_replace_is_reported(tiny_run, tmp_path, capsys):
    (tmp_path / "policy.npz" / "full").mkdir(parents=True)
    output = tmp_path / "policy.npz"
    assert run_command(EXPORT, str(tiny_run), str(output), *ENV) == EXIT_STORAGE
    assert capsys.readouterr().err.startswith("storage: ")
    assert [x.name for x in tmp_path.iterdir()] == ["policy.npz"]


# --- the loader ---------------------------------------------------------------------


def test_the_loader_needs_numpy_alone():
    imports = [
        node
        for node in ast.walk(ast.parse(LOADER.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    named = {x.name for node in imports for x in node.names}
    assert named == {"annotations", "json", "numpy"}


@pytest.fixture(scope="module")
def masked():
    """A policy of one masked head of 3, whose favourite is the last."""
    heads = [
        {"name": "op", "kind": "discrete", "n": 3, "parent": None, "mask": [3]},
    ]
    metadata = {"obs_size": 2, "num_hidden": 0, "core": "none", "heads": heads}
    arrays = {"heads/op/kernel": np.zeros((2, 3)), "heads/op/bias": np.arange(3.0)}
    return numpy_policy.Policy(metadata | {"core_size": 4}, arrays)


def test_a_mask_by_hand(masked):
    choose = lambda mask: masked.act([0.0, 0.0], mask={"op": mask})[0]["op"]  # noqa: E731
    assert choose([True, True, True]) == 2
    assert choose([True, True, False]) == 1
    assert choose([False, False, False]) == 2  # which allows nothing, allows all


@pytest.mark.parametrize(
    ("obs", "mask", "sentence"),
    [
        ([0.0, 0.0], {}, "mask: the head op needs one, of shape [3]"),
        ([0.0, 0.0], {"op": [True]}, "mask: op has [1], not [3]"),
        ([0.0], {"op": [True] * 3}, "obs: got shape [1], not [2]"),
    ],
)
def test_what_does_not_fit_is_refused(masked, obs, mask, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        masked.act(obs, mask=mask)


def test_a_later_format_is_refused(tmp_path):
    path = tmp_path / "policy.npz"
    np.savez(path, metadata=np.array(json.dumps({"format": 2})))
    with pytest.raises(ValueError, match="has format 2, not 1"):
        numpy_policy.load(path)


def test_the_homeworks_policy_says_how_long_its_actions_are_held():
    env = env_of("hammer")
    assert env.spec.action_repeat == 1
    homework = dataclasses.replace(env, protocol=PROTOCOLS["cs224r"])
    assert homework.spec.action_repeat == 2
