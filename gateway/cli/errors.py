"""Why a command could not do what it was told."""

__all__ = ["CommandError"]


class CommandError(Exception):
    """Told to the person at the terminal in one line; the process exits with ``status``."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
