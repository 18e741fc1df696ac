"""python -m writer: the writer process of a home (COLLECTOR_HOME, else the current directory)."""

import sys

from conf.process import run
from writer.service import body

sys.exit(run("writer", body))
