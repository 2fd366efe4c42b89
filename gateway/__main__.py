"""``python -m gateway`` is ``tfserving-gateway``."""

from gateway.cli import main

raise SystemExit(main())
