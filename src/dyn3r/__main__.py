"""`python -m dyn3r`."""

import sys

from dyn3r.cli import main

sys.exit(main())
