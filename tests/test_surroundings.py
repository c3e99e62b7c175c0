"""What surrounds a run: the user's home, the locale, variables, files left behind."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from bad_config_files import make_run

from purejaxppo import evaluate
from purejaxppo.errors import EXIT_USAGE, ConfigError
from purejaxppo.run import checkpoint, compiler, folder

TESTS = Path(__file__).parent
FLAGS = (
    "--env probe_envs:make --env-kwargs kind=observation --num-envs 2 --num-steps 4 "
    "--num-minibatches 1 --num-epochs 1 --total-timesteps 8 --hidden-sizes 4 "
    "--critic-hidden-sizes 4 --num-evals 1 --eval-episodes 1 "
    "--no-tensorboard --no-report"
).split()


def command(*words: str, **variables: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_user_without_a_home_has_no_compilation_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        compiler.use_compilation_cache()
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_temporary_file_of_a_killed_start_does_not_fill_a_folder(tmp_path):
    (tmp_path / "config.tmp").touch()
    folder.create(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(ConfigError, match="allowed is a new or empty folder"):
        folder.create(tmp_path)


def test_numbers_of_64_bits_are_refused(tmp_path):
    words = ["purejaxppo.train", *FLAGS, "--run-dir", str(tmp_path / "run")]
    result = command(*words, JAX_ENABLE_X64="1")
    assert result.returncode == EXIT_USAGE
    assert result.stderr.startswith("JAX_ENABLE_X64: got True; allowed is False")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
    make_run(tmp_path / "run")
    words = ["purejaxppo.evaluate", str(tmp_path / "run"), *FLAGS[:2]]
    result = command(*words, JAX_ENABLE_X64="1")
    assert result.returncode == EXIT_USAGE
    assert result.stderr.startswith("JAX_ENABLE_X64: got True; allowed is False")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["purejaxppo.train", *FLAGS, "--run-dir"], "run_dir"),
        (["purejaxppo.train", "--resume"], "resume"),
        (["purejaxppo.evaluate"], "run"),
    ],
)
def test_a_path_that_the_locale_cannot_read_is_refused(words, field, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = command(*words, str(tmp_path / "za\u017c\u00f3\u0142\u0107"), **plain)
    assert result.returncode == EXIT_USAGE
    assert result.stderr.startswith(f"{field}: got ")
    assert "allowed is a path that this locale can read" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_too_many_episodes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"episodes: got 999999999999; allowed is a"):
        evaluate(tmp_path, episodes=999_999_999_999)


def test_a_folder_of_another_kind_of_digit_is_no_checkpoint(tmp_path):
    (tmp_path / "²").mkdir()
    (tmp_path / "²" / "done").touch()
    assert checkpoint.steps(tmp_path) == []
    checkpoint.prune(tmp_path, 1, set())
    assert (tmp_path / "²").exists()
