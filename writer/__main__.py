"""Entry point of the writer process: `python -m writer` (home: COLLECTOR_HOME, else the current directory)."""

import sys

from conf.arrow import load_arrow_without_pandas
from conf.process import run_process

load_arrow_without_pandas()
from writer.service import main  # noqa: E402  its modules make arrays

sys.exit(run_process("writer", main))
