"""`python -m videogen` is the command `videogen`."""

import sys

from videogen.cli import main

sys.exit(main())
