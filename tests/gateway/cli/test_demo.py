"""The demo as a newcomer meets it: real processes, the real model, the line that it prints."""

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "examples" / "digits" / "samples"


async def shell(command: str) -> str:
    """Run a line as a person would paste it, in the checkout."""
    process = await asyncio.create_subprocess_shell(
        command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_demo(spawn, tmp_path):
    """The printed curl line answers with the right digits; so does detect for other samples."""
    demo = await spawn("demo", "--port", "0")
    await demo.line(r"^model server: loading TensorFlow")
    await demo.line(r"^model server: listening on ")
    printed = ""
    while "Ctrl-C ends" not in printed:
        printed += (await demo.process.stdout.readline()).decode()
    url = re.search(r"listens on (http://\S+:\d+)", printed)[1]
    (curl,) = re.findall(r"^  (echo .*)$", printed, re.MULTILINE)
    answer = json.loads(await shell(curl))
    assert digits(answer) == "375"

    expected = json.loads((SAMPLES / "samples.json").read_text())
    command = await spawn_detect(spawn, url, tmp_path, expected)
    found = {Path(line["image"]).name: digits(line) for line in command}
    for name, right in expected.items():
        if name == "small-digits.jpg":  # a twentieth of the picture each: most of them are found
            assert len(found[name]) >= len(right) / 2
        else:
            assert found[name] == right
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{Path(name).stem}.detections.jpg" for name in expected
    }
    demo.signal(signal.SIGTERM)
    assert await demo.end() == 0


async def spawn_detect(spawn, url: str, folder: Path, names) -> list[dict]:
    pictures = [str(SAMPLES / name) for name in names]
    detect = await spawn("detect", "--json", "--url", url, "--annotate", str(folder), *pictures)
    out, _ = await detect.process.communicate()
    assert detect.process.returncode == 0
    return [json.loads(line) for line in out.decode().splitlines()]


def digits(answer: dict) -> str:
    """The labels of an answer from left to right."""
    found = sorted(answer["detections"], key=lambda one: one["hit_box"]["x1"])
    return "".join(one["class_label"] for one in found)


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
async def test_the_demo_ends_both_of_its_processes(spawn, word):
    """However it is stopped, the model server goes with the demo."""
    demo = await spawn("demo", "--port", "0")
    await demo.line(r"listening on ")
    while "Ctrl-C ends" not in (await demo.process.stdout.readline()).decode():
        pass
    (server,) = demo.children()
    demo.signal(word)
    assert await demo.end() == 0
    assert not server.exists()
