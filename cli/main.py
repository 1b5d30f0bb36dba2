"""The `tapdeck` command. Subcommands are imported when they are called."""

import os

# One thread: Tapdeck does no linear algebra, and a pool of idle threads costs time at every start. Before NumPy is
# imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import click

from .. import __version__
from .exit_codes import ExitCode
from .settings import ConfigError

COMMANDS = {
    "alarms": ("tapdeck.cli.alarms:alarms", "Show what is wrong, say who looks after it, and have people told."),
    "capture": ("tapdeck.cli.capture:capture", "Listen on a mirror port, and record the calls that cross it."),
    "config": ("tapdeck.cli.show_config:config", "Show or check the configuration."),
    "deliver": ("tapdeck.cli.deliver:deliver", "Copy finished recordings to the targets; the third stage."),
    "doctor": ("tapdeck.cli.doctor:doctor", "Watch a mirror port, and say what is wrong with it and what to do."),
    "forecast": ("tapdeck.cli.forecast:forecast", "Say how much disk calls will take, and for how long it lasts."),
    "install": ("tapdeck.cli.install:install", "Set this machine up as a recorder: users, folders, services."),
    "heartbeat-check": ("tapdeck.cli.heartbeat:heartbeat_check", "Say whether a recorder's sign of life is fresh."),
    "inspect": (
        "tapdeck.cli.inspect:inspect",
        "Explain a capture: its dialogs, its streams, and which belong together.",
    ),
    "interfaces": ("tapdeck.cli.interfaces:interfaces", "List the interfaces, the likeliest mirror port first."),
    "key": ("tapdeck.cli.key:key", "Look after the key that seals recordings: show, back up, rotate."),
    "plot": ("tapdeck.cli.plot:plot", "Draw a recording: waveforms, losses, digits and holds, as a picture."),
    "report": ("tapdeck.cli.coverage:report", "Reports over what was recorded."),
    "metrics": ("tapdeck.cli.metrics:metrics", "Serve figures to Prometheus."),
    "queue": ("tapdeck.cli.queue_command:queue", "Show what waits for each target and why; try it at once."),
    "run": ("tapdeck.cli.run:run", "Run the whole box: capture, seal and deliver."),
    "status": ("tapdeck.cli.status:status", "Say how the recorder on this machine is."),
    "seal": ("tapdeck.cli.seal:seal", "Make recordings of the calls that capture has handed over."),
    "log": ("tapdeck.cli.ledger:log", "Show and verify the recording log of this machine."),
    "live": ("tapdeck.cli.live:live", "Show the running calls of a running box."),
    "record": ("tapdeck.cli.record:record", "Record the calls of capture files, a stereo WAV each."),
    "redecode": ("tapdeck.cli.redecode:redecode", "Make a recording's sound again from the packets kept beside it."),
    "selftest": ("tapdeck.cli.selftest:selftest", "Send a synthetic call through the box, and say if it came through."),
    "story": ("tapdeck.cli.story:story", "Tell the whole story of a call: its transfers, its legs, its recordings."),
    "targets": ("tapdeck.cli.targets_command:targets", "List and test the targets, and check what they have."),
    "verify": ("tapdeck.cli.verify:verify", "Prove that recordings are as they were sealed, and that none is missing."),
    "setup": ("tapdeck.cli.setup:setup", "Ask a few questions, and write the configuration."),
}


class Tapdeck(click.Group):
    """A group that imports a command when it is used, and ends with the documented exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names without importing anything."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above: `tapdeck --help` imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> NoReturn:
        """Run, and exit with an ExitCode. A command may return one, or raise click's exceptions, ConfigError or
        OSError.
        """
        settings["standalone_mode"] = False
        sys.exit(_run(lambda: super(Tapdeck, self).main(args, *rest, **settings)))


def _run(call: Any) -> int:
    """Turn what `call` returns or raises into an exit code."""
    try:
        result = call()
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigError as error:
        _complain(str(error))
        return ExitCode.CONFIG
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does. Nothing more can be said; spare the complaint at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.CANNOT_WRITE
    except OSError as error:
        _complain(f"{error.filename or 'writing'}: {error.strerror or error}")
        return ExitCode.CANNOT_WRITE
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return ExitCode.INTERRUPTED
    except Exception:  # noqa: BLE001 - Python's own exit code for it, 1, means something else here
        _explain_mistake()
        return ExitCode.SOFTWARE
    return int(result) if isinstance(result, int) else ExitCode.OK


def _complain(message: str) -> None:
    from ..storage.safe_text import for_terminal

    click.echo(f"Error: {for_terminal(message, 1000)}", err=True)


def _explain_mistake() -> None:
    """Print the traceback, which may quote text from the wire."""
    import traceback

    from ..storage.safe_text import for_line

    for line in traceback.format_exc().splitlines():
        indent = " " * (len(line) - len(line.lstrip(" ")))
        click.echo(indent + for_line(line), err=True)
    click.echo("Error: this is a mistake in Tapdeck; please report it with the lines above", err=True)


@click.group(cls=Tapdeck, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tapdeck")
def cli() -> None:
    """Record the phone calls that cross a network, as they crossed it."""


def main() -> NoReturn:
    """Run the command line. The entry point of the installed `tapdeck`."""
    cli.main(prog_name="tapdeck")
