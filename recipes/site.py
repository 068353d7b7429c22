"""What the docs site does beside showing the pages of ``docs``: a hook of mkdocs' (``make docs``).

Pages that lie outside of ``docs`` are brought in (changes, contributing, the embedded model's
card), and the command line gets one, made of the commands themselves. Links go along; one to a file
that the site does not have, such as a test, stays as text: the pages are made to be read in the
checkout, too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from microtome.frontends.cli import app

ROOT = Path(__file__).parents[1]
BROUGHT = MappingProxyType(
    {
        "CHANGELOG.md": "changes.md",
        "CONTRIBUTING.md": "contributing.md",
        "src/microtome/model/nano/CARD.md": "nano.md",
        "README.md": "index.md",
    }
)
"""A file of the checkout → its page on the site; in README's place is the landing page."""

COMMANDS = "reference/commands.md"
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of ``docs``, and those that are brought in or made."""
    for source, page in BROUGHT.items():
        if files.get_file_from_path(page) is None:
            text = relinked((ROOT / source).read_text(encoding="utf-8"), source, page)
            files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, COMMANDS, content="".join(command_page())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave ``docs`` lead to what was brought in, or are text."""
    if page.file.generated_by:
        return markdown
    return relinked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def relinked(markdown: str, source: str, page: str) -> str:
    """A file's links, as they are on the site.

    Args:
        markdown: the text.
        source: where the file is, from the checkout's root.
        page: which page of the site it becomes.

    >>> relinked("[a](docs/edges.md#paths) and [b](src/c.py)", "README.md", "index.md")
    '[a](edges.md#paths) and b'
    >>> relinked("[changes](../CHANGELOG.md)", "docs/x/y.md", "x/y.md")
    '[changes](../changes.md)'
    """

    def placed(found: re.Match[str]) -> str:
        path, mark, anchor = found["target"].partition("#")
        if not path or "://" in path:
            return found[0]
        full = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        here = BROUGHT.get(full, full.removeprefix("docs/") if full.startswith("docs/") else None)
        if here is None:
            return found["text"]
        way = posixpath.relpath(here, posixpath.dirname(page) or ".")
        return f"{found['image']}[{found['text']}]({way}{mark}{anchor})"

    return _LINK.sub(placed, markdown)


def command_page() -> Iterator[str]:
    """Every command with its options and examples, in Markdown."""
    yield "# Commands\n\nWhat `--help` says of each. [Output, exit codes, and what `-o` leaves]"
    yield "(../command-line.md) are the same for all.\n\n"
    yield from _commands(typer.main.get_command(app), "microtome")


def _commands(command: object, name: str) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for inner, one in sorted(command.commands.items()):
            yield from _commands(one, f"{name} {inner}")
    if not isinstance(command, TyperCommand):
        return
    yield f"## {name}\n\n{command.help}\n\n"
    examples = Text.from_markup(command.epilog or "").plain.partition("\n")[2]
    if examples:
        yield f"```text\n{examples.strip().replace(2 * chr(10), chr(10))}\n```\n\n"
    rows = [_row(one) for one in command.params if not getattr(one, "hidden", False)]
    if rows:
        yield "| given | means |\n|---|---|\n" + "".join(rows) + "\n"


def _row(given: object) -> str:
    assert isinstance(given, TyperArgument | TyperOption)
    names = [*given.opts, *given.secondary_opts]
    if isinstance(given, TyperArgument):
        names = [(given.metavar or names[0]).upper()]
    shown = ", ".join(f"`{name}`" for name in sorted(names, key=len))
    return f"| {shown} | {' '.join((given.help or '').split()).replace('|', chr(92) + '|')} |\n"
