"""Compiles the C++ of this folder with the machine's own compiler, once, and makes it known to XLA.

    why = lacking()                    # None, or what keeps it from being compiled here
    name = target("spatial_forward")   # for jax.ffi.ffi_call

What is compiled lies in ~/.cache/convmixer_jax/native, under a name that follows from the sources, the compiler and the
processor: a change of any compiles anew, and a home that several machines share has a file for each kind of them.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jaxlib

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "spatial.cc"
CACHE = Path("~/.cache/convmixer_jax/native")
COMPILERS = ("c++", "g++", "clang++")  # after $CXX
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread", "-w")
OPERATIONS = ("spatial_forward", "spatial_backward")
UNFINISHED = "unfinished-"  # begins the names of folders in which a compiler is at work
SECONDS = 300  # after which a compiler that has not ended is given up; it takes ten


class NotCompiledError(Exception):
    """The message says why, in a few words."""


def find_compiler() -> list[str]:
    """Returns the command: $CXX, which may have options, or the first of COMPILERS that there is."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        try:
            command = shlex.split(name)
        except ValueError as error:
            raise NotCompiledError(f"$CXX is {name!r}, which is no command: {error}") from error
        if command and shutil.which(command[0]):
            return command
    raise NotCompiledError(f"there is no C++ compiler ({', '.join(COMPILERS)}) to compile it with")


def processor() -> str:
    """Returns what the compiler's -march=native follows from."""
    try:
        described = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:  # another system than Linux
        return platform.processor()
    kept = ("model name", "flags", "Features", "CPU part")
    return "\n".join(line for line in described if line.startswith(kept))


def run(command: list[str]) -> str:
    """Returns what a command prints; raises NotCompiledError with the first line that tells why where it fails."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotCompiledError(f"{command[0]} did not run: {error}") from error
    if ended.returncode:
        lines = ended.stderr.splitlines() or [f"it ended with {ended.returncode}"]
        told = next((line for line in lines if "error" in line), lines[0])
        raise NotCompiledError(f"{command[0]} cannot compile it: {told.strip()[:200]}")
    return ended.stdout


def digest(content: bytes) -> str:
    """Returns what stands for the content in a name."""
    return hashlib.sha256(content).hexdigest()[:16]


def compiled_into(folder: Path, command: list[str], key: str) -> Path:
    """Returns the library in the folder, compiled if it is not there yet, KEY-DIGEST.so.

    One whose content is not what its name says is not loaded: a part of a library would kill the process.
    """
    for path in folder.glob(f"{key}-*.so"):
        if path.stem == f"{key}-{digest(path.read_bytes())}":
            return path
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{UNFINISHED}*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > 2 * SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    print(f"compiling the operations for this processor with {command[0]}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as unfinished:  # several processes may be about it
        made = Path(unfinished) / "made.so"
        run([*command, *OPTIONS, "-I", jax.ffi.include_dir(), str(SOURCE), "-o", str(made)])
        return made.replace(folder / f"{key}-{digest(made.read_bytes())}.so")


@functools.cache
def registered() -> tuple[str, str | None]:
    """Returns (what the names of the targets begin with, why there are none or None)."""
    try:
        command = find_compiler()
        parts = [path.read_text() for path in sorted(FOLDER.glob("*.[hc]*")) if path.suffix in (".h", ".cc")]
        parts += [*command, *OPTIONS, run([*command, "--version"]), jaxlib.__version__, processor()]
        key = digest("\0".join(parts).encode())
        try:
            library = ctypes.CDLL(str(compiled_into(CACHE.expanduser(), command, key)))
        except (OSError, RuntimeError):  # a home that cannot be written or run from, or no home
            with tempfile.TemporaryDirectory() as folder:  # what is loaded needs its file no more
                library = ctypes.CDLL(str(compiled_into(Path(folder), command, key)))
    except NotCompiledError as error:
        return "", str(error)
    except OSError as error:
        return "", f"it cannot be loaded: {error}"
    # Compiled programs are kept from start to start: under the name of other code they would run that.
    prefix = f"convmixer_{key}_"
    for operation in OPERATIONS:
        handler = jax.ffi.pycapsule(getattr(library, f"convmixer_{operation}"))
        jax.ffi.register_ffi_target(prefix + operation, handler, platform="cpu")
    return prefix, None


def lacking() -> str | None:
    """Returns what keeps the operations from being compiled or loaded here, in a few words, or None.

    The first call on a machine takes some ten seconds.
    """
    return registered()[1]


def target(operation: str) -> str:
    """Returns the name of one of OPERATIONS for XLA; raises RuntimeError where `lacking` has a reason."""
    prefix, why = registered()
    if why:
        raise RuntimeError(f"the native operations are not there: {why}")
    return prefix + operation
