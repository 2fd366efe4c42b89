"""The same job done with what a user would pick instead, each in an environment of its own.

    python -m bench.peers mosec litserve     # makes the environments of these, or of all

Each ``NAME_service.py`` is the service; ``requirements/NAME.txt`` pins what it needs.
"""

from pathlib import Path

__all__ = ["NAMES", "command", "environment", "installed", "python"]

HERE = Path(__file__).parent
NAMES = tuple(sorted(file.stem for file in (HERE / "requirements").glob("*.txt")))
ENVELOPES = {"bentoml": "[{}]"}  # a batchable endpoint of BentoML takes a list


def python(name: str) -> Path:
    """Return the interpreter of a peer's environment, which may not be there yet."""
    return HERE.parent / ".venvs" / name / "bin" / "python"


def installed(name: str) -> bool:
    """Say whether the environment is complete: it was made for the requirements as they are now."""
    mark = python(name).parent.parent / "requirements.txt"
    wanted = (HERE / "requirements" / f"{name}.txt").read_text()
    return mark.exists() and mark.read_text() == wanted


def command(name: str, port: int) -> list[str]:
    """Return the command that serves ``name``."""
    if name == "flask":
        address = f"127.0.0.1:{port}"
        gunicorn = ["-m", "gunicorn", "-w", "4", "-b", address, "--log-level", "warning"]
        return [str(python(name)), *gunicorn, "bench.peers.flask_service:app"]
    return [str(python(name)), "-m", f"bench.peers.{name}_service"]


def environment(port: int, backend: str, model: str, style: str) -> dict[str, str]:
    """Return the variables that tell a peer its port, backend, model and style (``common``)."""
    return {
        "BENCH_PORT": str(port),
        "BENCH_BACKEND": backend,
        "BENCH_MODEL": model,
        "BENCH_STYLE": style,
    }
