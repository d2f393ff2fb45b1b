"""`python -m dyn3r`."""

import sys

from dyn3r.cli.main import main

sys.exit(main())
