#!/bin/bash
# The gateway: l4lb as a service, with the configuration for NAT to begin with.
set -euo pipefail
install -D -m 644 /l4lb/vagrant/config/nat.yaml /etc/l4lb/l4lb.yaml
systemctl enable l4lb
# A service that runs with another datapath cannot be told by a reload.
systemctl reload-or-restart l4lb 2>/dev/null || systemctl restart l4lb
/usr/local/bin/l4lb status
