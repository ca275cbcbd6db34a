"""`python -m lewm` is `lewm`."""

import sys

from lewm.cli import main

sys.exit(main())
