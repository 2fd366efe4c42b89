"""Every setting: its name, default, range and meaning. Only here is the environment read."""

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway.tls import PemFiles

__all__ = ["RELOADED", "ModelSettings", "Settings", "SettingsInvalidError", "load_settings"]

MIB = 1 << 20
PREFIX = "APP_"
RELOADED = ("models", "api_keys")
"""Settings that may change while running."""
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9]\d{0,4})?")


class SettingsInvalidError(Exception):
    """The settings cannot be used; ``problems`` names every mistake, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


BatchSize = Annotated[int, Field(ge=1, le=4096)]


def _sorted(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(sizes))


class ModelSettings(BaseModel):
    """What the gateway is told of one model, beside what TensorFlow Serving says of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str | None = Field(
        None, description="`coco`, or the path of a label map: .pbtxt, .json or .txt"
    )
    batch_sizes: Annotated[tuple[BatchSize, ...], AfterValidator(_sorted)] = Field(
        (), description="the only batch sizes that the model was compiled for; others are padded"
    )


def _model_settings(value: Any) -> Any:
    """Let a model be given by its labels alone, or by nothing."""
    if value is None or isinstance(value, str):
        return {"labels": value or None}
    return value


class Settings(BaseSettings):
    """The settings of ``serve``: flags win over the environment, it over the file, it over this."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    tfserving: str = Field(
        "127.0.0.1:8500",
        min_length=1,
        description="TensorFlow Serving's gRPC address, HOST:PORT or unix:/path, or several with"
        " commas; a name may stand for many machines; the environment may also give one as"
        " APP_TFSERVING_HOST and APP_TFSERVING_PORT",
    )
    tfserving_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that TensorFlow Serving's certificate must come"
        " from; with it, the channels speak TLS",
    )
    tfserving_cert: Path | None = Field(
        None,
        description="PEM file of the gateway's own certificate, where TensorFlow Serving asks for"
        " one",
    )
    tfserving_key: Path | None = Field(
        None, description="PEM file of the key of tfserving_cert, without a passphrase"
    )
    tfserving_server_name: str | None = Field(
        None,
        min_length=1,
        description="name that TensorFlow Serving's certificate must be for; by default the host in"
        " tfserving",
    )
    models: dict[str, Annotated[ModelSettings, BeforeValidator(_model_settings)]] = Field(
        {},
        description="models that /readyz asks for, each with its labels: NAME=LABELS, where LABELS"
        " is `coco` or the path of a label map, or NAME alone; the flag may be repeated",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    admin_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port for /metrics, /healthz and /readyz, which are then not on the other one;"
        " by default they are there too",
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file of the certificate of the port, with its chain; with it, the port"
        " speaks HTTPS",
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the key of tls_cert, without a passphrase"
    )
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that a client's certificate must come from; with"
        " it, nobody is served without one",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="processes; more than one only where one event loop is full, since each has"
        " batches, limits and decoding threads of its own",
    )
    request_timeout: float = Field(
        5.0, gt=0, le=3600, description="seconds from a request's arrival to its answer, else 504"
    )
    decode_threads: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=256,
        description="threads that decode pictures; by default one for each CPU",
    )
    max_batch_size: int = Field(32, ge=1, le=4096, description="pictures in one Predict call")
    max_in_flight: int = Field(
        32,
        ge=1,
        le=256,
        description="Predict calls that may run at the same time; how many are worth it is learnt",
    )
    hedging: bool = Field(
        True,
        description="send a Predict call that is late (slower than 99 of 100) to a second replica"
        " too; the first answer counts",
    )
    max_queue_size: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="requests that may be read, decoded or wait for a batch, else 503",
    )
    client_rate: float | None = Field(
        None, gt=0, description="requests a second that one client may send, else 429"
    )
    client_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of max_queue_size, what one client may have inside at a time, else 429",
    )
    client_header: str | None = Field(
        None,
        min_length=1,
        description="header that names the client for these limits, where a proxy vouches for it;"
        " by default the address it comes from; with api_keys, it is the key that names it",
    )
    api_keys: Path | None = Field(
        None,
        description="YAML file of the keys that clients need; by default they need none; read again"
        " on SIGHUP",
    )
    cors_origins: str | None = Field(
        None,
        description="origins whose pages may ask from within a browser, such as"
        " https://example.org, with commas, or *; by default none",
    )
    max_pending_bytes: int = Field(
        512 * MIB,
        ge=MIB,
        description="memory for bodies, decoding and decoded pictures, else 503; 413 for a picture"
        " that needs more alone",
    )
    header_timeout: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="seconds in which a request's head has to arrive, from the connection or from"
        " the head's first byte, else the connection is closed",
    )
    min_body_rate: int = Field(
        1024,
        ge=0,
        description="bytes a second that a request's body has to bring after its first second,"
        " else 408",
    )
    max_body_bytes: int = Field(32 * MIB, ge=1, description="length of a request's body, else 413")
    max_pixels: int = Field(
        50_000_000, ge=1, description="width times height of a picture, else 413"
    )
    max_message_bytes: int = Field(
        256 * MIB,
        ge=MIB,
        lt=2048 * MIB,
        description="size of a gRPC message: batches are cut to it, larger answers are refused",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="seconds after SIGTERM in which requests are still taken while /readyz answers"
        " 503, for balancers that take their time",
    )
    drain_timeout: float = Field(
        10.0, ge=0, le=3600, description="seconds that requests then get to finish"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="log lines; auto is text on a terminal and JSON elsewhere"
    )
    config: Path | None = Field(None, description="YAML file of settings, under the names above")

    @field_validator("tfserving")
    @classmethod
    def _address(cls, value: str) -> str:
        for address in map(str.strip, value.split(",")):
            if address.startswith("unix:"):
                continue
            if "://" in address:
                raise ValueError("is gRPC's HOST:PORT, as in localhost:8500, and no URL")
            host, colon, port = address.rpartition(":")
            if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
                raise ValueError("is not HOST:PORT, as in localhost:8500")
            if ":" in host and not (host.startswith("[") and host.endswith("]")):
                raise ValueError("has an IPv6 address without brackets, as in [::1]:8500")
        return value

    @field_validator("admin_port")
    @classmethod
    def _another_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and value == info.data.get("port"):
            raise ValueError("is the port for requests; it has to be another one")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str | None) -> str | None:
        for origin in map(str.strip, (value or "*").split(",")):
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError("is not SCHEME://HOST or SCHEME://HOST:PORT in lower case, or *")
        return value

    @property
    def origins(self) -> frozenset[str]:
        """Those of ``cors_origins``, one by one."""
        return (
            frozenset(map(str.strip, self.cors_origins.split(",")))
            if self.cors_origins
            else frozenset()
        )

    @field_validator("tfserving_ca", "tfserving_cert", "tls_cert", "tls_client_ca")
    @classmethod
    def _certificates(cls, value: Path | None) -> Path | None:
        PemFiles(ca=value).load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return value

    @field_validator("tfserving_key", "tls_key")
    @classmethod
    def _key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        of = (info.field_name or "").replace("key", "cert")
        if of in info.data:  # else it is at fault itself
            cert = info.data[of]
            if (value is None) is not (cert is None):
                raise ValueError(f"and {of} are of use together only")
            PemFiles(cert=cert, key=value).load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return value

    @field_validator("tfserving_cert", "tfserving_server_name", "tls_client_ca")
    @classmethod
    def _part_of_tls(cls, value: Any, info: ValidationInfo) -> Any:
        needed = "tls_cert" if info.field_name == "tls_client_ca" else "tfserving_ca"
        if value is not None and info.data.get(needed, ...) is None:
            raise ValueError(f"is of no use without {needed}")
        return value

    @property
    def addresses(self) -> list[str]:
        """Those of ``tfserving``, one by one."""
        return [address.strip() for address in self.tfserving.split(",")]

    def places(self, share: float | None) -> int | None:
        """How many requests of one client may be inside, by its share; None if that is None."""
        return None if share is None else max(1, int(share * self.max_queue_size))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment under both of its spellings, then the file."""
        given = init_settings()
        path = given.get("config") or os.environ.get(f"{PREFIX}CONFIG")
        return (
            init_settings,
            env_settings,
            _HostAndPort(settings_cls),
            InitSettingsSource(settings_cls, _read_yaml(Path(path)) if path else {}),
        )


class _HostAndPort(PydanticBaseSettingsSource):
    """APP_TFSERVING_HOST and APP_TFSERVING_PORT, as the service that this one replaces had them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        host = os.environ.get(f"{PREFIX}TFSERVING_HOST")
        port = os.environ.get(f"{PREFIX}TFSERVING_PORT")
        if not host and not port:
            return {}
        return {"tfserving": f"{host or '127.0.0.1'}:{port or 8500}"}


def load_settings(flags: dict[str, Any]) -> Settings:
    """Make the settings of flags, environment and file.

    Raises
    ------
    SettingsInvalidError
        Naming every mistake at once, each with the setting and what was expected.
    """
    try:
        return Settings(**flags)
    except ValidationError as error:
        problems = []
        for mistake in error.errors():
            name = ".".join(map(str, mistake["loc"])) or "settings"
            reason = mistake["msg"].removeprefix("Value error, ")
            problems.append(f"{name}: {reason[:1].lower()}{reason[1:]} (got {mistake['input']!r})")
        raise SettingsInvalidError(problems) from None
    except SettingsError as error:
        raise SettingsInvalidError([f"{error}: {error.__cause__}"]) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsInvalidError([f"config: cannot read {path}: {error.strerror}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsInvalidError([f"config: {path} is not YAML: {error}"]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsInvalidError([f"config: {path} holds no mapping of settings"])
    return {str(name): value for name, value in content.items()}
