"""Settings: where they come from, who wins, and how mistakes are told."""

from pathlib import Path

import pytest

from gateway.cli import main, setting_flags
from gateway.settings import Settings, SettingsInvalidError, load_settings

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in (*Settings.model_fields, "tfserving_host", "tfserving_port"):
        monkeypatch.delenv(f"APP_{name.upper()}", raising=False)


def test_defaults():
    """Without anything given, the defaults hold; the settings cannot be changed afterwards."""
    settings = load_settings({})
    assert (settings.tfserving, settings.port) == ("127.0.0.1:8500", 8080)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_flags_over_environment_over_file_over_defaults(monkeypatch, tmp_path):
    """Each source wins over those after it; models of several sources are all there."""
    file = tmp_path / "gateway.yaml"
    file.write_text("port: 1\nmax_batch_size: 1\nmax_in_flight: 1\nmodels: {a: coco, b: , c: {}}\n")
    monkeypatch.setenv("APP_PORT", "2")
    monkeypatch.setenv("APP_MAX_BATCH_SIZE", "2")
    settings = load_settings({"port": "3", "config": str(file)})
    assert (settings.port, settings.max_batch_size, settings.max_in_flight) == (3, 2, 1)
    assert {name: model.labels for name, model in settings.models.items()} == {
        "a": "coco",
        "b": None,
        "c": None,
    }
    monkeypatch.setenv("APP_CONFIG", str(file))
    assert load_settings({}).max_in_flight == 1
    monkeypatch.setenv("APP_MODELS", '{"x": "coco"}')
    assert set(load_settings({}).models) == {"a", "b", "c", "x"}


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ({"TFSERVING_HOST": "serving"}, "serving:8500"),
        ({"TFSERVING_PORT": "9000"}, "127.0.0.1:9000"),
        ({"TFSERVING_HOST": "serving", "TFSERVING_PORT": "9000"}, "serving:9000"),
        ({"TFSERVING_HOST": "old", "TFSERVING": "new:1"}, "new:1"),
        ({"TFSERVING": "unix:/run/serving.sock"}, "unix:/run/serving.sock"),
    ],
    ids=str,
)
def test_the_address_in_either_spelling(monkeypatch, env, address):
    """APP_TFSERVING_HOST and APP_TFSERVING_PORT still work; APP_TFSERVING wins over them."""
    for name, value in env.items():
        monkeypatch.setenv(f"APP_{name}", value)
    assert load_settings({}).tfserving == address


def test_all_mistakes_are_named_at_once(monkeypatch):
    """Flags, environment and file are judged together, each mistake with its setting and value."""
    monkeypatch.setenv("APP_MAX_PIXELS", "many")
    with pytest.raises(SettingsInvalidError) as caught:
        load_settings({"port": "70000", "tfserving": "nowhere", "log_format": "xml"})
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    for name, value in [
        ("max_pixels", "many"),
        ("port", "70000"),
        ("tfserving", "nowhere"),
        ("log_format", "xml"),
    ]:
        assert f"{name}: " in problems
        assert repr(value) in problems


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("port: [", "is not YAML"),
        ("- port", "no mapping"),
        ("prot: 80", "prot"),
        ("tfserving: http://localhost:8501", "and no URL"),
        ("models: {a: {label: coco}}", "models.a.label"),
        ("models: {a: {batch_sizes: [4, 0]}}", "models.a.batch_sizes.1"),
        ("port: true", None),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_mistakes_in_the_file(tmp_path, content, reason):
    """A file that is no YAML, or has a setting that does not exist, is refused with its name."""
    file = tmp_path / "gateway.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    if reason is None:
        assert load_settings({"config": str(file)}).port == 1
        return
    with pytest.raises(SettingsInvalidError, match=reason.replace(".", r"\.")):
        load_settings({"config": str(file)})


def test_files_that_are_missing_or_empty(tmp_path):
    """A file that cannot be read is refused by name; an empty one changes nothing."""
    with pytest.raises(SettingsInvalidError, match=r"cannot read .*nothing\.yaml"):
        load_settings({"config": str(tmp_path / "nothing.yaml")})
    empty = tmp_path / "empty.yaml"
    empty.touch()
    assert load_settings({"config": str(empty)}).port == 8080


def test_environment_that_is_no_json(monkeypatch):
    """A mapping in the environment must be JSON, and the mistake is told as any other."""
    monkeypatch.setenv("APP_MODELS", "{a")
    with pytest.raises(SettingsInvalidError, match="models"):
        load_settings({})


def test_help_is_the_table_of_settings(capsys, monkeypatch):
    """serve --help lists every setting with its meaning and its default."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for name, meaning, default in setting_flags():
        assert f"--{name.replace('_', '-')} " in text
        assert f"{meaning} (default: {default})" in text


def test_readme_has_the_same_table():
    """Each setting has its row in the README, as the code has it; no row is without a setting."""
    rows = [f"| `{name}` | {default} | {meaning} |" for name, meaning, default in setting_flags()]
    table = (
        README.read_text().partition("| setting | default | meaning |\n")[2].partition("\n\n")[0]
    )
    assert table.splitlines()[1:] == rows
