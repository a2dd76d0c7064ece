"""``python -m stagelight`` is the command ``stagelight``."""

import sys

from stagelight.cli import main

if __name__ == "__main__":
    sys.exit(main())
