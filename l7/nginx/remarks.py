"""What is to be said of an import, line by line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from l4lb.control.message import printable
from l7.nginx.source import MAX_SHOWN, Directive


class Kind(StrEnum):
    """How much a line of nginx's was changed by the import."""

    LOST = "lost"
    """It is not carried over."""
    DIFFERS = "differs"
    """It is carried over, and means something a little different."""
    NEEDLESS = "needless"
    """It needs no counterpart."""


@dataclass(frozen=True, slots=True)
class Remark:
    """`directive` is the line of nginx's; `text` the reason and, after a semicolon, what to do."""

    kind: Kind
    file: str
    line: int
    directive: str
    text: str

    def __str__(self) -> str:
        shown = self.directive if len(self.directive) <= MAX_SHOWN else f"{self.directive[:MAX_SHOWN]}…"
        return printable(f"{self.file}:{self.line}: {self.kind}: {shown}: {self.text}")


class Remarks:
    """Collects them; one line of nginx's is reported once with one text."""

    def __init__(self) -> None:
        self._found: dict[Remark, None] = {}

    def lost(self, directive: Directive, text: str) -> None:
        """The line is not carried over."""
        self._add(Kind.LOST, directive, text)

    def differs(self, directive: Directive, text: str) -> None:
        """The line is carried over, with a difference."""
        self._add(Kind.DIFFERS, directive, text)

    def _add(self, kind: Kind, directive: Directive, text: str) -> None:
        directive.is_known = True
        self._found[Remark(kind, directive.file, directive.line, str(directive), text)] = None

    def sweep(self, directives: Iterable[Directive]) -> None:
        """Says of every line that nobody has dealt with that it is lost, and why if that is known."""
        for one in directives:
            if not one.is_known:
                kind, text = _reason(one)
                self._found[Remark(kind, one.file, one.line, str(one), text)] = None
            elif one.block:
                self.sweep(one.block)

    def listed(self) -> list[Remark]:
        """All of them, file by file and line by line."""
        return sorted(self._found, key=lambda remark: (remark.file, remark.line))


def _reason(directive: Directive) -> tuple[Kind, str]:
    name = directive.name
    for words, text in _NEEDLESS.items():
        if name in words:
            return Kind.NEEDLESS, text
    for words, text in _LOST.items():
        if name in words or any(name.startswith(word) for word in words if word.endswith("_")):
            return Kind.LOST, text
    return Kind.LOST, "has no counterpart here"


_NEEDLESS: dict[tuple[str, ...], str] = {
    (
        *(
            "sendfile",
            "tcp_nopush",
            "tcp_nodelay",
            "aio",
            "directio",
            "output_buffers",
            "use",
            "epoll_events",
        ),
        *("multi_accept", "accept_mutex", "worker_rlimit_nofile", "worker_cpu_affinity", "worker_priority"),
        *("types_hash_max_size", "types_hash_bucket_size", "server_names_hash_max_size", "pcre_jit"),
        *("server_names_hash_bucket_size", "variables_hash_max_size", "map_hash_bucket_size", "thread_pool"),
    ): "tunes nginx itself",
    (
        "pid",
        "daemon",
        "master_process",
        "load_module",
        "env",
        "events",
        "lock_file",
    ): "belongs to nginx's own process",
    (
        *("proxy_buffering", "proxy_buffers", "proxy_buffer_size", "proxy_busy_buffers_size"),
        *(
            "proxy_request_buffering",
            "proxy_max_temp_file_size",
            "proxy_temp_path",
            "client_body_buffer_size",
        ),
        *("client_body_temp_path", "client_header_buffer_size", "proxy_temp_file_write_size"),
    ): "bodies are streamed both ways, within bounds of memory",
    (
        "proxy_http_version",
        "chunked_transfer_encoding",
        "proxy_socket_keepalive",
    ): "HTTP/1.1 is spoken anyway",
    (
        *("ssl_prefer_server_ciphers", "ssl_session_cache", "ssl_session_timeout", "ssl_session_tickets"),
        *("ssl_dhparam", "ssl_ecdh_curve", "ssl_buffer_size", "ssl_session_ticket_key"),
    ): "sessions are resumed, and keys are agreed on, as OpenSSL does by default",
    ("server_tokens",): "the proxy does not name itself",
    (
        "types",
        "default_type",
        "log_format",
        "charset",
    ): "no files are served; the access log has its own formats",
    ("error_log",): "errors go to the program's log",
    (
        "resolver",
        "resolver_timeout",
        "zone",
        "state",
        "ntlm",
    ): "names are looked up by the system; workers share what they must",
    (
        "root",
        "index",
        "server_name_in_redirect",
        "port_in_redirect",
        "absolute_redirect",
        "merge_slashes",
    ): "no files are served",
    (
        *("ssl_protocols", "ssl_ciphers", "ssl_certificate", "ssl_certificate_key", "ssl_client_certificate"),
        *("ssl_verify_client", "ssl_reject_handshake"),
    ): "no listener ends TLS with it",
    (
        *("map_hash_max_size", "map", "geo", "split_clients", "proxy_set_header", "proxy_redirect"),
        *("proxy_pass_header", "proxy_ssl_verify", "proxy_ssl_name", "proxy_ssl_server_name"),
    ): "nothing that was carried over uses it",
    (
        "keepalive_requests",
        "keepalive_time",
        "lingering_close",
        "reset_timedout_connection",
    ): "connections to backends are kept as long as they serve",
}
_LOST: dict[tuple[str, ...], str] = {
    ("auth_basic", "auth_basic_user_file", "auth_request", "auth_jwt", "satisfy", "auth_"): (
        "nobody is asked who they are here, and requests are let through; "
        "protect the backend before this is used"
    ),
    ("limit_req", "limit_conn", "limit_req_zone", "limit_conn_zone", "limit_rate", "limit_"): (
        "rates are not limited here; tier 1 limits new flows of an address"
    ),
    (
        "proxy_cache",
        "proxy_cache_path",
        "proxy_cache_",
        "proxy_store",
        "proxy_no_cache",
    ): "nothing is cached here",
    (
        "gzip",
        "gzip_",
        "gunzip",
        "brotli",
        "brotli_",
    ): "answers are passed on as backends send them; compress there",
    (
        "sub_filter",
        "sub_filter_",
        "addition_types",
        "add_before_body",
        "add_after_body",
        "ssi",
    ): "bodies are not changed",
    ("fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass", "fastcgi_", "uwsgi_", "scgi_"): (
        "backends are spoken to in HTTP only; put an HTTP server in front of it"
    ),
    ("grpc_pass", "grpc_"): "gRPC needs HTTP/2, which backends are not spoken to in",
    ("ssl_stapling", "ssl_stapling_verify", "ssl_trusted_certificate"): "OCSP answers are not stapled",
    ("ssl_crl", "ssl_verify_depth", "proxy_ssl_crl"): "lists of revoked certificates are not read",
    ("mirror", "mirror_request_body"): "requests are not mirrored",
    ("expires", "etag", "if_modified_since"): "belongs to files; set Cache-Control with response_headers",
    ("proxy_cookie_path", "proxy_cookie_domain", "proxy_cookie_flags"): "cookies of backends are not changed",
    (
        "proxy_bind",
        "proxy_set_body",
        "proxy_method",
        "proxy_pass_request_headers",
        "proxy_pass_request_body",
    ): ("requests keep what they came with"),
    (
        "perl",
        "js_import",
        "js_",
        "lua_",
        "access_by_lua",
        "content_by_lua",
        "set_by_lua",
    ): "there are no scripts",
    ("mail",): "mail is not balanced here; tier 1 balances any TCP",
    ("set",): "there are no variables of one's own",
    ("if",): "this condition has no counterpart; write a route with match",
}
