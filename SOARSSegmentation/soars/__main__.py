"""``python -m soars`` is the command line."""

from __future__ import annotations

import sys

from soars.cli import main

sys.exit(main())
