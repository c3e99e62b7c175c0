"""What the package promises by name."""

import ast
import copy
import importlib
import os
import re
from pathlib import Path

import jax
import pytest
from helpers import assert_trees_equal, small_config

import purejaxppo
from purejaxppo import _xla


@pytest.mark.parametrize("name", purejaxppo.__all__)
def test_every_public_name_resolves(name):
    assert getattr(purejaxppo, name) is not None


def static_names() -> dict[str, str]:
    """Public name -> module, as the imports for type checkers and editors say it."""
    tree = ast.parse(Path(purejaxppo.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_static_and_lazy_names_agree():
    assert static_names() == purejaxppo._MODULES
    assert set(purejaxppo.__all__) == {*purejaxppo._MODULES, "__version__"}
    assert purejaxppo.__all__ == sorted(purejaxppo.__all__)
    assert set(purejaxppo.__all__) <= set(dir(purejaxppo))


def test_what_the_readme_sends_people_to_is_public():
    names = (
        "make_train Config Hypers evaluate load_policy Env State EnvSpec Box Discrete "
        "Choice Custom make_env check_env __version__"
    )
    assert set(names.split()) == set(purejaxppo.__all__)


def test_type_checkers_are_told_that_there_are_types():
    assert (Path(purejaxppo.__file__).parent / "py.typed").exists()


def test_evaluate_is_the_function_whatever_is_imported():
    with pytest.raises(ImportError, match=r"python -m purejaxppo\.evaluate RUN"):
        importlib.import_module("purejaxppo.evaluate")
    assert purejaxppo.evaluate.__module__ == "purejaxppo.run.trained"
    assert callable(purejaxppo.evaluate)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'make_trian'"):
        _ = purejaxppo.make_trian


def test_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", purejaxppo.__version__)


def test_make_train_does_not_change_the_configuration():
    config = small_config(env_kwargs={"kind": "both"}, gamma=0.9)
    before = copy.deepcopy(config)
    train = purejaxppo.make_train(config)
    assert config == before
    jax.eval_shape(train, jax.random.key(0))
    assert config == before


def test_train_does_not_change_its_arguments():
    config = small_config()
    train = purejaxppo.make_train(config)
    hypers = purejaxppo.Hypers(gamma=0.5)
    jax.eval_shape(train, jax.random.key(0), hypers)
    assert_trees_equal(hypers, purejaxppo.Hypers(gamma=0.5))


@pytest.mark.parametrize(
    ("cores", "given", "expected"),
    [(2, None, "4"), (2, "3", "3"), (8, None, None), (None, None, "4")],
)
def test_few_cores_get_threads_enough(cores, given, expected, monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    if given is not None:
        monkeypatch.setenv("NPROC", given)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    _xla.prepare()
    assert os.environ.get("NPROC") == expected
    # Whatever prepare() wrote is taken back with the rest.
    monkeypatch.setenv("NPROC", "4")
