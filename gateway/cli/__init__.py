"""The command ``tfserving-gateway``: its words and flags; each is run by a module of its own."""

import argparse
import math
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateway.cli.errors import CommandError
from gateway.settings import PREFIX, Settings, SettingsInvalidError, load_settings

__all__ = ["main", "setting_flags"]

DEFAULT_URL = "http://127.0.0.1:8080"
METAVARS = {
    "tfserving": "HOST:PORT",
    "models": "NAME=LABELS",
    "request_timeout": "SECONDS",
    "drain_delay": "SECONDS",
    "drain_timeout": "SECONDS",
    "workers": "PROCESSES",
    "max_in_flight": "CALLS",
    "max_queue_size": "REQUESTS",
    "max_batch_size": "PICTURES",
    "config": "FILE",
    "tfserving_ca": "FILE",
    "tfserving_cert": "FILE",
    "tfserving_key": "FILE",
    "tls_cert": "FILE",
    "tls_key": "FILE",
    "tls_client_ca": "FILE",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit status: 0 done, 1 failed, 2 used wrongly."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except SettingsInvalidError as error:
        for problem in error.problems:
            print(f"tfserving-gateway: {problem}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"tfserving-gateway: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfserving-gateway",
        description="Object detection behind one plain HTTP call, in front of TensorFlow Serving.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('tfserving-gateway')}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_detect(commands)
    _add_models(commands)
    _add_plan(commands)
    _add_key(commands)
    _add_backend(commands)
    return parser


# A command's module is imported when it is run: --help is instant, and TensorFlow stays away.


def _add_serve(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        given = {name: getattr(args, name) for name, _, _ in setting_flags()}
        flags = {name: value for name, value in given.items() if value is not None}
        if "models" in flags:
            flags["models"] = dict(pair.partition("=")[::2] for pair in flags["models"])
        settings = load_settings(flags)
        if settings.workers > 1:
            from gateway.cli.workers import run  # noqa: PLC0415 - see above
        else:
            from gateway.cli.serve import run  # noqa: PLC0415 - see above

        return run(settings, lambda: load_settings(flags))

    parser = commands.add_parser(
        "serve",
        help="run the gateway",
        description="Run the gateway. A flag wins over the environment (each setting's name in"
        f" capitals behind {PREFIX}), the environment over --config, that over the default.",
    )
    for name, text, default in setting_flags():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=METAVARS.get(name, name.rpartition("_")[2].upper()),
            action="append" if name == "models" else "store",
            help=f"{text} (default: {default})".replace("%", "%%"),
        )
    parser.set_defaults(run=run)


def setting_flags() -> list[tuple[str, str, str]]:
    """Every setting as (name, what it means, its default in words)."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if field.default_factory is not None:
            words = "one for each CPU"
        elif default is None or default == {}:
            words = "none"
        else:
            words = str(default)
        rows.append((name, field.description or "", words))
    return rows


def _add_demo(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        from gateway.cli.demo import run  # noqa: PLC0415 - see above

        return run(args.host, args.port)

    parser = commands.add_parser(
        "demo",
        help="run the gateway and a detector of handwritten digits",
        description="Start an embedded model server with a detector of handwritten digits, and the"
        " gateway in front of it. To be run in a checkout of the project.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default="8080", help="port to listen on (default: 8080)")
    parser.set_defaults(run=run)


def _add_detect(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        from gateway.cli.detect import DetectOptions, run  # noqa: PLC0415 - see above

        names = ("images", "url", "key_file", "model", "threshold", "annotate", "json")
        return run(DetectOptions(**{name: getattr(args, name) for name in names}))

    parser = commands.add_parser(
        "detect",
        help="post pictures and print what is on them",
        description="Post pictures to a gateway and print what is found on them.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture's file")
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the gateway (default: {DEFAULT_URL})")
    _add_key_file(parser)
    parser.add_argument("--model", help="the model; may be left out when the gateway has only one")
    parser.add_argument("--threshold", type=float, help="score to exceed (default: the gateway's)")
    parser.add_argument("--annotate", type=Path, metavar="DIR", help="write pictures with boxes")
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture")
    parser.set_defaults(run=run)


def _add_models(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        from gateway.cli.models import run  # noqa: PLC0415 - see above

        return run(args.names, url=args.url, key_file=args.key_file)

    parser = commands.add_parser(
        "models",
        help="show the models that a gateway reaches",
        description="Show what TensorFlow Serving says of models: those that the gateway is"
        " configured for or was asked for, or those named.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model's name")
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the gateway (default: {DEFAULT_URL})")
    _add_key_file(parser)
    parser.set_defaults(run=run)


def _add_plan(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        from gateway.cli.plan import PlanOptions, run  # noqa: PLC0415 - see above

        names = (
            *("rate", "slo_ms", "url", "metrics_url", "key_file"),
            *("cost", "model", "max_batch_size", "cores"),
        )
        return run(PlanOptions(**{name: getattr(args, name) for name in names}))

    parser = commands.add_parser(
        "plan",
        help="say how many backends and gateways a load needs",
        description="Simulate a load with the gateway's own batching code, and say how many"
        " replicas of TensorFlow Serving and how many gateways it needs.",
    )
    parser.add_argument("--rate", type=_positive, required=True, help="requests a second")
    parser.add_argument(
        "--slo", dest="slo_ms", type=_positive, required=True, metavar="MS", help="p99 to keep"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="url", metavar="URL", help="a gateway that has served the model for a while"
    )
    parser.add_argument(
        "--metrics-from", dest="metrics_url", metavar="URL", help="its admin_port, where it has one"
    )
    _add_key_file(parser)
    source.add_argument("--cost", metavar="A,B", help="ms of a call: a + b * n for n pictures")
    parser.add_argument("--model", help="the model; may be left out when only one was used")
    parser.add_argument(
        "--max-batch-size",
        type=int,
        default=32,
        metavar="PICTURES",
        help="with --cost (default: 32)",
    )
    parser.add_argument("--cores", type=int, default=2, help="of each gateway (default: 2)")
    parser.set_defaults(run=run)


def _add_key(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        from gateway.cli.key import run  # noqa: PLC0415 - see above

        return run(args.name)

    parser = commands.add_parser(
        "key",
        help="make a key for a client",
        description="Print a new key, and the entry for the gateway's file of api_keys. The entry"
        " holds the key's hash alone.",
    )
    parser.add_argument("name", metavar="NAME", help="the client, as limits and log lines name it")
    parser.set_defaults(run=run)


def _add_key_file(parser: argparse.ArgumentParser) -> None:
    # No flag takes the key itself: everybody on the machine sees a command's arguments.
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="file that holds the key, if one is needed"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _add_backend(commands: Any) -> None:
    def run(args: argparse.Namespace) -> int:
        from gateway.backend.server import (  # noqa: PLC0415 - see above
            BackendOptions,
            BackendStartError,
            run,
        )

        try:
            return run(
                BackendOptions(
                    model_base_path=args.model_base_path,
                    model_name=args.model_name,
                    host=args.host,
                    port=args.port,
                    enable_serialization_as_tensor_content=args.as_tensor_content,
                )
            )
        except BackendStartError as error:
            raise CommandError(str(error)) from error

    parser = commands.add_parser(
        "backend",
        help="serve a SavedModel as TensorFlow Serving would, for development",
        description="Serve SavedModels over TensorFlow Serving's gRPC interface, on TensorFlow"
        " itself. For development; needs the extra `embedded`.",
    )
    parser.add_argument(
        "--model-base-path",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory with one subdirectory a version: DIR/1/saved_model.pb",
    )
    parser.add_argument("--model-name", metavar="NAME", help="(default: the directory's name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8500, help="port to listen on (default: 8500)")
    parser.add_argument(
        "--enable-serialization-as-tensor-content",
        dest="as_tensor_content",
        action="store_true",
        help="answer in tensor_content instead of float_val and its kin",
    )
    parser.set_defaults(run=run)
