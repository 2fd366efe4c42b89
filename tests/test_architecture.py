"""The structure holds: every module has its place, state and environment stay where they belong."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for package in ("batching", "gateway")
    for path in sorted((ROOT / package).rglob("*.py"))
    if not path.name.endswith("_pb2.py")
]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_part_has_a_place():
    """Each module or package of the gateway stands in the layers, or apart from them by name."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    layers = config["importlinter:contract:layers"]["layers"].replace("|", "\n").split()
    parts = {
        f"gateway.{path.stem}"
        for path in (ROOT / "gateway").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - set(layers) == {"gateway.__init__", "gateway.__main__", "gateway.backend"}
    assert set(layers) <= parts


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_no_mutable_state_at_module_level(path):
    """No module rebinds a global; lists, dicts and sets at its top are constants by name."""
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        mutable = isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp)
        for target in targets:
            if mutable and isinstance(target, ast.Name):
                assert target.id.isupper() or target.id.startswith("__"), target.id


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_the_environment_is_read_in_settings_alone(path):
    """os.environ and os.getenv stand in gateway/settings.py; elsewhere a default may be set."""
    if path == ROOT / "gateway" / "settings.py":
        return
    text = path.read_text().replace("os.environ.setdefault(", "")
    assert "os.environ" not in text
    assert "getenv" not in text


def test_files_stay_small():
    """No file of ours is longer than about 400 lines."""
    long = {
        ids(path): lines
        for folder in ("batching", "gateway", "tests", "bench", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if not path.name.endswith("_pb2.py") and ".venvs" not in path.parts
        if (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long


def test_the_tests_that_the_threat_model_names_are_there():
    """Each defence in docs/security.md is shown by a test file that exists."""
    text = (ROOT / "docs" / "security.md").read_text()
    names = set(re.findall(r"`((?:\w+/)?test_\w+\.py)`", text))
    assert len(names) > 8
    there = {
        str(path.relative_to(base))
        for base in (ROOT / "tests", ROOT / "tests" / "gateway")
        for path in base.rglob("test_*.py")
    }
    assert names <= there
