"""Servers under test are measured and stopped with everything that they started."""

import os
import sys

import pytest

from bench import processes

SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler)
server.serve_forever()
"""


def test_a_server_is_measured_and_stopped_with_its_children() -> None:
    """The child that the server left behind is in the tree, and gone after the block."""
    port = processes.free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    with processes.running(command, f"127.0.0.1:{port}") as server:
        family = processes.tree(server.pid)
        assert len(family) == 2
        assert os.getpid() not in family
        assert sum(processes.cpu(server.pid)) > 0
        assert processes.memory(server.pid) > 1_000_000
        assert processes.descriptors(server.pid) > len(family)
        assert processes.waited(server.pid) >= 0
    assert not any(map(processes.alive, family))


def test_a_server_that_ends_at_once_is_reported_with_its_last_words() -> None:
    """Nobody waits for a process that is gone."""
    command = [sys.executable, "-c", "print('no such flag'); raise SystemExit(2)"]
    with (
        pytest.raises(RuntimeError, match="no such flag"),
        processes.running(command, "127.0.0.1:1"),
    ):
        pass
