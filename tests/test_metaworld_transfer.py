"""The script that plays exported policies in official Meta-World, without Meta-World.

Its packages cannot be installed beside ours, so the environment here is a stand-in.
"""

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import mujoco
import numpy as np
import pytest

from purejaxppo.envs.hammer import contact, scene
from purejaxppo.envs.physics.engine import sensor_slices

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "metaworld_transfer.py"
RECORDING = ROOT / "tests" / "official" / "hammer_v3.json"


@pytest.fixture(scope="module")
def transfer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "metaworld", ModuleType("metaworld"))
        spec = importlib.util.spec_from_file_location("metaworld_transfer", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_the_script_says_what_it_needs():
    lines = SCRIPT.read_text().splitlines()
    begin, end = lines.index("# /// script"), lines.index("# ///")
    needs = tomllib.loads("\n".join(line[2:] for line in lines[begin + 1 : end]))
    wanted = ["metaworld==3.1.1", "mujoco==3.3.0", "packaging", "numpy"]
    assert needs["dependencies"] == wanted


def near_the_nail(states, num):
    """Official states, with face and fingers near the nail's head, give or take."""
    rng = np.random.default_rng(0)
    near = states[rng.integers(0, len(states), num)]
    near[:, 16] = rng.uniform(0.0, 0.1, num)
    spread = rng.normal(0.0, (0.03, 0.003, 0.02), (num, 3))
    near[:, 9:12] = np.array((0.08, 0.555, 0.11)) + spread
    near[:, 10] += near[:, 16]
    near[:, 12:16] = (1, 0, 0, 0) + rng.choice((0.01, 0.2), (num, 1)) * rng.normal(
        size=(num, 4)
    )
    near[:, 12:16] /= np.linalg.norm(near[:, 12:16], axis=1, keepdims=True)
    pads = rng.normal((0.24, 0.64, 0.11), (0.05, 0.01, 0.08), (num, 2, 3))
    return near, pads + near[:, None, None, 16] * (0, 1, 0)


def test_hammered_is_what_it_is_in_training(transfer):
    recorded = json.loads(RECORDING.read_text())["demonstrations"]
    states, pads = near_the_nail(
        np.concatenate([x["steps"]["qpos"] for x in recorded]), 600
    )
    model, sensors, found = scene.load(), [], []
    data, slices = mujoco.MjData(model), sensor_slices(model)
    for qpos, (right, left) in zip(states, pads, strict=True):
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        sensors.append(data.sensordata.copy())
        sensors[-1][slices["rightpad"]], sensors[-1][slices["leftpad"]] = right, left
        bodies = {"rightpad": right, "leftpad": left}
        official = SimpleNamespace(
            qpos=qpos,
            body=lambda name, at=bodies: SimpleNamespace(xpos=at[name]),
        )
        found.append((transfer.face_on_nail(qpos), transfer.fingers_clear(official)))

    @jax.jit
    @jax.vmap
    def judge(sensordata, slide):
        named = {name: sensordata[x] for name, x in slices.items()}
        return (
            contact.face_on_nail(named, slide),
            contact.fingers_clear(named, slide),
        )

    expected = judge(*(np.float32(x) for x in (sensors, states[:, 16])))
    found = np.array(found)
    np.testing.assert_array_equal(found, np.stack(expected, axis=1))
    counts = found.sum(axis=0)
    assert (counts > 50).all()
    assert (counts < 550).all()


class Nail:
    """The nail's slide follows a list, and so does whether the face is on it."""

    def __init__(self, slides, faces):
        self.slides, self.faces, self.actions = list(slides), list(faces), []
        self.data = SimpleNamespace(qpos=np.zeros(17))

    def step(self, action):
        self.actions.append(action)
        self.data.qpos[16] = self.slides.pop(0)
        return np.zeros(1), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("slides", "faces", "expected"),
    [
        # Through, and hammered in the step before; pulled out again, and back in.
        ([0.08, 0.095, 0.1, 0.05, 0.1], [1, 0, 0, 0, 0], (2, True, 4, True)),
        ([0.08, 0.095, 0.1, 0.05, 0.05], [0, 0, 1, 0, 0], (2, False, 4, False)),
        ([0.0, 0.0, 0.0, 0.0, 0.089], [1, 1, 1, 1, 1], (None, False, None, False)),
    ],
)
def test_success_by_hand(transfer, slides, faces, expected, monkeypatch):
    env = Nail(slides, faces)
    monkeypatch.setattr(transfer, "face_on_nail", lambda _: bool(env.faces.pop(0)))
    monkeypatch.setattr(transfer, "fingers_clear", lambda _: True)
    chosen = iter("abcde")
    policy = SimpleNamespace(
        metadata={"action_repeat": 2},
        initial=tuple,
        act=lambda obs, carry: ({"arm": next(chosen)}, carry),
    )
    played = transfer.play(env, policy, np.zeros(1), 5)
    names = ("success", "hammered", "lost", "last")
    assert played == dict(zip(names, expected, strict=True))
    json.dumps(played)  # no number is of NumPy: that of a bool is refused
    assert env.actions == list("aabbc")  # each is held for two control steps


def test_shares_by_hand(transfer):
    good = {"success": 50, "hammered": True, "lost": None, "last": True}
    lost = {"success": 70, "hammered": False, "lost": 90, "last": False}
    none = {"success": None, "hammered": False, "lost": None, "last": False}
    found = transfer.summarise([good, lost, none, none])
    assert found["success"] == 0.5
    assert found["hammered_of_success"] == found["last_of_success"] == 0.5
    assert found["steps"] == {"median": 60, "min": 50, "max": 70}
    assert (
        transfer.table([{"file": "x", "train": found, "test": found}])[1][2] == "0.50"
    )
    nobody = transfer.summarise([none])
    assert (
        transfer.table([{"file": "x", "train": nobody, "test": nobody}])[2][-1] == "-"
    )
