"""python -m writer: the writer process of a home (COLLECTOR_HOME, else the current directory)."""

import sys

from conf.process import run_process
from writer.service import main

sys.exit(run_process("writer", main))
