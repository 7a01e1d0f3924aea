"""What ``make docs`` makes pages of: the repository's own files, at their paths in the repository.

MkDocs calls the functions that begin with ``on_`` (``hooks`` in mkdocs.yml). Links between pages
are those that GitHub shows, so nothing is written twice: a file that a page links to goes along,
and a folder gets a page with its files where it has no README.md.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PATTERNS: Final = (
    "*.md",
    "docs/**/*.md",
    "examples/**/*.md",
    "bench/README.md",
    "findings/README.md",
    "tests/runs/README.md",
)
STYLE: Final = "docs/site.css"
_LINK: Final = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
_CODE: Final = re.compile(r"^(```.*?^```|~~~.*?^~~~)|(`+)[^`].*?\2", re.M | re.S)


def pages() -> list[str]:
    """Return the paths of all pages, each once."""
    found = (path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern)))
    return list(dict.fromkeys(path.relative_to(ROOT).as_posix() for path in found))


def pages_in(nav: Iterable[Any]) -> Iterator[str]:
    """Yield the paths that a navigation of mkdocs.yml names, in its order."""
    for entry in nav:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [target] if isinstance(target, str) else pages_in(target)


def targets(page: str, text: str) -> Iterator[str]:
    """Yield the paths in the repository that the links of a page lead to."""
    for link in _LINK.findall(_CODE.sub("", text)):
        yield normpath(join(dirname(page), link))


def index_of(folder: str) -> str:
    """Return the page that a link to ``folder`` shows, which may have to be made."""
    return f"{folder}/README.md" if (ROOT / folder / "README.md").exists() else f"{folder}/index.md"


def files_below(folder: str) -> list[str]:
    """Return the files of a folder, those of its folders included."""
    below = (path for path in sorted((ROOT / folder).rglob("*")) if path.is_file())
    return [path.relative_to(ROOT).as_posix() for path in below if "__pycache__" not in path.parts]


def listing(folder: str) -> str:
    """Return the page of a folder without README.md: its files."""
    links = (f"- [{file.removeprefix(folder + '/')}](" for file in files_below(folder))
    paths = (f"{os.path.relpath(file, folder)})" for file in files_below(folder))
    return "\n".join((f"# {folder}", "", *map("".join, zip(links, paths, strict=True)), ""))


def site_files() -> tuple[set[str], set[str]]:
    """Return the files of the site, and the folders that need a page."""
    files, folders = {STYLE, *pages()}, set()
    for page in pages():
        for target in targets(page, (ROOT / page).read_text()):
            if (ROOT / target).is_file():
                files.add(target)
            elif (ROOT / target).is_dir() and index_of(target).endswith("/index.md"):
                folders.add(target)
    return files | {file for folder in folders for file in files_below(folder)}, folders


def on_config(config: Any) -> Any:
    """Give headings the anchors that GitHub gives them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def slug(heading: str, separator: str = "-") -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", separator)


def on_files(files: Any, config: Any) -> Any:
    """Take the files of the repository instead of those in ``docs_dir``, which are among them."""
    from mkdocs.structure.files import File, Files, InclusionLevel

    paths, folders = site_files()
    kept = [file for file in files if file.src_dir != config.docs_dir]
    kept += [File.generated(config, path, abs_src_path=str(ROOT / path)) for path in sorted(paths)]
    kept += [
        File.generated(
            config,
            index_of(folder),
            content=listing(folder),
            inclusion=InclusionLevel.NOT_IN_NAV,
        )
        for folder in sorted(folders)
    ]
    return Files(kept)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let a link to a folder lead to its page."""
    here = dirname(page.file.src_uri)

    def with_page(link: re.Match[str]) -> str:
        target = normpath(join(here, link[0]))
        is_folder = (ROOT / target).is_dir()
        return os.path.relpath(index_of(target), here or ".") if is_folder else link[0]

    return _LINK.sub(with_page, markdown)
