"""The hammer scene as a MuJoCo model, and the indices that the task uses."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from pathlib import Path

import mujoco
import numpy as np

SCENE_PATH = Path(__file__).with_name("scene.xml")

# Control steps have a rate of 80 Hz: 5 substeps of 2.5 ms.
N_SUBSTEPS = 5

# The mocap body, which the hand follows, is kept in this box (metres).
MOCAP_LOW = (-0.5, 0.40, 0.05)
MOCAP_HIGH = (0.5, 1.0, 0.5)

HAMMER_QPOS = slice(9, 16)  # free joint: position, then quaternion (w, x, y, z)
HAMMER_QVEL = slice(9, 15)
NAIL_QPOS = 16

# Site -> point at which its body's inverse weight is computed, in the site's frame. For
# a body without mass MuJoCo adds the body's offset from its parent twice.
WEIGHT_POINTS = {
    "hand": (0.0, 0.0, 0.12),
    "rightpad": (0.0, 0.003, 0.0),
    "leftpad": (0.0, -0.003, 0.0),
}


def load(visual: bool = False) -> mujoco.MjModel:
    """Compile the scene.

    Args:
      visual: keep the shapes that are only used for rendering. MuJoCo computes the pose
        of each shape at every substep, so they make the physics slower.
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
    """Make the constraints on a site's body as soft as in Meta-World.

    MuJoCo scales the softness of a constraint by the inverse weight of its body, at the
    centre of mass and at qpos0. In Meta-World hand and pads are separate bodies without
    mass. Here they are fused with the link that carries them, because each body takes
    time at every step, and the body gets the inverse weight of the separate body.
    Without this the weld of the hand to the mocap body would be stiffer by a factor of
    13.
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
