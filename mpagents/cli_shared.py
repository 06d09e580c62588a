"""What the commands share: their options, and how what a user has wrong is told."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mpagents.interrupting import ignore_further, stop_as_by_ctrl_c


def number(help: str) -> Any:
    """An option that takes a whole number of at least 1, also as `1e5` or `100_000`."""
    return typer.Option(parser=whole, metavar="N", help=help)


def whole(text: str | int) -> int:
    with contextlib.suppress(ValueError, OverflowError):
        if float(text) == int(float(text)) >= 1:
            return int(float(text))
    raise typer.BadParameter(f"{str(text)!r}; expected a whole number of at least 1, such as 20_000 or 2e4")


Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. agents.1.alpha=0.5")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder that results go into")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes; 0: in this one, without Ray  [default: all cores]")]
Address = Annotated[str | None, typer.Option(help="Join a Ray cluster, e.g. auto")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Discard earlier results")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines, and nothing else")]
RUNS = Path("runs")
INTERRUPTED = 130  # the exit code, as of a shell


@contextlib.contextmanager
def told(as_json: bool, file: Path | None = None, lines: Any = None) -> Iterator[None]:
    """User errors as one line each with a fix, and the exit code."""
    from mpagents.configuration import InvalidInput

    stop_as_by_ctrl_c()
    try:
        yield
    except InvalidInput as error:
        from mpagents.study_file import line_of

        for problem in error.problems:
            line = line_of(problem.place, lines) if lines else None
            where = f"{file}:{line}: " if line else f"{file}: " if file and lines is not None else ""
            print(f"{where}{problem}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (ValueError, RuntimeError) as error:
        if type(error) not in (ValueError, RuntimeError) and type(error).__name__ != "FolderInUse":
            raise
        print(str(error), file=sys.stderr)
        raise typer.Exit(2) from None
    except OSError as error:
        print(f"{error.strerror or error}: {error.filename or ''}; choose another folder with --out", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt as interrupt:
        ignore_further()
        message = str(interrupt) or "interrupted: finished trials are kept, the same command continues"
        print(message, file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
