"""Reads an .npz file that may be damaged or hostile.

A size that the file claims is compared with the bytes that there are before memory is
allocated for it, and no Python object is unpickled. The checksum of each member is
verified by `zipfile`, because members are read to their end.
"""

import io
import math
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np

_MAX_RATIO = 1032  # deflate makes at most so many bytes of one
_ENCRYPTED = 1  # flag of a member
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Unreadable(ValueError):  # noqa: N818
    """A file that is no undamaged .npz; the message says what is wrong."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Returns:
      array name -> array, read-only.

    Raises:
      Unreadable: the file is missing, damaged, or no .npz file.
    """
    try:
        if not path.is_file():  # a pipe or device may have no end
            raise Unreadable("there is no such file")
        with path.open("rb") as file:
            return _read_archive(file)
    except OSError:
        raise Unreadable("it cannot be read") from None
    except MemoryError:
        raise Unreadable("it needs more memory than there is") from None


def _read_archive(file: io.BufferedReader) -> dict[str, np.ndarray]:
    magic = file.read(len(np.lib.format.MAGIC_PREFIX))
    if magic == np.lib.format.MAGIC_PREFIX:
        raise Unreadable("it is a single .npy array")
    try:
        archive = zipfile.ZipFile(file)
    except OSError:
        raise
    except Exception:  # zipfile raises many kinds of error for damaged files
        raise Unreadable("it is no zip archive") from None
    num_bytes = file.seek(0, io.SEEK_END)
    arrays = {}
    for member in archive.infolist():
        if not re.fullmatch(r"[\w/.-]{1,200}\.npy", member.filename):
            raise Unreadable("it has a member that is no .npy")
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise Unreadable(f"it has two members {member.filename}")
        content = _read_member(archive, member, num_bytes)
        arrays[name] = _array(member.filename, content)
    return arrays


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, num_bytes: int
) -> bytes:
    """Read a member of an archive of `num_bytes`, and verify its checksum."""
    name = member.filename
    plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not plain or member.flag_bits & _ENCRYPTED:
        raise Unreadable(f"{name} is neither stored nor deflated")
    compressed = min(member.compress_size, num_bytes)
    if member.file_size > _MAX_RATIO * compressed:
        raise Unreadable(
            f"{name} claims {member.file_size:,} bytes, compressed to {compressed:,}"
        )
    try:
        content = archive.read(member)
    except MemoryError:
        raise
    except Exception:  # of zipfile and zlib, which raise many kinds for damaged files
        raise Unreadable(f"{name} is damaged") from None
    if len(content) != member.file_size:
        raise Unreadable(f"{name} is damaged")
    return content


def _array(name: str, content: bytes) -> np.ndarray:
    """Interpret the content of a member as an array."""
    stream = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header that numpy repairs is refused
            version = np.lib.format.read_magic(stream)
            shape, fortran_order, dtype = _HEADERS[version](stream)
    except Exception:  # numpy parses the header as Python, and raises what that raises
        raise Unreadable(f"{name} is no array") from None
    if dtype.hasobject:
        raise Unreadable(f"{name} holds Python objects")
    start = stream.tell()
    claimed, found = math.prod(shape) * dtype.itemsize, len(content) - start
    if claimed != found or min(shape, default=0) < 0:
        raise Unreadable(f"{name} claims {claimed:,} bytes and has {found:,}")
    order = "F" if fortran_order else "C"
    try:
        array = np.ndarray(shape, dtype, content, start, order=order)
        if dtype.kind == "U":
            array.tolist()  # raises for numbers that are no characters
    except (ValueError, OverflowError):
        raise Unreadable(f"{name} is no array") from None
    if dtype.kind == "b" and np.any(array.view(np.uint8) > 1):
        raise Unreadable(f"{name} has values that are neither True nor False")
    return array
