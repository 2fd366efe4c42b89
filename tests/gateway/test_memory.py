"""What is done once about the process's memory."""

import subprocess
import sys

PROGRAM = """
import gc
from gateway import app
from gateway.memory import spare_what_stays
spare_what_stays()
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_what_was_there_at_the_start_is_not_looked_at_again():
    """A full collection passes over all that importing the gateway has made."""
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True
    )
    spared, looked_at = map(int, ran.stdout.split())
    assert spared > 50_000
    assert looked_at < spared / 50
