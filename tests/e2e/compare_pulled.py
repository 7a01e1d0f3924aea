"""Answer the held-out sums with a base model of the mirror and a pulled adapter, with plain PEFT.

Arguments: id and revision of the base model. It runs in the trainer image, beside the folders
`arithmetic` and `adapter`, and prints what `compare.py` of the example prints.
"""

import os
import runpy
import sys
import tempfile
from pathlib import Path

from flashrun.api import names
from flashrun.api.records import StorageAccess
from flashrun.store import Store

access = StorageAccess.model_validate_json(os.environ["STORAGE_ACCESS"])
folder = Path(tempfile.mkdtemp())
Store(access).download_folder(names.model_prefix(*sys.argv[1:]), folder)
runpy.run_path("arithmetic/compare.py")["main"](str(folder), "pulled=adapter")
