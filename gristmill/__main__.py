"""`python -m jobs` is `gristmill`."""

import sys

from jobs.cli import main

sys.exit(main())
