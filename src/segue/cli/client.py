"""HTTP/1.1 over the control plane's Unix socket: one request a connection.

Rule: only what `segue status` can afford is imported here. `http.client` alone would cost more than it may take;
`_socket` is all of `socket` that is needed, without its enumerations.
"""

from __future__ import annotations

import _socket
import os

from segue.cli.fastjson import loads
from segue.home import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


class Broken(ConnectionError):
    """The control plane went away in the middle of an answer."""


class Absent(ConnectionError):
    """No control plane answers at this socket."""


class Body:
    """The body of an answer, as it comes: by Content-Length, chunked, or until the connection ends."""

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._raw = bytearray()
        self._chunked = False
        self._left: int | None = None
        self.status = 0
        self._read_head()

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._connection.fileno()

    def whole(self) -> bytes:
        """All that is left of the body. Raises Broken if it does not arrive whole."""
        parts = []
        while (part := self.part()) is not None:
            parts.append(part)
        return b"".join(parts)

    def part(self) -> bytes | None:
        """The next part of the body; None at its end. Raises Broken."""
        if self._chunked and not self._left:
            self._left = int(self._line().split(b";")[0], 16)
            if self._left == 0:
                return None
        if self._left == 0:
            return None
        if not self._raw and not self._fill():
            if self._left is None:
                return None
            raise Broken("the answer ended in the middle")
        part = bytes(self._raw[: self._left])
        del self._raw[: len(part)]
        if self._left is not None:
            self._left -= len(part)
            if self._chunked and self._left == 0:
                self._line()
        return part

    def lines(self, tick: float | None = None) -> Iterator[bytes | None]:
        """The body's lines; None whenever nothing came for `tick` seconds. Raises Broken."""
        rest = b""
        while True:
            if tick is not None and not self._raw and not self._comes(tick):
                yield None
                continue
            part = self.part()
            if part is None:
                break
            *whole, rest = (rest + part).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def _comes(self, tick: float) -> bool:
        import select

        return bool(select.select([self], [], [], tick)[0])

    def _read_head(self) -> None:
        protocol, _, rest = self._line().partition(b" ")
        if not protocol.startswith(b"HTTP/1."):
            raise ValueError("this is not HTTP")
        self.status = int(rest[:3])
        while line := self._line():
            name, _, value = line.lower().partition(b":")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                self._chunked = b"chunked" in value

    def _line(self) -> bytes:
        while (end := self._raw.find(b"\r\n")) < 0:
            if not self._fill():
                raise Broken("the control plane ended the connection")
        line = bytes(self._raw[:end])
        del self._raw[: end + 2]
        return line

    def _fill(self) -> bool:
        try:
            more = self._connection.recv(65536)
        except TimeoutError:
            raise
        except OSError as exc:
            raise Broken(str(exc)) from exc
        self._raw += more
        return bool(more)


class Client:
    """Asks the control plane that answers at the socket `path`; of `home`, if named: its owner's, or root's."""

    def __init__(self, path: str, home: str | None = None) -> None:
        self.path = path
        self._home = home

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None, timeout: float = 30) -> Any:
        """The document that the control plane answers with.

        Raises the SegueError that it answers with, Absent, Broken, Unreachable (it does not answer within
        `timeout` seconds, or this user may not ask).
        """
        try:
            with self.open(method, path, body, key=key, timeout=timeout) as answer:
                return loads(answer.whole())
        except TimeoutError as exc:
            raise _unreachable(f"The control plane did not answer within {timeout:g} s.", "segue doctor") from exc
        except ValueError as exc:
            raise self._stranger() from exc

    def open(
        self, method: str, path: str, body: object = None, *, key: str | None = None, timeout: float | None = None
    ) -> Body:
        """The answer, as it comes. Raises as `ask`."""
        connection = self._connect(timeout)
        try:
            connection.sendall(_request(method, path, body, {"Idempotency-Key": key} if key else {}))
            answer = Body(connection)
            if answer.status >= 400:
                raise _error(loads(answer.whole()), answer.status)
        except BrokenPipeError as exc:
            connection.close()
            raise Broken("the control plane ended the connection") from exc
        except ValueError as exc:
            connection.close()
            raise self._stranger() from exc
        except BaseException:
            connection.close()
            raise
        return answer

    def _stranger(self) -> Exception:
        return _unreachable(f"What answers at {self.path} is not a control plane.", "segue doctor")

    def _connect(self, timeout: float | None) -> _socket.socket:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(self.path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as exc:
            connection.close()
            raise Absent(f"no control plane answers at {self.path}") from exc
        except PermissionError as exc:
            connection.close()
            raise _unreachable(_not_allowed(self.path), "segue doctor") from exc
        except OSError as exc:
            connection.close()
            raise _unreachable(f"The control plane at {self.path} cannot be reached: {exc}.", "segue doctor") from exc
        if self._is_of_another(connection):
            connection.close()
            raise _unreachable(f"Another user answers at {self.path}: nothing is sent to it.", "segue doctor")
        return connection

    def _is_of_another(self, connection: _socket.socket) -> bool:
        """Whether neither the home's owner nor root answers, by the kernel's word: nobody can be too fast for it."""
        credentials = getattr(_socket, "SO_PEERCRED", None)
        if self._home is None or credentials is None:
            return False
        _, uid, _ = memoryview(connection.getsockopt(_socket.SOL_SOCKET, credentials, 12)).cast("i")
        return uid not in (0, owner(self._home))


def _request(method: str, path: str, body: object, headers: Mapping[str, str]) -> bytes:
    content = b"" if body is None else _encoded(body)
    head = [f"{method} {path} HTTP/1.1", "Host: segue", "Connection: close"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    if method != "GET":
        head += ["Content-Type: application/json", f"Content-Length: {len(content)}", f"X-Segue-Who: {_who()}"]
    return "\r\n".join([*head, "", ""]).encode() + content


def _who() -> str:
    """Whose name stands beside a rollout: for people to read, nothing is decided by it."""
    import pwd

    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = f"user {os.geteuid()}"
    return "".join(c for c in name if c.isascii() and c.isprintable())


def _encoded(body: object) -> bytes:
    import json

    return json.dumps(body).encode()


def _error(document: Any, status: int) -> Exception:
    from segue.errors import SegueError

    told = document.get("error") if isinstance(document, dict) else None
    if not isinstance(told, dict):
        return _unreachable(f"The control plane answered with status {status} and no explanation.", "segue doctor")
    error = SegueError(str(told.get("message") or f"status {status}"), next=told.get("next"))
    error.code, error.exit = str(told.get("code", "error")), int(told.get("exit", 1))
    return error


def _unreachable(message: str, next: str) -> Exception:
    from segue.errors import Unreachable

    return Unreachable(message, next=next)


def _not_allowed(path: str) -> str:
    home = os.path.dirname(path)
    return f"You may not use the control plane in {home}: it is another user's (set SEGUE_HOME, or ask as that user)."
