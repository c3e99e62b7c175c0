"""The measurements of `benchmarks.gpu`, each in a process of its own.

`python -m benchmarks.gpu_parts JSON` answers with lines of JSON, each a whole answer
that is better than the one before: whoever stops it keeps what it has said.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import purejaxppo  # noqa: F401 (first: it prepares XLA)

# ruff: isort: split
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record, stages, timing
from benchmarks.stages import Work
from purejaxppo.config import Config
from purejaxppo.envs.hammer import scene
from purejaxppo.envs.physics import engine as physics_engine
from purejaxppo.envs.physics.types import Advance, Data
from purejaxppo.ppo.learner import Learner, as_arrays, make_learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress

Json = dict[str, Any]


def config_of(engine: str, num_envs: int, num_steps: int) -> Config:
    """The hammer's preset without its demonstrations: speed does not depend on them.

    Every minibatch is run, whatever the KL of a policy that knows nothing.
    """
    return Config.preset(
        "hammer",
        env_kwargs={"engine": engine},
        num_envs=num_envs,
        num_steps=num_steps,
        total_timesteps=1000 * num_envs * num_steps,
        num_demonstrations=0,
        critic_warmup=0,
        anchor=False,
        normalize_observations="running",
        target_kl=1e9,
    )


class Setup:
    """A learner with a state in mid-episode, and what compiling for it took."""

    def __init__(self, engine: str, num_envs: int, num_steps: int):
        self.config = config_of(engine, num_envs, num_steps)
        self.learner: Learner = make_learner(self.config)
        self.hypers = as_arrays(self.config.hypers)
        self.compile = Compiler(Progress())
        self.state: TrainState = stages.first_state(self.learner, self.compile)

    def update(self, name: str = "update") -> Work:
        """One whole update."""
        args = self.state, self.hypers
        compiled = self.compile(name, self.learner.update, *args)
        return lambda: jax.block_until_ready(compiled(*args))

    def physics(self, advance: Advance | None = None, name: str = "physics") -> Work:
        """The engine alone: as many steps as a rollout, random actions, no policy."""
        engine, config = self.learner.task.env.engine, self.config
        low, high = jnp.array([scene.MOCAP_LOW]), jnp.array([scene.MOCAP_HIGH])

        def one(data: Data, action: jax.Array) -> Data:
            ctrl = jnp.stack([action[3], -action[3]])
            mocap = jnp.clip(data.mocap_pos + 0.01 * action[None, :3], low, high)
            if advance is None:
                return engine.step(data, ctrl, mocap, scene.N_SUBSTEPS)
            return physics_engine.step(
                engine.model, advance, data, ctrl, mocap, scene.N_SUBSTEPS
            )

        def run(data: Data, key: jax.Array) -> Data:
            def step(data: Data, key: jax.Array):
                shape = (config.num_envs, 4)
                action = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
                return jax.vmap(one)(data, action), None

            keys = jax.random.split(key, config.num_steps)
            return jax.lax.scan(step, data, keys)[0]

        args = self.state.episodes.state.data.physics, jax.random.key(2)
        compiled = self.compile(name, run, *args)
        return lambda: jax.block_until_ready(compiled(*args))


def in_turn(
    works: Mapping[str, Work], amounts: Mapping[str, int], rounds: int, **rest: Any
) -> Iterator[Json]:
    """Steps/s of each, round by round, and of each over the first one."""
    tasks = {n: timing.timed(work, amounts[n]) for n, work in works.items()}
    rates: timing.Rates = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    names = list(tasks)
    for index in range(rounds):
        shift = index % len(names)
        turn = {n: tasks[n] for n in names[shift:] + names[:shift]}
        for name, rate in timing.interleave(turn, 1, warm_up=False).items():
            rates[name] += rate
        yield {
            "steps_per_second": timing.spreads(rates),
            "ratios": timing.ratios_over(rates, names[0]),
            "rounds": index + 1,
            "memory": memory(),
            **rest,
        }


def memory() -> Json:
    """Bytes at most: of JAX's arrays, and of Warp's own where it runs on a GPU."""
    found: Json = {"peak_bytes": stages.peak_memory_bytes()}
    warp = sys.modules.get("warp")
    if warp is not None and physics_engine.on_nvidia():
        found["warp_bytes"] = warp.get_mempool_used_mem_high("cuda:0")
    return found


def compare(
    engines: list[str], num_envs: int, num_steps: int, rounds: int
) -> Iterator[Json]:
    """Whole updates of each engine: alone as soon as it is compiled, then in turn."""
    works, amounts, seconds, alone = {}, {}, {}, {}
    for engine in engines:
        setup = Setup(engine, num_envs, num_steps)
        works[engine] = setup.update()
        amounts[engine] = setup.config.batch_size
        seconds[engine] = setup.compile.ledger["update"]
        for answer in in_turn({engine: works[engine]}, amounts, min(rounds, 2)):
            alone[engine] = answer["steps_per_second"][engine]
            yield {"alone": alone, "compile_seconds": seconds}
    yield from in_turn(works, amounts, rounds, alone=alone, compile_seconds=seconds)


def speed(engine: str, num_envs: int, num_steps: int, rounds: int) -> Iterator[Json]:
    """Physics alone, the rollout and a whole update, each as soon as it is there."""
    setup = Setup(engine, num_envs, num_steps)
    builders = {
        "physics": setup.physics,
        "rollout": lambda: stages.rollout_alone(
            setup.learner, setup.state, setup.compile
        ),
        "end_to_end": setup.update,
    }
    works: dict[str, Work] = {}
    for name, build in builders.items():
        works[name] = build()
        amounts = dict.fromkeys(works, setup.config.batch_size)
        last = name == list(builders)[-1]
        yield from in_turn(
            works,
            amounts,
            rounds if last else 1,
            compile_seconds=setup.compile.ledger,
            **stages.described(setup.config),
        )


def graphs(num_envs: int, num_steps: int, rounds: int) -> Iterator[Json]:
    """Ways to capture Warp's kernels in CUDA graphs, physics alone."""
    import warp  # pyright: ignore[reportMissingImports]

    from purejaxppo.envs.physics.warp import make_advance

    setup = Setup("warp", num_envs, num_steps)
    works, amounts, refused = {}, {}, {}
    for mode in warp.JaxCallableGraphMode:
        try:
            advance = make_advance(setup.learner.task.env.engine.model, mode)
            works[mode.name] = setup.physics(advance, mode.name)
            works[mode.name]()
        except Exception as error:  # a mode may not be for this device
            works.pop(mode.name, None)
            refused[mode.name] = str(error).splitlines()[0][:300]
        amounts[mode.name] = setup.config.batch_size
    ledger = setup.compile.ledger
    yield from in_turn(works, amounts, rounds, refused=refused, compile_seconds=ledger)


def precision(
    engine: str, num_envs: int, num_steps: int, rounds: int
) -> Iterator[Json]:
    """Matrix products of the networks in TensorFloat-32 (the default) and in float32.

    Says what each does to the ratio of the first minibatch, which must stay at 1.
    """
    setup = Setup(engine, num_envs, num_steps)
    learner, state = setup.learner, setup.state
    works, amounts, error = {}, {}, {}
    for name in ("default", "highest"):
        with jax.default_matmul_precision(name):
            whole = setup.update(f"update {name}")
            batch = stages.fixed_batch(learner, state, setup.compile)
            update = stages.update_alone(learner, state, batch, setup.compile)
        _, metrics = whole()
        error[name] = float(metrics["ratio/first_minibatch_error"])
        works |= {f"end_to_end {name}": whole, f"update {name}": update}
    amounts = dict.fromkeys(works, setup.config.batch_size)
    yield from in_turn(works, amounts, rounds, first_minibatch_error=error)


def physics_precision(num_envs: int, num_steps: int, rounds: int) -> Iterator[Json]:
    """What MJX's physics costs for being in float32 instead of TensorFloat-32."""
    from purejaxppo.envs.physics import mjx as mjx_engine

    setup = Setup("mjx", num_envs, num_steps)
    works = {"highest": setup.physics(name="highest")}
    lower = mock.patch.object(jax, "default_matmul_precision", _at("default"))
    with lower:
        advance = mjx_engine.make_advance(setup.learner.task.env.engine.model)
        works["default"] = setup.physics(advance, "default")
    amounts = dict.fromkeys(works, setup.config.batch_size)
    yield from in_turn(works, amounts, rounds)


def _at(name: str):
    given = jax.default_matmul_precision
    return lambda _: given(name)


def seeds(
    engine: str, counts: list[int], num_envs: int, num_steps: int, rounds: int
) -> Iterator[Json]:
    """Seeds trained side by side by one program, in steps/s of all."""
    setup = Setup(engine, num_envs, num_steps)
    learner, hypers = setup.learner, setup.hypers
    works, amounts = {}, {}
    for count in counts:
        keys = jax.vmap(jax.random.key)(jnp.arange(count))
        states = jax.jit(jax.vmap(lambda key: learner.init(key, hypers)[0]))(keys)
        run = jax.vmap(learner.update, in_axes=(0, None))
        compiled = setup.compile(f"{count} seeds", run, states, hypers)
        works[str(count)] = lambda f=compiled, s=states: jax.block_until_ready(
            f(s, hypers)
        )
        amounts[str(count)] = count * setup.config.batch_size
        last = count == counts[-1]
        ledger = setup.compile.ledger
        yield from in_turn(
            works, amounts, rounds if last else 1, compile_seconds=ledger
        )


PARTS = {
    f.__name__: f for f in (compare, speed, graphs, precision, physics_precision, seeds)
}


def main() -> None:
    request = json.loads(sys.argv[1])
    print(json.dumps({"machine": record.machine()}), flush=True)
    for answer in PARTS[request["part"]](**request["values"]):
        print(json.dumps(answer, default=np.ndarray.tolist), flush=True)
    print(json.dumps({"end": True}), flush=True)


if __name__ == "__main__":
    main()
