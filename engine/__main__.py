"""``python -m engine``."""

import os
import sys

from engine.cli import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python would spend another quarter of a second on taking its modules apart.
    os._exit(code)
