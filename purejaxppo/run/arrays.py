"""A state as a mapping from tree path to array, and orbax to read and write it.

The mapping is flat, so that the format depends neither on Flax's classes nor on orbax's
representation of trees. Arrays of size 0 are left out, because orbax refuses them and
their shape is known.
"""

import errno
import os
import re
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.errors import CheckpointError
from purejaxppo.run import files

Arrays = dict[str, np.ndarray]  # tree path, as `jax.tree_util.keystr` has it -> array
State = TypeVar("State")  # a pytree of arrays


# Added to the name of an array of keys: the name of their implementation, as bytes.
_IMPLEMENTATION = "#implementation"


def _is_key(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def flatten(state: object) -> Arrays:
    """Copy a state to the host: tree path -> array, with typed keys as integers."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    arrays = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if _is_key(leaf):
            implementation = str(jax.random.key_impl(leaf)).encode()
            arrays[name + _IMPLEMENTATION] = np.frombuffer(implementation, np.uint8)
            leaf = jax.random.key_data(leaf)
        arrays[name] = np.asarray(leaf)
    return {name: array for name, array in arrays.items() if array.size}


def digest(state: object) -> str:
    """Return the SHA-256 of all numbers of a state, with their paths, as hex digits."""
    sums = [
        f"{name} {array.dtype} {array.shape} {files.checksum(array.tobytes())}"
        for name, array in flatten(state).items()
    ]
    return files.checksum("\n".join(sums).encode())


def _name(implementation: np.ndarray | None) -> str | None:
    """Decode the name of an implementation; None stands for the default one."""
    return None if implementation is None else implementation.tobytes().decode()


def _data_shape(
    keys: jax.Array, implementation: np.ndarray | None
) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of the data of keys, in that implementation."""
    one = jax.eval_shape(
        lambda: jax.random.key_data(jax.random.key(0, impl=_name(implementation)))
    )
    return jax.ShapeDtypeStruct((*keys.shape, *one.shape), one.dtype)


def unflatten(arrays: Arrays, like: State, checkpoint: Path) -> State:
    """Invert `flatten`.

    Args:
      arrays: tree path -> array.
      like: a state of the same structure; only its shapes and dtypes are used. Keys
        get the implementation that they were saved with.
      checkpoint: the path of the checkpoint, for the error.

    Raises:
      CheckpointError: an array is missing, or has another shape or dtype.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    restored = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        implementation = arrays.get(name + _IMPLEMENTATION) if _is_key(leaf) else None
        expected = _data_shape(leaf, implementation) if _is_key(leaf) else leaf
        array = arrays.get(name)
        if array is None and 0 in expected.shape:
            array = np.empty(expected.shape, expected.dtype)
        shape_and_dtype = (expected.shape, np.dtype(expected.dtype))
        if array is None or (array.shape, array.dtype) != shape_and_dtype:
            raise CheckpointError(
                checkpoint,
                f"does not fit this configuration at {name}",
                "the run's own",
            )
        array = jnp.asarray(array)
        if _is_key(leaf):
            array = jax.random.wrap_key_data(array, impl=_name(implementation))
        restored.append(array)
    return jax.tree_util.tree_unflatten(treedef, restored)


def write(path: Path, arrays: Arrays) -> None:
    """Write the arrays to a new folder, without fsync."""
    # Imported here because it is slow, and usage errors should be reported fast.
    import orbax.checkpoint as ocp

    _check_space(path, sum(array.nbytes for array in arrays.values()))
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave(arrays))
    except ValueError as error:  # which is how tensorstore reports the disk's errors
        found = re.search(r"os_error_code='(\d+)'", str(error))
        if found is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(path)) from None


def _check_space(path: Path, size: int) -> None:
    """Raise an OSError if there is no space for a file of `size` bytes beside `path`.

    Without this check orbax would notice it in a thread, which prints a traceback.
    """
    probe = path.with_suffix(".space")
    try:
        with files.open_new(probe) as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    finally:
        probe.unlink(missing_ok=True)


def read(path: Path) -> Arrays:
    """Read all arrays of a folder that was written by `write`."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        names = checkpointer.metadata(path.absolute()).item_metadata.tree
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        args = ocp.args.PyTreeRestore(restore_args=as_numpy)
        return checkpointer.restore(path.absolute(), args=args)
