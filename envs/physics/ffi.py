"""NumPy functions that a compiled program calls by name.

This replaces `jax.pure_callback`, which puts a pointer into the program, so that XLA
cannot cache it on disk, and converts every array twice: a call takes 60 microseconds,
against 15 here. XLA's foreign function interface finds a function by its name. Its C
structures are declared below (xla/ffi/api/c_api.h of jaxlib, which promises backward
compatibility). XLA calls the functions from its own threads; `ctypes` acquires Python's
global lock for each call.

With a jaxlib whose layouts were not tested `jax.pure_callback` is used after all: the
numbers are the same.
"""

import atexit
import contextlib
import ctypes
import functools
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

import jax
import numpy as np

# (arguments, results): fills the results in place.
HostFunction = Callable[[list[np.ndarray], list[np.ndarray]], None]

# Versions of jaxlib with which the structures below were tested, or the beginning of
# them: a new one is tried with tests/test_ffi.py and tests/test_engines.py.
TESTED_VERSIONS = ((0, 10), (0, 11, 2))

_API_VERSION = (0, 3)  # version of the header with these structures
_METADATA = 1  # type of the extension of a call that only asks for the version
_INTERNAL = 13  # error code of an internal error
_DTYPES = {1: np.bool_, 4: np.int32, 11: np.float32, 12: np.float64}


class _Version(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("version", _Version),
        ("traits", ctypes.c_uint32),
    )


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    )


class _Buffers(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("items", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )


class _Error(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    )


_make_error = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Error))


class _Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("make_error", _make_error),
    )


class _Frame(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_Extension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
    )


_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))

# References to the handlers, of which XLA only keeps the address.
_handlers: dict[str, tuple[object, HostFunction]] = {}
_registering = threading.Lock()  # programs may be traced in several threads at once
_closing = threading.Event()
_calls_back: set[str] = set()  # names of the functions that `pure_callback` calls


@atexit.register
def _close() -> None:
    """Stop running programs, and wait for them, before Python exits.

    Programs run asynchronously, so a script may end before them. A call of a Python
    function after the exit of the interpreter would crash the process.
    """
    _closing.set()
    if not _handlers and not _calls_back:
        return
    for array in jax.live_arrays():
        # Errors of stopped programs and deleted arrays are ignored at exit.
        with contextlib.suppress(Exception):
            array.block_until_ready()


def call(
    name: str,
    function: HostFunction,
    result: jax.ShapeDtypeStruct,
    arguments: Sequence[jax.Array],
) -> jax.Array:
    """Call a NumPy function from a program on a CPU, by the fastest way that is safe.

    Args:
      name: name of the target, see `register`.
      function: see `register`; under `vmap` arguments and result have leading axes.
      result: shape and dtype of the result, without a batch axis.
      arguments: without a batch axis.
    """
    if layouts_are_tested():
        register(name, function)
        return jax.ffi.ffi_call(name, result, vmap_method="broadcast_all")(*arguments)
    _calls_back.add(name)
    num_dims = arguments[0].ndim

    def call_back(*arguments: jax.Array) -> np.ndarray:
        arrays = [np.asarray(x) for x in arguments]
        leading = arrays[0].shape[: arrays[0].ndim - num_dims]
        out = np.empty((*leading, *result.shape), result.dtype)
        _run(function, arrays, [out])
        return out

    return jax.pure_callback(call_back, result, *arguments, vmap_method="broadcast_all")


def jaxlib_version() -> str:
    return version("jaxlib")


@functools.cache
def layouts_are_tested() -> bool:
    """Whether XLA's C structures of this jaxlib are known; warns once if not."""
    installed = jaxlib_version()
    numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:3])
    if any(numbers[: len(tested)] == tested for tested in TESTED_VERSIONS):
        return True
    tested = ", ".join(".".join(map(str, numbers)) for numbers in TESTED_VERSIONS)
    warnings.warn(
        f"jaxlib {installed} was not tested with the C engine (tested: {tested}): its "
        "calls take the slower jax.pure_callback, and their programs are not cached",
        stacklevel=2,
    )
    return False


def register(name: str, function: HostFunction) -> None:
    """Register `function`, so that programs on a CPU can call it by `jax.ffi.ffi_call`.

    A program in the compilation cache on disk refers to the function by its name only,
    so the name must identify everything that the function depends on. A second
    registration of a name is ignored.

    Args:
      name: name of the target.
      function: takes read-only arguments, and results to fill. An exception reaches the
        caller of the program as a `JaxRuntimeError`.
    """
    with _registering:
        if name in _handlers:
            return
        handler = _Handler(lambda frame: _handle(function, frame.contents))
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
        _handlers[name] = (handler, function)


def _handle(function: HostFunction, frame: _Frame) -> int | None:
    """Handle a call of XLA; return null, or an error of which XLA takes ownership."""
    if frame.extension and frame.extension.contents.type == _METADATA:
        version = frame.extension.contents.metadata.contents.version
        version.major, version.minor = _API_VERSION
        return None
    try:
        _run(function, _arrays(frame.arguments), _arrays(frame.results))
    except BaseException as error:  # no exception may reach the calling C code
        message = f"{type(error).__name__}: {error}".encode()
        details = _Error(ctypes.sizeof(_Error), None, message, _INTERNAL)
        return frame.api.contents.make_error(ctypes.byref(details))
    return None


def _run(
    function: HostFunction, arguments: list[np.ndarray], results: list[np.ndarray]
) -> None:
    if _closing.is_set():
        raise InterruptedError("the process ends")
    for array in arguments:
        array.flags.writeable = False
    function(arguments, results)


def _arrays(buffers: _Buffers) -> list[np.ndarray]:
    """Return views of XLA's buffers, which are valid during the call."""
    return [_array(buffers.items[i].contents) for i in range(buffers.size)]


def _array(buffer: _Buffer) -> np.ndarray:
    dtype = np.dtype(_DTYPES[buffer.dtype])
    shape = buffer.dims[: buffer.rank]
    size = int(np.prod(shape)) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    raw = (ctypes.c_char * size).from_address(buffer.data)
    return np.frombuffer(memoryview(raw), dtype).reshape(shape)
