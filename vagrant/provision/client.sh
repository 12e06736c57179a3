#!/bin/bash
# The client: virtual addresses are behind the gateway. Its leg among the backends is where direct return ends.
set -euo pipefail
cat >/etc/systemd/system/l4lb-routes.service <<'UNIT'
[Unit]
Description=Route to the virtual addresses of the l4lb lab
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip route replace 203.0.113.0/24 via 10.1.0.1
# Answers of direct return come in by another way than questions go out.
ExecStart=/sbin/sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now l4lb-routes
