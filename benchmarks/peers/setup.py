"""The peers' virtual environments, one per file in `requirements/`.

    python -m benchmarks.peers.setup [NAME ...]

makes `.peers/NAME` in the checkout's root (git ignores it) and installs the pins of
`requirements/NAME.txt`, all of them if none is named. purejaxppo is not installed:
a worker finds it by PYTHONPATH, and the file pins what it needs.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"


def names() -> list[str]:
    """The environments that there are."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def python_of(name: str) -> Path:
    """The interpreter of an environment, whether or not it has been made."""
    return ROOT / ".peers" / name / "bin" / "python"


def make(name: str) -> None:
    """Make an environment, or bring it to its pins."""
    python = str(python_of(name))
    if not python_of(name).exists():
        target = str(python_of(name).parents[1])
        subprocess.run([sys.executable, "-m", "venv", target], check=True)
    # The files are complete, and without the resolver torch brings no CUDA packages.
    pins = ["--no-deps", "-r", str(REQUIREMENTS / f"{name}.txt")]
    subprocess.run([python, "-m", "pip", "install", "-q", *pins], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the peers' environments.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    chosen = parser.parse_args().names or names()
    if unknown := sorted(set(chosen) - set(names())):
        parser.error(f"NAME: got {unknown[0]}; allowed is one of {', '.join(names())}")
    for name in chosen:
        print(name, "->", python_of(name))
        make(name)


if __name__ == "__main__":
    main()
