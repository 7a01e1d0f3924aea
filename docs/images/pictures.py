"""The pictures of the documentation, rendered from sources that lie beside them.

``make pictures`` renders ``architecture.dot`` with graphviz. The SVG names the SHA-256 of its
source, and a test compares it.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Render every picture."""
    if shutil.which("dot") is None:
        print("dot is missing: install graphviz (apt-get install graphviz)", file=sys.stderr)
        return 1
    write("architecture.dot", "architecture.svg", architecture())
    return 0


def write(source: str, picture: str, svg: str) -> None:
    """Write an SVG that ends with the digest of its source."""
    digest = hashlib.sha256((HERE / source).read_bytes()).hexdigest()
    (HERE / picture).write_text(f"{svg.rstrip()}\n<!-- {source} sha256:{digest} -->\n")


def architecture() -> str:
    """Return the picture of the data flow as SVG."""
    command = ["dot", "-Tsvg", str(HERE / "architecture.dot")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
