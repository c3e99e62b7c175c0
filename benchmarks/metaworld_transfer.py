"""Policies trained on our hammer, judged by official Meta-World.

    python -m purejaxppo.export RUN policy.npz
    uv run benchmarks/metaworld_transfer.py policy.npz [policy.npz ...]

Meta-World pins a MuJoCo that ours cannot share an environment with; the packages are
named below, for `uv run` or a virtual environment. Nothing of purejaxppo is imported
but the file numpy_policy.py, which needs NumPy alone. Each policy plays Meta-World's 50
training and 50 test tasks of hammer-v3 once, without noise, for 500 control steps, also
after success; one trained by `--preset cs224r` for the homework's 100, from its start.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["metaworld==3.1.1", "mujoco==3.3.0", "packaging", "numpy"]
# ///
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import argparse
import datetime
import importlib.util
import json
import os
import pickle
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metaworld
import mujoco
import numpy as np

Json = dict[str, Any]
HERE = Path(__file__).parent
COMMAND = "uv run benchmarks/metaworld_transfer.py"
LOADER = HERE.parent / "purejaxppo" / "export" / "numpy_policy.py"

DRIVEN = 0.09  # metres of the nail's slide: Meta-World's success
HAMMER, NAIL = slice(9, 16), 16  # in qpos
MOVING = 1e-4  # metres of a control step
FACE = (0.16, 0.072, 0.0)  # centre of the striking face, in the hammer's frame
NAIL_HEAD = np.array((0.03, 0.009, 0.03))  # half sizes
PAD, GAP, DISC, LIFTED, FACING = (0.015, 0.003, 0.045), 0.002, 0.038, 0.01, 0.9
COURSE_HAND, COURSE_STD, COURSE_IDLE = (0.1, 0.5, 0.3), 0.03, 10


def load(path: Path) -> Any:
    """Load an exported policy of the hammer by numpy_policy.py."""
    spec = importlib.util.spec_from_file_location("numpy_policy", LOADER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    policy = module.load(path)
    if policy.metadata["env"] != "hammer":
        sys.exit(f"{path}: got a policy of {policy.metadata['env']}; allowed is hammer")
    return policy


def nail_position(slide: float) -> np.ndarray:
    """Return where the nail's origin is after it moved by `slide` metres."""
    return np.array((0.24, 0.64 + slide, 0.11))


def face_on_nail(qpos: np.ndarray) -> bool:
    """Whether the lifted hammer's face touches the nail, as in envs/hammer/contact.py.

    MuJoCo's contacts at the end of a control step do not say so: the nail is often a
    fraction of a millimetre ahead of the face.
    """
    frame = np.zeros(9)
    mujoco.mju_quat2Mat(frame, qpos[HAMMER][3:])
    frame = frame.reshape(3, 3)
    face, normal = qpos[HAMMER][:3] + frame @ FACE, frame[:, 1]
    offset = nail_position(qpos[NAIL] - NAIL_HEAD[1]) - face
    gap = offset @ normal - NAIL_HEAD[0] * (abs(normal[0]) + abs(normal[2]))
    sideways = max(abs(offset[0]), abs(offset[2]))
    close = -NAIL_HEAD[1] < gap < GAP and sideways < DISC + NAIL_HEAD[0]
    return bool(close and normal[1] > FACING and face[2] > DISC + LIFTED)


def fingers_clear(data: mujoco.MjData) -> bool:
    """Whether both fingers are clear of the nail's head, as in contact.py."""
    nail = nail_position(data.qpos[NAIL])
    pads = [data.body(name).xpos for name in ("rightpad", "leftpad")]
    return all(np.any(np.abs(pad - nail) > NAIL_HEAD + PAD + GAP) for pad in pads)


def begin(env: Any, task: Any, is_course: bool, rng: np.random.Generator) -> np.ndarray:
    """Reset to a task; return the first observation.

    The homework shows the goal, which Meta-World's ML1 hides, begins with the hand
    elsewhere, and then waits.
    """
    data = pickle.loads(task.data) | {"partially_observable": not is_course}
    env.set_task(task._replace(data=pickle.dumps(data)))
    if is_course:
        env.hand_init_pos = COURSE_HAND + COURSE_STD * rng.standard_normal(3)
    obs, _ = env.reset()
    for _ in range(COURSE_IDLE if is_course else 0):
        obs, *_ = env.step(np.zeros(4, np.float32))
    return obs


def play(env: Any, policy: Any, obs: np.ndarray, num_steps: int) -> Json:
    """Play from a first observation; say when and how the nail went in, and out.

    Returns:
      the control steps of the first success and of the first one after it without, or
      None; whether the nail was hammered in; and whether it is in at the end.
    """
    carry, repeat = policy.initial(), policy.metadata["action_repeat"]
    success, lost, hammered, struck, driven = None, None, False, False, False
    action, slide = {}, 0.0
    for step in range(num_steps):
        if step % repeat == 0:
            action, carry = policy.act(obs, carry)
        obs, *_ = env.step(action["arm"])
        before, slide = slide, float(env.data.qpos[NAIL])
        # A blow, as in envs/hammer/env.py: the nail moves on from the hammer's face.
        struck = face_on_nail(env.data.qpos) or (struck and slide - before > MOVING)
        struck = struck and fingers_clear(env.data)
        was_driven, driven = driven, bool(slide > DRIVEN)
        if driven and not was_driven:
            hammered = hammered or struck
            success = success or step + 1
        elif was_driven and not driven:
            lost = lost or step + 1
    return {"success": success, "hammered": hammered, "lost": lost, "last": driven}


def summarise(played: list[Json]) -> Json:
    """Compute shares of all episodes, and of those with success, and steps to it."""
    steps = [x["success"] for x in played if x["success"]]
    num = max(len(steps), 1)
    return {
        "episodes": len(played),
        "success": len(steps) / len(played),
        "hammered": sum(x["hammered"] for x in played) / len(played),
        "last": sum(x["last"] for x in played) / len(played),
        "hammered_of_success": sum(x["hammered"] for x in played) / num,
        "last_of_success": sum(x["last"] for x in played if x["success"]) / num,
        "steps": steps
        and {
            name: float(np.percentile(steps, at))
            for name, at in (("median", 50), ("min", 0), ("max", 100))
        },
    }


def evaluate(path: Path, seed: int, num_tasks: int, num_steps: int | None) -> Json:
    """Evaluate one policy on both sets of tasks.

    Args:
      path: the exported policy.
      seed: the seed of Meta-World's tasks.
      num_tasks: how many tasks of each set, at most its 50.
      num_steps: control steps of an episode; None for 500, or the homework's 100.
    """
    policy = load(path)
    is_course = policy.metadata["env_kwargs"].get("protocol") == "cs224r"
    num_steps = num_steps or (100 if is_course else 500)
    bench, rng = metaworld.ML1("hammer-v3", seed=seed), np.random.default_rng(seed)
    env = bench.train_classes["hammer-v3"]()
    played = {
        name: [
            play(env, policy, begin(env, task, is_course, rng), num_steps)
            for task in tasks[:num_tasks]
        ]
        for name, tasks in (("train", bench.train_tasks), ("test", bench.test_tasks))
    }
    kept = ("env_kwargs", "action_repeat", "seed", "which", "steps")
    found = {n: policy.metadata[n] for n in kept}
    found |= {"file": path.name, "control_steps": num_steps, "tasks_seed": seed}
    sets = played | {"all": played["train"] + played["test"]}
    return found | {n: summarise(x) for n, x in sets.items()} | {"played": played}


def table(policies: list[Json]) -> list[list[str]]:
    """Make rows of text, the first of them the header."""
    rows = [
        ["policy", "tasks", "success", "hammered", "at the end", "steps to success"]
    ]
    for found in policies:
        for name in ("train", "test"):
            row, steps = found[name], found[name]["steps"]
            shares = [f"{row[n]:.2f}" for n in ("success", "hammered", "last")]
            form = "{median:.0f} ({min:.0f} to {max:.0f})"
            span = form.format(**steps) if steps else "-"
            rows.append([found["file"], name, *shares, span])
    return rows


def provenance(policies: list[Path]) -> Json:
    """Say by which command, versions and machine it was measured."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    cpu = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    packages = ("metaworld", "mujoco", "numpy")
    return {
        "command": " ".join([COMMAND, *(path.name for path in policies)]),
        "versions": {"python": platform.python_version()}
        | {n: version(n) for n in packages},
        "machine": {
            "system": platform.platform(terse=True),
            "cores": os.cpu_count(),
            "cpu": cpu[0] if cpu else platform.processor(),
        },
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Official Meta-World.")
    parser.add_argument("policies", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of Meta-World's tasks")
    parser.add_argument("--tasks", type=int, default=50, help="of each set")
    parser.add_argument("--steps", type=int, help="control steps of an episode")
    output = HERE / "results" / "metaworld_transfer.json"
    parser.add_argument("--output", type=Path, default=output)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # gymnasium's, about Meta-World
    sizes = options.seed, options.tasks, options.steps
    policies = [evaluate(path, *sizes) for path in options.policies]
    rows = table(policies)
    for row in rows:
        print("  ".join(f"{cell:<17}" for cell in row).rstrip())
    note = (
        "Meta-World's own tasks, one episode each, the policy's mode; `hammered` is "
        "ours, `at the end` is success at the last step."
    )
    results = {"policies": policies, "table": rows, "notes": [note]}
    record = provenance(options.policies) | {"results": results}
    options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
