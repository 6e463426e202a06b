"""The command line: `python -m sterna` and the script `sterna`."""

import sys

from ._sterna import run


def main() -> int:
    """Runs the program with the arguments of this process and returns its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
