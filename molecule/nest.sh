# Containers in a container, beside cgroups of version 1: with runc, cgroups that can be written to, and no systemd for them.
set -eu
if ! command -v runc >/dev/null; then
    apt-get update -qq
    apt-get install -qqy --no-install-recommends runc >/dev/null
fi
mkdir -p /etc/containers/containers.conf.d
cat >/etc/containers/containers.conf.d/50-nested.conf <<'END'
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=4096:4096"]
pids_limit = 0
cgroupns = "private"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
env = ["PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
END
mkdir -p /etc/docker
echo '{"default-cgroupns-mode": "private"}' >/etc/docker/daemon.json
for place in $(mount -t cgroup | cut -d' ' -f3 | sort -u); do
    mount -o remount,bind,rw "$place"
done
