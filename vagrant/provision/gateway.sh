#!/bin/bash
# The gateway: l4lb as a service, with the configuration for NAT to begin with.
set -euo pipefail
install -D -m 644 /l4lb/vagrant/config/nat.yaml /etc/l4lb/l4lb.yaml
systemctl enable l4lb
systemctl reload-or-restart l4lb
/usr/local/bin/l4lb status
