"""Running the page's server: on this machine only, in a thread, while the main thread looks for signals."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from featurize.errors import VggftError, reason
from featurize.process import extras, interrupts
from vggft.ui.console import Ui

HOST = "127.0.0.1"
_MODULES = ("starlette", "uvicorn")
_LOOK = 0.1  # seconds between two looks for a signal
_STARTING = 30.0  # seconds
_ENDING = 1  # seconds in which requests may end after a signal


def require() -> None:
    """Check that the packages are installed.

    Raises:
        VggftError: one is missing.
    """
    extras.require("vggft sort", _MODULES, "sort")


def listening(port: int, wanted: int) -> socket.socket:
    """Return a socket that listens on this machine only.

    Args:
        port: the one that was asked for; 0 for none.
        wanted: the one to try if none was asked for; if it is taken, any other will do. 0 for none.

    Raises:
        VggftError: the port that was asked for cannot be used.
    """
    tried = [port] if port else [wanted, 0] if wanted else [0]
    for number in tried:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # After a kill, the system keeps the port for a minute; on Windows, this would allow two servers on one port.
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
            listener.listen()  # from here on, the port is taken
            return listener
        except OSError as error:
            listener.close()
            why = error
    raise VggftError(
        f"--port {port}: cannot be used ({reason(why)}). Choose another, or leave out --port for a free one."
    )


class _Warnings(logging.Handler):
    """Shows what the server's library warns of."""

    def __init__(self, ui: Ui) -> None:
        super().__init__(logging.WARNING)
        self._ui = ui

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._ui.warn(f"the page's server: {error!r}" if error else f"the page's server: {record.getMessage()}")


@contextlib.contextmanager
def serving(app: Any, listener: socket.socket, ui: Ui) -> Iterator[threading.Thread]:
    """Serve an ASGI application inside the context, in the thread that is returned.

    Raises:
        VggftError: it does not start.
    """
    import uvicorn

    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [_Warnings(ui)], False
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_ENDING,
    )
    server = uvicorn.Server(config)
    # Signals are the main thread's: in another thread, uvicorn leaves them alone.
    thread = threading.Thread(target=server.run, args=([listener],), name="server", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _STARTING
        while not server.started:
            interrupts.check()
            if not thread.is_alive() or time.monotonic() > until:
                raise VggftError("The page's server does not start. Run it again with --debug.")
            time.sleep(0.01)
        yield thread
    finally:
        server.should_exit = True
        thread.join(_ENDING + 0.3)


def wait(thread: threading.Thread) -> None:
    """Wait for a signal, or until the thread of `serving` ends by itself.

    Raises:
        KeyboardInterrupt: after a signal.
    """
    while thread.is_alive():
        interrupts.check()
        time.sleep(_LOOK)
