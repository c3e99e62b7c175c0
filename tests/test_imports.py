"""Who may import whom: downwards only. And what importing may not bring along."""

import ast
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parent.parent / "purejaxppo"

# From the lowest up; a module may import modules of lower layers, and of its own.
_LAYERS = [
    ["platforms"],
    ["errors", "_xla", "numerics", "trees"],
    ["run.files"],
    ["env", "ranges"],
    ["registry", "hypers"],
    ["defaults"],
    ["presets"],
    ["config"],
    ["validation"],
    ["quarantine"],
    ["autoreset", "episodes"],
    ["policy.distributions", "policy.custom", "policy.dense"],
    ["policy.heads", "policy.custom_trunk", "check", "envs", "adapters"],
    ["policy.networks"],
    ["policy.policy"],
    ["ppo.reduce"],
    ["ppo.shards"],
    ["ppo.shuffle", "ppo.gae", "ppo.losses", "ppo.normalize", "ppo.demonstrations"],
    ["ppo.types"],
    ["ppo.coefficients", "ppo.optim", "ppo.rollout"],
    ["ppo.minibatch", "ppo.batch", "ppo.diagnostics"],
    ["ppo.epochs"],
    ["ppo.summary"],
    ["ppo.status", "ppo.evaluation", "ppo.imitation"],
    ["ppo.init", "ppo.update", "ppo.mesh"],
    ["ppo.learner"],
    ["doctor"],
    ["report"],
    ["run"],
    ["train", "export", "evaluate", "plot", "convert_demonstrations"],
    ["console", "sweep"],
    ["launch"],
]
_LAYER = {name: i for i, names in enumerate(_LAYERS) for name in names}
# Beyond the order: environments and adapters know the protocol alone, how to run code
# of others, and how whole episodes are played.
_ENVIRONMENTS_MAY = {
    *("platforms", "errors", "numerics", "trees", "env", "episodes"),
    "policy.distributions",
}
# The adapters that show our environments to others also build and reset them.
_OUTWARD_MAY = _ENVIRONMENTS_MAY | {"registry", "autoreset", "quarantine"}
_OUTWARD = ("adapters.batch", "adapters.for_", "adapters.gymnasium_spaces")
# Doctor and report read files: what they import must not bring a device along.
_NO_JAX = {"jax", "flax", "optax", "chex", "orbax"}


def _modules():
    files = [p for p in _ROOT.rglob("*.py") if "__pycache__" not in p.parts]
    assert len(files) > 20
    return files


def _name(path: pathlib.Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(path: pathlib.Path) -> set[str]:
    """Absolute names of all that a file imports, wherever in it."""
    package = ["purejaxppo", *path.relative_to(_ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import module` names the module by its alias.
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def _key(name: str) -> str | None:
    """The entry of the table that a module falls under: itself or its package."""
    while name and name not in _LAYER:
        name = name.rpartition(".")[0]
    return name or None


def _own_imports(path: pathlib.Path) -> set[str]:
    """Keys of the modules of this package that a file imports."""
    names = {
        name.removeprefix("purejaxppo.")
        for name in _imports(path)
        if name.startswith("purejaxppo.")
    }
    return {key for key in map(_key, names) if key is not None}


def _breaches(path: pathlib.Path) -> list[str]:
    name = _name(path)
    key = _key(name)
    if key is None:
        return [] if path.name == "__init__.py" else [f"{name} is in no layer"]
    higher = [
        f"{name} imports {other}"
        for other in _own_imports(path)
        if other != key and _LAYER[other] >= _LAYER[key]
    ]
    if key in ("envs", "adapters"):
        allowed = _OUTWARD_MAY if name.startswith(_OUTWARD) else _ENVIRONMENTS_MAY
        higher += [
            f"{name} imports {other}" for other in _own_imports(path) - allowed - {key}
        ]
    return higher


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_imports_point_downwards(path):
    assert _breaches(path) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ppo/gae.py", "from purejaxppo.ppo.learner import make_train"),
        ("ppo/gae.py", "from purejaxppo.ppo import learner"),
        ("ppo/gae.py", "from . import learner"),
        ("env.py", "import purejaxppo.config"),
        ("env.py", "from purejaxppo.registry import make_env"),
        ("config.py", "from purejaxppo.run.options import Options"),
        ("presets.py", "def f():\n    from purejaxppo.config import Config"),
        ("envs/mine/env.py", "from purejaxppo.config import Config"),
        ("adapters/mine.py", "from purejaxppo.ppo.reduce import mean"),
        ("adapters/mine.py", "from purejaxppo.registry import make_env"),
        ("adapters/for_mine.py", "from purejaxppo.config import Config"),
        ("ppo/gae.py", "def f():\n    from purejaxppo.run import runner"),
        ("unheard_of.py", "import jax"),
    ],
)
def test_a_planted_import_is_seen(name, line, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "_ROOT", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert len(_breaches(path)) >= 1


def test_no_module_imports_an_environment_by_itself():
    """Only the registry names them, as strings."""
    for path in _modules():
        if _key(_name(path)) != "envs":
            assert "envs" not in _own_imports(path), path


def test_presets_are_data():
    """Whoever wants to know them need not load the environment, or JAX."""
    files = list((_ROOT / "envs").glob("*/presets.py"))
    assert {p.parent.name for p in files} == {
        "hammer",
        "scheduler",
        "lifecycle",
        "deck",
    }
    for path in files:
        assert _imports(path) == set(), path


def _devices_in_the_doctor() -> list[str]:
    """Imports of doctor, report, and of what they import of ours, that bring JAX."""
    doctor = [*_ROOT.glob("doctor/*.py"), *_ROOT.glob("report/*.py")]
    names = {name for path in doctor for name in _own_imports(path)}
    files = [_ROOT / (name.replace(".", "/") + ".py") for name in names]
    return [
        f"{_name(path)} imports {name}"
        for path in [*doctor, *filter(pathlib.Path.exists, files)]
        for name in _imports(path)
        if name.split(".")[0] in _NO_JAX
    ]


def test_doctor_and_report_import_no_jax():
    assert _devices_in_the_doctor() == []


@pytest.mark.parametrize("line", ["import jax", "from purejaxppo import trees"])
def test_a_doctor_with_jax_is_seen(line, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "_ROOT", tmp_path)
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "rules.py").write_text(line)
    (tmp_path / "trees.py").write_text("import jax.numpy as jnp")
    assert len(_devices_in_the_doctor()) == 1


def test_the_report_is_quick_to_start():
    loaded = _loaded_after("import purejaxppo.report.__main__")
    assert "purejaxppo.report.page" in loaded
    assert loaded.isdisjoint(_NO_JAX | {"vl_convert", "matplotlib"})


def _loaded_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=_ROOT.parent,
    )
    return set(run.stdout.split())


def test_import_of_the_package_brings_no_jax():
    loaded = _loaded_after("import purejaxppo")
    assert "purejaxppo" in loaded
    assert loaded.isdisjoint(_NO_JAX | {"numpy"})


def test_a_learner_without_a_distribution_of_the_user_brings_no_distrax():
    """Its import takes a second: TFP is behind it."""
    loaded = _loaded_after(
        "from purejaxppo.config import Config\n"
        "from purejaxppo.ppo.learner import make_learner\n"
        "kwargs = {'continuous': True}\n"
        "make_learner(Config(env='tests.probe_envs:make', env_kwargs=kwargs))"
    )
    assert "purejaxppo.policy.custom" in loaded
    assert loaded.isdisjoint({"distrax", "tensorflow_probability"})


def test_import_of_the_learner_brings_no_environment():
    loaded = _loaded_after("import purejaxppo.ppo.learner")
    assert "purejaxppo.ppo.learner" in loaded
    assert not [n for n in loaded if n.startswith(("purejaxppo.envs.", "mujoco"))]
