"""The command ``python docs/_pictures``: makes the pictures that are named, or all."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _pictures import FOLDER, files

FOLDER.mkdir(exist_ok=True)
for path, text in files(sys.argv[1:]):
    path.write_text(text, encoding="utf-8")
    print(path)
