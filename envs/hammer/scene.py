"""The hammer scene as a MuJoCo model, and the names of what the task reads from it."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from pathlib import Path

import mujoco
import numpy as np

SCENE_PATH = Path(__file__).with_name("scene.xml")

# Control is 80 Hz: 5 substeps of 2.5 ms.
N_SUBSTEPS = 5

# The mocap body, and with it the hand, is clipped to this box (metres).
MOCAP_LOW = (-0.5, 0.40, 0.05)
MOCAP_HIGH = (0.5, 1.0, 0.5)

HAMMER_QPOS = slice(9, 16)  # free joint: position, then quaternion (w, x, y, z)
HAMMER_QVEL = slice(9, 15)
NAIL_QPOS = 16

# Site -> where its body's inverse weight is taken, in the site's frame. MuJoCo puts
# the centre of a body without mass at its own offset from its parent, once more.
WEIGHT_POINTS = {
    "hand": (0.0, 0.0, 0.12),
    "rightpad": (0.0, 0.003, 0.0),
    "leftpad": (0.0, -0.003, 0.0),
}


def load(visual: bool = False) -> mujoco.MjModel:
    """Compiles the scene.

    Args:
      visual: keep the shapes that only a renderer needs. Each one costs a pose at
        every substep, so physics goes without.
    """
    spec = mujoco.MjSpec.from_file(str(SCENE_PATH))
    if not visual:
        for geom in [g for g in spec.geoms if g.classname.name == "visual"]:
            spec.delete(geom)
    model = spec.compile()
    for site, offset in WEIGHT_POINTS.items():
        _set_inverse_weight(model, site, np.asarray(offset))
    return model


def _set_inverse_weight(model: mujoco.MjModel, site: str, offset: np.ndarray) -> None:
    """Makes constraints on a site's body as soft as Meta-World's.

    MuJoCo scales a constraint's softness by its body's inverse weight, taken at the
    centre of mass and at qpos0. Meta-World's hand and pads are bodies without mass
    of their own, apart from the links that carry them; here they are fused into the
    link, because a body costs an engine time at every step, and keep their weight.
    For the hand that is a factor of 13: the weld to the mocap body would be so much
    stiffer.
    """
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    body = model.site(site).bodyid[0]
    frame = data.site(site)
    point = frame.xpos + frame.xmat.reshape(3, 3) @ offset
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], point, body)
    solved = np.zeros_like(jacobian)
    mujoco.mj_solveM(model, data, solved, jacobian)
    weight = np.einsum("ij,ij->i", jacobian, solved)
    model.body_invweight0[body] = weight[:3].mean(), weight[3:].mean()
