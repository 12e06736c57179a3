"""nginx beside what is tested: one process that keeps all its files in the site's directory."""

from __future__ import annotations

import os
import socket

from tests.support.lab import wait_for
from tests.support.proxy import Site, start_program

READY_TIMEOUT_S = 10
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def start_nginx(site: Site, name: str, http: str, *ports: int) -> None:
    """nginx with the content of an `http` block; it listens on the site's `ports` when this returns."""
    directory = site.directory
    kept = "".join(f"{kind}_temp_path {directory}/{name}-{kind};\n" for kind in _TEMPORARY)
    path = directory / f"{name}.conf"
    # Of another user it could not read what is in the directory of a test.
    user = "user root; " if os.geteuid() == 0 else ""
    path.write_text(
        f"{user}worker_processes 1; daemon off; error_log stderr crit; pid {directory}/{name}.pid;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{kept}{http}\n}}\n"
    )
    program = start_program(["nginx", "-e", "stderr", "-c", path], directory / f"{name}.log")
    site.programs.append(program)

    def is_up() -> bool:
        program.check_running()
        return all(listens(site, port) for port in ports)

    wait_for(is_up, READY_TIMEOUT_S, f"nginx {name} to listen; it wrote: {program.output()[-500:]}")


def listens(site: Site, port: int) -> bool:
    """Whether something of this site listens."""
    with socket.socket() as probe:
        return probe.connect_ex((site.address, port)) == 0
