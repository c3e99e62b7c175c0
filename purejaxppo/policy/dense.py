"""Dense layers in the form that is fast on a CPU: the same numbers, less time.

XLA's CPU backend differentiates the usual formulas into slow products.
`benchmarks/results/layers.json` has what this brings against flax's own layer.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def by_rows(f: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    """f on [..., D] as on one matrix [rows, D].

    With a third axis XLA's CPU backend takes up to twice as long for a product and its
    gradient, even where that axis has one element.
    """
    out = f(x.reshape(-1, x.shape[-1]))
    return jax.tree.map(lambda y: y.reshape(*x.shape[:-1], *y.shape[1:]), out)


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[rows, D] @ [D, size]."""
    return x @ kernel


def _matmul_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _matmul_backward(residuals, grad):
    """The usual gradients; but xᵀ is written out before the product that needs it.

    XLA would fold the transposition into the product, and for such a product its CPU
    backend has only a slow path. Other backends have a fast one.
    """
    x, kernel = residuals
    transposed = x.T
    if jax.default_backend() == "cpu":
        transposed = jax.lax.optimization_barrier(transposed)
    return grad @ kernel.T, transposed @ grad


matmul.defvjp(_matmul_forward, _matmul_backward)


class Dense(nn.Module):
    """x @ kernel + bias on rows [rows, D], the kernel orthogonal with that gain."""

    size: int
    gain: float
    use_bias: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.weights(x.shape[-1])
        return matmul(x, kernel) + bias[None]

    @nn.compact
    def weights(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
        """Kernel [D, size] and bias [size], which is 0 without one."""
        init = nn.initializers.orthogonal(self.gain)
        kernel = self.param("kernel", init, (num_inputs, self.size))
        if not self.use_bias:
            return kernel, jnp.zeros((self.size,), kernel.dtype)
        return kernel, self.param("bias", nn.initializers.zeros, (self.size,))


def several(layers: list[Dense], x: jax.Array) -> list[jax.Array]:
    """Each of the layers on the same rows, in one product: narrow ones cost as much."""
    kernels, biases = zip(
        *(layer.weights(x.shape[-1]) for layer in layers), strict=True
    )
    out = matmul(x, jnp.concatenate(kernels, axis=1)) + jnp.concatenate(biases)[None]
    ends = [sum(layer.size for layer in layers[:i]) for i in range(1, len(layers))]
    return jnp.split(out, ends, axis=-1)
