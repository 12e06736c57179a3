"""Whatever a file of nginx holds, importing it ends in a configuration that can be read, or in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.errors import ConfigError
from l7.config.parse import parse_config
from l7.nginx.convert import import_nginx

VALID = (Path(__file__).parents[1] / "data" / "nginx" / "everything.conf").read_text()

_WORDS = st.sampled_from(
    [
        *(
            "{",
            "}",
            ";",
            " ",
            "\n",
            '"',
            "'",
            "#",
            "$",
            "$1",
            "$host",
            "$x",
            "\\",
            "(",
            "~",
            "=",
            "^~",
            "@",
            "*",
        ),
        *("server ", "location ", "upstream ", "if ", "return ", "rewrite ", "listen ", "include ", "map "),
        *(
            "proxy_pass ",
            "http://",
            "https://",
            "unix:",
            "10.0.0.1",
            ":80",
            "[::]",
            "-1",
            "0",
            "1s",
            "x",
            "off",
        ),
        *(
            "weight=",
            "max_fails=",
            "all",
            "deny ",
            "allow ",
            "permanent",
            "ssl",
            "expires=",
            "301 ",
            "é",
            "\t",
        ),
    ]
)
_PIECES = st.lists(_WORDS, max_size=6).map("".join)


def read(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "nginx.conf"
        path.write_text(text, "utf-8", "surrogatepass")
        try:
            imported = import_nginx(path)
        except ConfigError as error:
            assert "\n" not in str(error)
            return
    parse_config(imported.text, "import")
    for remark in imported.remarks:
        assert str(remark).isprintable(), remark


def test_the_file_that_others_are_made_from_is_carried_over() -> None:
    read(VALID)


@settings(deadline=None, max_examples=60)
@given(st.one_of(st.text(), _PIECES))
def test_arbitrary_text(text: str) -> None:
    read(text)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_pieces_cut_out_and_put_in(data: st.DataObject) -> None:
    text = VALID
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 10)))
        text = text[:start] + data.draw(_PIECES) + text[end:]
    read(text)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_words_replaced(data: st.DataObject) -> None:
    """Which keeps the braces, so that what is read goes further."""
    words = VALID.split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(words) - 1))
        words[at] = data.draw(_PIECES)
    read(" ".join(words))


@pytest.mark.parametrize(
    "line",
    [
        *(
            "server { listen; }",
            "upstream u { server; }",
            "upstream u { server a weight=x; }",
            "upstream { server a; }",
        ),
        *(
            "server { rewrite; location / { rewrite ^/x; } }",
            "server { location { return 200; } }",
            "worker_processes -1;",
        ),
        *("server { location / { proxy_pass; } }", "server { return; }", "server { error_page; }", "user;"),
        *(
            "server { location / { proxy_read_timeout x; proxy_pass http://a; } }",
            "split_clients $x $y { x% a; }",
        ),
        *(
            "server { location / { allow 10.0.0.0/33; deny all; } }",
            "upstream u { hash; server a; }",
            "server { if () { } }",
        ),
        *(
            "upstream u { sticky cookie s expires=x; server a; }",
            "upstream u { health_check interval=x; server a; }",
        ),
        *(
            "server { location / { proxy_pass http://a:99999; } }",
            "client_max_body_size x; server { return 200; }",
        ),
        *(
            "large_client_header_buffers x; server { return 200; }",
            "upstream u { queue x; server a; keepalive y; }",
        ),
        *(
            "server { listen 80; location ~ ( { return 200; } }",
            "upstream u { server unix:/x; }",
            "upstream u { }",
        ),
        *(
            "upstream u { server a backup; }",
            "server { server_name ~( a..b *x *; return 200; }",
            "set_real_ip_from x;",
        ),
        *("server { location / { proxy_set_header; add_header X; proxy_pass http://a; } }", "access_log;"),
        *(
            "server { location / { return 200 é; } }",
            "upstream u { server a; server a; }",
            "log_format; access_log /x y;",
        ),
        *(
            "upstream u { random; least_time; sticky; server a; }",
            "server { location /a//b { return 200; } }",
        ),
        *(
            "stream { server { proxy_pass a; } server { listen 1; } }",
            "server { ssl_certificate x; listen 1 ssl; return 200; }",
        ),
        *(
            "keepalive_timeout 0; server { return 200; }",
            "server { return 600 x; }",
            "server { location /$x { return 200; } }",
        ),
    ],
)
def test_lines_that_nginx_would_refuse(line: str) -> None:
    read(line)
