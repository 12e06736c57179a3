#!/bin/bash
# l4lb itself: the gateway runs it, backends need its `real-server`.
set -euo pipefail
# Wheels that were built beforehand spare the machines a compiler.
wheels=()
[[ ! -d /l4lb/dist/wheels ]] || wheels=(--wheels /l4lb/dist/wheels)
/l4lb/scripts/install "${wheels[@]}"
