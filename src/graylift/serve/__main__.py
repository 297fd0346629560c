"""`python -m graylift.serve`: see `options` for the command line and the exit status."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time

from graylift.serve.options import options_from_arguments


def main() -> int:
    options = options_from_arguments()
    faulthandler.enable()  # a crash of native code leaves its stack in the log
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S", level=logging.INFO
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    from graylift.serve.server import run

    return run(options)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Not sys.exit: it would wait for threads, and one that loads a large engine cannot be interrupted.
    os._exit(status)
