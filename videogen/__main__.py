"""Entry point of the commands `videogen`, `python -m videogen` and `python -m flows.generate`."""

import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code, see `videogen.cli.main.main`.

    An unhandled Ctrl-C, such as one during the imports, prints one line instead of a traceback.
    """
    try:
        from videogen.cli import main as cli

        return cli.main(argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
