"""The Vagrant lab (`vagrant/`) on a machine without hardware virtualisation and without a public box.

`host` sets libvirt up, `box` builds the machines' disk, `machines` brings them up with plain `vagrant up` and
speaks to them; `./scripts/vm-lab` is the command of all three. What is made stands in `build/vm`."""
