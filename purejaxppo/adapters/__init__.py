"""Environments of other libraries as ours, and ours as theirs.

    from purejaxppo.adapters import to_brax, to_gymnasium, to_stable_baselines3

The other way they are built by their names, as in `--env brax:ant`.
"""

import importlib
from typing import TYPE_CHECKING

from purejaxppo.errors import ConfigError

if TYPE_CHECKING:
    from purejaxppo.adapters.for_brax import to_brax
    from purejaxppo.adapters.for_gymnasium import to_gymnasium
    from purejaxppo.adapters.for_stable_baselines3 import to_stable_baselines3

__all__ = ["to_brax", "to_gymnasium", "to_stable_baselines3"]

# Each function is in the module "for_" + its library, which imports the library.
_PACKAGES = {
    "to_brax": "brax==0.14.2",
    "to_gymnasium": "gymnasium",
    "to_stable_baselines3": "stable-baselines3",
}


def __getattr__(name: str) -> object:
    """Import a function on first use, since each needs a library that is optional."""
    if name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.for_{name.removeprefix('to_')}")
    except ModuleNotFoundError as error:
        allowed = f'what is installed: pip install "{_PACKAGES[name]}" ({error})'
        raise ConfigError(__name__, name, allowed) from None
    return getattr(module, name)
