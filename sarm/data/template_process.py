"""Runs chat templates in a process of its own, within limits that the system holds; started by `chat_templates.py` as a script.

One request a line on stdin, one answer a line on stdout, JSON in ASCII both ways. The first line says that the process is ready.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

Render = Callable[..., Any]


def transformers_renderer() -> Render:
    """`render_jinja_template` of the installed transformers: its sandbox, its filters, its extensions.

    The package's own `__init__` is passed by, which takes seconds and is not needed; where that fails, the whole package is imported.
    """
    found = importlib.util.find_spec("transformers")
    names = ("transformers", "transformers.utils")
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(str(found.origin)).parent.joinpath(*name.split(".")[1:]))] if found else []
        sys.modules[name] = package
    try:
        found_there = importlib.import_module("transformers.utils.chat_template_utils")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        found_there = importlib.import_module("transformers.utils.chat_template_utils")
    render: Render = found_there.render_jinja_template
    return render


def limit_memory(more: int) -> None:
    """Let this process map `more` bytes beside what it has. Not every system holds to it; the parent looks at the memory, too."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))


def answer(render: Render, request: dict[str, Any], turns: list[dict[str, str]], limits: dict[str, float]) -> dict[str, str]:
    """`text`, or `refused` with the template's words, or `beyond` with the limit."""
    # Processor time of this process: a machine with much to do changes nothing. Its signal ends the process, also inside one long product.
    signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
    try:
        texts, _ = render(
            conversations=[turns],
            chat_template=request["template"],
            add_generation_prompt=request["generation_prompt"],
            **request["variables"],
        )
        if len(texts[0]) > limits["characters"]:
            return {"beyond": f"wrote {len(texts[0]):,} characters"}
        return {"text": texts[0]}
    except MemoryError:
        return {"beyond": f"took more than {limits['bytes'] / 2**20:,.0f} MiB of memory"}
    # A template can raise whatever the values that it handles can raise.
    except Exception as error:
        return {"refused": " ".join(str(error)[:1000].split()) or type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(limits: dict[str, float], paths: list[str]) -> None:
    """Answer until stdin ends, which it does with the parent."""
    sys.path[:] = paths
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    render = transformers_renderer()
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    print("{}", file=out, flush=True)
    os.dup2(quiet, 2)
    limit_memory(int(limits["bytes"]))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        for turns in request["conversations"]:
            print(json.dumps(answer(render, request, turns, limits)), file=out, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
