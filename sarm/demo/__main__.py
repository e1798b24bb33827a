"""`python -m sarm.demo --model DIR`: serves a page on 127.0.0.1 until SIGINT, SIGTERM or the end of its parent."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarm.demo.unforeseen import told
from sarm.job import EnvironmentProblem, JobError, Resources

if TYPE_CHECKING:
    from sarm.demo.answers import AskedModel

HOST = "127.0.0.1"
MISSING = (
    "the demo needs starlette and uvicorn, which are not installed; run: pip install 'replicate-sarm[demo]' "
    "(in a checkout: make venv, or pip install -c constraints.txt -e '.[demo]')"
)
INTERRUPTED = 130
GRACE_SECONDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end; gives the exit code. Problems are one line on stderr."""
    options = _parser().parse_args(arguments)
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        return _serve(options)
    except JobError as problem:
        tell(str(problem))
        return problem.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        tell(told(error))
        return 1


def tell(line: str) -> None:
    """A line for the terminal."""
    print(f"replicate: {line}", file=sys.stderr, flush=True)


def listening(port: int) -> socket.socket:
    """A socket of this machine alone; 0 takes a free port. Raises EnvironmentProblem where it is taken or not allowed."""
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", 0) == errno.EADDRINUSE
        why = "is in use" if taken else f"cannot be opened ({getattr(error, 'strerror', None) or error})"
        raise EnvironmentProblem(f"port {port} {why}; choose another with --port, or --port 0 for a free one") from error


def _serve(options: argparse.Namespace) -> int:
    try:
        import starlette  # noqa: F401, PLC0415 - an extra that may be absent
        import uvicorn  # noqa: PLC0415 - as above
    except ImportError as error:
        raise EnvironmentProblem(MISSING) from error
    with listening(options.port) as server_socket:
        tell(f"opening {options.model.name} ...")
        from sarm.demo.web import Site  # noqa: PLC0415 - torch, which takes seconds and is not needed to say that a port is taken

        server: uvicorn.Server
        site = Site(_model(options), save=options.save, ending=lambda: server.should_exit, tell=tell)
        # Nothing of the page's requests is written anywhere.
        settings = uvicorn.Config(site.app, log_level="critical", access_log=False, lifespan="off", ws="none", server_header=False)
        settings.timeout_graceful_shutdown = GRACE_SECONDS
        server = uvicorn.Server(settings)
        # uvicorn ends on these, and raises them once more for whoever listened before.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        print(f"http://{HOST}:{server_socket.getsockname()[1]}/", flush=True)
        tell("open this address in a browser of this machine; Ctrl-C ends the demo")
        server.run(sockets=[server_socket])
    tell("the demo has ended")
    return 0


def _model(options: argparse.Namespace) -> AskedModel:
    from sarm.demo.answers import AskedModel  # noqa: PLC0415 - torch, as above
    from sarm.demo.explanations import read_explanations  # noqa: PLC0415 - as above
    from sarm.engine.devices import device_of  # noqa: PLC0415 - as above

    return AskedModel(
        options.model,
        device=device_of(Resources(gpus=options.gpus)),
        max_length=options.max_length,
        end_of_turn=options.end_of_turn,
        pooling="last_token" if options.pooling == "last-token" else "end_of_turn",
        explanations=read_explanations(options.explanations) if options.explanations else {},
    )


def _end_with_parent() -> None:
    """Wait until the pipe from the parent ends, which it does however the parent ends."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sarm.demo", description="A page on this machine that asks a reward model.")
    parser.add_argument("--model", type=Path, required=True, help="folder of a reward model")
    parser.add_argument("--explanations", type=Path, help="artifact of explain_latents made with this model")
    parser.add_argument("--save", type=Path, help="folder into which steering files are written as well")
    parser.add_argument("--port", type=int, default=8765, help="port of 127.0.0.1; 0 for a free one")
    parser.add_argument("--max-length", type=int, default=4096, help="longest conversation, tokens")
    parser.add_argument("--end-of-turn", default="", help="token that ends a turn, where it is not the tokenizer's eos")
    parser.add_argument("--pooling", choices=("end-of-turn", "last-token"), default="end-of-turn", help="scored token")
    parser.add_argument("--gpus", type=int, default=0, help="1 takes a GPU")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    return parser


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A question that the model still answers has nobody left to hear it: its thread is not waited for.
    os._exit(code)
