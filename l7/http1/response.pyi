"""The head of an answer, checked and understood."""

class ResponseHead:
    """Reads one head of an answer after another; bounds in bytes and headers.

    All but `state`, `refusal` and `reason` only where `state` is `HeadState.HEAD_COMPLETE`.
    """

    def __init__(
        self, *, status_line: int = ..., header_bytes: int = ..., header_count: int = ...
    ) -> None: ...
    def feed(self, data: bytes) -> int:
        """Reads on; as `RequestHead.feed`."""

    def restart(self, for_head: bool = False) -> None:
        """Ready for the next head; `for_head`: the request was HEAD, so no body follows."""

    @property
    def state(self) -> int:
        """`HeadState`."""

    @property
    def refusal(self) -> int:
        """A number of `l7.http1.refusals.Refusal`; 0 is none. What the client gets is a 502."""

    @property
    def reason(self) -> str | None:
        """The refusal's name in `l7.http1.rules`."""

    @property
    def status(self) -> int:
        """100 to 999."""

    @property
    def phrase(self) -> bytes:
        """The reason phrase, which may be empty."""

    @property
    def version(self) -> int:
        """10 or 11."""

    @property
    def content_length(self) -> int:
        """-1 where none is given."""

    @property
    def is_chunked(self) -> bool: ...
    @property
    def keeps_alive(self) -> bool:
        """Whether the backend's connection can be used again behind the body."""

    @property
    def body_kind(self) -> int:
        """`l7.http1.body.BodyKind`, of the answer to this request."""

    @property
    def for_head(self) -> bool:
        """The request was HEAD."""

    @property
    def switches(self) -> bool:
        """101 with Upgrade: what follows is another protocol."""

    def header(self, name: bytes) -> bytes | None:
        """The value of `name` (in lower case); several are joined by `, `."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """All, as sent."""
