"""Help: drawn with boxes on a terminal, plain text in a pipe, where nothing is cut either."""

from __future__ import annotations

import sys
from typing import Any

from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from microtome.amounts import many

# typer has click inside it from some version on, and beside it before: its own bases name both.
_COMMAND: Any = TyperCommand.__mro__[1]
_GROUP: Any = TyperGroup.__mro__[1]


class Command(TyperCommand):
    """A command whose help is plain where nobody sees colours.

    An option of one value is given once: of two, the last would win in silence, while other options
    mean all that are given.
    """

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        """Read the options."""
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=[*args])
            for one in given:
                plain = getattr(one, "is_flag", False) and not one.secondary_opts
                if given.count(one) > 1 and not (getattr(one, "multiple", True) or plain):
                    name = "/".join([one.opts[-1], *one.secondary_opts])
                    ctx.fail(
                        f"{name} is given {many(given.count(one), 'time')}, and takes one value."
                    )
        return super().parse_args(ctx, args)

    def format_help(self, ctx, formatter):  # type: ignore[no-untyped-def]
        """Write the help."""
        if sys.stdout.isatty():
            super().format_help(ctx, formatter)
        else:
            _COMMAND.format_help(self, ctx, formatter)

    def format_epilog(self, ctx, formatter):  # type: ignore[no-untyped-def]
        """Write the examples, each in one line: they are there to be copied."""
        if self.epilog:
            formatter.write("\n" + Text.from_markup(self.epilog).plain.replace("\n\n", "\n") + "\n")


class Group(TyperGroup):
    """Commands whose help is plain where nobody sees colours."""

    def format_help(self, ctx, formatter):  # type: ignore[no-untyped-def]
        """Write the help."""
        if sys.stdout.isatty():
            super().format_help(ctx, formatter)
        else:
            _GROUP.format_help(self, ctx, formatter)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run; of what is wrong with the options, nothing is drawn where nobody sees it."""
        if not sys.stderr.isatty():
            self.rich_markup_mode = None
        return super().main(*args, **more)

    def format_commands(self, ctx, formatter):  # type: ignore[no-untyped-def]
        """Write what each command is for, whole."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.help or "") for name, one in self.commands.items()])
