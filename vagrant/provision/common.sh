#!/bin/bash
# What every machine has: the tools to look with.
set -euo pipefail

# need PACKAGE COMMAND: installs the package if the command is missing.
need() {
    command -v "$2" >/dev/null && return
    [[ ${updated-} ]] || { apt-get update -q; updated=yes; }
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$1"
}

export PATH=$PATH:/usr/sbin:/sbin
need curl curl
need tcpdump tcpdump
need ethtool ethtool
