"""What is refused of a message, and why: one rule for each number of `Refusal`, in their order.

A request that breaks one is answered with its status and its connection is closed, for where its next request
begins is no longer sure. An answer that breaks one becomes a 502, whatever the status here, and the backend's
connection is closed. The name is that of the counter.

Where HTTP lets a recipient choose between repairing and refusing, this proxy refuses: what it repairs,
another party on the way may have read differently, and that is how requests are smuggled.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is refused. `source` is the section that forbids it or lets it be refused."""

    name: str
    status: int
    source: str
    text: str


RULES = (
    # Lines of heads and trailers
    Rule("bare_lf", 400, "RFC 9112 2.2", "a line that ends with LF alone"),
    Rule("bare_cr", 400, "RFC 9112 2.2", "CR that no LF follows"),
    Rule("control", 400, "RFC 9110 5.5", "NUL, another control character or DEL in a value or a reason"),
    Rule(
        "header_name",
        400,
        "RFC 9110 5.1",
        "a name that is empty, has no colon, or has other characters than a token's",
    ),
    Rule("space_before_colon", 400, "RFC 9112 5.1", "white space between a name and its colon"),
    Rule("folded_line", 400, "RFC 9112 5.2", "a header line that begins with white space"),
    Rule("header_bytes", 431, "RFC 6585 5", "a head (or trailers) of more bytes than `limits` allow"),
    Rule("header_count", 431, "RFC 6585 5", "more headers than `limits` allow"),
    # Request line
    Rule(
        "request_line",
        400,
        "RFC 9112 3",
        "anything but method, target and version with one space between them",
    ),
    Rule("line_too_long", 414, "RFC 9112 3", "a request line of more bytes than `limits` allow"),
    Rule(
        "method", 501, "RFC 9110 9.1", "a method with other characters than A-Z, - and _, or of more than 32"
    ),
    Rule("method_not_allowed", 405, "RFC 9110 9.3.6, 9.3.8", "CONNECT and TRACE"),
    Rule(
        "target",
        400,
        "RFC 9112 3.2",
        "a target that is no path, no `*` of OPTIONS and no URI of http or https",
    ),
    Rule("target_not_ascii", 400, "RFC 3986 2", "a byte above 127 in the target"),
    Rule("target_fragment", 400, "RFC 9112 3.2.1", "# in the target"),
    Rule("target_escape", 400, "RFC 3986 2.1", "% without two hexadecimal digits, or %00, in the path"),
    Rule("target_above_root", 400, "RFC 3986 5.2.4", "a path that leaves the root by .. segments"),
    Rule("version", 505, "RFC 9112 2.3", "a version other than HTTP/1.0 and HTTP/1.1"),
    Rule("http2_preface", 505, "RFC 9113 3.4", "the preface of HTTP/2 where HTTP/1 is spoken"),
    # Host
    Rule("host_missing", 400, "RFC 9112 3.2", "HTTP/1.1 without Host"),
    Rule("host_repeated", 400, "RFC 9112 3.2", "more than one Host"),
    Rule(
        "host_invalid",
        400,
        "RFC 9112 3.2",
        "a Host that is no name, IPv4 or IPv6 address with an optional port",
    ),
    Rule("host_differs", 400, "RFC 9112 3.2.2", "a URI as target whose authority is not that of Host"),
    # Framing
    Rule("length_invalid", 400, "RFC 9112 6.3", "a Content-Length that is not one number of 1 to 18 digits"),
    Rule("length_repeated", 400, "RFC 9110 8.6", "more than one Content-Length, equal or not"),
    Rule("length_and_coding", 400, "RFC 9112 6.1", "Content-Length together with Transfer-Encoding"),
    Rule(
        "coding",
        400,
        "RFC 9112 6.1",
        "Transfer-Encoding repeated, or its last coding is not a single chunked",
    ),
    Rule("coding_unknown", 501, "RFC 9112 6.1", "another coding before a final chunked"),
    Rule("coding_in_http10", 400, "RFC 9112 6.1", "Transfer-Encoding in a message of HTTP/1.0"),
    # Connection and expectations
    Rule(
        "connection",
        400,
        "RFC 9110 7.6.1",
        "a Connection or Upgrade that is no list of tokens, more than 32 options, more than one Upgrade",
    ),
    Rule(
        "connection_names_field",
        400,
        "RFC 9110 7.6.1",
        "a Connection that names an end-to-end header, which would have it removed",
    ),
    Rule("expectation", 417, "RFC 9110 10.1.1", "an Expect other than 100-continue, of HTTP/1.1"),
    # Chunks
    Rule("chunk_size", 400, "RFC 9112 7.1", "a chunk size that is not 1 to 15 hexadecimal digits"),
    Rule(
        "chunk_extension",
        400,
        "RFC 9112 7.1.1",
        "chunk extensions of more than 256 bytes, or with control characters",
    ),
    Rule("chunk_end", 400, "RFC 9112 7.1", "a chunk whose data CRLF does not follow"),
    # Answers of backends
    Rule(
        "status_line",
        502,
        "RFC 9112 4",
        "an answer that does not begin with HTTP/1.0 or 1.1 and a status of three digits",
    ),
)


def name_of(refusal: int) -> str | None:
    """The name of a refusal by its number; None for 0, which is none."""
    return RULES[refusal - 1].name if refusal else None
