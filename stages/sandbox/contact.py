"""What proxies need of the connection."""

from typing import Any, Protocol


class Contact(Protocol):
    """One end of the connection to the other process (peer.py)."""

    is_tests: bool
    mirrors: Any

    def request(self, operation: str, *parts: Any) -> Any:
        """The answer of the other side. Raises its exception."""

    def decode(self, form: Any) -> Any:
        """The value of an encoded form."""

    def note(self, text: str) -> None:
        """Remember why a comparison may surprise."""
