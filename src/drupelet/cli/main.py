"""`drupelet`: the entry point. Nouns are imported when they are used, so that a device never loads server code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from drupelet import __version__
from drupelet.cli.output import say
from drupelet.core.errors import BadInput, DrupeletError

NOUNS = {
    "agent": "The device's update agent: run, status, why, history, rollback, hold, install.",
    "ci": "A pipeline for your repository: GitHub, GitLab or Jenkins.",
    "depot": "Where artifacts lie: serve, push, pull, copy, check, collect.",
    "device": "Devices of the fleet: list, approve, why, label, remove.",
    "fleet": "The fleet server: run it, make tokens, migrate its store.",
    "forge": "From a checkpoint to a signed, published release.",
    "gateway": "The device's OpenAI-compatible endpoint.",
    "keys": "Signing keys: ceremony, init, show, sign together, rotate.",
    "release": "Releases, of the fleet and in files: list, show, diff, lint, add, condemn, export.",
    "rollout": "Staged rollouts: start, wait, watch, pause, resume, abort, rollback.",
    "sim": "Run the production decisions in a simulated world.",
}

VERBS = {
    "lint": ("lint_files", "Check recipes, policies, manifests and settings files."),
    "verify": ("verify_release", "Verify everything a release claims, with an answer to file."),
}
"""Verbs without a noun: the function in the module of that name, and a line of help."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and SIGINT, as shells have it."""


def _missing(noun: str, error: ModuleNotFoundError) -> DrupeletError:
    extra = {
        "fleet": "fleet",
        "forge": "forge",
        "gateway": "gateway",
        "depot": "fleet",
        "sim": "all",
        "lint": "forge",
        "ci": "forge",
        "verify": "forge",
    }.get(noun, "all")
    return DrupeletError(
        f"`drupelet {noun}` needs {error.name}, which is not installed here",
        fix=f"install the extra {extra!r}: pip install '.[{extra}]' in a clone of Drupelet",
    )


def build(wanted: set[str]) -> typer.Typer:
    """Return the command tree with the nouns and verbs in `wanted` whole and the others by name and help only."""
    root = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(_root)
    for noun, says in NOUNS.items():
        if noun in wanted:
            try:
                app = importlib.import_module(f"drupelet.cli.{noun}").app
            except ModuleNotFoundError as error:
                raise _missing(noun, error) from error
        else:
            app = typer.Typer()
            app.callback()(lambda: None)
        root.add_typer(app, name=noun, help=says, no_args_is_help=True)
    for verb, (function, says) in VERBS.items():
        run = _nothing
        if verb in wanted:
            try:
                run = getattr(importlib.import_module(f"drupelet.cli.{verb}"), function)
            except ModuleNotFoundError as error:
                raise _missing(verb, error) from error
        root.command(verb, short_help=says)(run)
    return root


def _nothing() -> None:
    """Stand for a verb that is not wanted now."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"drupelet {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Ship generative models to fleets of Raspberry Pis: signed, staged, judged by evidence, taken back by themselves.

    Example: drupelet rollout start kiosk/1.2 --to 'site=lab' --stages 1,3,5
    """


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; every foreseen error is one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    try:
        root = build({*NOUNS, *VERBS} if completing else {word for word in given[:1] if word in {*NOUNS, *VERBS}})
        # Not standalone: a mistyped command is then raised here, to be said in one line as every other error is.
        code = root(given, prog_name="drupelet", standalone_mode=False)
    except DrupeletError as error:
        code = _say(error.line(), error.exit_code)
    except TyperException as error:
        code = _say(_usage(error), BadInput.exit_code)
    except ModuleNotFoundError as error:
        # Verbs import what only they need when they run.
        if (error.name or "drupelet").partition(".")[0] == "drupelet":
            raise
        code = _say(_missing(given[0], error).line(), DrupeletError.exit_code)
    except typer.Abort:
        code = _say("stopped at a question that was not answered", 1)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has had enough; let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    if code == INTERRUPTED:
        _say("interrupted", INTERRUPTED)
    sys.exit(code)


def _usage(error: TyperException) -> str:
    """Return a mistake of typing as a line; nothing if help has been shown instead."""
    said = error.format_message().replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    if not said or context is None:
        return said
    words = context.command_path
    where = words.removeprefix("drupelet").strip()
    return f"{where + ': ' if where else ''}{said.rstrip('.')}; see: {words} --help"


def _say(text: str, code: int) -> int:
    if text:
        say(f"drupelet: {' '.join(text.split())}")
    return code


if __name__ == "__main__":
    main()
