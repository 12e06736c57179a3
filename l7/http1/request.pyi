"""The head of a request, checked and understood: the contract's Request."""

from collections.abc import Callable

class RequestHead:
    """Reads one request head after another; bounds in bytes and headers (`l7.model.Limits`).

    All but `state`, `refusal` and `reason` only where `state` is `HeadState.HEAD_COMPLETE`.
    """

    def __init__(
        self,
        *,
        request_line: int = ...,
        header_bytes: int = ...,
        header_count: int = ...,
        make_id: Callable[[], bytes] | None = None,
    ) -> None:
        """`make_id` gives a request's `id` when that is first asked for; without it ids are zeros."""

    def feed(self, data: bytes) -> int:
        """Reads on. How many bytes of `data` belong to the head: all of them where more is needed, none
        where it is refused or was complete before."""

    def restart(self) -> None:
        """Ready for the next head. What was read of the last is gone."""

    @property
    def state(self) -> int:
        """`HeadState`: HEAD_MORE, HEAD_COMPLETE or HEAD_REFUSED."""

    @property
    def refusal(self) -> int:
        """A number of `l7.http1.refusals.Refusal`; 0 is none."""

    @property
    def reason(self) -> str | None:
        """The refusal's name in `l7.http1.rules`."""

    @property
    def method(self) -> bytes:
        """As sent."""

    @property
    def method_number(self) -> int:
        """`l7.http1.requestline.Method`."""

    @property
    def is_idempotent(self) -> bool:
        """Whether sending it twice is as good as once (RFC 9110 9.2.2)."""

    @property
    def target(self) -> bytes:
        """`/path?query` or `*`, as sent; of a URI, its path and query."""

    @property
    def host(self) -> str:
        """Lower case, without port and final dot; IPv6 in brackets. `""` for HTTP/1.0 without Host."""

    @property
    def authority(self) -> bytes:
        """The Host header as sent."""

    @property
    def path(self) -> str:
        """For matching: percent-decoded as UTF-8 (surrogateescape), `//` merged, dot segments removed."""

    @property
    def query(self) -> bytes:
        """Behind `?`, without it."""

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
        """Whether the client's connection can go on behind the answer (RFC 9112 9.3)."""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body."""

    @property
    def asks_upgrade(self) -> bool:
        """Whether another protocol is asked for, in a request of HTTP/1.1 without a body."""

    @property
    def upgrade(self) -> bytes | None:
        """The protocols that `asks_upgrade` is for, as sent."""

    @property
    def id(self) -> bytes:
        """32 hexadecimal digits."""

    def header(self, name: bytes) -> bytes | None:
        """The value of `name` (in lower case); several are joined by `, `, cookies by `; `."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """All, as sent."""

    def cookie(self, name: bytes) -> bytes | None:
        """The first of that name."""
