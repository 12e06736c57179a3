"""What testssl.sh finds in a listener as it is by default: nothing HIGH, nothing CRITICAL.

It takes a minute, most of which it waits, so it runs where `L4LB_SCAN=1` asks for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.support.proxy import Site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("L4LB_SCAN" not in os.environ, reason="takes a minute: set L4LB_SCAN=1"),
    pytest.mark.skipif(
        shutil.which("testssl") is None, reason="testssl.sh is missing: run `scripts/setup --outside`"
    ),
]
PORT = 8443
# Protocols, ciphers, forward secrecy, vulnerabilities, headers. The certificate, which it would also look at,
# is the operator's.
CHECKS = ["-p", "-s", "-f", "-U", "-h"]
LONGEST_S = 280
BAD = {"HIGH", "CRITICAL", "FATAL"}


def test_nothing_bad_is_found(site: Site, tmp_path: Path) -> None:
    pem, findings = tmp_path / "site.pem", tmp_path / "findings.json"
    trustme.CA().issue_cert("shop.example").private_key_and_cert_chain_pem.write_to_path(pem)
    site.start_proxy(
        {
            "workers": 1,
            "access_log": False,
            "listeners": [{"listen": f"{site.address}:{PORT}", "tls": {"certificates": [str(pem)]}}],
            "routes": [{"pool": "web"}],
            "pools": {
                "web": {
                    "sticky": {"cookie": "SERVERID"},
                    "backends": [site.start_origin("b1", 8081).endpoint],
                }
            },
        }
    )
    argv = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", *CHECKS]
    argv += ["--jsonfile", str(findings), f"https://{site.address}:{PORT}"]
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S, check=False)
    found = {row["id"]: (row["severity"], row["finding"]) for row in json.loads(findings.read_text())}
    assert {name: why for name, why in found.items() if why[0] in BAD} == {}
    # It got through, and to what it is asked about most.
    assert "scanTime" in found
    assert (found["TLS1_2"][1], found["TLS1_3"][1]) == ("offered", "offered with final")
    assert {found[name][1] for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1")} == {"not offered"}
    for name in ("heartbleed", "ROBOT", "secure_client_renego", "CRIME_TLS", "SWEET32", "cookie_secure"):
        assert found[name][0] in ("OK", "INFO"), found[name]
