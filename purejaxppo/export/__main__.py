"""`python -m purejaxppo.export RUN policy.npz`: a policy as a file, without JAX."""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from purejaxppo.errors import (
    EXIT_OK,
    ConfigError,
    StorageError,
)
from purejaxppo.export import writer
from purejaxppo.export.writer import Exported
from purejaxppo.run import files, record
from purejaxppo.run.trained import Which, load_policy


def export_run(
    run: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.Positional],
    which: Which = "best",
    seed_index: int = 0,
    env: str | None = None,
    trust_env: bool = False,
) -> int:
    """Write a run's policy as one file that runs without JAX.

    Args:
      run: Folder of the run.
      output: FILE.npz for NumPy (purejaxppo/export/numpy_policy.py runs it), or
        FILE.onnx for ONNX Runtime (purejaxppo[onnx]).
      which: Checkpoint: the best by its worst block, or the latest.
      seed_index: Which seed of a run of several.
      env: The run's environment, needed where it is a package.module:factory.
      trust_env: Import whatever the run names.
    """
    encode = _encoder(output)
    resolved, options = record.read_config(run, "run")
    writer.refuse_factories(resolved.config)
    policy = load_policy(run, which, seed_index, env=env, trust_env=trust_env)
    origin = {"seed": options.seed + seed_index, "which": which}
    content = encode(writer.export(policy, origin))
    try:
        files.replace(output, content)
    except OSError as error:
        raise StorageError(output, error) from None
    print(f"{output}: the policy after {policy.update:,} updates, {len(content):,} B")
    return EXIT_OK


def _encoder(output: Path) -> Callable[[Exported], bytes]:
    """Return the function for a file's suffix, before the policy is loaded.

    Raises:
      ConfigError: there is none, or the file cannot be written here.
    """
    if output.suffix not in (".npz", ".onnx"):
        raise ConfigError("output", str(output), "a file that ends in .npz or .onnx")
    files.check_writable("output", output)
    if output.suffix == ".npz":
        return writer.to_npz
    if importlib.util.find_spec("onnx") is None:
        allowed = "a .npz file, until purejaxppo[onnx] is installed (onnx, onnxruntime)"
        raise ConfigError("output", str(output), allowed)
    from purejaxppo.export.onnx import to_onnx

    return to_onnx


def main() -> int:
    """Run the command line; the exit code is 0, 2 (usage) or 4 (storage)."""
    return process.exit_code(
        lambda: tyro.cli(
            export_run,
            prog="python -m purejaxppo.export",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    )


process.run(main)
