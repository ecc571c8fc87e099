"""The bodies of the benchmarks, one file each; peers are imported inside."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler otherwise reports on itself
