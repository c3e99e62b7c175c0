"""Pictures of the hammer task, by MuJoCo's own renderer."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

import contextlib
import ctypes.util
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import mujoco
import numpy as np

from purejaxppo.errors import ConfigError

from . import scene

WIDTH, HEIGHT = 480, 360
LOOK_AT = (0.1, 0.58, 0.13)  # metres; between the hammer and the nail
DISTANCE = 1.1  # metres
AZIMUTH, ELEVATION = 155.0, -27.0  # degrees


def draw(poses: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Draw the scene in each pose, qpos [nq]: uint8 [HEIGHT, WIDTH, 3].

    Raises:
      ConfigError: there is no OpenGL library that can draw without a screen.
    """
    model = scene.load(visual=True)
    data, camera = mujoco.MjData(model), _camera()
    with contextlib.closing(_renderer(model)) as renderer:
        for qpos in poses:
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            yield renderer.render()


def _camera() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = LOOK_AT
    camera.distance, camera.azimuth, camera.elevation = DISTANCE, AZIMUTH, ELEVATION
    return camera


def _renderer(model: mujoco.MjModel) -> Any:
    """Make a renderer that needs no screen."""
    given = os.environ.get("MUJOCO_GL")
    if sys.platform == "linux" and not given:
        os.environ["MUJOCO_GL"] = choose_gl()
    try:
        # MuJoCo has read MUJOCO_GL when it was imported, before anything was drawn.
        from mujoco.rendering.classic import gl_context, renderer

        importlib.reload(gl_context)
        return renderer.Renderer(model, HEIGHT, WIDTH)
    except Exception as error:  # the bindings of OpenGL raise errors of many types
        reason = str(error).partition("\n")[0]
        allowed = (
            "egl or osmesa with its library, which Debian's libegl1 and "
            f"libgl1-mesa-dri, or libosmesa6, install ({reason})"
        )
        raise ConfigError("MUJOCO_GL", os.environ.get("MUJOCO_GL"), allowed) from None
    finally:  # else no process started from here could import MuJoCo after a failure
        if not given:
            os.environ.pop("MUJOCO_GL", None)


def choose_gl() -> str:
    """Return the way to draw without a screen that this machine has a library for.

    OSMesa draws on the CPU and works wherever it is installed; EGL also needs a driver.
    """
    return "osmesa" if ctypes.util.find_library("OSMesa") else "egl"
