#!/bin/bash
# A backend: nginx that says its name on ports 80 and 8080, an echo of datagrams on port 7, routes for NAT.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
name=$1
if ! command -v nginx >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends nginx-light
fi
rm -f /etc/nginx/sites-enabled/default
cat >/etc/nginx/conf.d/l4lb.conf <<CONF
server {
    listen 80 default_server;
    listen 8080 default_server;
    root /srv/www;
    keepalive_requests 1000000;
    access_log off;
    location = / { add_header X-Backend $name; default_type text/plain; return 200 "$name\n"; }
    location = /health { default_type text/plain; return 200 "OK\n"; }
}
CONF
mkdir -p /srv/www
[[ -e /srv/www/8M ]] || head -c 8388608 /dev/urandom >/srv/www/8M
systemctl enable -q nginx
systemctl restart nginx

install -m 755 /l4lb/vagrant/provision/echo.py /usr/local/bin/l4lb-echo
cat >/etc/systemd/system/l4lb-echo.service <<UNIT
[Unit]
Description=UDP echo that says its name
[Service]
ExecStart=/usr/bin/python3 /usr/local/bin/l4lb-echo $name 7
Restart=on-failure
[Install]
WantedBy=multi-user.target
UNIT
# Where answers go: with NAT back through the gateway; with direct return straight to the client's leg here
# (lab-route past-gateway). The choice outlives a reboot.
cat >/usr/local/sbin/lab-route <<'SCRIPT'
#!/bin/bash
set -euo pipefail
case ${1-$(cat /etc/lab-route)} in
    through-gateway) via=10.2.0.1 ;;
    past-gateway) via=10.2.0.2 ;;
    *) echo "lab-route: through-gateway or past-gateway" >&2; exit 2 ;;
esac
[[ ! ${1-} ]] || echo "$1" >/etc/lab-route
/sbin/ip route replace 10.1.0.0/24 via "$via"
SCRIPT
# The interface that the backends' network is on.
cat >/usr/local/sbin/lab-leg <<'SCRIPT'
#!/bin/bash
/sbin/ip -o -4 addr show to 10.2.0.0/24 | awk '{print $2; exit}'
SCRIPT
chmod 755 /usr/local/sbin/lab-route /usr/local/sbin/lab-leg
[[ -e /etc/lab-route ]] || echo through-gateway >/etc/lab-route
cat >/etc/systemd/system/l4lb-routes.service <<'UNIT'
[Unit]
Description=Route back to the clients of the l4lb lab
After=network-online.target
Wants=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-route
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now l4lb-echo l4lb-routes
