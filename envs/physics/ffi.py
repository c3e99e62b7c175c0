"""NumPy functions that a compiled program calls by name.

`jax.pure_callback` puts a pointer into the program, so that XLA cannot keep it on
disk, and wraps every array twice: 60 microseconds a call here, against 15 for this.
XLA's foreign function interface looks a function up by its name; its C structures are
laid out below (xla/ffi/api/c_api.h of jaxlib, which promises to keep them readable).
XLA calls from threads of its own; `ctypes` takes Python's lock for each call.
"""

import atexit
import contextlib
import ctypes
import threading
from collections.abc import Callable

import jax
import numpy as np

# (arguments, results): fills the results in place.
HostFunction = Callable[[list[np.ndarray], list[np.ndarray]], None]

_API_VERSION = (0, 3)  # of the header that the layouts were read from
_METADATA = 1  # extension of a call that only asks for the version
_INTERNAL = 13  # error code: the fault is ours
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

# XLA keeps the address alone; a handler that is collected would be called all the same.
_handlers: dict[str, tuple[object, HostFunction]] = {}
_registering = threading.Lock()  # programs may be traced in several threads at once
_closing = threading.Event()


@atexit.register
def _close() -> None:
    """Ends what still runs, and waits for it, before Python goes.

    Programs run beside Python, and a script may end before them: what they then call
    would no longer be there, and the process would die of it.
    """
    if not _handlers:
        return
    _closing.set()
    for array in jax.live_arrays():
        # Broken off, or deleted meanwhile: nobody is left to be told.
        with contextlib.suppress(Exception):
            array.block_until_ready()


def register(name: str, function: HostFunction) -> None:
    """Lets programs on a CPU call `function` by `name`, through `jax.ffi.ffi_call`.

    A name is for good, and a program on disk knows nothing else: it must say all that
    the function depends on. A second registration of a name is ignored.

    Args:
      name: of the target.
      function: gets its arguments read-only and its results to fill. What it raises
        reaches the caller of the program as a `JaxRuntimeError`.
    """
    with _registering:
        if name in _handlers:
            return
        handler = _Handler(lambda frame: _handle(function, frame.contents))
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
        _handlers[name] = (handler, function)


def _handle(function: HostFunction, frame: _Frame) -> int | None:
    """One call of XLA: null for success, else an error that XLA then owns."""
    if frame.extension and frame.extension.contents.type == _METADATA:
        version = frame.extension.contents.metadata.contents.version
        version.major, version.minor = _API_VERSION
        return None
    try:
        if _closing.is_set():
            raise InterruptedError("the process ends")
        arguments = _arrays(frame.arguments)
        for array in arguments:
            array.flags.writeable = False
        function(arguments, _arrays(frame.results))
    except BaseException as error:  # beyond this is C, which no exception may reach
        message = f"{type(error).__name__}: {error}".encode()
        details = _Error(ctypes.sizeof(_Error), None, message, _INTERNAL)
        return frame.api.contents.make_error(ctypes.byref(details))
    return None


def _arrays(buffers: _Buffers) -> list[np.ndarray]:
    """Views of XLA's buffers, valid while the call lasts."""
    return [_array(buffers.items[i].contents) for i in range(buffers.size)]


def _array(buffer: _Buffer) -> np.ndarray:
    dtype = np.dtype(_DTYPES[buffer.dtype])
    shape = buffer.dims[: buffer.rank]
    size = int(np.prod(shape)) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    raw = (ctypes.c_char * size).from_address(buffer.data)
    return np.frombuffer(memoryview(raw), dtype).reshape(shape)
