"""Where an error meets a person: one sentence, what to do, and exit code 1; never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from runstream.cli.terminal_text import prepare_streams, printable_lines
from runstream.errors import causes, chain_lines, outermost


def run_command(command: Callable[[], object], *, detailed: bool) -> int:
    """Run a command; its exit code is what it returns, or 1 after an error that was told on stderr."""
    prepare_streams()
    try:
        answer = command()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001 - this is the edge: everything is told here, once
        tell(error, detailed=detailed)
        return 1
    return answer if isinstance(answer, int) else 0


def tell(error: BaseException, *, detailed: bool) -> None:
    """Say on stderr what went wrong and what to do; with `detailed` also the chain of causes."""
    # Here, because most commands end well, and the module brings all of telemetry with it.
    from runstream.telemetry.secrets import without_secrets

    known = outermost(error)
    lines = [f"error: {sentence(error)}"]
    if known is not None and known.hint:
        lines.append(f"hint: {known.hint}")
    if known is None and not detailed:
        lines.append("hint: this is a bug in Runstream; please report it with the output of --detailed-errors")
    if detailed:
        lines.extend(f"  {line}" for line in chain_lines(error))
    sys.stderr.write(printable_lines(without_secrets("\n".join(lines))) + "\n")


def sentence(error: BaseException) -> str:
    """What to tell people of an error, whoever raised it: our own words where there are some."""
    known = outermost(error)
    if known is not None:
        return known.message
    told = next((cause for cause in causes(error) if not isinstance(cause, BaseExceptionGroup)), error)
    return str(told) or type(told).__name__
