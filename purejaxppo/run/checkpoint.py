"""Checkpoints: orbax behind a small interface of our own.

A checkpoint is a folder named by its update:

    checkpoints/00000120/state/     the arrays, written by orbax
    checkpoints/00000120/meta.json  format version, caller's metadata, file checksums
    checkpoints/00000120/done       checksum of meta.json, written last: without it
                                    there is no checkpoint

Arrays are saved as a flat mapping from tree path to array, so that neither flax's
classes nor orbax's idea of a tree are part of the format. Those without an element
are left out: they are their shape, and orbax refuses them.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.errors import CheckpointError, DamagedCheckpoint

FORMAT = 1
# Format version -> (arrays, metadata) of that version as the next one has them.
MIGRATIONS: dict[int, Callable[[dict, dict], tuple[dict, dict]]] = {}
_DONE, _META, _STATE = "done", "meta.json", "state"
_UNFINISHED = ".unfinished"


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _flatten(state: Any) -> dict[str, np.ndarray]:
    """Tree path -> array on the host; typed keys as their data."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    arrays = {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )
        for path, leaf in leaves
    }
    return {name: array for name, array in arrays.items() if array.size}


def _unflatten(arrays: dict[str, np.ndarray], like: Any, path: Path) -> Any:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    restored = []
    for tree_path, leaf in leaves:
        name = jax.tree_util.keystr(tree_path)
        example = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        array = arrays.get(name)
        if array is None and 0 in example.shape:
            array = np.empty(example.shape, example.dtype)
        expected = (example.shape, np.dtype(example.dtype))
        if array is None or (array.shape, array.dtype) != expected:
            raise CheckpointError(
                path, f"does not fit this configuration at {name}", "the run's own"
            )
        array = jnp.asarray(array)
        if _is_key(leaf):
            array = jax.random.wrap_key_data(array)
        restored.append(array)
    return jax.tree_util.tree_unflatten(treedef, restored)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def _sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk and not in a cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, text: str) -> None:
    path.write_text(text)
    _sync(path)


def save(folder: Path, step: int, state: Any, metadata: dict[str, Any]) -> Path:
    """Write a checkpoint of `state` as folder/step; it counts once `done` is there."""
    # Here, because it takes a second to import that a usage error must not cost.
    import orbax.checkpoint as ocp

    final = folder / f"{step:08d}"
    path = final.with_suffix(_UNFINISHED)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save((path / _STATE).absolute(), _flatten(state))
    for written in (path / _STATE).rglob("*"):
        _sync(written)
    meta = {
        "format": FORMAT,
        "step": step,
        "metadata": metadata,
        "checksums": _checksums(path / _STATE),
    }
    _write_synced(path / _META, json.dumps(meta, indent=1))
    _sync(path)
    _write_synced(path / _DONE, _checksum(path / _META))
    if final.exists():  # the same state, as written by an interrupted run
        _delete(final)
    path.rename(final)
    _sync(folder)
    return final


def steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdigit() and (path / _DONE).exists()
    )


def read_meta(folder: Path, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record of a checkpoint, and the caller's metadata in it.

    Raises:
      CheckpointError: missing, damaged, or of a newer format.
    """
    path = folder / f"{step:08d}"
    try:
        whole = _checksum(path / _META) == (path / _DONE).read_text()
        meta = json.loads((path / _META).read_text()) if whole else None
    except OSError as error:
        raise CheckpointError(
            path, f"cannot be read ({error.strerror})", "a finished one"
        ) from None
    if meta is None:
        raise DamagedCheckpoint(path, f"is damaged: {_META}", "an undamaged one")
    if meta["format"] > FORMAT:
        raise CheckpointError(
            path, f"has format {meta['format']}", f"a format of at most {FORMAT}"
        )
    return meta, meta["metadata"]


def restore(folder: Path, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """The state of a checkpoint, bit by bit, and its metadata.

    Args:
      like: a state of the same structure; only its shapes and dtypes are used.

    Raises:
      CheckpointError: missing, damaged, of a newer format, or of another structure.
    """
    import orbax.checkpoint as ocp

    path = folder / f"{step:08d}"
    meta, metadata = read_meta(folder, step)
    sums = _checksums(path / _STATE)
    wrong = [name for name, x in meta["checksums"].items() if sums.get(name) != x]
    if wrong:
        raise DamagedCheckpoint(path, f"is damaged: {wrong[0]}", "an undamaged one")
    with ocp.PyTreeCheckpointer() as checkpointer:
        arrays = checkpointer.restore(
            (path / _STATE).absolute(),
            restore_args=jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                {key: 0 for key in _saved_names(checkpointer, path / _STATE)},
            ),
        )
    for old in range(meta["format"], FORMAT):
        arrays, metadata = MIGRATIONS[old](arrays, metadata)
    return _unflatten(arrays, like, path), metadata


def _saved_names(checkpointer: Any, path: Path) -> list[str]:
    return list(checkpointer.metadata(path.absolute()).item_metadata.tree)


def restore_latest(
    folder: Path, like: Any, warn: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """The newest checkpoint that is whole; says so where newer ones are not.

    Raises:
      CheckpointError: there is none.
    """
    for step in reversed(steps(folder)):
        try:
            return restore(folder, step, like)
        except DamagedCheckpoint as error:
            warn(f"{error}; using the one before")
    raise CheckpointError(folder, "holds no usable checkpoint", "a folder with one")


def discard_after(folder: Path, step: int) -> None:
    """Delete the checkpoints after that step: what was not good enough to resume."""
    for later in [s for s in steps(folder) if s > step]:
        _delete(folder / f"{later:08d}")


def _delete(path: Path) -> None:
    # The marker first: half deleted must not look like whole.
    (path / _DONE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, keep: int, protect: set[int]) -> None:
    """Delete all but the newest `keep` checkpoints and those in `protect`.

    Also what a killed process left unfinished.
    """
    finished = steps(folder)
    kept = {*finished[-keep:], *protect}
    for path in folder.iterdir():
        unfinished = path.suffix == _UNFINISHED
        if unfinished or (path.name.isdigit() and int(path.name) not in kept):
            _delete(path)
