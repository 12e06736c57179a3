"""`scripts/install`, run for real in a mount namespace whose changes are forgotten with it.

What is installed there is a stand-in of three lines: pip, environments, links and units are the real ones.
That the product itself runs where this script put it, the tests in virtual machines show.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
UNITS = ("/etc/systemd/system/l4lb.service", "/etc/systemd/system/l7lb.service")
CHANGED = ("/etc", "/opt", "/usr/local", "/usr/lib/sysusers.d")
# An overlay on each folder that the script writes to, and no systemd, which would be the host's.
MOUNTS = "\n".join([
    "set -e",
    "mount -t tmpfs tmpfs /mnt",
    "mkdir -p /usr/lib/sysusers.d",
    *(f"mkdir -p /mnt{path}/upper /mnt{path}/work && mount -t overlay overlay "
      f"-o lowerdir={path},upperdir=/mnt{path}/upper,workdir=/mnt{path}/work {path}" for path in CHANGED),
    "[ ! -d /run/systemd ] || mount -t tmpfs tmpfs /run/systemd",
    "rm -rf /opt/l4lb /etc/l4lb /usr/local/bin/l4lb /usr/local/bin/l7lb",
    "echo ready",
    "read -r end",
])  # fmt: skip


@dataclass
class Sandbox:
    """A host that may be changed."""

    pid: int
    folder: Path

    def run(self, *words: str | Path) -> subprocess.CompletedProcess:
        """A command there, as root."""
        command = ["nsenter", "-t", str(self.pid), "-m", "env", f"TMPDIR={self.folder}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def install(self, *words: str | Path) -> subprocess.CompletedProcess:
        """`scripts/install` with these arguments."""
        return self.run(ROOT / "scripts/install", *words)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.run("test", "-e", path).returncode == 0


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", MOUNTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Sandbox(process.pid, tmp_path)


def wheels(folder: Path, version: str, *, requires: str = "") -> Path:
    """A folder with a wheel of the stand-in, whose program says its version."""
    folder.mkdir()
    info = f"l4lb-{version}.dist-info"
    files = {
        "l4lb.py": f"def main():\n    print('stand-in {version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: l4lb\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nl4lb = l4lb:main\nl7lb = l4lb:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"l4lb-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)
    return folder


def test_installs_once_upgrades_and_leaves(sandbox, tmp_path):
    first = wheels(tmp_path / "first", "1")
    tried = sandbox.install("--dry-run", "--wheels", first)
    assert tried.returncode == 0, tried.stderr
    assert "would be done: installing l4lb in /opt/l4lb" in tried.stdout
    assert not sandbox.exists("/opt/l4lb")

    done = sandbox.install("--wheels", first)
    assert done.returncode == 0, done.stderr
    assert "install: done: stand-in 1" in done.stdout
    assert sandbox.run("/usr/local/bin/l4lb").stdout == "stand-in 1\n"
    for path in (*UNITS, "/etc/l4lb/l4lb.yaml"):
        assert sandbox.exists(path)
    again = sandbox.install("--wheels", first)
    assert (again.returncode, again.stdout) == (0, "install: nothing to do: stand-in 1 is installed\n")

    sandbox.run("sh", "-c", "echo mine > /etc/l4lb/l4lb.yaml")
    newer = sandbox.install("--wheels", wheels(tmp_path / "second", "2"))
    assert newer.returncode == 0, newer.stderr
    assert sandbox.run("/usr/local/bin/l7lb").stdout == "stand-in 2\n"
    assert sandbox.run("cat", "/etc/l4lb/l4lb.yaml").stdout == "mine\n"

    gone = sandbox.install("--uninstall")
    assert gone.returncode == 0, gone.stderr
    for path in ("/opt/l4lb", "/usr/local/bin/l4lb", "/usr/local/bin/l7lb", *UNITS):
        assert not sandbox.exists(path)
    assert sandbox.exists("/etc/l4lb/l4lb.yaml")
    assert "nothing to do: l4lb is not installed" in sandbox.install("--uninstall").stdout


def test_a_failed_upgrade_leaves_what_works(sandbox, tmp_path):
    assert sandbox.install("--wheels", wheels(tmp_path / "good", "1")).returncode == 0
    broken = wheels(tmp_path / "broken", "2", requires="Requires-Dist: nothing-of-this-name\n")
    for folder, said in ((broken, "nothing-of-this-name"), (tmp_path / "cut", "l4lb-3-py3-none-any.whl")):
        if not folder.exists():
            wheels(folder, "3")
            wheel = next(folder.iterdir())
            wheel.write_bytes(wheel.read_bytes()[:200])
        failed = sandbox.install("--wheels", folder)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "install: failed: installing l4lb in /opt/l4lb. All of it is in " in failed.stderr
        assert sandbox.run("/usr/local/bin/l4lb").stdout == "stand-in 1\n"
        assert not sandbox.exists("/opt/l4lb.new")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--frob"], "unknown argument '--frob'"),
        (["--wheels"], "--wheels needs a folder"),
        (["--wheels", "/nonexistent/folder"], "/nonexistent/folder has no l4lb-*.whl"),
        (["--wheels", "/var/empty-of-wheels"], "has no l4lb-*.whl; make one"),
    ],
)
def test_wrong_arguments(sandbox, words, says):
    failed = sandbox.install(*words)
    assert failed.returncode == 2
    assert says in failed.stderr
    assert not sandbox.exists("/opt/l4lb")
