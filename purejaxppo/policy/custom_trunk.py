"""Hidden layers that are a user's Flax module, named by `Config.trunk`.

    def make(role: str) -> nn.Module: ...  # --trunk package.module:make

The factory is called for "actor" and, without `shared_trunk`, for "critic". Its module
takes the normalised observations of a batch, float32 [rows, D], and returns features,
float32 [rows, H]. A row may be reshaped, for example to a picture. The module has
parameters only: no dropout, and no batch statistics, with which a stored log-prob could
not be computed again. A recurrent core, the heads and the value are layers of ours
behind it.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Collection

from purejaxppo.errors import ConfigError, summary
from purejaxppo.numerics import strongly_typed
from purejaxppo.policy import custom

Role = Literal["actor", "critic"]


class CustomTrunk(nn.Module):
    """The user's module, whose parameters are one parameter of this one."""

    target: str  # "package.module:factory"
    role: Role

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return features [rows, H] of observations [rows, D].

        Raises:
          ConfigError: the factory or its module cannot be used.
        """
        factory = custom.resolve("trunk", self.target)
        try:
            # Others' code promotes types and ranks; the precision of matrix products
            # stays that of our own layers.
            with (
                jax.numpy_dtype_promotion("standard"),
                jax.numpy_rank_promotion("allow"),
            ):
                module = factory(self.role)
                if not isinstance(module, nn.Module):
                    raise TypeError(f"it returns a {type(module).__name__}")
                # The module is called with parameters in hand, and not adopted as a
                # submodule, so it may have been made anywhere.
                parameters = self.param("parameters", _init(module, x.shape))
                features = module.apply({"params": parameters}, x)
                return _checked(features, x.shape[0])
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's module raises
            allowed = (
                f"a factory of a Flax module from float32 [rows, {x.shape[-1]}] to "
                f"[rows, features], with parameters only ({summary(error)})"
            )
            raise ConfigError("trunk", self.target, allowed) from error


def _init(module: nn.Module, shape: tuple[int, ...]):
    """Return the function that draws a module's parameters from a key.

    One seed at a time under vmap, for the reason given at `dense.orthogonal`.
    """

    @jax.custom_batching.sequential_vmap
    def draw(key: jax.Array) -> Collection:
        variables = module.init(key, jnp.zeros(shape, jnp.float32))
        if others := sorted(set(variables) - {"params"}):
            raise TypeError(f"it has variables of the kind {', '.join(others)}")
        return jax.tree.map(strongly_typed, variables.get("params", {}))

    return draw


def _checked(features: object, num_rows: int) -> jax.Array:
    if not isinstance(features, jax.Array):
        raise TypeError(f"its result is a {type(features).__name__}")
    if features.ndim != 2 or features.shape[0] != num_rows:
        raise TypeError(f"{num_rows} rows give {list(features.shape)}")
    if features.dtype != jnp.float32:
        raise TypeError(f"its result has the type {features.dtype}")
    return features
