"""Charts of episodes as pictures, by Matplotlib without a screen."""

from collections.abc import Callable
from typing import Any

import numpy as np

BLUE, ORANGE, RED = "#4c78a8", "#f58518", "#d62728"
GREEN, PURPLE, GREY = "#4f9d4f", "#8e6bb0", "#8c8c8c"
PIXELS_PER_INCH = 100


def picture(width: int, height: int, draw: Callable[[Any], None]) -> np.ndarray:
    """Draw a figure: uint8 [height, width, 3].

    Args:
      width: in pixels; an even number, as videos need.
      height: the same.
      draw: draws on a `matplotlib.figure.Figure`.
    """
    # Imported here, because training needs no pictures. `pyplot` would keep figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = width / PIXELS_PER_INCH, height / PIXELS_PER_INCH
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def bare(axis: Any) -> None:
    """Remove the frame of a chart except for its lower line."""
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
