"""Entry point of the writer process: `python -m writer` (home: COLLECTOR_HOME, else the current directory)."""

import sys

from conf.process import run_process
from writer.service import main

sys.exit(run_process("writer", main))
