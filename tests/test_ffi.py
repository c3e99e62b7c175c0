"""NumPy functions called by name from compiled programs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal

from purejaxppo.envs.hammer import env as hammer
from purejaxppo.envs.physics import ffi

FLOATS = jax.ShapeDtypeStruct((3,), jnp.float32)


def call(name, result, *args):
    return jax.ffi.ffi_call(name, result, vmap_method="broadcast_all")(*args)


def test_arguments_and_results_of_every_type():
    def function(arguments, results):
        flags, counts, values = arguments
        results[0][...] = np.where(flags, counts * values, -1.0)
        results[1][...] = counts + 1

    ffi.register("test_types", function)
    result = (FLOATS, jax.ShapeDtypeStruct((3,), jnp.int32))
    flags, counts = jnp.array([True, False, True]), jnp.arange(3)
    values = jnp.array([0.5, 1.5, 2.5], jnp.float32)
    products, after = jax.jit(lambda *a: call("test_types", result, *a))(
        flags, counts, values
    )
    np.testing.assert_array_equal(products, [0.0, -1.0, 5.0])
    np.testing.assert_array_equal(after, [1, 2, 3])


def test_a_batch_is_one_call():
    shapes = []

    def function(arguments, results):
        shapes.append(arguments[0].shape)
        results[0][...] = 2 * arguments[0]

    ffi.register("test_batch", function)
    x = jnp.arange(24, dtype=jnp.float32).reshape(4, 2, 3)
    double = jax.vmap(jax.vmap(lambda x: call("test_batch", FLOATS, x)))
    np.testing.assert_array_equal(jax.jit(double)(x), 2 * np.asarray(x))
    assert shapes == [(4, 2, 3)]


def test_what_the_function_raises_reaches_the_caller():
    def function(arguments, results):
        raise ValueError("no such world")

    ffi.register("test_raises", function)
    with pytest.raises(jax.errors.JaxRuntimeError, match="ValueError: no such world"):
        jax.jit(lambda x: call("test_raises", FLOATS, x))(
            jnp.zeros(3)
        ).block_until_ready()


def test_arguments_cannot_be_written():
    def function(arguments, results):
        arguments[0][...] = 0

    ffi.register("test_readonly", function)
    with pytest.raises(jax.errors.JaxRuntimeError, match="read-only"):
        jax.jit(lambda x: call("test_readonly", FLOATS, x))(
            jnp.zeros(3)
        ).block_until_ready()


def test_a_name_is_for_good():
    ffi.register("test_twice", lambda _, results: results[0].fill(1.0))
    ffi.register("test_twice", lambda _, results: results[0].fill(2.0))
    np.testing.assert_array_equal(call("test_twice", FLOATS, jnp.zeros(3)), 1.0)


PROGRAM = """
import jax, jax.monitoring, jax.numpy as jnp
from purejaxppo.envs.physics import ffi

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
ffi.register("test_disk", lambda x, y: y[0].__setitem__(..., 3 * x[0]))
result = jax.ShapeDtypeStruct((2,), jnp.float32)
f = jax.jit(lambda x: jax.ffi.ffi_call("test_disk", result)(x) + 1)
print(f(jnp.ones(2))[0], "/jax/compilation_cache/cache_hits" in events)
"""


def test_a_program_on_disk_finds_the_function_by_name(tmp_path):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    root = Path(__file__).parent.parent
    answers = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert answers == [["4.0", "False"], ["4.0", "True"]]


# --- a jaxlib that was not tested ----------------------------------------------------


@pytest.fixture
def untested_jaxlib(monkeypatch):
    """As with a jaxlib whose layouts may be others; handlers must not be used then."""
    ffi.layouts_are_tested.cache_clear()
    monkeypatch.setattr(ffi, "jaxlib_version", lambda: "0.99.1")
    monkeypatch.setattr(ffi, "register", lambda *_: pytest.fail("a layout was used"))
    yield
    ffi.layouts_are_tested.cache_clear()


@pytest.mark.parametrize(
    ("installed", "tested"),
    [
        ("0.10.0", True),
        ("0.10.2", True),
        ("0.10.3.dev20260401", True),
        ("0.11.2", True),
        ("0.11.1", False),
        ("0.1.0", False),
        ("0.12.0.1", False),
        ("1.0", False),
    ],
)
def test_versions_that_were_tested(installed, tested, monkeypatch):
    ffi.layouts_are_tested.cache_clear()
    monkeypatch.setattr(ffi, "jaxlib_version", lambda: installed)
    try:
        if tested:
            assert ffi.layouts_are_tested()
        else:
            with pytest.warns(UserWarning, match=f"jaxlib {installed} was not tested"):
                assert not ffi.layouts_are_tested()
            assert not ffi.layouts_are_tested()  # without a second warning
    finally:
        ffi.layouts_are_tested.cache_clear()


def test_the_jaxlib_of_these_tests_was_tested():
    assert ffi.layouts_are_tested()


@pytest.mark.filterwarnings("ignore:jaxlib 0.99.1")
def test_an_untested_jaxlib_calls_back(untested_jaxlib):
    shapes = []

    def double(arguments, results):
        shapes.append(arguments[0].shape)
        results[0][...] = 2 * arguments[0]
        with pytest.raises(ValueError, match="read-only"):
            arguments[0][...] = 0

    def raising(arguments, results):
        raise ValueError("no such world")

    x = jnp.arange(24, dtype=jnp.float32).reshape(4, 2, 3)
    f = jax.vmap(jax.vmap(lambda x: ffi.call("test_back", double, FLOATS, [x])))
    np.testing.assert_array_equal(jax.jit(f)(x), 2 * np.asarray(x))
    assert shapes == [(4, 2, 3)]
    with pytest.raises(jax.errors.JaxRuntimeError, match="ValueError: no such world"):
        jax.jit(lambda x: ffi.call("test_back", raising, FLOATS, [x]))(
            jnp.zeros(3)
        ).block_until_ready()


def _states(num_steps: int):
    """States [T, S, N] of the hammer: under jit, vmap over seeds and worlds, a scan."""
    env = hammer.make(engine="mujoco")

    def run(key):
        def step(state, _):
            action = jax.vmap(env.demonstrator)(state)
            state = jax.vmap(env.step)(state, action)
            return state, state

        state = jax.vmap(env.reset)(jax.random.split(key, 3))
        return jax.lax.scan(step, state, length=num_steps)[1]

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(5), 2))


def test_the_hammer_has_the_same_states_with_an_untested_jaxlib(request):
    expected = jax.block_until_ready(_states(12))
    request.getfixturevalue("untested_jaxlib")
    with pytest.warns(UserWarning, match="jaxlib 0.99.1 was not tested") as warned:
        found, shorter = _states(12), _states(2)
    assert_trees_equal(found, expected)
    assert_trees_equal(shorter, jax.tree.map(lambda x: x[:, :2], expected))
    assert len(warned) == 1
    assert not np.any(expected.data.physics.unstable)
