"""Action heads of any `distrax.Distribution`, under the same ratio contract as ours.

A factory builds the distribution from numbers of the network, [..., n]: its batch shape
begins with their leading axes. Further batch axes are independent parts of one action,
and their log-probs are summed. distrax is imported only where such a head is used.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Custom
from purejaxppo.errors import ConfigError
from purejaxppo.numerics import permissive_numerics, strong

if TYPE_CHECKING:
    import distrax


def import_distrax():
    """distrax, without what TFP warns of as it is imported: no user can mend that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import distrax
    return distrax


# Arrays [..., n] of the network -> a distrax.Distribution (or one of TFP).
Factory = Callable[..., object]


class CustomDistribution(struct.PyTreeNode):
    """What a factory of the user builds, with the methods of our own distributions.

    Only the numbers of the network are held: the distribution is built anew from them
    wherever it is used, so that a sample can be drawn with a key of its own.
    """

    parameters: tuple[jax.Array, ...]  # each [..., n], the arguments of the factory
    factory: Factory = struct.field(pytree_node=False)

    @staticmethod
    def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """One typed key for each sample, shape[:-1]: the last axis is the network's."""
        return jax.random.split(key, shape[:-1])

    def sample(self, noise: jax.Array) -> jax.Array:
        """A sample from each of the keys `noise` [...].

        Rounding may put a sample where the density is 0 or infinite, as at the ends of
        a Beta. One such log-prob would make the whole update NaN, so that sample is
        replaced; whatever is stored stays re-evaluable.
        """

        def one(parameters: tuple[jax.Array, ...], key: jax.Array) -> jax.Array:
            with permissive_numerics():
                dist = _build(self.factory, parameters)
                return strong(dist.sample(seed=key))

        for _ in range(noise.ndim):
            one = jax.vmap(one)
        action = one(self.parameters, noise)
        return self._where_possible(self._density(action), action)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...], of the whole action; not finite where the action is not possible.

        Evaluated twice: the gradient is taken at an action with a finite density. That
        of an inactive head is zeros, and the gradient there could be NaN.
        """
        density = jax.lax.stop_gradient(self._density(action))
        safe = self._density(self._where_possible(density, action))
        return jnp.where(jnp.isfinite(density), safe, density)

    def entropy(self) -> jax.Array:
        """[...]; 0 where the distribution has no formula of it, see `describe`."""
        entropy = self.known_entropy()
        return jnp.zeros(self._leading(), jnp.float32) if entropy is None else entropy

    def known_entropy(self) -> jax.Array | None:
        with permissive_numerics():
            dist = _build(self.factory, self.parameters)
            try:
                entropy = dist.entropy()
            except NotImplementedError:
                return None
            return self._sum(jnp.broadcast_to(entropy, dist.batch_shape))

    def mode(self) -> jax.Array:
        """The mode; where there is none, or it is not finite, the mean."""
        return self._point(("mode", "mean"))

    def _leading(self) -> tuple[int, ...]:
        return self.parameters[0].shape[:-1]

    def _sum(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x, axis=tuple(range(len(self._leading()), x.ndim)))

    def _density(self, action: jax.Array) -> jax.Array:
        with permissive_numerics():
            density = _build(self.factory, self.parameters).log_prob(action)
            return self._sum(jnp.asarray(density))

    def _where_possible(self, density: jax.Array, action: jax.Array) -> jax.Array:
        """The action where its log-prob is finite, else one that certainly has one."""
        inside = jax.lax.stop_gradient(self._point(("mean", "mode")))
        return trees.where(jnp.isfinite(density), action, inside)

    def _point(self, names: tuple[str, ...]) -> jax.Array:
        with permissive_numerics():
            dist = _build(self.factory, self.parameters)
            if jnp.issubdtype(dist.dtype, jnp.integer):
                names = ("mode",)  # the mean of whole numbers is no action
            points = [
                p for p in (_statistic(dist, name) for name in names) if p is not None
            ]
            if not points:
                raise NotImplementedError("neither mode() nor mean()")
            point = strong(points[0], dist.dtype)
            if len(points) == 2:
                point = jnp.where(jnp.isfinite(point), point, points[1])
            return point


def _build(
    factory: Factory, parameters: tuple[jax.Array, ...]
) -> "distrax.Distribution":
    # The factory first: it is code of the user, and its errors are about itself.
    dist = factory(*parameters)
    return import_distrax().as_distribution(dist)


def _statistic(dist: "distrax.Distribution", name: str) -> jax.Array | None:
    """`dist.mode()` or `dist.mean()`, None where it has none.

    Through a bijector without a constant Jacobian neither has a formula; the image of
    the one below it serves, as it does for our tanh-normal.
    """
    try:
        return jnp.asarray(getattr(dist, name)())
    except NotImplementedError:
        if not isinstance(dist, import_distrax().Transformed):
            return None
        below = _statistic(dist.distribution, name)
        return None if below is None else jnp.asarray(dist.bijector.forward(below))


def untrained(head: Custom) -> CustomDistribution:
    """The distribution of a head where its network gives zeros; no leading axes."""
    factory = resolve("distribution", head.distribution)
    return CustomDistribution((jnp.zeros((head.num_outputs,), jnp.float32),), factory)


def action_type(head: Custom) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one action of a head."""
    return jax.eval_shape(lambda: untrained(head).mode())


# --- before anything compiles ----------------------------------------------------


class Facts(NamedTuple):
    """What is static about a custom distribution."""

    shape: tuple[int, ...]  # of one action
    dtype: jnp.dtype
    has_entropy: bool


def resolve(field: str, target: str | Factory) -> Factory:
    """The factory behind "package.module:factory", or the callable that is given.

    Raises:
      ConfigError: there is no such module, or nothing callable of that name in it.
    """
    if not isinstance(target, str):
        return target
    module_name, _, name = target.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise ConfigError(
            field, target, f"a package.module:factory that can be imported ({error})"
        ) from error
    if not callable(factory):
        raise ConfigError(field, target, f"a factory that exists in {module_name}")
    return factory


def describe(field: str, target: str | Factory, sizes: tuple[int, ...]) -> Facts:
    """Build, sample and differentiate a custom distribution, by tracing alone.

    Args:
      field: how the setting is called in an error.
      target: the factory, or its "package.module:factory".
      sizes: last axis of each of the factory's arguments.

    Returns:
      shape and dtype of one action, and whether there is an entropy. Without one the
      head adds no entropy, and its coefficient has to be 0.

    Raises:
      ConfigError: distrax is not installed, or the factory does not give what a head
        needs.
    """
    factory = resolve(field, target)
    try:
        import_distrax()
    except ImportError:
        raise ConfigError(
            field,
            target,
            "one of our own where distrax is not installed "
            "(pip install 'purejaxppo[distrax]')",
        ) from None
    # Two leading axes: a factory that assumes one fails.
    parameters = tuple(jax.ShapeDtypeStruct((2, 3, n), jnp.float32) for n in sizes)
    try:
        action, entropy = jax.eval_shape(
            lambda *p: _rehearse(CustomDistribution(p, factory)), *parameters
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        shapes = " and ".join(f"[..., {n}]" for n in sizes)
        raise ConfigError(
            field,
            target,
            f"a factory of a distrax.Distribution from float32 {shapes} that can be "
            f"sampled and differentiated ({reason})",
        ) from error
    return Facts(action.shape[2:], action.dtype, entropy is not None)


def _rehearse(dist: CustomDistribution) -> tuple[jax.Array, jax.Array | None]:
    """An action and the entropy; on the way, all else that training needs of it.

    Raises:
      ValueError: the shapes of distribution, sample and mode do not fit together.
    """
    with permissive_numerics():
        batch_shape = _build(dist.factory, dist.parameters).batch_shape
    leading = dist.parameters[0].shape[:-1]
    if batch_shape[: len(leading)] != leading:
        raise ValueError(f"batch shape {batch_shape} for leading axes {leading}")
    action = dist.sample(dist.noise(jax.random.key(0), (*leading, 1)))
    mode = dist.mode()
    if (mode.shape, mode.dtype) != (action.shape, action.dtype):
        raise ValueError(
            f"mode {mode.dtype} {mode.shape}, sample {action.dtype} {action.shape}"
        )
    jax.grad(lambda dist: jnp.sum(dist.log_prob(action)))(dist)
    return action, dist.known_entropy()
