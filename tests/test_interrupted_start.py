"""Ctrl-C and SIGTERM before anything was trained, sent to the real command."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK

TESTS = Path(__file__).parent
FLAGS = (
    "--env probe_envs:make --env-kwargs kind=observation --num-envs 4 --num-steps 8 "
    "--num-minibatches 2 --num-epochs 1 --total-timesteps 64 --hidden-sizes 8 "
    "--critic-hidden-sizes 8 --num-evals 1 --eval-episodes 2 "
    "--no-tensorboard --no-report"
).split()
# Seconds after the command takes signals over: while it imports, reads its flags,
# compiles and makes its first state.
MOMENTS = [0.0, *sorted(random.uniform(0.0, 1.5) for _ in range(3))]
MOMENTS += sorted(random.uniform(1.5, 6.0) for _ in range(3))


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Nothing is compiled yet."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (TESTS.parent, TESTS))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def begin(module: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"purejaxppo.{module}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_signals_are_taken(process: subprocess.Popen) -> None:
    """Python itself leaves SIGTERM alone, so whoever catches it is this package."""
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if int(fields["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    pytest.fail("SIGTERM is not caught")


def ending(process: subprocess.Popen) -> tuple[int, str, float]:
    """Exit code, standard error, and the seconds that it took to end."""
    start = time.monotonic()
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors, time.monotonic() - start


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("index", range(len(MOMENTS)))
def test_a_signal_ends_the_start_at_any_moment(index, tmp_path):
    process = begin("train", *FLAGS, "--run-dir", str(tmp_path / "run"))
    wait_until_signals_are_taken(process)
    time.sleep(MOMENTS[index])
    process.send_signal((signal.SIGINT, signal.SIGTERM)[index % 2])
    code, errors, seconds = ending(process)
    print(f"{MOMENTS[index]:.2f} s: ended after {seconds:.2f} s")
    assert "Traceback" not in errors
    assert code == EXIT_INTERRUPTED or (code == EXIT_OK and "done:" in errors), errors


def read_until(process: subprocess.Popen, text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"never said {text!r}")


def test_a_compilation_is_not_waited_for(tmp_path):
    path = tmp_path / "run"
    process = begin("train", *FLAGS, "--run-dir", str(path))
    read_until(process, "compiling update")
    process.send_signal(signal.SIGINT)
    code, errors, _ = ending(process)
    assert (code, errors) == (EXIT_INTERRUPTED, "interrupted\n")
    assert not (path / "metrics.csv").exists()  # no update came after the compilation


def test_signals_after_the_first_end_without_a_traceback(tmp_path):
    """Also after the run was saved, while the process ends."""
    flags = ["--total-timesteps", "2000000", "--num-evals", "0"]
    process = begin("train", *FLAGS, *flags, "--run-dir", str(tmp_path / "run"))
    read_until(process, "steps/s")
    process.send_signal(signal.SIGINT)
    read_until(process, "saved; go on with --resume")
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    code, errors, _ = ending(process)
    assert code == EXIT_INTERRUPTED
    assert "Traceback" not in errors


@pytest.mark.parametrize("module", ["train", "evaluate", "export"])
def test_signals_are_taken_over_before_what_is_slow_to_import(module):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"purejaxppo.{module}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in result.stderr.splitlines() if "import time:" in line]
    names = [line.rsplit("|", 1)[1].strip() for line in lines]
    first = names.index("purejaxppo.run.interrupt")
    assert first < min(map(names.index, ("numpy", "tyro", "jax._src")))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_signal_ends_the_start_of_an_evaluation(tmp_path):
    process = begin("evaluate", str(tmp_path))
    wait_until_signals_are_taken(process)
    process.send_signal(signal.SIGINT)
    code, errors, _ = ending(process)
    assert (code, errors) == (EXIT_INTERRUPTED, "interrupted\n")


@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_help_into_a_pipe_that_closes(module):
    command = f"{sys.executable} -m purejaxppo.{module} --help | head -1"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (EXIT_OK, "")
    assert result.stdout.startswith(f"usage: python -m purejaxppo.{module}")
