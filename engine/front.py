"""The ``undertone`` command: engine and clients under one roof.

The engine never imports a client, and a client knows the engine's wire alone. So other packages
bring their commands as entry points of the group ``undertone.commands`` (pyproject.toml), each a
typer application. This module adds what needs the two together, ``demo`` and ``run --dashboard``,
and gives every command its place and its examples in the help.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, get_type_hints

import typer

from engine.cli import app as engine_app
from engine.cli import run as engine_run
from engine.cli import tell
from engine.cluster.cli import app as cluster_app
from engine.doctor import DISTRIBUTION
from engine.options import UsageError, read_settings

PLUGINS = "undertone.commands"
"""Group of the entry points that bring commands of other packages."""
DASHBOARD_NEEDS = ("starlette", "uvicorn", "websockets")
DASHBOARD_PORT = 8765
DASHBOARD_START_S = 20.0
STOP_S = 5.0
LIFELINE = "--end-with-stdin"
"""Hidden first argument of a child: it ends when its standard input does."""
TOP_OPTIONS = ("--help", "-h", "--version", "--install-completion", "--show-completion")

TRY, LIVE, SHOW = "Try it", "Live", "Look at scores and keep them"
CONNECT, OFFLINE, MACHINE = "Connect", "Without devices", "This machine"
HELP: dict[str, tuple[str, tuple[str, ...]]] = {
    "demo": (TRY, ("undertone demo", "undertone demo --once --no-browser")),
    "run": (
        LIVE,
        (
            "undertone run --dashboard",
            "undertone run --microphone 0 --camera 0",
            "undertone run --stream alice=a.mp4 --stream bob=rtsp://camera.local/1",
        ),
    ),
    "cluster": (
        LIVE,
        (
            "undertone cluster --workers 4 --stream alice=a.mp4 --stream bob=b.mp4",
            "undertone cluster drain local-2",
            "undertone cluster hub --address 10.0.0.1 --directory tcp://10.0.0.1:5575",
        ),
    ),
    "mark": (LIVE, ('undertone mark "question 3"', 'undertone mark "laughs" --stream alice')),
    "pause": (LIVE, ("undertone pause",)),
    "resume": (LIVE, ("undertone resume",)),
    "capture": (LIVE, ("undertone capture --microphone 0 --ingest tcp://server:5570",)),
    "infer": (LIVE, ("undertone infer", "undertone infer --backend tensorrt")),
    "watch": (SHOW, ("undertone watch", "undertone watch --stream alice | tee scores.txt")),
    "dashboard": (SHOW, ("undertone dashboard", "undertone dashboard --host 0.0.0.0 --port 80")),
    "record": (
        SHOW,
        ("undertone record --out session.parquet", "undertone record --out day.csv --rotate-mb 50"),
    ),
    "plot": (
        SHOW,
        (
            "undertone plot session.parquet --out report.html --csv averages.csv",
            "undertone plot tuesday.parquet --over monday.parquet --out both.html",
        ),
    ),
    "replay": (SHOW, ("undertone replay session.parquet --speed 2",)),
    "lsl": (CONNECT, ("undertone lsl",)),
    "prometheus": (CONNECT, ("undertone prometheus --port 9571",)),
    "score": (OFFLINE, ("undertone score clip.mp4 --out scores.jsonl",)),
    "bench": (OFFLINE, ("undertone bench",)),
    "devices": (MACHINE, ("undertone devices", "undertone devices --json")),
    "doctor": (MACHINE, ("undertone doctor",)),
    "build": (MACHINE, ("undertone build --precision fp16", "undertone build --for sm86,sm89")),
    "keys": (MACHINE, ("undertone keys --name alice",)),
}  # fmt: skip
"""Every command's place in the help, and its examples; the order is that of the help."""

app = typer.Typer(
    name="undertone",
    help="How positive or negative a person sounds and looks, several times a second.",
    epilog="Start with [bold]undertone demo[/]. A command's examples: undertone COMMAND --help",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Browser = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the dashboard in the browser.")
]
Host = Annotated[
    str, typer.Option(help="Address of the dashboard; any but loopback needs a token.")
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port of the dashboard; 8765 or, if taken, a free one."),
]


def version() -> str:
    """Return the installed version."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout that is not installed"


def _print_version(asked: bool) -> None:
    if asked:
        print(f"undertone {version()}")
        raise typer.Exit


@app.callback()
def top(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options of the program itself."""


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of the sample.")] = False,
    browser: Browser = True,
    host: Host = "127.0.0.1",
    port: Port = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle: a name or a directory (default).")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning (default) or error.")
    ] = None,
) -> None:
    """Play the packaged sample: scores in this terminal, the dashboard in the browser."""
    missing = _missing()
    if missing:
        print(f"no dashboard: {_remedy(missing)}", file=sys.stderr)
    # The sample's words are nobody's: they are shown, which is off for people unless they set it.
    os.environ.setdefault("UNDERTONE_WORDS__PUBLISH", "true")
    options = {"source": "sample", "once": once, "bundle": bundle, "log_level": log_level}
    _run(not missing, browser, host, port, options)


def run(dashboard: bool, browser: bool, host: str, port: int | None, **options: Any) -> None:
    """Capture, infer and show the rolling valence of every stream."""
    if dashboard and (missing := _missing()):
        raise UsageError(f"--dashboard: {_remedy(missing)}")
    _run(dashboard, browser, host, port, options)


def _run(
    dashboard: bool, browser: bool, host: str, port: int | None, options: dict[str, Any]
) -> None:
    with contextlib.ExitStack() as stack:
        if dashboard:
            named = {name: options.get(name) for name in ("scores", "ingest", "control")}
            settings = read_settings(options.get("config"), **named)
            arguments = ["--scores", settings.scores, "--ingest", settings.ingest]
            arguments += ["--control", settings.control]
            arguments += ["--host", host, "--port", str(_port(host, port))]
            url = stack.enter_context(dashboard_beside(arguments))
            print(f"dashboard: {url}   (Ctrl-C ends both)", file=sys.stderr, flush=True)
            if browser and _has_browser():
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        engine_run(**options)


@contextlib.contextmanager
def dashboard_beside(arguments: list[str]) -> Iterator[str]:
    """Run the dashboard as a child, and end it; gives the address to open.

    Raises:
        UsageError: the dashboard could not be started; its own line.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "engine.front", LIFELINE, "dashboard", *arguments],
        stdin=subprocess.PIPE,  # its lifeline: a child outlives neither a tidy nor a killed parent
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stderr is not None
    try:
        yield _address(child)
    finally:
        child.stdin.close()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stderr.close()


def _address(child: subprocess.Popen[str]) -> str:
    """Wait for the line with the address; what the child says later is passed on."""
    assert child.stderr is not None
    late = threading.Timer(DASHBOARD_START_S, child.kill)
    late.start()
    said = []
    for line in child.stderr:
        said.append(line.strip())
        if line.startswith("dashboard: "):
            late.cancel()
            threading.Thread(target=_pass_on, args=(child.stderr,), daemon=True).start()
            return line.removeprefix("dashboard: ").strip()
    late.cancel()
    last = (said or [f"it did not start within {DASHBOARD_START_S:.0f} s"])[-1]
    raise UsageError(f"dashboard: {last.removeprefix('error: ')}")


def _pass_on(lines: Any) -> None:
    with contextlib.suppress(ValueError):  # closed
        for line in lines:
            print(line.rstrip(), file=sys.stderr)


def _missing() -> list[str]:
    return [name for name in DASHBOARD_NEEDS if importlib.util.find_spec(name) is None]


def _remedy(missing: list[str]) -> str:
    return f'needs {", ".join(missing)}: pip install -e ".[dashboard]"'


def _port(host: str, port: int | None) -> int:
    """Take the usual port, or any free one where another program has it."""
    if port is not None:
        return port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, DASHBOARD_PORT), family=family).close()
    except OSError:
        return 0
    return DASHBOARD_PORT


def _has_browser() -> bool:
    """Whether a window can be opened: not over SSH, and on Linux only with a display."""
    if os.environ.get("SSH_CONNECTION") or not sys.stderr.isatty():
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def _with_dashboard() -> Callable[..., None]:
    """Make ``run`` of the engine's own options and the dashboard's."""
    extra = {
        "dashboard": (
            Annotated[bool, typer.Option("--dashboard", help="Open the dashboard as well.")],
            False,
        ),
        "browser": (Browser, True),
        "host": (Host, "127.0.0.1"),
        "port": (Port, None),
    }
    own = inspect.signature(engine_run).parameters.values()
    hints = get_type_hints(engine_run, include_extras=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, (_, value) in extra.items()
    ]
    made = partial(run)
    made.__doc__ = run.__doc__
    kinds = {**hints, **{name: kind for name, (kind, _) in extra.items()}}
    made.__annotations__ = kinds
    parameters = [p.replace(annotation=kinds[p.name]) for p in (*own, *more)]
    made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return made


def _gather() -> None:
    """Put every command of the engine and of the installed plug-ins under this roof."""
    found: dict[str, Callable[..., Any]] = {"demo": demo}
    plugins = [point.load() for point in importlib.metadata.entry_points(group=PLUGINS)]
    for source in (engine_app, *plugins):
        for info in source.registered_commands:
            assert info.callback is not None
            found[info.name or info.callback.__name__] = info.callback
    found["run"] = _with_dashboard()
    for name in sorted(found, key=[*HELP, *found].index):
        panel, examples = HELP.get(name, (MACHINE, ()))
        text = "\n\n".join(("[dim]Examples[/]", *examples)) if examples else None
        app.command(name, epilog=text, rich_help_panel=panel)(found[name])
    panel, examples = HELP["cluster"]
    text = "\n\n".join(("[dim]Examples[/]", *examples))
    app.add_typer(cluster_app, name="cluster", epilog=text, rich_help_panel=panel)


_gather()


def _end_with_stdin() -> None:
    """End this process tidily when its standard input ends: its parent is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; a user's mistake is one line and 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [LIFELINE]:
        _end_with_stdin()
        del given[0]
    if given and given[0].startswith("-") and given[0].partition("=")[0] not in TOP_OPTIONS:
        given.insert(0, "run")
    try:
        code = app(given, prog_name="undertone", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        return tell(error, given)
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
