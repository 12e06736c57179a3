"""nginx of Debian behind the balancer, asked by curl: keep-alive, whole bodies, large pages."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.integration.gateway import balancing
from tests.support.lab import Lab

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: ["203.0.113.10:80/tcp", "203.0.113.10:8081/tcp"]
      scheduler: round-robin
      backends: [10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080]
"""
NGINX = """
worker_processes 1;
daemon off;
error_log stderr crit;
pid {directory}/nginx-{name}.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body-{name};
    server {{
        listen {address}:8080;
        add_header X-Backend {name};
        root {directory}/www;
        location = /who {{ return 200 "{name} $remote_addr\\n"; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def page(lab: Lab):
    """nginx on every backend with a page of 8 MB; its digest."""
    directory = Path(lab.directory)
    (directory / "www").mkdir()
    directory.chmod(0o755)
    body = os.urandom(8 << 20)
    (directory / "www" / "page").write_bytes(body)
    servers = []
    for host in lab.backends:
        config = directory / f"nginx-{host.name}.conf"
        config.write_text(NGINX.format(directory=directory, name=host.name, address=host.v4))
        servers.append((host, host.popen(["nginx", "-c", str(config), "-e", "stderr"])))
    for host, process in servers:
        host.wait_listening(8080, process=process)
    yield hashlib.sha256(body).hexdigest()
    for _, process in servers:
        process.stop()


@pytest.mark.parametrize("datapath", ["mark", "rewrite", "reference"])
def test_curl_gets_whole_pages_from_every_backend(lab, page, datapath):
    with balancing(lab, CONFIG.format(datapath=datapath)):
        ask = "curl -sS --max-time 20 http://203.0.113.10"
        who = [lab.client.run(["sh", "-c", f"{ask}:{port}/who"]).stdout for port in (80, 8081) * 3]
        assert sorted(who) == sorted(2 * [f"b{n} 10.1.0.2\n" for n in (1, 2, 3)])
        # Several requests on one connection stay with one backend.
        kept = lab.client.run(["sh", "-c", f"{ask}/who {ask.split()[-1]}/who {ask.split()[-1]}/who"]).stdout
        assert len(kept.split("\n")) == 4 and len(set(kept.split("\n")[:3])) == 1
        if datapath != "reference":
            got = lab.client.run(["sh", "-c", f"{ask}/page | sha256sum"]).stdout.split()[0]
            assert got == page
