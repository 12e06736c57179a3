"""The box: a Debian 12 disk for Vagrant, built by debootstrap, without a loop device and without a boot
loader.

It holds what provisioning would fetch, so that the machines need neither name service nor the internet, and
l4lb itself, installed by scripts/install as in any host: what is done here is done once and as quick as the
host is, and not by each machine under emulation. The system is built once for a recipe (this file) and kept;
the disk is made from it for each state of the sources."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.support.vm.steps import ROOT, WORK, VmLabError, run, step

NAME = "l4lb/lab"
SUITE = "bookworm"
_BOXES = WORK / "box"
_DISK_MIB = 3072
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-amd64"),
    *("initramfs-tools", "openssh-server", "sudo", "rsync", "ca-certificates", "procps", "iputils-ping"),
    *("python3", "python3-venv", "libnetfilter-queue1", "iproute2", "nftables", "iptables", "ethtool"),
    *("ipvsadm", "conntrack", "tcpdump", "curl", "nginx-light", "wrk", "iperf3"),
)
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
_INSECURE_KEY = "vagrant-insecure-key"
_INSIDE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_TIMERS = ("apt-daily", "apt-daily-upgrade", "man-db", "fstrim", "logrotate", "dpkg-db-backup", "e2scrub_all")
# What takes seconds of a start, emulated, and serves nobody here.
_UNUSED = (
    *("e2scrub_reap.service", "ipvsadm.service", "systemd-logind.service"),
    *("getty@tty1.service", "serial-getty@ttyS0.service"),
)
INSTALLER = ("scripts/install", "scripts/systemd", "examples/minimal.yaml")

# Emulation stands here and not in the project's Vagrantfile, whose users have hardware for it.
#
# What is translated is found again by its address: where addresses differ from start to start, as kernels
# have it, every program is translated anew each time, which is three quarters of what its start takes. A
# plain processor is the quickest: newer ones' instructions for strings go byte by byte, and more registers
# are more to save. But without its random numbers a start waits for chance.
#
# With no more than one processor possible, QEMU 7.2 leaves every memory barrier out of what it translates,
# though its devices are other threads: now and then a network card and its driver miss that the other one
# waits, and the card sends nothing more until the machine starts again. A second processor that is never
# there puts them back.
_KERNEL_WORDS = (
    *("root=/dev/vda", "rw", "console=ttyS0", "quiet", "net.ifnames=0", "biosdevname=0"),
    *("norandmaps", "mitigations=off", "no5lvl", "init_on_alloc=0", "apparmor=0", "selinux=0", "audit=0"),
)
_VAGRANTFILE = f"""
folder = File.dirname(__FILE__)
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 900
  config.vm.provider :libvirt do |vm|
    vm.driver = "qemu"
    vm.cpu_mode = "custom"
    vm.cpu_model = "qemu64"
    vm.cpu_feature name: "rdrand", policy: "require"
    vm.kernel = File.join(folder, "vmlinuz")
    vm.initrd = File.join(folder, "initrd.img")
    vm.cmd_line = "{" ".join(_KERNEL_WORDS)}"
    vm.qemuargs value: "-smp"
    vm.qemuargs value: "1,sockets=2,maxcpus=2"
    vm.graphics_type = "none"
    vm.video_type = "none"
  end
end
"""


def version(sources: str) -> str:
    """The number of the box for a state of the sources, which `sources` is the digest of."""
    return f"1.{_recipe()}.{int(sources[:8], 16)}"


def _recipe() -> int:
    return int(hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8], 16)


def catalog(wheels: Path, sources: str) -> Path:
    """The file that Vagrant finds the box by; built if it is not there.

    `wheels` is the folder of what is installed: l4lb and all that it needs."""
    folder = _BOXES / version(sources)
    found = folder / "catalog.json"
    if not found.exists():
        tree = _BOXES / f"system-{_recipe()}"
        if not tree.exists():
            _build_system(tree)
        with step("building the box: l4lb and the disk"):
            _install(tree, wheels)
            _pack(folder, tree, version(sources))
        for old in set(_BOXES.iterdir()) - {folder, tree}:
            shutil.rmtree(old)
    return found


def remove() -> None:
    """Takes every box that was built away."""
    shutil.rmtree(_BOXES, ignore_errors=True)


def _build_system(tree: Path) -> None:
    unfinished = tree.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with step("building the box: a minimal Debian 12 (a few minutes, once)"):
        run(
            [
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(_PACKAGES)}",
                SUITE,
                unfinished,
                _mirror(),
            ]
        )
    with step("building the box: its settings"):
        _configure(unfinished)
    unfinished.rename(tree)


def _mirror() -> str:
    """Where this host takes Debian's packages from."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(SUITE)", "Created-By: Packages"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split()[0] for line in shown if line.split()[1:] == ["stable"] or f" {SUITE}" in line]
    plain = [uri for uri in found if "security" not in uri]
    # Without one debootstrap knows its own.
    return plain[0] if plain else ""


def _configure(tree: Path) -> None:
    def write(path: str, text: str, mode: int = 0o644) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def inside(*words: str) -> None:
        run(["chroot", tree, *words], env=_INSIDE)

    inside("useradd", "--create-home", "--shell", "/bin/bash", "vagrant")
    write("etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    for home in ("home/vagrant", "root"):
        write(f"{home}/.ssh/authorized_keys", _public_key(), 0o600)
    inside("chown", "-R", "vagrant:vagrant", "/home/vagrant/.ssh")
    inside("chmod", "700", "/home/vagrant/.ssh")
    # A lease by the address of the card: ifupdown and the DUID lose it when Vagrant sets the host's name.
    write(
        "etc/systemd/network/10-eth0.network",
        "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n"
        "[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n",
    )
    # There is no router to advertise itself, and the network would be online after twelve seconds of asking.
    for leg in ("eth1", "eth2"):
        write(f"etc/systemd/network/50-vagrant-{leg}.network.d/lab.conf", "[Network]\nIPv6AcceptRA=no\n")
    write("etc/ssh/sshd_config.d/lab.conf", "UseDNS no\nGSSAPIAuthentication no\n")
    write("etc/fstab", "/dev/vda / ext4 defaults,noatime 0 1\n")
    write("etc/hostname", "lab\n")
    write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    write("etc/initramfs-tools/conf.d/lab", "MODULES=list\nCOMPRESS=gzip\n")
    write("etc/initramfs-tools/modules", "\n".join(_MODULES) + "\n")
    write("etc/systemd/journald.conf.d/lab.conf", "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n")
    inside("update-initramfs", "-u", "-k", "all")
    inside("systemctl", "enable", "systemd-networkd", "ssh")
    inside("systemctl", "disable", "nginx", "nftables")
    for timer in _TIMERS:
        inside("systemctl", "mask", f"{timer}.timer")
    inside("systemctl", "mask", *_UNUSED)
    inside("apt-get", "clean")
    shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)
    (tree / "etc/machine-id").write_text("")
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    # Each machine its own keys, at its first start.
    make_key = "/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"
    write(
        "etc/systemd/system/ssh-keys.service",
        "[Unit]\nBefore=ssh.service\nConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n"
        f"[Service]\nType=oneshot\nExecStart={make_key}\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    inside("systemctl", "enable", "ssh-keys")


def _install(tree: Path, wheels: Path) -> None:
    """What provisioning then finds done. The installer reads /dev/fd, which is in /proc: mounted for it
    alone."""
    inside = tree / "root" / "l4lb"
    for part in INSTALLER:
        (inside / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, inside / part)
    shutil.copytree(wheels, inside / "wheels")
    try:
        for command in (
            "/root/l4lb/scripts/install --wheels /root/l4lb/wheels",
            "systemd-sysusers",  # the installer leaves it to a host that has booted
        ):
            words = f"mount -t proc proc {tree}/proc && exec chroot {tree} {command}"
            run(["unshare", "--mount", "sh", "-c", words], env=_INSIDE)
    finally:
        shutil.rmtree(inside)


def _public_key() -> str:
    """The key that every Vagrant knows; its private half comes with the program."""
    for place in ("/usr/share/vagrant", "/usr/share/rubygems-integration", "/opt/vagrant"):
        for file in Path(place).rglob("vagrant.pub"):
            return file.read_text()
    raise VmLabError("Vagrant's public key vagrant.pub was not found; is the package vagrant installed?")


def _pack(folder: Path, tree: Path, version: str) -> None:
    """The disk, the kernel and the description as Vagrant wants them."""
    shutil.rmtree(folder, ignore_errors=True)
    content = folder / "content"
    content.mkdir(parents=True)
    kernel, initrd = (max((tree / "boot").glob(pattern)) for pattern in ("vmlinuz-*", "initrd.img-*"))
    shutil.copyfile(kernel, content / "vmlinuz")
    shutil.copyfile(initrd, content / "initrd.img")
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(_DISK_MIB << 20)
    run(["mkfs.ext4", "-q", "-F", "-L", "root", "-d", tree, raw])
    run(["qemu-img", "convert", "-O", "qcow2", raw, content / "box.img"])
    raw.unlink()
    described = {"provider": "libvirt", "format": "qcow2", "virtual_size": (_DISK_MIB + 1023) // 1024}
    (content / "metadata.json").write_text(json.dumps(described))
    (content / "Vagrantfile").write_text(_VAGRANTFILE)
    box = folder / "lab.box"
    with tarfile.open(box, "w") as tar:
        for part in sorted(content.iterdir()):
            tar.add(part, part.name)
    shutil.rmtree(content)
    # A box without a version leaves one more disk in libvirt's pool at every build.
    provider = {"name": "libvirt", "url": box.as_uri()}
    listed = {"name": NAME, "versions": [{"version": version, "providers": [provider]}]}
    (folder / "catalog.json").write_text(json.dumps(listed))
