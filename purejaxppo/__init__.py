"""PPO in one jitted function, and a command line that checks and records training.

Importing this package prepares XLA (see `_xla`), so it must come before the first
use of a JAX device. The import itself loads neither JAX nor MuJoCo.
"""

import importlib
from typing import TYPE_CHECKING

from purejaxppo import _xla

if TYPE_CHECKING:
    from purejaxppo.check import check_env
    from purejaxppo.config import Config, Hypers
    from purejaxppo.env import Box, Choice, Custom, Discrete, Env, EnvSpec, State
    from purejaxppo.ppo.learner import make_train
    from purejaxppo.registry import make_env
    from purejaxppo.run.trained import evaluate, load_policy

_xla.prepare()

__version__ = "0.2.0"

__all__ = [
    "Box",
    "Choice",
    "Config",
    "Custom",
    "Discrete",
    "Env",
    "EnvSpec",
    "Hypers",
    "State",
    "__version__",
    "check_env",
    "evaluate",
    "load_policy",
    "make_env",
    "make_train",
]

# Public name -> its module. A test compares this with the imports above.
_MODULES = {
    "Box": "purejaxppo.env",
    "Choice": "purejaxppo.env",
    "Config": "purejaxppo.config",
    "Custom": "purejaxppo.env",
    "Discrete": "purejaxppo.env",
    "Env": "purejaxppo.env",
    "EnvSpec": "purejaxppo.env",
    "Hypers": "purejaxppo.config",
    "State": "purejaxppo.env",
    "check_env": "purejaxppo.check",
    "evaluate": "purejaxppo.run.trained",
    "load_policy": "purejaxppo.run.trained",
    "make_env": "purejaxppo.registry",
    "make_train": "purejaxppo.ppo.learner",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import purejaxppo` is fast."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'purejaxppo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
