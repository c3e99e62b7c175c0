"""PPO in one jitted function, and a system around it that notices when it is lied to.

Importing this package prepares XLA (see `_xla`), so it must come before the first
use of a JAX device; it imports nothing heavy itself.
"""

from typing import Any

from purejaxppo import _xla

_xla.prepare()

__version__ = "0.1.0"

_PUBLIC = {
    "make_train": "purejaxppo.ppo.learner",
    "Config": "purejaxppo.config",
    "Hypers": "purejaxppo.config",
    "evaluate": "purejaxppo.run.trained",
    "load_policy": "purejaxppo.run.trained",
}

__all__ = ["Config", "Hypers", "__version__", "evaluate", "load_policy", "make_train"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that `import purejaxppo` stays light."""
    import importlib

    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'purejaxppo' has no attribute {name!r}")
