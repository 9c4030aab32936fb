"""A hook of mkdocs: files of the repository outside docs/ are pages too, and links to them hold.

``CHANGELOG.md`` and ``CONTRIBUTING.md`` become pages, ``examples/`` becomes one page with its
scripts, and each notebook of ``notebooks/`` becomes a page with its outputs. Pages of docs/ link
to these files as the repository has them, such as ``../examples/rme.py``, and these files link to
``docs/...``. On the site the links lead to the pages.
"""

import ast
import json
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
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        name = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, name, content=_notebook(path)))
        copy = File.generated(config, f"notebooks/{path.name}", content=path.read_text())
        files.append(copy)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to files outside docs/ to their pages."""
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1)", markdown)
    markdown = re.sub(r"\]\(\.\./notebooks/([\w-]+)\.ipynb\)", r"](notebooks/\1.md)", markdown)
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


def _notebook(path: Path) -> str:
    """Return a page that shows the cells of a notebook and their outputs."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.replace("](../docs/", "](../"))
            continue
        parts.append(f"````py\n{text}\n````")
        parts += [_output(output) for output in cell["outputs"]]
    download = f"This page is the notebook [`notebooks/{path.name}`]({path.name}).\n"
    title, *rest = parts
    return "\n\n".join((title, download, *rest))


def _output(output: dict[str, Any]) -> str:
    """Return the Markdown of what a cell printed, returned or drew."""
    if "text" in output:
        return f"````text\n{''.join(output['text'])}````"
    data = output["data"]
    if "image/png" in data:
        return f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})"
    return f"````text\n{''.join(data['text/plain'])}\n````"
