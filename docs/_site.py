"""A hook of mkdocs: files of the repository outside docs/ are pages too, and links to them hold.

``CHANGELOG.md`` and ``CONTRIBUTING.md`` become pages, and ``examples/`` one page with its scripts.
Pages link to them as the repository does, by ``../CHANGELOG.md`` or ``../examples/rme.py``, and
they to ``docs/...``; on the site these links lead to the pages.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_relinked((ROOT / source).read_text())))
    files.append(File.generated(config, "examples.md", content=_examples()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to files outside docs/ to their pages."""
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1)", markdown)
    for source, page in PAGES.items():
        markdown = markdown.replace(f"](../{source})", f"]({page})")
    return markdown


def _relinked(markdown: str) -> str:
    """Return a page of the repository's root with links as docs/ has them."""
    for source, page in PAGES.items():
        markdown = markdown.replace(f"]({source})", f"]({page})")
    return markdown.replace("](docs/", "](")


def _examples() -> str:
    """Return a page that shows each script of examples/."""
    parts = ["# Examples\n\nEach takes `--smoke-test`, which runs it in seconds, and `--help`.\n"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        code = path.read_text()
        title = (ast.get_docstring(ast.parse(code)) or path.stem).splitlines()[0]
        parts.append(f"## {path.stem} {{ #{path.stem} }}\n\n`examples/{path.name}`: {title}\n")
        parts.append(f"````py\n{code}````\n")
    return "\n".join(parts)
