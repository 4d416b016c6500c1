"""For all tests: one thread a process. Tests run side by side, and small networks only lose by sharing their work."""

import os

# Before anything imports torch or numpy; commands started by tests inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
