"""Logs what a DVC stage reads, writes and asks of params.yaml; Python runs this at start when PYTHONPATH has this folder.

One line per event in AUDIT_LOGS/<stage>.log: ``read``, ``write``, ``param`` or ``language``, a tab, and the path, section or code. Only
paths below the folders of AUDIT_ROOTS count.
"""

import os
import sys


def install() -> None:
    roots = tuple(root + os.sep for root in os.environ["AUDIT_ROOTS"].split(os.pathsep))
    name = os.environ["DVC_STAGE"].replace("/", "_")
    log = os.open(os.path.join(os.environ["AUDIT_LOGS"], f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)  # noqa: PTH118

    def note(kind: str, what: object) -> None:
        if kind in ("param", "language"):
            os.write(log, f"{kind}\t{what}\n".encode())
        elif isinstance(what, (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(what))  # noqa: PTH100
            if path.startswith(roots):
                os.write(log, f"{kind}\t{path}\n".encode())

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            note("write" if args[2] & (os.O_WRONLY | os.O_RDWR) else "read", args[0])
        elif event == "os.rename":
            note("write", args[1])
        elif event == "xledit.read":
            note("read", args[0])
        elif event in ("xledit.param", "xledit.language"):
            note(event.removeprefix("xledit."), args[0])

    sys.addaudithook(hook)


if "DVC_STAGE" in os.environ and "AUDIT_LOGS" in os.environ:
    install()
