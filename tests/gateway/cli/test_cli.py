"""The commands, against a real gateway in front of the fake TensorFlow Serving."""

import asyncio
import base64
import io
import json

import pytest
from PIL import Image

from gateway.cli import main


@pytest.fixture
def run(capsys):
    """Run a command line beside the event loop; its status, standard output and standard error."""

    async def command(*argv: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(main, argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def picture(photo, tmp_path):
    def write(name: str, *args) -> str:
        path = tmp_path / name
        path.write_bytes(base64.b64decode(photo(*args)))
        return str(path)

    return write


def url_of(gateway) -> str:
    return str(gateway.make_url("/")).rstrip("/")


async def test_detect_prints_a_table(start, run, picture):
    """One row a detection, with its label; the only model need not be named."""
    gateway = await start(models={"colors": "coco"})
    one, two = picture("one.png", (10, 0, 0)), picture("two.jpg", (120, 0, 0), (64, 48), "JPEG")
    status, out, err = await run("detect", "--url", url_of(gateway), one, two)
    assert (status, err) == (0, "")
    header, first, second = out.splitlines()
    assert header.split() == ["picture", "label", "score", "x1", "y1", "x2", "y2"]
    assert first.split() == ["one.png", "person", "0.900", "0.000", "0.250", "0.500", "0.750"]
    assert second.split()[:4] == ["two.jpg", "class", "12", "0.900"]


async def test_detect_json_and_threshold(start, run, picture):
    """--json prints an answer a line; in a table, a picture without detections says so."""
    gateway = await start(models={"colors": ""})
    arguments = ("--url", url_of(gateway), "--threshold", "0.95", picture("a.png"))
    status, out, _ = await run("detect", "--json", *arguments)
    assert (status, json.loads(out)["detections"]) == (0, [])
    _, out, _ = await run("detect", *arguments)
    assert "(nothing)" in out


async def test_detect_annotates(start, run, picture, tmp_path):
    """--annotate writes each picture anew, at its size, with its boxes drawn."""
    gateway = await start(models={"colors": ""})
    path = picture("a.png", (10, 0, 0), (320, 240))
    target = tmp_path / "new" / "drawn"
    status, _, _ = await run("detect", "--url", url_of(gateway), "--annotate", str(target), path)
    assert status == 0
    drawn = Image.open(io.BytesIO((target / "a.detections.jpg").read_bytes()))
    assert drawn.size == (320, 240)
    assert len(drawn.getcolors(1 << 20)) > 10


async def test_detect_goes_on_after_a_failure(start, run, picture, tmp_path):
    """A picture that fails is told on standard error; the others are printed, the status is 1."""
    gateway = await start(models={"colors": ""})
    text = tmp_path / "text.png"
    text.write_text("no picture")
    names = (picture("a.png"), str(text), str(tmp_path / "missing.png"), picture("b.png"))
    status, out, err = await run("detect", "--url", url_of(gateway), *names)
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["a.png", "b.png"]
    assert "text.png: image: " in err
    assert "missing.png: cannot read it" in err


async def test_detect_wants_a_model_when_there_are_several(start, run, picture):
    """With two models or none, --model has to be given."""
    for models, named in [({"a": "", "b": ""}, "a, b"), ({}, "none configured")]:
        gateway = await start(models=models)
        status, _, err = await run("detect", "--url", url_of(gateway), picture("a.png"))
        assert status == 2
        assert named in err


async def test_no_gateway_there(run, picture, serving):
    """A URL where nothing answers, or something else does, is told in a line."""
    path = picture("a.png")
    for url, reason in [
        ("http://127.0.0.1:1", "no gateway answers"),
        ("nonsense", "not the URL"),
        (f"http://{serving.address}", "no gateway answers"),
    ]:
        status, _, err = await run("detect", "--model", "m", "--url", url, path)
        assert status in (1, 2)
        assert reason in err
        assert len(err.splitlines()) == 1


async def test_detect_cannot_write(start, run, picture, tmp_path):
    """A directory that cannot be made is told before anything is posted."""
    gateway = await start(models={"colors": ""})
    path = picture("a.png")
    status, _, err = await run("detect", "--url", url_of(gateway), "--annotate", path, path)
    assert status == 1
    assert "cannot make" in err


async def test_models_prints_a_table(start, run, serving, fake_model):
    """A row a model with its state, signature, input, batching and labels, or its problem."""
    serving.models["one"] = fake_model(shape=(1, 300, 300, 3), version=4)
    gateway = await start(models={"colors": "coco", "one": ""})
    status, out, _ = await run("models", "--url", url_of(gateway))
    assert status == 0
    _, colors, one = (" ".join(line.split()) for line in out.splitlines())
    assert colors == ("colors 1 AVAILABLE serving_default inputs: uint8 pixels, any size yes 80")
    assert one == "one 4 AVAILABLE serving_default inputs: uint8 pixels, 300x300 no none"
    status, out, _ = await run("models", "--url", url_of(gateway), "ghost")
    assert status == 1
    assert "no model 'ghost'" in out
    empty = await start()
    _, out, _ = await run("models", "--url", url_of(empty))
    assert "(none" in out


async def test_settings_at_fault(run):
    """serve names every mistake in its settings on standard error and exits with 2."""
    status, _, err = await run("serve", "--port", "x", "--max-pixels", "0")
    assert status == 2
    assert len(err.splitlines()) == 2
    assert "port: " in err
    assert "max_pixels: " in err


async def test_label_maps_at_fault(run, tmp_path):
    """Every label map that cannot be read is named before the gateway starts."""
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    status, _, err = await run(
        "serve", "--port", "0", "--models", f"a={bad}", "--models", "b=/nowhere.txt"
    )
    assert status == 2
    assert "bad.json" in err
    assert "nowhere.txt" in err


async def test_the_demo_needs_its_model(run, tmp_path, monkeypatch):
    """Outside a checkout the demo says what is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gateway.cli.demo.__file__", str(tmp_path / "a" / "b" / "c" / "demo.py"))
    status, _, err = await run("demo")
    assert status == 1
    assert "checkout" in err


async def test_key_and_key_file(start, run, picture, tmp_path):
    """`key` makes a key and its entry; detect, models and plan take it from a file."""
    status, entry, told = await run("key", "camera-1")
    secret = told.splitlines()[1]
    assert (status, len(secret)) == (0, 43)
    assert secret not in entry  # which may be appended to the file as it is
    keys, key_file = tmp_path / "keys.yaml", tmp_path / "key"
    keys.write_text(f"- {{name: b, sha256: {'a' * 64}}}\n{entry}")
    key_file.write_text(f"{secret}\n")
    gateway = await start(models={"colors": ""}, api_keys=str(keys))
    url, path = url_of(gateway), picture("a.png")
    for command in (
        ("detect", "--url", url, path),
        ("models", "--url", url),
        ("plan", "--rate", "1", "--slo", "100", "--from", url),
    ):
        status, _, err = await run(*command)
        assert status == 1
        assert "tfserving-gateway: the gateway refuses: a key is needed" in err
        status, _, err = await run(*command, "--key-file", str(key_file))
        assert "refuses" not in err
        assert status == 0 or command[0] == "plan"  # which has nothing to plan with yet
    status, _, err = await run("key", "two words")
    assert status == 2
    assert "name" in err


@pytest.mark.parametrize("content", [None, b"", b"two words", b"a\nb", b"\xff"])
async def test_key_files_at_fault(run, tmp_path, content):
    """A file that is not there, or holds something else than a key, is told without it."""
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    status, _, err = await run("models", "--key-file", str(file))
    assert status == 2
    assert str(file) in err
    assert "words" not in err


async def test_workers_without_temporary_files(run, monkeypatch):
    """As in a container that may only be read: what is missing is told in a line."""

    def mkdtemp(**_):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)
    status, _, err = await run("serve", "--port", "0", "--workers", "2")
    assert status == 1
    assert "tmpfs" in err


async def test_keys_at_fault(run, tmp_path):
    """A file of keys with mistakes is told before the gateway starts."""
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: a, sha256: b}\n- {name: b}")
    status, _, err = await run("serve", "--port", "0", "--api-keys", str(keys))
    assert status == 2
    assert "entry 1 (a): sha256" in err
    assert "entry 2 (b): sha256" in err


async def test_plan_wants_the_metrics(start, run):
    """Where they are on a port of their own, it has to be told."""
    gateway = await start(models={"colors": ""}, admin_port=0)
    status, _, err = await run("plan", "--rate", "1", "--slo", "100", "--from", url_of(gateway))
    assert status == 2
    assert "--metrics-from" in err
