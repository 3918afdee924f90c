"""What a server can serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from uva_lightning.serving.wire import Message


class Session(Protocol):
    """What a server remembers of one client, such as the history that it showed; ends with the connection."""

    def prepare(self, message: Message) -> Any:
        """Check a message and take up what it shows.

        Returns:
            What ``Served.infer`` takes.

        Raises:
            ValueError: It cannot be answered; the text goes to the client, and the session stays as it was.
        """
        ...

    def close(self) -> None:
        """Forget all."""
        ...


class Served(Protocol):
    """A policy, or whatever else answers observations. A server calls all of it from one and the same thread."""

    def metadata(self) -> Message:
        """Give the facts that every client gets when it connects."""
        ...

    def open(self) -> Session:
        """Begin a session."""
        ...

    def infer(self, prepared: Sequence[Any]) -> Sequence[Message]:
        """Answer what sessions prepared, of different clients, in one call.

        Returns:
            One reply each. ``policy_timing``, milliseconds by name, is added by the server where it is not there.

        Raises:
            ValueError: One of them cannot be answered; the server then asks again for each by itself.
        """
        ...
