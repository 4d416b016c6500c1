"""Where the cache lies."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "NEXTBAR_CACHE"


def cache_folder(root: Path) -> Path:
    """The folder of the cache: ``cache/`` beside ``runs/`` and ``bundles/``, unless NEXTBAR_CACHE names another one."""
    return Path(os.environ.get(CACHE) or root / "cache")
